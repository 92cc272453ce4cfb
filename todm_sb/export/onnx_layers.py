"""The network's layers as ONNX nodes.

Each function adds to a graph what the layer of its name computes; :mod:`todm_sb.nnet` explains it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from todm_sb.export.graph import Graph
from todm_sb.nnet.ssm import DiagonalSSM

END = np.iinfo(np.int64).max


def linear(g: Graph, x: str, module: nn.Linear, name: str) -> str:
    """A product and a sum, which quantisation tools know."""
    y = g("MatMul", x, g.constant(module.weight.T, f"{name}.weight"))
    return y if module.bias is None else g("Add", y, g.constant(module.bias, f"{name}.bias"))


def layer_norm(g: Graph, x: str, module: nn.LayerNorm, name: str) -> str:
    """Over the last axis."""
    weights = (g.constant(getattr(module, p), f"{name}.{p}") for p in ("weight", "bias"))
    return g("LayerNormalization", x, *weights, axis=-1, epsilon=module.eps)


def silu(g: Graph, x: str) -> str:
    """x sigmoid(x)"""
    return g("Mul", x, g("Sigmoid", x))


def gelu(g: Graph, x: str) -> str:
    """x Phi(x), in the form that onnxruntime fuses."""
    erf = g("Erf", g("Div", x, math.sqrt(2)))
    return g("Mul", g("Mul", x, g("Add", erf, 1.0)), 0.5)


def frame_mask(g: Graph, lengths: str, n_frames: str) -> str:
    """(batch, T, 1), 1.0 on each utterance's frames, from its length and T."""
    frames = g("Range", 0, g("Squeeze", n_frames, [0]), 1)
    mask = g("Cast", g("Less", frames, g("Unsqueeze", lengths, [1])), to=1)
    return g("Unsqueeze", mask, [2])


@dataclass(frozen=True)
class Blocks:
    """Frames in blocks of fixed length, the last of them partly empty.

    Args:
        length: frames of a block.
        batch: utterances, a value of one integer.
        n_frames: frames T, a value of one integer.
        n_blocks: ``T // length + 1``, a value of one integer.
    """

    length: int
    batch: str
    n_frames: str
    n_blocks: str

    @classmethod
    def of(cls, g: Graph, x: str, length: int) -> Blocks:
        """Blocks of (batch, T, channels)."""
        n_frames = g.size(x, 1)
        n_blocks = g("Add", g("Div", n_frames, [length]), [1])
        return cls(length, g.size(x, 0), n_frames, n_blocks)


@dataclass(frozen=True)
class EncoderLayers:
    """The layers of an encoder, added to its graph: see
    :class:`todm_sb.nnet.encoders.OnnxLayers`.

    Args:
        g: the graph.
        blocks: of the frames.
        mask: (batch, T, 1), None where no frame is padding.
    """

    g: Graph
    blocks: Blocks
    mask: str | None = None

    def add(self, x: str, y: str) -> str:
        """Their sum."""
        return self.g("Add", x, y)

    def silu(self, x: str) -> str:
        """x sigmoid(x)"""
        return silu(self.g, x)

    def linear(self, x: str, module: nn.Linear, name: str) -> str:
        """Over the last axis."""
        return linear(self.g, x, module, name)

    def layer_norm(self, x: str, module: nn.LayerNorm, name: str) -> str:
        """Over the last axis."""
        return layer_norm(self.g, x, module, name)

    def ssms(
        self,
        x: str,
        directions: Sequence[Iterable[DiagonalSSM]],
        name: str,
        states: list[str] | None = None,
    ) -> tuple[str, list[str]]:
        """Stacked SSMs on (batch, T, channels), and for a stream the next states."""
        g = self.g
        next_states: list[str] = []
        for i, modules in enumerate(zip(*directions, strict=True)):
            x = gelu(g, x) if i else x
            x = x if self.mask is None else g("Mul", x, self.mask)
            names = [f"{name}.{direction}_ssms.{i}" for direction in ("forward", "backward")]
            operators = [
                Operators.of(g, module, own, self.blocks.length)
                for module, own in zip(modules, names, strict=False)
            ]
            before = None if states is None else states[i]
            x, state = ssm(g, x, self.blocks, operators, before)
            if state is not None:
                next_states.append(state)
        return x, next_states

    def gate(self, x: str) -> str:
        """The first half of the channels, times the second's GELU."""
        values, gates = self.g("Split", x, axis=2, outputs=2)
        return self.g("Mul", values, gelu(self.g, gates))


@dataclass(frozen=True)
class Operators:
    """What an SSM does to a block of L frames, from its N modes (w, c), in real numbers.

    All of it follows from constants: an engine computes it once, when it loads the file, which
    itself holds the modes only.

    Args:
        channels: channels C.
        n_modes: modes N.
        taps: (C, L), the kernel without its direct term D.
        skip: (C,), D.
        powers: (C, 2 N, L + 1), w^l.
        read: (C, 2 N, L + 1), what a state s gives after l frames, ``2 Re(c w^l s)``.
    """

    channels: int
    n_modes: int
    taps: str
    skip: str
    powers: str
    read: str

    @classmethod
    def of(cls, g: Graph, module: DiagonalSSM, name: str, length: int) -> Operators:
        """Adds the operators of an SSM."""
        exact = copy.deepcopy(module).double()
        steps = (exact.get_buffer("log_dt_centre") + exact.log_dt).exp().unsqueeze(-1)
        dt = g.constant(steps, f"{name}.dt")
        # c is in proportion to dt, which spans decades: without it, the constants have one scale.
        c_re, c_im = (
            g("Unsqueeze", g("Mul", g.constant(c / steps, f"{name}.c_{part}"), dt), [2])
            for c, part in zip(exact.discretise()[2:], ("re", "im"), strict=True)
        )
        decay = g.constant(module.log_decay, f"{name}.log_decay")
        frequency = g.constant(module.frequency, f"{name}.frequency")
        modes = np.arange(module.state_size, dtype=np.float32)
        log_r = g("Mul", g("Exp", decay), g("Mul", dt, -0.5))
        theta = g("Mul", g("Add", frequency, modes), g("Mul", dt, math.pi))
        exponents = np.arange(length + 1, dtype=np.float32)
        radius = g("Exp", g("Mul", g("Unsqueeze", log_r, [2]), exponents))
        angle = g("Mul", g("Unsqueeze", theta, [2]), exponents)
        w_re, w_im = g("Mul", radius, g("Cos", angle)), g("Mul", radius, g("Sin", angle))
        read_re = g("Sub", g("Mul", c_re, w_re), g("Mul", c_im, w_im))
        read_im = g("Add", g("Mul", c_re, w_im), g("Mul", c_im, w_re))
        read = g("Mul", g("Concat", read_re, g("Neg", read_im), axis=1), 2.0)
        taps = g("Mul", g("ReduceSum", read_re, [1], keepdims=0), 2.0)
        taps = g.slice(taps, 1, 0, length)
        skip = g.constant(module.D, f"{name}.D")
        powers = g("Concat", w_re, w_im, axis=1)
        return cls(len(module.D), module.state_size, taps, skip, powers, read)


def ssm(
    g: Graph, u: str, blocks: Blocks, directions: list[Operators], state: str | None
) -> tuple[str, str | None]:
    """SSMs of one or both directions, in the chunked form.

    Within a block it is a product with a Toeplitz matrix; a Scan carries the states from block to
    block. No memory is quadratic in T, and no FFT is needed.

    Args:
        g: the graph.
        u: (batch, T, channels).
        blocks: of the frames.
        directions: forward, and backward where there is one.
        state: (batch, channels, 2 N) of a stream, forward only.

    Returns:
        (batch, T, channels), and the next state of a stream.
    """
    length, channels = blocks.length, directions[0].channels
    n_empty = g("Sub", g("Mul", blocks.n_blocks, [length]), blocks.n_frames)
    padded = g("Pad", u, g.shape(0, 0, 0, 0, n_empty, 0))
    by_channel = g("Transpose", padded, perm=[2, 0, 1])
    rows = g("Reshape", by_channel, [channels, -1, length])
    product = g("MatMul", rows, g("Concat", *_write_in(g, directions, length), axis=2))
    sizes = [length, *[2 * directions[0].n_modes] * len(directions)]
    within, *written = g("Split", product, sizes, axis=2, outputs=len(sizes))

    before = _carry(g, written, directions, blocks, state)
    reads = [g.slice(directions[0].read, 2, 1, length + 1)]
    if len(directions) == 2:
        reads.append(g.slice(directions[1].read, 2, length - 1, -END, -1))
    states, read = (
        parts[0] if len(parts) == 1 else g("Concat", *parts, axis=axis)
        for parts, axis in ((before, 2), (reads, 1))
    )
    y = g("Add", within, g("MatMul", states, read))
    y = g("Reshape", y, g.shape(channels, blocks.batch, -1))
    y = g.slice(g("Transpose", y, perm=[1, 2, 0]), 1, 0, blocks.n_frames)
    y = g("Add", y, g("Mul", u, directions[0].skip))
    if len(directions) == 2:
        # The backward SSM begins with the next frame.
        following = g("Pad", u, [0, -1, 0, 0, 1, 0])
        y = g("Add", y, g("Mul", following, directions[1].skip))
    if state is None:
        return y, None
    return y, _state_after(g, by_channel, before[0], directions[0], blocks)


def _write_in(g: Graph, directions: list[Operators], length: int) -> list[str]:
    """(C, L, L), the Toeplitz matrix, and (C, L, 2 N) of each direction: what a block's frames
    add to the state after the block (forward) or before it (backward)."""
    forward = directions[0]
    future: str | np.ndarray | None
    if len(directions) == 2:
        # Its first tap is for the frame before.
        future = g.slice(directions[1].taps, 1, length - 2, -END, -1) if length > 1 else None
    else:
        future = np.zeros((forward.channels, length - 1), np.float32) if length > 1 else None
    taps = g("Concat", *([] if future is None else [future]), forward.taps, axis=1)
    frames = g.constant(np.arange(length))
    lag = g("Sub", g("Add", frames, length - 1), g("Unsqueeze", frames, [1]))
    parts = [g("Gather", taps, lag, axis=1)]
    for i, operators in enumerate(directions):
        powers = operators.powers
        ordered = g.slice(powers, 2, 0, length) if i else g.slice(powers, 2, length - 1, -END, -1)
        parts.append(g("Transpose", ordered, perm=[0, 2, 1]))
    return parts


def _carry(
    g: Graph, written: list[str], directions: list[Operators], blocks: Blocks, state: str | None
) -> list[str]:
    """The states that each block starts from: (C, batch * blocks, 2 N) of each direction.

    A Scan over the blocks runs both directions at once, each from its own end.
    """
    channels, both = directions[0].channels, len(directions) == 2
    inputs = []
    for x in written:
        x = g("Reshape", x, g.shape(channels, blocks.batch, blocks.n_blocks, -1))
        inputs.append(g("Transpose", x, perm=[2, 0, 1, 3]))
    n_modes = directions[0].n_modes
    if state is None:
        shape = g.shape(channels, blocks.batch, 2 * n_modes * len(directions))
        initial = g("ConstantOfShape", shape)
    else:
        initial = g("Transpose", state, perm=[1, 0, 2])
    # (w s) = w_re s + w_im (i s), with i (s_re, s_im) = (-s_im, s_re).
    halves = [_decay(g, operators, blocks.length) for operators in directions]
    w_re, w_im = (
        parts[0] if len(parts) == 1 else g("Concat", *parts, axis=2)
        for parts in zip(*halves, strict=True)
    )

    body = Graph(prefix=f"{initial}/")
    start, *taken = (body.name() for _ in range(1 + len(directions)))
    x = body("Concat", *taken, axis=2) if both else taken[0]
    # Sizes are told, since onnxruntime takes equal splits into 2 and into 4 for one.
    sizes = [n_modes] * 2 * len(directions)
    parts = body("Split", start, sizes, axis=2, outputs=len(sizes))
    turned = []
    for re, im in zip(parts[::2], parts[1::2], strict=True):
        turned += [body("Neg", im), re]
    turned = body("Concat", *turned, axis=2)
    decayed = body("Add", body("Mul", start, w_re), body("Mul", turned, w_im))
    new = body("Add", decayed, x)
    if both:
        befores = body("Split", start, [2 * n_modes] * 2, axis=2, outputs=2)
    else:
        befores = [body("Identity", start)]
    loop = body.body("carry", [start, *taken], [new, *befores])
    _, *before = g(
        "Scan",
        initial,
        *inputs,
        outputs=1 + len(directions),
        body=loop,
        num_scan_inputs=len(inputs),
        scan_input_directions=[0, 1][: len(inputs)],
        scan_output_directions=[0, 1][: len(inputs)],
    )
    shape = g.shape(channels, g("Mul", blocks.batch, blocks.n_blocks), 2 * n_modes)
    return [g("Reshape", g("Transpose", s, perm=[1, 2, 0, 3]), shape) for s in before]


def _decay(g: Graph, operators: Operators, length: int) -> tuple[str, str]:
    """Real and imaginary parts of w^length, each twice: (C, 1, 2 N)."""
    w = g("Transpose", g("Gather", operators.powers, [length], axis=2), perm=[0, 2, 1])
    w_re, w_im = g("Split", w, axis=2, outputs=2)
    return g("Concat", w_re, w_re, axis=2), g("Concat", w_im, w_im, axis=2)


def _state_after(
    g: Graph, by_channel: str, before: str, operators: Operators, blocks: Blocks
) -> str:
    """(batch, C, 2 N) after the last frame, which lies r frames into the last block."""
    length = blocks.length
    r = g("Mod", blocks.n_frames, [length])
    states = g("Reshape", before, g.shape(operators.channels, blocks.batch, blocks.n_blocks, -1))
    last = g("Squeeze", g.slice(states, 2, -1, END), [2])
    w = g("Transpose", g("Gather", operators.powers, r, axis=2), perm=[0, 2, 1])
    w_re, w_im = g("Split", w, axis=2, outputs=2)
    s_re, s_im = g("Split", last, axis=2, outputs=2)
    carried = g(
        "Concat",
        g("Sub", g("Mul", s_re, w_re), g("Mul", s_im, w_im)),
        g("Add", g("Mul", s_re, w_im), g("Mul", s_im, w_re)),
        axis=2,
    )
    # Frame j of the last block meets w^(r - 1 - j); from r on, there are zeros.
    block = g.slice(by_channel, 2, g("Sub", blocks.n_frames, r), END)
    exponent = g("Max", g("Sub", r, np.arange(1, length + 1)), 0)
    powers = g("Gather", operators.powers, exponent, axis=2)
    written = g("MatMul", block, g("Transpose", powers, perm=[0, 2, 1]))
    return g("Transpose", g("Add", carried, written), perm=[1, 0, 2])
