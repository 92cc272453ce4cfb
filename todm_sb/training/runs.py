"""What was trained: loading a run's folder again, to cut from it or to measure it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch
from ruamel.yaml.scalarstring import DoubleQuotedScalarString as Text
from torch import nn

from todm_sb.dataio.check import Limits, check_manifest
from todm_sb.dataio.faults import EVALUATE
from todm_sb.dataio.fingerprint import dev_set_id
from todm_sb.dataio.pipeline import SpeechDataset, make_loader_kwargs
from todm_sb.dataio.reading import reading_of
from todm_sb.dataio.split import read_split
from todm_sb.dataio.tokenizer import load_tokenizer, tokenizer_of, tokenizer_path
from todm_sb.nnet.encoders import check_space
from todm_sb.search.dev_set import Utterances
from todm_sb.search.probes import PRECISIONS
from todm_sb.training.broken_audio import COUNTS_AS_DELETED, BrokenAudioLog
from todm_sb.training.checkpoints import recover_average
from todm_sb.training.identity import TOKENIZER, read_identity
from todm_sb.training.recipe import RECIPE, dump, load_text, replace_strings, yaml_of
from todm_sb.utils.errors import ConfigError, DataError, TODMError, quoted, recipe_errors
from todm_sb.utils.files import sha256_of

# What only training writes with.
LOGGERS = {"train_logger", "tensorboard_logger"}


def load_run(run: Path, causal: bool = False) -> dict[str, Any]:
    """The hparams of a run, its model with the best weights; ``weights`` is the id of these.

    The best ones are those of the dev set that the run has now, if any checkpoint was measured on
    it, or else of the one that the newest checkpoint was measured on.

    Args:
        run: ``output_folder`` of ``train.py``.
        causal: take the model's causal form, of a dual-mode network that is only to stream.

    Raises:
        ConfigError: if it is no such folder, its YAML cannot be loaded, or it has no checkpoint,
            one of another network, or no causal form.
    """
    hparams = load_hparams(run)
    try:
        recover_average(
            hparams["checkpointer"],
            hparams["model"],
            hparams["avg_checkpoints"],
            min_key="WER",
            wer_of=_present_dev_set(hparams),
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"{run}: the checkpoint is of another network or search space than {RECIPE} ({reason})"
        ) from None
    try:
        check_space(hparams["space"], hparams["model"].encoder)
    except ConfigError as error:
        raise ConfigError(f"{run}: {error}") from None
    hparams["weights"] = weights_id(hparams["model"])
    if causal:
        hparams["model"] = hparams["model"].causal_form()
    hparams["features"].eval()
    hparams["model"].eval()
    return hparams


def load_hparams(run: Path) -> dict[str, Any]:
    """The hparams of a run, untrained; loading them leaves nothing in its folder.

    Args:
        run: ``output_folder`` of ``train.py``.

    Raises:
        ConfigError: if it is no such folder, or its YAML cannot be loaded.
    """
    hparams_file = run / RECIPE
    if not hparams_file.is_file():
        raise ConfigError(f"{run} is no output_folder of train.py: it holds no {RECIPE}")
    with recipe_errors(hparams_file):
        text = relocate(hparams_file.read_text(encoding="utf-8"), run)
        tree = yaml_of().load(text)
        # Some loggers begin a file when they are made.
        tree.update(dict.fromkeys(LOGGERS & tree.keys()))
    return load_text(dump(tree), hparams_file)


def _present_dev_set(hparams: dict[str, Any]) -> dict[str, str] | None:
    """What a run would measure error rates on now; None where its data are not here."""
    try:
        tokenizer = load_tokenizer(tokenizer_path(hparams))
        return {"dev_set": dev_set_id(hparams["valid_csv"], tokenizer, reading=reading_of(hparams))}
    except (TODMError, OSError):
        return None


def relocate(text: str, run: Path) -> str:
    """The hyperparams.yaml of a run as if it had been trained where it lies now.

    A path below the run moves with it. One below the folder that holds the runs, two levels up, as
    the data that cells of a comparison share, does so if it is found there; one below a folder
    above that, such as where trainings are started, if it is found there and nowhere else.
    """
    tree = yaml_of().load(text)
    trained_in = tree.get("output_folder")
    if not isinstance(trained_in, str):  # a reference, as the paths below it are
        tree["output_folder"] = Text(str(run))
        return dump(tree)
    holder, holder_now = Path(trained_in).parent.parent, run.resolve().parent.parent
    folders = [holder, *holder.parents], [holder_now, *holder_now.parents]

    def moved(path: str) -> str:
        if f"{path}/".startswith(f"{trained_in}/"):
            return Text(f"{run}{path[len(trained_in) :]}")
        for above, above_now in zip(*folders, strict=False):
            if above.name and f"{path}/".startswith(f"{above}/"):
                beside = above_now / Path(path).relative_to(above)
                if beside.exists() and (above is holder or not Path(path).exists()):
                    return Text(str(beside))
        return path

    return dump(replace_strings(tree, moved))


def search_folder(
    run: Path,
    cost: str,
    causal: bool = False,
    study: str | None = None,
    precision: str = PRECISIONS[0],
) -> Path:
    """Where a search of a run, or of its causal form, by this cost leaves what it found.

    Args:
        run: ``output_folder`` of ``train.py``.
        cost: what is searched by.
        causal: whether the causal form is.
        study: name; has a folder of its own within that of the nameless study, whose name is the
            folder's.
        precision: of the networks whose error rates were measured, one of
            :data:`todm_sb.search.probes.PRECISIONS`.

    Raises:
        ConfigError: if no folder can have that name.
    """
    parts = [cost, *(["causal"] if causal else []), *([precision] * (precision != PRECISIONS[0]))]
    folder = run / "search" / "-".join(parts)
    if study in (None, folder.name):
        return folder
    if Path(study).name != study or study == ".." or not study.isprintable():
        raise ConfigError(f"a study has a folder of its name, which cannot be {quoted(study)}")
    return folder / study


def dev_dataset(hparams: dict[str, Any], tokenizer: Any) -> SpeechDataset:
    """A run's validation set, by the rule of its training.

    Args:
        hparams: of :func:`load_run`.
        tokenizer: of :func:`run_tokenizer`.

    Raises:
        DataError: if the manifest is missing or nothing of it can be decoded.
    """
    return read_split(hparams, tokenizer, hparams["valid_csv"], EVALUATE)


@torch.no_grad()
def dev_utterances(
    hparams: dict[str, Any], dataset: SpeechDataset, device: torch.device
) -> Iterator[Utterances]:
    """The features of a run's validation set, batch by batch; last, what cannot be decoded of it.

    Args:
        hparams: of :func:`load_run`.
        dataset: of :func:`dev_dataset`.
        device: where to compute them.
    """
    hparams["normalize"].to(device)  # statistics do not follow the module around them
    features = hparams["features"].to(device)
    options = make_loader_kwargs(
        dataset, hparams["max_batch_seconds"], hparams["seed"], shuffle=False
    )
    undecodable, log = list(dataset.undecodable.values()), BrokenAudioLog()
    for batch in sb.dataio.dataloader.make_dataloader(dataset, **options):
        log.warn(batch.broken, COUNTS_AS_DELETED)
        undecodable += batch.broken_words.values()
        if batch.id:
            wavs, wav_lens = batch.to(device).sig
            found, n_frames = features(wavs, wav_lens)
            yield Utterances(found, n_frames, batch.words)
    if undecodable:
        nothing = torch.empty(0, 0, hparams["model"].config["encoder"]["n_features"])
        yield Utterances(nothing, torch.empty(0, dtype=torch.long), [], undecodable)


def trained_durations(hparams: dict[str, Any]) -> list[float]:
    """Seconds of each utterance that a run was trained on, as far as its manifest tells; none where
    that is not here any more.

    Args:
        hparams: of :func:`load_run`.
    """
    limits = Limits(max_duration=hparams["max_duration"])
    try:
        report = check_manifest(
            hparams["train_csv"], limits, audio="none", reading=reading_of(hparams)
        )
    except DataError:
        return []
    return [row.duration for row in report.rows]


def run_tokenizer(hparams: dict[str, Any]) -> Any:
    """The tokenizer of a run.

    Args:
        hparams: of :func:`load_run`.

    Raises:
        ConfigError: see :func:`trained_tokenizer`.
    """
    trained_tokenizer(Path(hparams["output_folder"]), hparams)
    return tokenizer_of(hparams)


def trained_tokenizer(run: Path, hparams: dict[str, Any]) -> Path:
    """The SentencePiece model of a run.

    Raises:
        ConfigError: if it is not there, or not the one that the run was trained with.
    """
    path = tokenizer_path(hparams)
    if not path.is_file():
        raise ConfigError(f"{path} does not exist: where is the tokenizer of the training?")
    known = (read_identity(run) or {}).get(TOKENIZER)
    if known not in (None, sha256_of(path)):
        raise ConfigError(f"{path} is not the tokenizer that {run} was trained with: put it back")
    return path


def weights_id(model: nn.Module) -> str:
    """Tells weights apart."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
