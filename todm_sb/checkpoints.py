"""Which weights of a run are used afterwards."""

from __future__ import annotations

from speechbrain.utils.checkpoints import Checkpointer, average_checkpoints
from torch import nn

from todm_sb.errors import ConfigError


def recover_average(
    checkpointer: Checkpointer,
    model: nn.Module,
    n_average: int,
    max_key: str | None = None,
    min_key: str | None = None,
) -> None:
    """Loads the best checkpoint, then into ``model`` the average of the ``n_average`` best.

    Averaging the weights of several epochs costs nothing at run time and lowers the error rate
    (SpeechBrain's LibriSpeech recipes do the same).

    Args:
        checkpointer: of the run; ``model`` is its recoverable of that name.
        model: gets the averaged weights.
        n_average: number of checkpoints.
        max_key, min_key: metric that tells the best ones.

    Raises:
        ConfigError: if there is no checkpoint.
    """
    found = checkpointer.find_checkpoints(
        max_key=max_key, min_key=min_key, max_num_checkpoints=n_average
    )
    if not found:
        raise ConfigError(f"no checkpoint in {checkpointer.checkpoints_dir}: train first")
    checkpointer.load_checkpoint(found[0])
    model.load_state_dict(average_checkpoints(found, recoverable_name="model"), strict=True)
