"""The step of SpeechBrain's Conformer with its 4-D loss, against ours."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import torch
import torchaudio
from check_runner import Context, Row
from check_sizes import SIZES, Size, n_utterances, peak_gb, seconds_of
from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder
from speechbrain.nnet.attention import RelPosEncXL
from torch import Tensor, nn

from todm_sb.losses.pruning import Pruning
from todm_sb.nnet.predictor import start_with_blank
from todm_sb.nnet.sizes import n_parameters
from todm_sb.nnet.subsampling import ConvSubsampling
from todm_sb.nnet.transducer import Transducer
from todm_sb.supernet import SearchSpace
from todm_sb.supernet.objective import Objective
from todm_sb.supernet.sandwich import sample_sandwich, sandwich_backward
from todm_sb.supernet.trunk import Labels, Trunk

N_MELS, FRAMES_A_SECOND, KERNEL = 80, 100, 31
CHANNELS = {"toy": (2, 2), "paper": (64, 64)}


class Peer(nn.Module):
    """SpeechBrain's encoder, and a joiner whose logits are (batch, T, U + 1, V)."""

    def __init__(self, size: Size, channels: tuple[int, int]) -> None:
        super().__init__()
        sizes = size.conformer
        d = sizes["d_model"]
        self.subsampling = ConvSubsampling(N_MELS, d, channels)
        self.positions = RelPosEncXL(d)
        self.layers = ConformerEncoder(
            num_layers=sizes["n_layers"],
            d_model=d,
            d_ffn=sizes["ffn_dim"],
            nhead=sizes["n_heads"],
            kernel_size=KERNEL,
        )
        self.embedding = nn.Embedding(size.vocabulary, d)
        self.predictor = nn.LSTM(d, d, batch_first=True)
        self.from_encoder, self.from_predictor = nn.Linear(d, d), nn.Linear(d, d)
        self.output = nn.Linear(d, size.vocabulary)

    def forward(self, features: Tensor, lengths: Tensor, ids: Tensor, n_labels: Tensor) -> Tensor:
        """The loss of a batch."""
        x, n_frames = self.subsampling(features, lengths)
        encoded = self.from_encoder(self.layers(x, pos_embs=self.positions(x))[0])
        # Not every CPU has an LSTM in bfloat16.
        with torch.autocast(features.device.type, enabled=False):
            predicted, _ = self.predictor(self.embedding(start_with_blank(ids, 0)))
        logits = self.output(
            (encoded.unsqueeze(2) + self.from_predictor(predicted).unsqueeze(1)).tanh()
        )
        return torchaudio.functional.rnnt_loss(
            logits.float(), ids.int(), n_frames.int(), n_labels.int(), blank=0
        )


def peers(context: Context) -> Iterator[Row]:
    """Forward and backward in float32 and bfloat16."""
    size, device = SIZES[context.size], context.device
    channels = CHANNELS[context.size]
    n = n_utterances(size, size.batches[0])
    features = torch.randn(n, int(FRAMES_A_SECOND * size.utterance), N_MELS, device=device)
    lengths = torch.full((n,), features.shape[1], device=device)
    ids = torch.randint(1, size.vocabulary, (n, size.labels), device=device)
    n_labels = torch.full((n,), size.labels, device=device)
    peer = Peer(size, channels).to(device)
    model, space = _ours(size, channels)
    model = model.to(device)

    def backward(loss: Tensor) -> None:
        with torch.autocast(device, enabled=False):
            loss.backward()

    def of_peer() -> None:
        backward(peer(features, lengths, ids, n_labels))

    def of_ours(alone: bool) -> None:
        subnets = [space.max] if alone else sample_sandwich(space, 2, random.Random(0))
        trunk = Trunk.compute(model, features, lengths, ids)
        objective = Objective(kd_weight=0.01, pruning=Pruning())
        labels = Labels(ids, n_labels)
        sandwich_backward(model, objective, trunk, labels, subnets, backward)

    millions = f"{n_parameters(peer) / 1e6:.1f} M, ours {n_parameters(model) / 1e6:.1f} M"
    works = {
        f"SpeechBrain's Conformer, 4-D loss ({millions})": of_peer,
        "our conformer kind, max alone, in a band": lambda: of_ours(True),
        "our conformer kind, sandwich of four": lambda: of_ours(False),
    }
    for precision, dtype in (("fp32", None), ("bf16", torch.bfloat16)):
        for what, work in works.items():
            yield _row(f"{what}, {precision}", work, dtype, device, size.repeats)


def _row(
    what: str, work: Callable[[], None], dtype: torch.dtype | None, device: str, repeats: int
) -> Row:
    def in_precision() -> None:
        with torch.autocast(device, dtype or torch.bfloat16, enabled=dtype is not None):
            work()

    try:
        taken = seconds_of(in_precision, device, repeats)
        return {"what": what, "step, s": taken, "peak, GB": peak_gb(in_precision, device)}
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return {"what": what, "note": "does not fit"}


def _ours(size: Size, channels: tuple[int, int]) -> tuple[Transducer, SearchSpace]:
    """A supernet whose largest subnet is the peer's encoder."""
    sizes = size.conformer
    n, width, d = sizes["n_layers"], sizes["ffn_dim"], sizes["d_model"]
    space = SearchSpace(n_layers=n, min_layers=n // 2, ffn_dims=(width // 2, width))
    encoder = {
        "kind": "conformer",
        "n_features": N_MELS,
        "d_model": d,
        "n_heads": sizes["n_heads"],
        "kernel_size": KERNEL,
        "channels": list(channels),
        "time_strides": [2, 2],
        **space.sizes,
    }
    predictor = {"kind": "lstm", "d_model": d}
    return Transducer(size.vocabulary, encoder, predictor, d, simple_joiner=True), space
