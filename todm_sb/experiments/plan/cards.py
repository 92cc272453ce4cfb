"""What accelerators can do at most, as their makers tell."""

from __future__ import annotations

from dataclasses import dataclass

from todm_sb.experiments.plan.count import FFT, FLOAT32, REST, Work


@dataclass(frozen=True)
class Card:
    """An accelerator.

    Args:
        name: of the maker.
        memory: in bytes.
        bandwidth: of its memory, bytes a second.
        flops: a second, of dense products of ``bf16``, ``fp16`` and ``fp32`` (TF32 where there is
            one, as SpeechBrain switches it on), and of ``fft``, which is plain float32.
        link: bytes a second that it sends to others of its machine, one way.
    """

    name: str
    memory: float
    bandwidth: float
    flops: dict[str, float]
    link: float

    def seconds(self, works: dict[str, Work]) -> float:
        """The least time of some work: each kind takes as long as the slower of computing it and
        moving it (the roofline of Williams et al. 2009)."""
        return sum(max(self.computing(kind, x), self.moving(x)) for kind, x in works.items())

    def computing(self, kind: str, work: Work) -> float:
        """Seconds of computing alone."""
        return 0.0 if kind == REST else work.flops / self.flops[kind]

    def moving(self, work: Work) -> float:
        """Seconds of reading and writing alone."""
        return work.n_bytes / self.bandwidth


def _card(name: str, gb: float, tb_s: float, teraflops: tuple[float, ...], link: float) -> Card:
    half, single, plain = (1e12 * x for x in teraflops)
    flops = {"bf16": half, "fp16": half, FLOAT32: single, FFT: plain}
    return Card(name, 1e9 * gb, 1e12 * tb_s, flops, 1e9 * link)


# Data sheets of NVIDIA; TFLOPS are without sparsity: half precision, TF32, float32. Links: NVLink,
# of the L40S PCIe 4.0 x16.
CARDS = {
    "a100": _card("A100 SXM 80 GB", 80, 2.039, (312, 156, 19.5), 300),
    "h100": _card("H100 SXM 80 GB", 80, 3.35, (989, 494, 67), 450),
    "h200": _card("H200 SXM 141 GB", 141, 4.8, (989, 494, 67), 450),
    "l40s": _card("L40S 48 GB", 48, 0.864, (362, 183, 91.6), 32),
}
