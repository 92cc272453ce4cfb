"""Kernels of diagonal state space models from their parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from todm_sb.utils.products import exact_bmm


class Modes(NamedTuple):
    """The parameters of one :class:`todm_sb.nnet.ssm.DiagonalSSM`, or of several in a row: channels
    know nothing of each other, and the kernels of all take as many launches as those of one.

    Args:
        log_dt_centre, log_dt, D: (channels,).
        log_decay, frequency: (channels, N).
        C: (channels, N, 2), real and imaginary parts.
    """

    log_dt_centre: Tensor
    log_dt: Tensor
    log_decay: Tensor
    frequency: Tensor
    C: Tensor
    D: Tensor

    @classmethod
    def joined(cls, modes: Sequence[Modes]) -> Modes:
        """Those of several SSMs of the same N, one after the other."""
        return modes[0] if len(modes) == 1 else cls(*map(torch.cat, zip(*modes, strict=True)))

    def discretise(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Zero-order hold with B = 1 (S4D; C carries B).

        Returns:
            ``(log_r, theta, c_re, c_im)``, each (channels, N): ``w = exp(log_r + i theta)`` and
            ``c = C (w - 1) / A``.
        """
        dt = torch.exp(self.log_dt_centre + self.log_dt).unsqueeze(-1)
        a_re = -0.5 * torch.exp(self.log_decay)
        modes = torch.arange(self.C.shape[1], device=dt.device, dtype=dt.dtype)
        a_im = math.pi * (modes + self.frequency)
        log_r, theta = dt * a_re, dt * a_im
        # w - 1 without cancellation for small dt.
        wm1_re = torch.expm1(log_r) * torch.cos(theta) - 2 * torch.sin(theta / 2).square()
        wm1_im = torch.exp(log_r) * torch.sin(theta)
        # (w - 1) / A, with 1 / A = conj(A) / |A|^2.
        norm = a_re.square() + a_im.square()
        b_re = (wm1_re * a_re + wm1_im * a_im) / norm
        b_im = (wm1_im * a_re - wm1_re * a_im) / norm
        c_re, c_im = self.C.unbind(-1)
        return log_r, theta, c_re * b_re - c_im * b_im, c_re * b_im + c_im * b_re

    def kernel(self, length: int) -> Tensor:
        """The convolution kernel, K[0] including D.

        With ``l = i + block * j`` the powers factor as ``w^l = w^i * w^(block j)``: two short
        tables of powers and one real matrix product replace N * length complex exponentials a
        channel.

        Args:
            length: number of taps L.

        Returns:
            (channels, L)
        """
        log_r, theta, c_re, c_im = self.discretise()
        w = torch.polar(torch.exp(log_r), theta)
        block = 1 << (length.bit_length() // 2)  # about the root of length
        inner = geometric(torch.ones_like(w), w, block)
        outer = geometric(torch.complex(2 * c_re, 2 * c_im), inner[-1] * w, -(-length // block))
        # Re(a b) is the scalar product of the parts of conj(a) and b.
        kernel = exact_bmm(parts(outer.conj()), parts(inner).transpose(1, 2))
        kernel = kernel.flatten(1)[:, :length]
        kernel[:, 0] += self.D
        return kernel


def geometric(first: Tensor, ratio: Tensor, n: int) -> Tensor:
    """``first * ratio ** i`` for i below n, by doubling: (n, *first.shape)."""
    table = first.unsqueeze(0)
    while len(table) < n:
        table = torch.cat([table, ratio * table[: n - len(table)]])
        ratio = ratio * ratio
    return table


def parts(table: Tensor) -> Tensor:
    """Complex (n, channels, N) -> real (channels, n, 2 N), real and imaginary parts in turn."""
    return torch.view_as_real(table.resolve_conj()).flatten(2).transpose(0, 1)
