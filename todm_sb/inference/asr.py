"""Ready-to-use recognisers, in the manner of SpeechBrain's ``EncoderDecoderASR``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from soundfile import SoundFile
from speechbrain.dataio.preprocess import AudioNormalizer
from speechbrain.inference.ASR import EncoderDecoderASR
from speechbrain.utils.fetching import FetchConfig
from torch import Tensor, nn

from todm_sb.bundle.bundle import read_bundle
from todm_sb.dataio.detokenizer import Detokenizer
from todm_sb.decoders.transducer import TransducerSearcher
from todm_sb.inference.audio_file import check_audio, check_batch, open_audio, read_audio
from todm_sb.inference.decoding import Decoding
from todm_sb.inference.recogniser import Cutting, transcribe_sources, transcribe_waves
from todm_sb.inference.results import Transcript
from todm_sb.inference.sources import Source
from todm_sb.inference.subnet_recogniser import SubnetRecogniser, without_gradients
from todm_sb.nnet.features import SpeechFeatures
from todm_sb.nnet.transducer import Transducer
from todm_sb.supernet import SubnetConfig, extract_subnet
from todm_sb.utils.errors import ConfigError, DataError
from todm_sb.utils.hub import BUNDLE_FILES, SPEECHBRAIN_FILES, model_folder


class WaveformEncoder(nn.Module):
    """Features and encoder as one module, with the call shape that SpeechBrain expects.

    Args:
        features: from waveforms to features.
        model: its encoder is used.
    """

    def __init__(self, features: SpeechFeatures, model: Transducer) -> None:
        super().__init__()
        self.features = features
        self.model = model

    def forward(self, wavs: Tensor, wav_lens: Tensor) -> Tensor:
        """(batch, samples) and lengths as fractions -> (batch, T, d_model), exactly zero on
        padded frames, which is how :class:`todm_sb.decoders.transducer.TransducerSearcher` knows
        them."""
        encoded, _ = self.model.encoder(*self.features(wavs, wav_lens))
        return encoded


class SubnetASR(EncoderDecoderASR):
    """A subnet that transcribes speech.

    Example:
        >>> asr = SubnetASR.from_hparams(source="exported/min")  # doctest: +SKIP
        >>> asr.transcribe_file("speech.flac")  # doctest: +SKIP
        'TURN ON THE KITCHEN LIGHT'
    """

    # Audio longer than the utterances of training is cut.
    cutting = Cutting()

    @classmethod
    def from_hparams(
        cls,
        source: str | Path,
        hparams_file: str = "hyperparams.yaml",
        savedir: str | Path | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        fetch_config: FetchConfig | None = None,
        **kwargs: Any,
    ) -> SubnetASR:
        """Loads a folder that ``todm-sb export --format speechbrain`` wrote.

        The folder's YAML can run any code: load only what you trust.

        Args:
            source: the folder, or a repository of the Hub; see
                :func:`todm_sb.utils.hub.model_folder`.
            hparams_file: name of the YAML in it.
            savedir: where to keep what the Hub has, each repository by itself, in place of its
                cache. Nothing is kept of a folder.
            revision: of the repository: branch, tag or commit.
            token: of the Hub; the one that is stored when None.
            fetch_config: of SpeechBrain's interface, in place of ``revision`` and ``token``.
            **kwargs: as of SpeechBrain's ``from_hparams``.

        Raises:
            ConfigError: if the folder holds no exported network, or a damaged one, or the
                repository cannot be fetched.
        """
        files = (hparams_file, *SPEECHBRAIN_FILES)
        where: dict[str, Any] = {"savedir": savedir, "revision": revision, "token": token}
        if fetch_config is not None:
            where |= {"revision": fetch_config.revision, "token": fetch_config.token}
            where |= {"offline": not fetch_config.allow_network}
            where["savedir"] = savedir or fetch_config.huggingface_cache_dir
        folder = model_folder(source, files, **where)
        if not (folder / hparams_file).is_file():
            raise ConfigError(f"{source} holds no exported network: todm-sb export makes one")
        if (folder / "history.jsonl").exists():
            raise ConfigError(f"{source} is a training run: todm-sb export makes a network of it")
        try:
            return super().from_hparams(str(folder), hparams_file, savedir=None, **kwargs)
        except Exception as error:  # of YAML, pickles and whatever the YAML names
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ConfigError(f"{source} cannot be loaded: {reason}") from error

    @classmethod
    def from_bundle(
        cls,
        path: str | Path,
        subnet: SubnetConfig | str | None = None,
        max_params: float | None = None,
        max_latency_ms: float | None = None,
        run_opts: dict[str, Any] | None = None,
        savedir: str | Path | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
    ) -> SubnetASR:
        """Loads a bundle; it may come from a stranger, since nothing in it can run.

        Of a supernet's bundle, the subnet is chosen here:

        Args:
            path: folder that :func:`todm_sb.bundle.bundle.write_bundle` wrote, or a repository of
                the Hub; see :func:`todm_sb.utils.hub.model_folder`.
            subnet: name of a subnet that the bundle records, ``max``, ``min``, or any config of
                its search space, also as JSON; max when nothing is asked for.
            max_params: instead, the subnet of the lowest recorded WER among those of at most so
                many parameters.
            max_latency_ms: and of at most this recorded latency in milliseconds.
            run_opts: as of SpeechBrain's ``Pretrained``, e.g. ``{"device": "cuda"}``.
            savedir, revision, token: of the Hub, as of :meth:`from_hparams`.

        Raises:
            ConfigError: with one line, if anything in the bundle is not as it should be, the subnet
                is not there, or the repository cannot be fetched.
        """
        where: dict[str, Any] = {"savedir": savedir, "revision": revision, "token": token}
        bundle = read_bundle(model_folder(path, BUNDLE_FILES, **where))
        try:
            config = bundle.manifest.choose(subnet, max_params, max_latency_ms)
        except ConfigError as error:
            raise ConfigError(f"bundle {path}: {error}") from None
        model = bundle.model if config is None else extract_subnet(bundle.model, config)
        return cls(
            modules={
                "normalize": bundle.normalize,
                "encoder": WaveformEncoder(bundle.features, model),
                "decoder": TransducerSearcher(model, max_symbols=bundle.manifest.max_symbols),
            },
            hparams={
                "sample_rate": bundle.sample_rate,
                "tokenizer": bundle.tokenizer,
                "audio_normalizer": AudioNormalizer(bundle.sample_rate),
                "longest_seconds": bundle.manifest.longest_seconds,
            },
            run_opts=run_opts,
        )

    @classmethod
    def from_supernet(
        cls, source: str | Path, subnet: SubnetConfig | str = "max", **kwargs: Any
    ) -> SubnetASR:
        """Loads one subnet of an exported supernet.

        Args:
            source: folder that ``todm-sb export --format speechbrain`` wrote, or a repository of
                the Hub.
            subnet: ``max``, ``min``, or a config of the supernet's search space.
            **kwargs: as of :meth:`from_hparams`.

        Raises:
            ConfigError: if the folder is no supernet, or the subnet is outside its space.
        """
        asr = cls.from_hparams(source, **kwargs)
        space = getattr(asr.hparams, "space", None)
        if space is None:
            raise ConfigError(f"{source} holds a single subnet, not a supernet: use from_hparams")
        asr._use(extract_subnet(asr.mods.encoder.model, space.named(subnet)))
        return asr

    def _use(self, model: Transducer) -> None:
        self.mods.encoder.model = model
        self.mods.decoder.model = model

    def recogniser(self, decoding: Decoding | None = None) -> SubnetRecogniser:
        """This subnet as it may be asked for alternatives, times, hot words and more.

        Args:
            decoding: how to search; as it was exported when None.

        Raises:
            ConfigError: if hot words or language model are not of this network.
        """
        return SubnetRecogniser(self, decoding)

    def transcribe(
        self, paths: Sequence[str | Path], decoding: Decoding | None = None
    ) -> list[Transcript]:
        """Transcribes files, long or short, in batches, with times and confidences; however many
        they are, the samples of few are held in memory.

        Example:
            >>> hotwords = Decoding(hotwords={"ANNA": 2.0})  # doctest: +SKIP
            >>> (found,) = asr.transcribe(["speech.flac"], hotwords)  # doctest: +SKIP
            >>> found.words[0]  # doctest: +SKIP
            Word(text='CALL', start=0.12, end=0.36, confidence=0.998)

        Args:
            paths: see :meth:`load_audio`.
            decoding: how to search; as it was exported when None.

        Raises:
            ConfigError: see :meth:`recogniser`.
            DataError: see :meth:`load_audio`; of the first file that is at fault, before anything
                is decoded if its header tells.
        """
        if isinstance(paths, str | Path):
            raise ConfigError(f"{paths} is one path: give a list, or call transcribe_file")
        sources = [Source.of_file(str(path)) for path in paths]
        for source in sources:
            check_audio(source.path)
        transcripts = []
        for done in transcribe_sources(self.recogniser(decoding), sources, self.cutting):
            if done.transcript is None:
                raise DataError(done.error)
            transcripts.append(done.transcript)
        return transcripts

    def transcribe_file(self, path: str | Path, **kwargs: Any) -> str:
        """Transcribes a file; if it is longer than the utterances of training, in parts.

        Args:
            path: see :meth:`load_audio`.
            **kwargs: of :meth:`load_audio`.

        Raises:
            DataError: see :meth:`load_audio`.
        """
        samples = self.load_audio(path, **kwargs).cpu().numpy()
        (found,) = transcribe_waves(self.recogniser(), [samples], self.cutting)
        return found.text

    @cached_property
    def detokenizer(self) -> Detokenizer:
        """Turns label ids into text."""
        return Detokenizer.of_tokenizer(self.tokenizer)

    def load_audio(self, path: str | Path, savedir: str | None = None) -> Tensor:
        """Loads a file as one channel at the network's sampling rate.

        Args:
            path: a local file or a pipe, ``-`` for standard input; any format that libsndfile
                reads.
            savedir: of SpeechBrain's interface; nothing is fetched, hence nothing is saved.

        Raises:
            DataError: if it is missing, is no audio, holds no sample or one that is not finite,
                or has a sampling rate that cannot be converted.
        """
        return self._load(open_audio(path), path)

    def _load(self, audio: SoundFile, path: str | Path) -> Tensor:
        """The same of what is open already."""
        samples, rate = read_audio(audio, self.audio_normalizer.sample_rate, path)
        return self.audio_normalizer(torch.from_numpy(samples).to(self.device), rate)

    def transcribe_batch(self, wavs: Tensor, wav_lens: Tensor) -> tuple[list[str], list[list[int]]]:
        """Transcribes a batch; each utterance gets the text that it gets alone.

        Args:
            wavs: (batch, samples), at the network's sampling rate, of full scale 1.
            wav_lens: (batch,), lengths as fractions of ``samples``.

        Returns:
            Words and label ids of each utterance.

        Raises:
            DataError: if shapes, samples or lengths make no sense.
        """
        check_batch(wavs, wav_lens)
        if wavs.shape[0] == 0:
            return [], []
        with without_gradients(self.device):
            return super().transcribe_batch(wavs, wav_lens)
