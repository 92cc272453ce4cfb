"""Transcribing speech while it is spoken, in the manner of SpeechBrain's ``StreamingASR``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from todm_sb.dataio.detokenizer import TextState
from todm_sb.decoders.greedy import GreedyState, greedy_chunk
from todm_sb.inference.asr import SubnetASR
from todm_sb.inference.audio_file import check_batch, open_audio, sample_blocks
from todm_sb.inference.recogniser import Cutting
from todm_sb.nnet.encoders import streaming
from todm_sb.nnet.features import SpeechFeatures
from todm_sb.nnet.kaldi_fbank import KaldiFbank
from todm_sb.nnet.subsampling import ENDLESS
from todm_sb.nnet.transducer import Transducer
from todm_sb.utils.errors import ConfigError, DataError


@dataclass
class StreamingContext:
    """Where a batch of streams stands; its size does not grow with the streams.

    Args:
        pending: (streams, samples), samples that are not yet in a whole window's past.
        n_samples: (streams,), integer samples of each stream so far.
        ended: (streams,), which streams take no more samples.
        encoder: the encoder's state.
        decoder: the search's state.
        texts: where the text of each stream stands.
    """

    pending: Tensor
    n_samples: Tensor
    ended: Tensor
    encoder: Any
    decoder: GreedyState
    texts: list[TextState]


class StreamingSubnetASR(SubnetASR):
    """A causal subnet that transcribes speech while it is spoken; a dual-mode one runs as causal.

    Any chunking gives the text that :meth:`transcribe_file` gives of the whole file. Many streams
    run in one batch: all get the same number of samples in each call.

    Example:
        >>> asr = StreamingSubnetASR.from_hparams(source="exported/min")  # doctest: +SKIP
        >>> context = asr.make_streaming_context()  # doctest: +SKIP
        >>> for chunk in microphone:  # doctest: +SKIP
        ...     print(asr.transcribe_chunk(context, chunk.unsqueeze(0))[0], end="")
        >>> print(asr.finish(context)[0])  # doctest: +SKIP
    """

    # A stream is never cut, so that a file has the text of a stream of it.
    cutting = Cutting(math.inf)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._use(self._model)

    def make_streaming_context(self, n_streams: int = 1) -> StreamingContext:
        """The beginning of ``n_streams`` streams.

        Raises:
            ConfigError: if the network needs the whole utterance.
        """
        self._check_streamable()
        device = self._model.joiner.output.weight.device
        return StreamingContext(
            pending=torch.zeros(n_streams, 0, device=device),
            n_samples=torch.zeros(n_streams, dtype=torch.long, device=device),
            ended=torch.zeros(n_streams, dtype=torch.bool, device=device),
            encoder=self._encoder.initial_state(n_streams),
            decoder=GreedyState.initial(self._model, n_streams),
            texts=[TextState() for _ in range(n_streams)],
        )

    def transcribe_chunk(
        self, context: StreamingContext, chunk: Tensor, chunk_len: Tensor | None = None
    ) -> list[str]:
        """Transcribes the next chunk of each stream.

        Args:
            context: what :meth:`make_streaming_context` returned; it is moved on.
            chunk: (streams, samples), at the network's sampling rate; any number of samples.
            chunk_len: (streams,), the fraction of the chunk that is each stream's: below 1, the
                stream ends there. All of it when None.

        Returns:
            What each stream said anew, to be appended to what it said before. Of a stream that has
            ended, the last words may come with the next call, or with :meth:`finish`, as does a
            character whose bytes are labels of their own.

        Raises:
            DataError: if a sample is not a finite number, or the number of streams is another.
        """
        return self.decode_chunk(context, *self.encode_chunk(context, chunk, chunk_len))[0]

    def finish(self, context: StreamingContext) -> list[str]:
        """Ends all streams.

        Returns:
            The last words of each.
        """
        context.ended[:] = True
        n_frames, n_features = self._encoder.look_ahead, self._model.encoder.n_features
        ahead = context.pending.new_zeros(len(context.ended), n_frames, n_features)
        words, _ = self.decode_chunk(context, *self._encode(context, ahead))
        ends = map(self.detokenizer.end, context.texts)
        return [new + end for new, end in zip(words, ends, strict=True)]

    def transcribe_file_streaming(self, path: str, chunk_seconds: float = 0.32) -> Iterator[str]:
        """Transcribes a file chunk by chunk, as if it came from a microphone.

        Args:
            path: of the file.
            chunk_seconds: length of a chunk.

        Yields:
            What was said anew in each chunk; the pieces joined are the transcript.

        Raises:
            DataError: see :meth:`load_audio`.
        """
        context = self.make_streaming_context()
        size = max(1, round(chunk_seconds * self.hparams.sample_rate))
        for chunk in self._chunks_of(path, size):
            yield self.transcribe_chunk(context, chunk.unsqueeze(0))[0]
        yield self.finish(context)[0]

    @torch.no_grad()
    def encode_chunk(
        self, context: StreamingContext, chunk: Tensor, chunk_len: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The part of :meth:`transcribe_chunk` before the search.

        Returns:
            New encoder frames (streams, n, d_model) and how many of them are each stream's
            (streams,).
        """
        streams = len(context.ended)
        fraction = torch.ones(len(chunk)) if chunk_len is None else chunk_len.cpu()
        check_batch(chunk, fraction)
        if len(chunk) != streams:
            raise DataError(f"the chunk is of {len(chunk)} streams, the context of {streams}")
        chunk = chunk.to(context.pending)
        n_new = (fraction.double() * chunk.shape[1]).round().long().to(context.n_samples.device)
        context.n_samples += n_new.masked_fill(context.ended, 0)
        context.ended |= n_new < chunk.shape[1]

        features, context.pending = self._features.chunk(torch.cat([context.pending, chunk], 1))
        return self._encode(context, features)

    def decode_chunk(
        self, context: StreamingContext, encoded: Tensor, n_frames: Tensor
    ) -> tuple[list[str], list[list[int]]]:
        """The part of :meth:`transcribe_chunk` after the encoder.

        Args:
            context: of the streams.
            encoded, n_frames: what :meth:`encode_chunk` returned.

        Returns:
            New words and new label ids of each stream.
        """
        hypotheses, context.decoder = greedy_chunk(
            self._model, encoded, n_frames, context.decoder, self.mods.decoder.max_symbols
        )
        tokens = [h.tokens for h in hypotheses]
        return [*map(self.detokenizer.feed, context.texts, tokens)], tokens

    @torch.no_grad()
    def _encode(self, context: StreamingContext, features: Tensor) -> tuple[Tensor, Tensor]:
        n_features = self._features.fbank.n_frames(context.n_samples)
        lengths = n_features.masked_fill(~context.ended, ENDLESS)
        encoded, n_frames, context.encoder = self._encoder.chunk(
            features, context.encoder, lengths, operators=self._operators
        )
        return encoded, n_frames

    def _chunks_of(self, path: str, size: int) -> Iterator[Tensor]:
        """Chunks of ``size`` samples of a file; at the network's sampling rate, it is never held
        as a whole."""
        audio = open_audio(path)
        if audio.samplerate == self.hparams.sample_rate:
            yield from map(torch.from_numpy, sample_blocks(audio, size, path))
        else:
            yield from self._load(audio, path).split(size)

    def _check_streamable(self) -> None:
        problem, fbank = None, self._features.fbank
        if True not in self._model.encoder.modes:
            problem = "its encoder is not causal"
        elif not isinstance(fbank, KaldiFbank) or not fbank.snip_edges:
            problem = "its features are not those of fbank_kind: kaldi with snip_edges: True"
        elif fbank.hop > fbank.window:
            problem = "its hop_length is longer than its win_length"
        elif self._features.normalizer.norm_type != "global":
            problem = "its features are normalised over the whole utterance"
        elif self.mods.decoder.beam_size > 1:
            problem = "its search is a beam search, which decides only at the end"
        if problem is not None:
            raise ConfigError(
                f"this network cannot stream, since {problem}: train it with hparams/streaming.yaml"
            )

    @torch.no_grad()
    def _use(self, model: Transducer) -> None:
        """Takes a network; what all chunks of all streams share is computed here, once."""
        if True in model.encoder.modes:
            model = model.causal_form()
            self._encoder = streaming(model.encoder)
            self._operators = self._encoder.operators()
        super()._use(model)

    @property
    def _model(self) -> Transducer:
        return self.mods.encoder.model

    @property
    def _features(self) -> SpeechFeatures:
        return self.mods.encoder.features
