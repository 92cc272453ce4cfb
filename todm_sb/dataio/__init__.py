"""Corpora as SpeechBrain manifests: LibriSpeech, spoken digits and a synthesised mini corpus."""

from typing import TYPE_CHECKING

from todm_sb.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from todm_sb.dataio.fsdd import prepare_fsdd
    from todm_sb.dataio.librispeech import prepare_librispeech
    from todm_sb.dataio.manifest import Row, read_csv, write_csv
    from todm_sb.dataio.mini_corpus import prepare_mini_corpus

__all__ = [
    "Row",
    "prepare_fsdd",
    "prepare_librispeech",
    "prepare_mini_corpus",
    "read_csv",
    "write_csv",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "todm_sb.dataio.fsdd": ["prepare_fsdd"],
        "todm_sb.dataio.librispeech": ["prepare_librispeech"],
        "todm_sb.dataio.manifest": ["Row", "read_csv", "write_csv"],
        "todm_sb.dataio.mini_corpus": ["prepare_mini_corpus"],
    },
)
