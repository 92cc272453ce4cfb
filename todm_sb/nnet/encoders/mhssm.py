"""The MH-SSM encoder, elastic in depth, FFN width and SSM heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from todm_sb.nnet.block_operators import BLOCK, BlockOperators
from todm_sb.nnet.dropout import dropout
from todm_sb.nnet.elastic import ElasticFFN, copy_with
from todm_sb.nnet.encoders.protocol import OnnxLayers
from todm_sb.nnet.encoders.registry import register
from todm_sb.nnet.encoders.stack import WIDTH, LayerStack, StackedEncoder, check_stacked
from todm_sb.nnet.fft_convolution import longest_of_size
from todm_sb.nnet.masking import frame_mask
from todm_sb.nnet.ssm import MultiHeadSSM, spectra_of
from todm_sb.nnet.subsampling import ConvSubsampling
from todm_sb.space import SubnetConfig
from todm_sb.space.dimensions import FFN, HEADS
from todm_sb.utils.schema import either, flag, integer, nullable, number, sequence

_HEADS = integer(2, HEADS.largest)

check_arguments = check_stacked(
    "mhssm",
    {
        HEADS.key: either(_HEADS, sequence(_HEADS, 1, 128)),
        "head_dim": nullable(WIDTH),
        "d_inner": nullable(WIDTH),
        "state_size": integer(1, 1024),
        "n_stack": integer(1, 8),
        "dt_range": sequence(number(1e-9, 1e3), 2, 2),
        "spread": number(0, 1),
        "causal": flag,
        "look_ahead": integer(0, 64),
        "dual_mode": flag,
    },
)


class MHSSMLayer(nn.Module):
    """One encoder block: pre-norm MH-SSM and pre-norm elastic FFN, each with a residual.

    Choices are named as elastic dimensions are: ``ffn_dims`` hidden units, ``n_heads`` SSM heads.

    Args:
        ssm: mixes frames.
        ffn: mixes channels.
        d_model: width of input and output.
        dropout: probability on the SSM branch; the FFN has its own, adaptive one.
    """

    def __init__(
        self, ssm: MultiHeadSSM, ffn: ElasticFFN, d_model: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm_ssm = nn.LayerNorm(d_model)
        self.ssm = ssm
        self.norm_ffn = nn.LayerNorm(d_model)
        self.ffn = ffn
        self.dropout = dropout

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        spectra: Sequence[Tensor] | None = None,
        causal: bool = False,
        ffn_dims: int | None = None,
        n_heads: int | None = None,
    ) -> Tensor:
        """(batch, T, d_model) -> (batch, T, d_model); arguments as of the two sublayers."""
        y = self.ssm(self.norm_ssm(x), mask, spectra, causal, n_heads)
        x = x + dropout(y, self.dropout, self.training)
        return x + self.ffn(self.norm_ffn(x), ffn_dims)

    def extract(self, ffn_dims: int | None = None, n_heads: int | None = None) -> MHSSMLayer:
        """A standalone layer of this choice, equal in outputs."""
        parts = {self.ffn: self.ffn.extract(ffn_dims), self.ssm: self.ssm.extract(n_heads)}
        return copy_with(self, parts)

    def macs(self, n_frames: int, ffn_dims: int | None = None, n_heads: int | None = None) -> int:
        """Multiply-accumulates of so many frames."""
        return self.ssm.macs(n_frames, n_heads) + self.ffn.macs(n_frames, ffn_dims)

    def chunk(
        self,
        x: Tensor,
        state: list[Tensor],
        operators: list[BlockOperators] | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """The same block chunk by chunk; see :meth:`MultiHeadSSM.chunk`."""
        y, state = self.ssm.chunk(self.norm_ssm(x), state, operators)
        x = x + y
        return x + self.ffn(self.norm_ffn(x)), state


class EncoderState(NamedTuple):
    """What the chunked form carries from chunk to chunk; every tensor has the batch first.

    Args:
        subsampling: see :meth:`ConvSubsampling.initial_state`.
        layers: see :meth:`MultiHeadSSM.initial_state`, of each layer.
    """

    subsampling: tuple[Tensor, ...]
    layers: list[list[Tensor]]


def _head_dim(d_inner: int, n_heads: int) -> int:
    """Channels of a head, if the heads are to have so many together."""
    if d_inner % n_heads:
        raise ValueError(f"d_inner ({d_inner}) must be a multiple of heads ({n_heads})")
    return d_inner // n_heads


@register("mhssm", check_arguments)
class MHSSMEncoder(StackedEncoder):
    """Convolutional subsampling and a stack of MH-SSM blocks.

    It is a :class:`todm_sb.nnet.encoders.Encoder`, can run chunk by chunk where it is causal, and
    in two modes.

    Args:
        n_features: feature bins a frame.
        d_model: width of the residual stream.
        ffn_dims: FFN width of each layer (of the largest subnet); its length is the depth.
        n_heads: SSM heads, or, where subnets can have fewer, those of each layer: then every
            leading part of the heads spans local to global context.
        head_dim: channels of a head; those of ``d_inner`` over ``n_heads`` when None.
        d_inner, state_size, n_stack, dt_range, spread: see :class:`MultiHeadSSM`.
        causal: see no future frame (for streaming), but for ``look_ahead``.
        look_ahead: see :class:`ConvSubsampling`.
        dual_mode: see the whole utterance, or run as a causal network, which leaves the backward
            SSMs out (after Yu et al. 2021, arXiv:2010.06030). Subsampling is causal in both modes.
        dropout: probability at full width.
        adaptive_dropout: see :class:`ElasticFFN`.
        dropout_width: see :class:`ElasticFFN`; the largest of ``ffn_dims`` when None.
        channels, time_strides: see :class:`ConvSubsampling`.

    Raises:
        ValueError: if it is to be both ``causal`` and ``dual_mode``, or a part refuses its sizes.
    """

    def __init__(
        self,
        n_features: int,
        d_model: int,
        ffn_dims: Sequence[int],
        n_heads: int | Sequence[int] = 8,
        head_dim: int | None = None,
        d_inner: int | None = None,
        state_size: int = 16,
        n_stack: int = 1,
        dt_range: tuple[float, float] = (0.005, 0.5),
        causal: bool = False,
        look_ahead: int = 0,
        dual_mode: bool = False,
        dropout: float = 0.0,
        adaptive_dropout: bool = True,
        dropout_width: int | None = None,
        channels: tuple[int, ...] = (32, 32),
        time_strides: tuple[int, ...] = (2, 2),
        spread: float = 0.0,
    ) -> None:
        super().__init__()
        self.built_with(locals())
        if causal and dual_mode:
            raise ValueError("a causal network has no dual_mode: set one of them")
        # What ``causal`` can be in forward and encode; first the mode that is meant by default.
        self.modes = (False, True) if dual_mode else (causal,)
        elastic = not isinstance(n_heads, int)
        heads = [n_heads] * len(ffn_dims) if isinstance(n_heads, int) else list(n_heads)
        if len(heads) != len(ffn_dims):
            raise ValueError(f"{len(ffn_dims)} layers but n_heads of {len(heads)}")
        head_dim = head_dim or _head_dim(d_inner or 2 * d_model, max(heads))
        dropout_width = dropout_width or max(ffn_dims)
        self.subsampling = ConvSubsampling(
            n_features, d_model, channels, time_strides, causal or dual_mode, look_ahead
        )
        self.layers = LayerStack(
            MHSSMLayer(
                MultiHeadSSM(
                    d_model,
                    n,
                    n * head_dim,
                    state_size,
                    not causal,
                    n_stack,
                    dt_range,
                    elastic,
                    spread,
                ),
                ElasticFFN(d_model, width, dropout, adaptive_dropout, dropout_width),
                d_model,
                dropout,
            )
            for width, n in zip(ffn_dims, heads, strict=True)
        )
        self.norm = nn.LayerNorm(d_model)

    @property
    def dimensions(self) -> dict[str, tuple[int, ...]]:
        """The largest choice of each layer by dimension."""
        return {
            FFN.key: tuple(layer.ffn.d_hidden for layer in self.layers),
            HEADS.key: tuple(layer.ssm.n_heads for layer in self.layers),
        }

    def shared(self, n_frames: int, causal: bool = False) -> tuple[Tensor, ...]:
        """SSM kernel spectra of every layer, to be shared by the subnets of a step.

        Args:
            n_frames: frames after subsampling.
            causal: run a dual-mode network as a causal one.

        Returns:
            Of each layer ``n_stack`` complex tensors (d_inner, bins); see
            :meth:`MultiHeadSSM.spectra`.
        """
        return tuple(spectra_of([layer.ssm for layer in self.layers], n_frames, causal))

    def shareable(self, n_frames: int) -> int:
        """The most frames whose spectra are of the same size: those of more frames serve fewer."""
        return longest_of_size(n_frames)

    def encode(
        self,
        frames: Tensor,
        lengths: Tensor,
        subnet: SubnetConfig | None = None,
        shared: tuple[Tensor, ...] | None = None,
        causal: bool = False,
    ) -> Tensor:
        """The elastic part; see :meth:`todm_sb.nnet.encoders.Encoder.encode`. Where ``shared`` is
        given, it and not ``causal`` tells the mode."""
        mask = frame_mask(lengths, frames.shape[1], self.norm.weight.dtype)
        # Under autocast, on each device: the residual stream in the weights' precision.
        x = frames.to(self.norm.weight.dtype)
        for i, choices in self.layers.active(subnet):
            layer = self.layers[i]
            n = len(layer.ssm.forward_ssms)
            spectra = shared and shared[i * n : (i + 1) * n]
            x = layer(x, mask, spectra, causal, **choices)
        return self.norm(x) * mask

    def extract(self, subnet: SubnetConfig) -> MHSSMEncoder:
        """A plain, smaller encoder with the outputs that this one has under a subnet."""
        small = super().extract(subnet)
        small.config["dropout_width"] = self.layers[0].ffn.dropout_width
        if not isinstance(small.config[HEADS.key], int):
            ssm = self.layers[0].ssm
            head_dim = ssm.w_in.out_features // ssm.n_heads
            small.config["head_dim"] = head_dim
        return small

    def causal_form(self) -> MHSSMEncoder:
        """The causal mode of a dual-mode encoder, without the backward SSMs."""
        small = MHSSMEncoder(**self._arguments(causal=True, dual_mode=False))
        weights = self.state_dict()
        small.load_state_dict({name: weights[name] for name in small.state_dict()})
        return small.to(self.norm.weight).train(self.training)

    def _arguments(self, **changes: Any) -> dict[str, Any]:
        return {**{k: v for k, v in self.config.items() if k != "kind"}, **changes}

    # Chunk by chunk

    @property
    def look_ahead(self) -> int:
        """Feature frames after its own that an output frame depends on."""
        return self.subsampling.look_ahead

    def initial_state(self, batch: int) -> EncoderState:
        """What :meth:`chunk` starts from."""
        return EncoderState(
            self.subsampling.initial_state(batch),
            [layer.ssm.initial_state(batch) for layer in self.layers],
        )

    def operators(self, length: int = BLOCK) -> list[list[BlockOperators]]:
        """What :meth:`chunk` needs of every layer, to be shared by all chunks of all streams.

        Args:
            length: frames after subsampling that are computed at once.
        """
        return [layer.ssm.block_operators(length) for layer in self.layers]

    def chunk(
        self,
        features: Tensor,
        state: EncoderState,
        lengths: Tensor,
        operators: list[list[BlockOperators]] | None = None,
    ) -> tuple[Tensor, Tensor, EncoderState]:
        """The same map for a causal network, chunk by chunk: any chunking gives the same frames.

        Args:
            features: (batch, L, n_features), any number L of frames.
            state: what the last call, or :meth:`initial_state`, returned.
            lengths: see :meth:`ConvSubsampling.chunk`.
            operators: what :meth:`operators` returned, or None to compute it, which takes
                most of the time of a short chunk.

        Returns:
            New frames (batch, n, d_model), n of any size or none, exactly zero after a stream's
            end; how many of them are each stream's (batch,); and the next state.

        Raises:
            ValueError: if the network is bidirectional, since it would need the future.
        """
        x, lengths, subsampling = self.subsampling.chunk(features, state.subsampling, lengths)
        layers = state.layers
        if x.shape[1]:
            layers = []
            for i, (layer, s) in enumerate(zip(self.layers, state.layers, strict=True)):
                x, s = layer.chunk(x, s, operators and operators[i])
                layers.append(s)
        mask = frame_mask(lengths, x.shape[1], self.norm.weight.dtype)
        return self.norm(x) * mask, lengths, EncoderState(subsampling, layers)

    # In ONNX

    def to_onnx(
        self, build: OnnxLayers, x: str, states: Sequence[list[str]] | None = None
    ) -> tuple[str, list[list[str]]]:
        """The layers as ONNX nodes; see :class:`todm_sb.nnet.encoders.OnnxForm`."""
        next_states = []
        for i, layer in enumerate(self.layers):
            name, ssm = f"layers.{i}", layer.ssm
            directions = [ssm.forward_ssms]
            if ssm.backward_ssms is not None:
                directions.append(ssm.backward_ssms)
            y = build.layer_norm(x, layer.norm_ssm, f"{name}.norm_ssm")
            y = build.linear(y, ssm.w_in, f"{name}.ssm.w_in")
            before = None if states is None else states[i]
            y, state = build.ssms(y, directions, f"{name}.ssm", before)
            y = build.linear(build.gate(y), ssm.w_out, f"{name}.ssm.w_out")
            next_states.append(state)
            x = build.add(x, y)
            y = build.layer_norm(x, layer.norm_ffn, f"{name}.norm_ffn")
            y = build.silu(build.linear(y, layer.ffn.w_1, f"{name}.ffn.w_1"))
            x = build.add(x, build.linear(y, layer.ffn.w_2, f"{name}.ffn.w_2"))
        return build.layer_norm(x, self.norm, "norm"), next_states
