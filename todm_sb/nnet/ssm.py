"""Diagonal state space models and their multi-head arrangement (MH-SSM).

A diagonal SSM maps a sequence u to y, one channel at a time, by the linear recurrence

    s_t = w * s_{t-1} + u_t          y_t = 2 Re(sum_n c_n s_t[n]) + D u_t

with N complex modes, each standing for a conjugate pair. The same map is a convolution with
the kernel ``K[l] = 2 Re(sum_n c_n w_n^l)``: training convolves by FFT, streaming runs the
recurrence, and the chunked form convolves inside a chunk and carries the state across.

Sources: S4D (Gu et al. 2022, arXiv:2206.11893) for the diagonal SSM, its zero-order hold and the
S4D-Lin initialisation; Fathullah et al. 2023 (arXiv:2305.12498) for heads and inter-head gating.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from todm_sb.nnet.block_operators import BLOCK, BlockOperators
from todm_sb.nnet.elastic import copy_with
from todm_sb.nnet.fft_convolution import (
    fft_convolve,
    fft_macs,
    fft_size,
    kernel_spectrum,
    longest_of_size,
)
from todm_sb.nnet.heads import gate_heads, spread_pairs
from todm_sb.nnet.kept import KeptTensors
from todm_sb.nnet.ssm_kernel import Modes
from todm_sb.utils.device_kind import kind_of

# S4D draws C with unit variance. A quarter of its size keeps the slow heads' sums over time from
# drowning the residual stream: on connected digits, CTC alone, the loss after 160 steps is 1.5
# instead of 2.4 nats a label.
INITIAL_C = 0.25 * math.sqrt(0.5)

# SSMs of each direction whose spectra are made at once; elsewhere all of them. A CPU wants the
# tables of powers to stay in its cache, an accelerator few launches.
SSMS_AT_ONCE = {"cpu": 1}

# Bytes of spectra that a layer keeps for inference: of 1,024 channels, those of up to 80 s of audio
# at 25 frames a second, or of several shorter lengths.
KEPT_BYTES = 17 << 20


class DiagonalSSM(nn.Module):
    """Independent diagonal SSMs, one a channel, running forward in time.

    Every parameter is an offset from the S4D-Lin initialisation ``A_n = -1/2 + i pi n``, so that
    weight decay and optimizers which scale updates by a parameter's RMS (ScaledAdam) act on the
    deviation, not on ``pi n`` itself. At first that is zero, or within ``spread``, and ScaledAdam
    moves it little until it has grown.

    Args:
        channels: number of channels.
        state_size: number N of complex modes a channel (conjugate pairs).
        dt_range: smallest and largest time step of the channels, in frames; a mode forgets
            within about ``2 / dt`` frames.
        heads: the range is cut, on the log scale, into this many equal parts and each head's
            channels start inside theirs, so that heads cover local to global context.
        order: part of the range, slowest first, that each head has; by default slow to fast.
        spread: log decays and frequencies (in modes) start within this distance of S4D-Lin's.

    Raises:
        ValueError: if ``channels`` is not a multiple of ``heads`` or ``dt_range`` is not ascending.
    """

    def __init__(
        self,
        channels: int,
        state_size: int = 16,
        dt_range: tuple[float, float] = (0.005, 0.5),
        heads: int = 1,
        order: Sequence[int] | None = None,
        spread: float = 0.0,
    ) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"channels ({channels}) must be a multiple of heads ({heads})")
        low, high = dt_range
        if not 0 < low <= high:
            raise ValueError(f"dt_range must be ascending and positive, not {tuple(dt_range)}")
        span = math.log(high / low) / heads
        parts_of_range = torch.arange(heads) if order is None else torch.tensor(order)
        centres = math.log(low) + span * (parts_of_range + 0.5)
        self.register_buffer("log_dt_centre", centres.repeat_interleave(channels // heads))
        self.log_dt = nn.Parameter(span * (torch.rand(channels) - 0.5))
        self.log_decay = nn.Parameter(torch.zeros(channels, state_size))
        self.frequency = nn.Parameter(torch.zeros(channels, state_size))
        if spread:
            nn.init.uniform_(self.log_decay, -spread, spread)
            nn.init.uniform_(self.frequency, -spread, spread)
        self.C = nn.Parameter(torch.randn(channels, state_size, 2) * INITIAL_C)  # last: re, im
        self.D = nn.Parameter(torch.ones(channels))

    @property
    def state_size(self) -> int:
        """Number N of complex modes a channel."""
        return self.C.shape[1]

    @property
    def modes(self) -> Modes:
        """The parameters that the kernel is made of."""
        return Modes(
            self.log_dt_centre, self.log_dt, self.log_decay, self.frequency, self.C, self.D
        )

    def discretise(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See :meth:`Modes.discretise`."""
        return self.modes.discretise()

    def kernel(self, length: int) -> Tensor:
        """(channels, length), see :meth:`Modes.kernel`."""
        return self.modes.kernel(length)

    def initial_state(self, batch: int) -> Tensor:
        """The zero state: (batch, channels, 2 N), real parts of the modes before imaginary."""
        return self.D.new_zeros(batch, len(self.D), 2 * self.state_size)

    def block_operators(self, length: int = BLOCK) -> BlockOperators:
        """What :meth:`chunk` needs, for blocks of ``length`` frames."""
        return BlockOperators.of(*self.discretise(), self.kernel(length))

    def chunk(
        self, u: Tensor, state: Tensor, operators: BlockOperators | None = None
    ) -> tuple[Tensor, Tensor]:
        """The chunked form: a convolution inside the chunk, the state carried across.

        Args:
            u: (batch, L, channels), a chunk of any length L >= 1.
            state: (batch, channels, 2 N).
            operators: what :meth:`block_operators` returned, or None to compute it here.

        Returns:
            The output (batch, L, channels) and the state after the chunk.
        """
        operators = operators or self.block_operators(min(u.shape[1], BLOCK))
        return operators(u, state)


class MultiHeadSSM(nn.Module):
    """Multi-head SSM: projection, H heads of SSMs, inter-head gating, projection.

    The second half of the heads, through GELU, gates the first half (Fathullah et al.
    2023). A leading part of the pairs of a value head and its gate can be used alone.

    Args:
        d_model: width of input and output.
        n_heads: number H of heads (even).
        d_inner: channels of all heads together; ``2 * d_model`` when None, of which gating leaves
            ``d_model``.
        state_size: complex modes a channel.
        bidirectional: whether future frames are seen.
        n_stack: number of SSMs in sequence, GELU between them (without it, two linear systems in
            sequence would be one).
        dt_range, spread: see :class:`DiagonalSSM`.
        spread_heads: every leading part of the head pairs spans local to global context, which
            subnets with fewer heads need; if False heads lie from slow to fast.

    Raises:
        ValueError: if ``n_heads`` is odd or does not divide ``d_inner``, or ``n_stack`` is below 1.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int = 8,
        d_inner: int | None = None,
        state_size: int = 16,
        bidirectional: bool = True,
        n_stack: int = 1,
        dt_range: tuple[float, float] = (0.005, 0.5),
        spread_heads: bool = False,
        spread: float = 0.0,
    ) -> None:
        super().__init__()
        d_inner = d_inner or 2 * d_model
        if n_heads < 2 or n_heads % 2:
            raise ValueError(f"n_heads must be even for inter-head gating, not {n_heads}")
        if n_stack < 1:
            raise ValueError(f"n_stack must be at least 1, not {n_stack}")
        order = spread_pairs(n_heads) if spread_heads else None
        arguments = d_inner, state_size, dt_range, n_heads, order, spread

        def ssms() -> nn.ModuleList:
            return nn.ModuleList(DiagonalSSM(*arguments) for _ in range(n_stack))

        self.n_heads = n_heads
        self.w_in = nn.Linear(d_model, d_inner)
        self.forward_ssms = ssms()
        self.backward_ssms = ssms() if bidirectional else None
        self.w_out = nn.Linear(d_inner // 2, d_model)
        self.kept = KeptTensors(KEPT_BYTES)

    def train(self, mode: bool = True) -> MultiHeadSSM:
        """As of any module; forgets what is kept for inference."""
        self.kept.clear()
        return super().train(mode)

    def spectra(self, length: int, causal: bool = False) -> list[Tensor]:
        """Kernel spectra of the stacked SSMs for inputs of up to ``length`` frames.

        They depend on the parameters alone: all subnets of a step can share them.

        Args:
            length: frames.
            causal: leave out the backward SSMs, if there are any.

        Returns:
            ``n_stack`` complex tensors (d_inner, fft_size(length) // 2 + 1).
        """
        return spectra_of([self], length, causal)

    def kept_spectra(self, length: int, causal: bool = False) -> list[Tensor]:
        """The same without gradients, made once for all lengths of one FFT size and kept.

        Args:
            length: frames.
            causal: leave out the backward SSMs, if there are any.
        """
        longest = longest_of_size(length)
        weights = [weight for ssm in self._ssms(causal) for weight in ssm.modes]
        return self.kept.get((longest, causal), weights, lambda: self.spectra(longest, causal))

    def _ssms(self, causal: bool) -> list[DiagonalSSM]:
        return [*self.forward_ssms, *((not causal and self.backward_ssms) or ())]

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        spectra: Sequence[Tensor] | None = None,
        causal: bool = False,
        n_heads: int | None = None,
    ) -> Tensor:
        """Mixes frames within each utterance.

        Args:
            x: (batch, T, d_model).
            mask: (batch, T, 1), 1 on an utterance's frames and 0 on padding. Projection biases
                would otherwise wake padded frames, which the convolution then spreads.
            spectra: what :meth:`spectra` returned, or None to compute it here.
            causal: leave out the backward SSMs, if there are any; ``spectra``, where given, tell
                that.
            n_heads: use so many heads, the leading pairs; all when None.

        Returns:
            (batch, T, d_model); padded frames hold no meaning.

        Raises:
            ValueError: if there are not so many heads, or the number is odd.
        """
        n_heads = self._check(n_heads)
        if spectra is None:
            learns = self.training or torch.is_grad_enabled()
            spectra = (self.spectra if learns else self.kept_spectra)(x.shape[1], causal)
        w_in, b_in = (self._leading(w, n_heads) for w in (self.w_in.weight, self.w_in.bias))
        y = F.linear(x, w_in, b_in)
        # FFTs keep float32 under autocast, to which the mask lifts y: half precision loses the
        # kernels' long tails.
        with torch.autocast(x.device.type, enabled=False):
            for i, spectrum in enumerate(spectra):
                y = fft_convolve((F.gelu(y) if i else y) * mask, self._leading(spectrum, n_heads))
        y, w_out = gate_heads(y), self.w_out.weight
        w_out = w_out if n_heads == self.n_heads else w_out[:, : y.shape[-1]]
        return F.linear(y, w_out, self.w_out.bias)

    def extract(self, n_heads: int | None = None) -> MultiHeadSSM:
        """A standalone layer with so many heads, equal in outputs.

        Raises:
            ValueError: if there are not so many heads, or the number is odd.
        """
        n_heads = self._check(n_heads)
        by_channel = [self.w_in.weight, self.w_in.bias]
        for ssm in (*self.forward_ssms, *(self.backward_ssms or ())):
            by_channel += [*ssm.parameters(), *ssm.buffers()]
        cut = {tensor: self._leading(tensor, n_heads) for tensor in by_channel}
        n_values = len(cut[self.w_in.bias]) // 2
        small = copy_with(self, {**cut, self.w_out.weight: self.w_out.weight[:, :n_values]})
        small.n_heads = n_heads
        small.w_in.out_features, small.w_out.in_features = 2 * n_values, n_values
        return small

    def macs(self, n_frames: int, n_heads: int | None = None) -> int:
        """Multiply-accumulates of so many frames with so many heads.

        The kernels and their spectra depend on the weights alone, and are not counted.
        """
        n_heads = self._check(n_heads)
        n = fft_size(n_frames)
        # To frequencies and back, and one complex product a frequency between.
        convolution = self.w_in.out_features * (2 * fft_macs(n) + 4 * (n // 2 + 1))
        projections = n_frames * (self.w_in.weight.numel() + self.w_out.weight.numel())
        return (projections + len(self.forward_ssms) * convolution) * n_heads // self.n_heads

    def _leading(self, tensor: Tensor, n_heads: int) -> Tensor:
        """(d_inner, ...) -> the channels of the leading value heads, then of their gates."""
        if n_heads == self.n_heads:
            return tensor
        n = len(tensor) // self.n_heads * (n_heads // 2)
        gates = len(tensor) // 2
        return torch.cat([tensor[:n], tensor[gates : gates + n]])

    def _check(self, n_heads: int | None) -> int:
        n_heads = self.n_heads if n_heads is None else n_heads
        if n_heads % 2 or not 2 <= n_heads <= self.n_heads:
            raise ValueError(f"{n_heads} heads are not 2, 4 ... {self.n_heads}")
        return n_heads

    def initial_state(self, batch: int) -> list[Tensor]:
        """One zero state a stacked SSM, for :meth:`chunk`."""
        return [ssm.initial_state(batch) for ssm in self.forward_ssms]

    def block_operators(self, length: int = BLOCK) -> list[BlockOperators]:
        """What :meth:`chunk` needs of the stacked SSMs; all chunks can share it."""
        with torch.autocast(self.w_in.weight.device.type, enabled=False):
            return [ssm.block_operators(length) for ssm in self.forward_ssms]

    def chunk(
        self, x: Tensor, state: list[Tensor], operators: list[BlockOperators] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """The same map for a causal network, chunk by chunk, with all heads.

        Args:
            x: (batch, L, d_model), L >= 1 frames without padding.
            state: what the last call, or :meth:`initial_state`, returned.
            operators: what :meth:`block_operators` returned, or None to compute it here.

        Returns:
            (batch, L, d_model) and the next state.

        Raises:
            ValueError: if the network is bidirectional, since it would need the future.
        """
        if self.backward_ssms is not None:
            raise ValueError("a bidirectional MH-SSM cannot run chunk by chunk")
        y, next_state = self.w_in(x), []
        with torch.autocast(x.device.type, enabled=False):
            y = y.to(self.w_in.weight.dtype)
            for i, (ssm, s) in enumerate(zip(self.forward_ssms, state, strict=True)):
                y, s = ssm.chunk(F.gelu(y) if i else y, s, operators and operators[i])
                next_state.append(s)
        return self.w_out(gate_heads(y)), next_state


def spectra_of(modules: Sequence[MultiHeadSSM], length: int, causal: bool = False) -> list[Tensor]:
    """Kernel spectra of several modules, of all at once where kernel launches cost.

    Args:
        modules: of the same number of modes.
        length: frames.
        causal: leave out the backward SSMs, if there are any.

    Returns:
        What :meth:`MultiHeadSSM.spectra` returns of each, one after the other.
    """
    forward, backward = [], []
    for module in modules:
        forward += module.forward_ssms
        backward += (not causal and module.backward_ssms) or ()
    device = forward[0].D.device
    at_once = SSMS_AT_ONCE.get(kind_of(device), len(forward))
    spectra: list[Tensor] = []
    with torch.autocast(device.type, enabled=False):
        for i in range(0, len(forward), at_once):
            spectra += _spectra(forward[i : i + at_once], backward[i : i + at_once], length)
    return spectra


def _spectra(
    forward: list[DiagonalSSM], backward: list[DiagonalSSM], length: int
) -> tuple[Tensor, ...]:
    """Spectra of SSMs of each direction, which are as many or, of the second, none."""
    sizes = [len(ssm.D) for ssm in forward]
    kernels = Modes.joined([ssm.modes for ssm in (*forward, *backward)]).kernel(length)
    past, future = kernels[: sum(sizes)], kernels[sum(sizes) :]
    return kernel_spectrum(past, future if backward else None, length).split(sizes)
