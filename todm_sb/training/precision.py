"""The precision that a machine trains fastest in."""

from __future__ import annotations

from pathlib import Path

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
