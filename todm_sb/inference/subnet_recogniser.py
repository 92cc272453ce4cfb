"""A network of PyTorch as a :class:`todm_sb.inference.recogniser.Recogniser`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from todm_sb.decoders.hypothesis import Hypothesis
from todm_sb.inference.decoding import Decoding
from todm_sb.inference.results import Alternative
from todm_sb.inference.words import Labels, words_of_labels

if TYPE_CHECKING:
    from todm_sb.inference.asr import SubnetASR

# Features that any subsampling divides: 2^4 x 3^2 x 5 x 7 x 11 x 13.
_MANY = 720_720


def without_gradients(device: torch.device | str) -> AbstractContextManager:
    """Inference mode on a processor, where it saves small networks a fifteenth of their time;
    elsewhere, where not every device knows such tensors, no gradients."""
    on_processor = torch.device(device).type == "cpu"
    return torch.inference_mode() if on_processor else torch.no_grad()


class SubnetRecogniser:
    """Transcribes with a loaded subnet.

    Args:
        asr: the subnet.
        decoding: how to search.

    Raises:
        ConfigError: if hot words or language model are not of this network.
    """

    def __init__(self, asr: SubnetASR, decoding: Decoding | None = None) -> None:
        decoding = decoding or Decoding()
        self.asr = asr
        self.nbest = decoding.nbest
        self.searcher = decoding.searcher(asr.mods.decoder, asr.tokenizer, asr.device)
        hop = asr.mods.encoder.features.hop
        subsampling = _MANY / asr.mods.encoder.model.encoder.n_frames(_MANY)
        self.frame_seconds = hop * subsampling / self.sample_rate

    @property
    def sample_rate(self) -> int:
        """See :class:`todm_sb.inference.recogniser.Recogniser`."""
        return self.asr.hparams.sample_rate

    @property
    def longest_seconds(self) -> float | None:
        """See :class:`todm_sb.inference.recogniser.Recogniser`."""
        return getattr(self.asr.hparams, "longest_seconds", None)

    def load(self, path: str) -> NDArray[np.float32]:
        """See :class:`todm_sb.inference.recogniser.Recogniser`."""
        return self.asr.load_audio(path).cpu().numpy()

    def recognise(self, waves: Sequence[NDArray[np.float32]]) -> list[list[Alternative]]:
        """See :class:`todm_sb.inference.recogniser.Recogniser`."""
        if not waves:
            return []
        with without_gradients(self.asr.device):
            return self._recognise(waves)

    def _recognise(self, waves: Sequence[NDArray[np.float32]]) -> list[list[Alternative]]:
        sizes = torch.tensor([len(wave) for wave in waves])
        wavs = pad_sequence([torch.from_numpy(wave) for wave in waves], batch_first=True)
        fractions = sizes.double() / max(1, wavs.shape[1])
        wavs, fractions = wavs.to(self.asr.device), fractions.to(self.asr.device)
        network = self.asr.mods.encoder
        encoded, n_frames = network.model.encoder(*network.features(wavs, fractions))
        found = self.searcher.search(encoded, n_frames)
        return [
            self._alternatives(hypotheses, size / self.sample_rate)
            for hypotheses, size in zip(found, sizes.tolist(), strict=True)
        ]

    def _alternatives(self, found: Sequence[Hypothesis], seconds: float) -> list[Alternative]:
        """The best of each text: one may be spelt by several sequences of labels."""
        by_text: dict[str, Alternative] = {}
        for hypothesis in found:
            alternative = self._alternative(hypothesis, seconds)
            by_text.setdefault(alternative.text, alternative)
        return [*by_text.values()][: self.nbest]

    def _alternative(self, found: Hypothesis, seconds: float) -> Alternative:
        labels = Labels(found.tokens, found.frames, found.log_probs)
        words = words_of_labels(labels, self.asr.detokenizer, self.frame_seconds, seconds)
        score = sum(found.log_probs) if found.score is None else found.score
        return Alternative(self.asr.detokenizer.text(found.tokens), tuple(words), score)
