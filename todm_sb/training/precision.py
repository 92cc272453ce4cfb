"""The precision that a machine trains in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from todm_sb.utils.errors import ConfigError

# How /proc/cpuinfo names bfloat16 products: x86 with vectors, with tiles, and ARM.
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


def fastest_precision(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """SpeechBrain's name of it.

    Args:
        cpuinfo: what Linux tells of the processor; elsewhere there is no such file.

    Returns:
        ``bf16`` where the processor has bfloat16 products, else ``fp32``: emulated, they are slower
        than those of float32.
    """
    flags = cpuinfo.read_text().split() if cpuinfo.is_file() else []
    return "bf16" if BFLOAT16_FLAGS.intersection(flags) else "fp32"


@contextmanager
def fp16_needs_a_gpu() -> Iterator[None]:
    """Says in a line what SpeechBrain refuses: fp16 on a CPU.

    Raises:
        ConfigError: if it does.
    """
    try:
        yield
    except ValueError as error:
        if "fp16" not in str(error):
            raise
        raise ConfigError(
            "precision fp16 needs a GPU: on a CPU take --precision=bf16 or fp32"
        ) from None
