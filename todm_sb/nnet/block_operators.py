"""What a causal diagonal SSM does to a block of frames, as matrices that are made once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from todm_sb.utils.products import exact_products

# Frames of a block. In float32 on one thread, 8 frames of 288 channels with 8 modes take a quarter
# of a millisecond; made anew for each chunk, with an FFT, they took 1.3.
BLOCK = 16


class BlockOperators(NamedTuple):
    """The chunked form of :class:`todm_sb.nnet.ssm.DiagonalSSM`, for blocks of up to P frames.

    They follow from the parameters alone, as :meth:`todm_sb.nnet.ssm.MultiHeadSSM.spectra` do:
    all chunks of all streams can share them. Frames are row vectors, one a channel.

    Args:
        within: (channels, P, P), the convolution inside the block: upper triangular, Toeplitz.
        read: (channels, 2 N, P), what each frame hears of the state before the block.
        write: (channels, P, 2 N), what the frames leave in the state after the block; the last L
            rows serve a block of L frames.
        decay_re, decay_im: (P + 1, channels, 1, N), parts of w^l: what l frames leave of a state.
    """

    within: Tensor
    read: Tensor
    write: Tensor
    decay_re: Tensor
    decay_im: Tensor

    @classmethod
    def of(
        cls, log_r: Tensor, theta: Tensor, c_re: Tensor, c_im: Tensor, kernel: Tensor
    ) -> BlockOperators:
        """From the modes and the kernel.

        Args:
            log_r, theta, c_re, c_im: as of :meth:`todm_sb.nnet.ssm.DiagonalSSM.discretise`.
            kernel: (channels, P).
        """
        length = kernel.shape[1]
        frames = torch.arange(length, device=kernel.device)
        w_re, w_im = powers(log_r, theta, torch.arange(length + 1, device=kernel.device))
        read_re, read_im = complex_mul(
            w_re[..., 1:], w_im[..., 1:], c_re.unsqueeze(-1), c_im.unsqueeze(-1)
        )
        lag = frames - frames.unsqueeze(1)
        return cls(
            within=kernel[:, lag.clamp(min=0)] * (lag >= 0),
            read=2 * torch.cat([read_re, -read_im], dim=1),
            write=torch.cat([w_re, w_im], 1)[..., :-1].flip(-1).transpose(1, 2).contiguous(),
            decay_re=w_re.movedim(-1, 0).unsqueeze(2).contiguous(),
            decay_im=w_im.movedim(-1, 0).unsqueeze(2).contiguous(),
        )

    @exact_products()
    def __call__(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Runs over a chunk, block by block.

        Args:
            u: (batch, L, channels), any number L >= 1 of frames.
            state: (batch, channels, 2 N).

        Returns:
            The output (batch, L, channels) and the state after the chunk.
        """
        state = state.transpose(0, 1)
        outputs = []
        for block in u.permute(2, 0, 1).split(len(self.decay_re) - 1, dim=2):
            y, state = self._block(block.contiguous(), state)
            outputs.append(y)
        return torch.cat(outputs, dim=2).permute(1, 2, 0).contiguous(), state.transpose(0, 1)

    def _block(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """(channels, batch, L) and (channels, batch, 2 N) -> the same."""
        length = u.shape[2]
        y = torch.bmm(u, self.within[:, :length, :length])
        y = torch.baddbmm(y, state, self.read[..., :length])
        s_re, s_im = state.chunk(2, dim=-1)
        kept = complex_mul(s_re, s_im, self.decay_re[length], self.decay_im[length])
        write = self.write[:, self.write.shape[1] - length :]
        return y, torch.baddbmm(torch.cat(kept, dim=-1), u, write)


def powers(log_r: Tensor, theta: Tensor, exponents: Tensor) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of ``exp(log_r + i theta) ** exponents``: (..., len(exponents))."""
    exponents = exponents.to(theta.dtype)
    radius = torch.exp(log_r.unsqueeze(-1) * exponents)
    angle = theta.unsqueeze(-1) * exponents
    return radius * torch.cos(angle), radius * torch.sin(angle)


def complex_mul(a_re: Tensor, a_im: Tensor, b_re: Tensor, b_im: Tensor) -> tuple[Tensor, Tensor]:
    """Complex product of two numbers given by their parts."""
    return a_re * b_re - a_im * b_im, a_re * b_im + a_im * b_re
