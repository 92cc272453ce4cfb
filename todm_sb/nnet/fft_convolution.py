"""Long convolutions along time, by FFT."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from todm_sb.utils.device_kind import kind_of

# Channels that a processor convolves at once where nothing learns: their spectra stay in its cache.
CHANNELS_AT_ONCE = 256


@functools.cache
def fft_size(length: int) -> int:
    """An FFT size that holds a linear convolution of two ``length``-sequences: the next power of
    two times 1, 3, 5 or 9, which FFT libraries do best."""
    enough = max(2, 2 * length - 1)
    sizes = ((1 << a) * odd for odd in (1, 3, 5, 9) for a in range(1, enough.bit_length() + 1))
    return min(size for size in sizes if size >= enough)


def longest_of_size(length: int) -> int:
    """The most frames whose :func:`fft_size` is that of so many: one spectrum serves them all."""
    return (fft_size(length) + 1) // 2


def fft_macs(n: int) -> int:
    """Multiply-accumulates of a real FFT of ``n`` points: half of a complex one's 5 n log2 n
    operations, two to a multiply-accumulate."""
    return round(1.25 * n * math.log2(n))


def kernel_spectrum(forward: Tensor, backward: Tensor | None, length: int) -> Tensor:
    """Spectrum of a two-sided kernel, divided by its FFT's size: so nothing larger has to be.

    Args:
        forward: (channels, length), taps at lags 0, 1, ... (past and present).
        backward: (channels, length) or None, taps at lags -1, -2, ... (strictly the future, so
            that the present is not counted twice); the last tap is out of reach and unused.
        length: longest input in frames.

    Returns:
        complex (channels, fft_size(length) // 2 + 1)
    """
    n = fft_size(length)
    if backward is None:
        return torch.fft.rfft(forward, n, norm="forward")
    gap = forward.new_zeros(len(forward), n - 2 * length + 1)
    taps = torch.cat([forward, gap, backward[:, : length - 1].flip(-1)], dim=1)
    return torch.fft.rfft(taps, norm="forward")


def fft_convolve(u: Tensor, spectrum: Tensor) -> Tensor:
    """Linear convolution along time, by FFT.

    Args:
        u: (batch, T, channels).
        spectrum: :func:`kernel_spectrum` made for this T, or for a longer one.

    Returns:
        (batch, T, channels)
    """
    if torch.is_grad_enabled() or kind_of(u.device) != "cpu":
        return _FFTConvolution.apply(u, spectrum)
    return _convolve_by_parts(u, spectrum)


def _transpose(x: Tensor) -> Tensor:
    """(batch, M, N) -> (batch, N, M), laid out so: FFTs want a contiguous axis.

    On the CPU, torch copies a transposed matrix five times faster than a batch of them.
    """
    if kind_of(x.device) != "cpu":
        return x.transpose(1, 2).contiguous()
    out = x.new_empty(x.shape[0], x.shape[2], x.shape[1])
    for matrix, transposed in zip(x.contiguous(), out, strict=True):
        transposed.copy_(matrix.t())
    return out


def _spectra(x: Tensor, n: int) -> Tensor:
    """Frames (batch, T, channels), with zeros behind them -> (batch, channels, n / 2 + 1)."""
    if kind_of(x.device) == "cpu":
        return torch.fft.rfft(_transpose(x), n)
    padded = x.new_empty(x.shape[0], x.shape[2], n)
    padded[..., : x.shape[1]] = x.transpose(1, 2)
    padded[..., x.shape[1] :].zero_()
    return torch.fft.rfft(padded)


def _frames(spectra: Tensor, length: int) -> Tensor:
    """Spectra (batch, channels, n / 2 + 1) -> their first frames (batch, length, channels), times
    n."""
    n = 2 * (spectra.shape[-1] - 1)
    return _transpose(torch.fft.irfft(spectra, n, norm="forward")[..., :length])


def _convolve_by_parts(u: Tensor, spectrum: Tensor) -> Tensor:
    """:func:`fft_convolve` without gradients, some channels at a time."""
    n, out = 2 * (spectrum.shape[-1] - 1), torch.empty_like(u)
    parts = spectrum.split(CHANNELS_AT_ONCE)
    for frames, convolved in zip(u, out, strict=True):
        inputs, outputs = (x.t().split(CHANNELS_AT_ONCE) for x in (frames, convolved))
        for x, part, y in zip(inputs, parts, outputs, strict=True):
            spectra = torch.fft.rfft(x, n).mul_(part)
            y.copy_(torch.fft.irfft(spectra, n, norm="forward")[:, : u.shape[1]])
    return out


class _FFTConvolution(torch.autograd.Function):
    """(batch, T, channels) by a spectrum (channels, n / 2 + 1), n even.

    Autograd's own backward of a real FFT is a complex one of twice the length and, for its
    padding, fills of zeros: a third of an encoder's step. Both gradients need real FFTs only.
    """

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, u: Tensor, spectrum: Tensor) -> Tensor:
        u_spectra = _spectra(u, 2 * (spectrum.shape[-1] - 1))
        ctx.save_for_backward(u_spectra, spectrum)
        return _frames(u_spectra * spectrum, u.shape[1])

    @staticmethod
    @once_differentiable
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        u_spectra, spectrum = ctx.saved_tensors
        grad_spectra = _spectra(grad, 2 * (spectrum.shape[-1] - 1))
        grad_u = grad_kernel = None
        if ctx.needs_input_grad[1]:
            # Not by einsum, which makes a batched product of 1 x B and B x 1 matrices of it: on
            # GPUs as many of them as there are channels and frequencies, on a CPU twice the time.
            grad_kernel = (u_spectra.conj() * grad_spectra).sum(0)
            # irfft counts each frequency twice, but for the first and the last.
            grad_kernel[:, 1:-1].mul_(2)
        if ctx.needs_input_grad[0]:
            grad_u = _frames(grad_spectra * spectrum.conj(), grad.shape[1])
        return grad_u, grad_kernel
