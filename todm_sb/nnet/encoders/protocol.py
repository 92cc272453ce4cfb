"""What the rest of the package may ask of an encoder; nobody looks inside one.

A backbone of one's own is a class that fulfils :class:`Encoder`, entered under a name with
:func:`todm_sb.nnet.encoders.register`. What only some can do is a protocol of its own: who needs it
asks for it with a function that refuses the others by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor, nn

from todm_sb.nnet.ssm import DiagonalSSM
from todm_sb.nnet.subsampling import ConvSubsampling
from todm_sb.space import DIMENSIONS, SearchSpace, SubnetConfig
from todm_sb.utils.errors import ConfigError


@runtime_checkable
class Encoder(Protocol):
    """From feature frames to encoder frames, elastic in depth and whatever else it obeys.

    A supernet and a network cut out of it are of the same class. The active subnet is an argument,
    never state; None is the max subnet.

    Attributes:
        kind: its name in the registry.
        config: what it was built with, plain types: the same shape can be built from it again.
        n_features: feature bins a frame.
        d_model: width of the output.
        modes: what ``causal`` can be; first the mode that is meant when none is asked for.
        dimensions: for each elastic dimension that it obeys, by key, the largest choice of each
            layer. Depth is obeyed by all.
        layers: one module for each layer that a subnet can have or leave out.
    """

    kind: ClassVar[str]
    config: dict[str, Any]
    n_features: int
    d_model: int
    modes: tuple[bool, ...]
    layers: nn.ModuleList

    @property
    def dimensions(self) -> Mapping[str, tuple[int, ...]]:
        """By key, the largest choice of each layer."""

    def subsampling(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, T, n_features), (batch,) integer frames -> (batch, T', d_model), (batch,).

        Padded frames hold no meaning. All subnets share the result.
        """

    def n_frames(self, n_features: Any) -> Any:
        """Encoder frames of utterances of so many feature frames, integers or a tensor."""

    def shared(self, n_frames: int, causal: bool = False) -> tuple[Tensor, ...]:
        """What all subnets of a step share besides frames, for batches of so many frames; opaque.
        Gradients flow through it."""

    def shareable(self, n_frames: int) -> int:
        """The most frames for which :meth:`shared` serves batches of ``n_frames`` as well."""

    def encode(
        self,
        frames: Tensor,
        lengths: Tensor,
        subnet: SubnetConfig | None = None,
        shared: tuple[Tensor, ...] | None = None,
        causal: bool = False,
    ) -> Tensor:
        """The elastic part: everything after subsampling.

        Args:
            frames: (batch, T', d_model), subsampled frames; padded ones hold no meaning, and no
                other depends on them.
            lengths: (batch,), integer frames of each utterance.
            subnet: None for the max subnet.
            shared: what :meth:`shared` returned for this mode and T' frames or more (a part of
                a batch can be shorter than the whole), or None to compute what is needed.
            causal: run a dual-mode network as a causal one.

        Returns:
            (batch, T', d_model), exactly zero on padded frames.

        Raises:
            IndexError: if the subnet names a layer that does not exist.
        """

    def __call__(
        self,
        features: Tensor,
        lengths: Tensor,
        subnet: SubnetConfig | None = None,
        causal: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """:meth:`subsampling`, then :meth:`encode`: frames and their lengths."""

    def extract(self, subnet: SubnetConfig) -> Encoder:
        """A plain, smaller encoder, equal in outputs; it shares nothing with this one."""

    def n_parameters(self, subnet: SubnetConfig | None = None) -> int:
        """Parameters of :meth:`extract`, exactly."""

    def n_bytes(self, subnet: SubnetConfig | None = None, dtype: str = "float32") -> int:
        """Bytes of its weights; see :func:`todm_sb.nnet.sizes.n_bytes`."""

    def macs(self, n_features: int, subnet: SubnetConfig | None = None) -> int:
        """Multiply-accumulates of an utterance of so many feature frames."""


@runtime_checkable
class DualMode(Protocol):
    """An encoder with a causal mode besides another one."""

    def causal_form(self) -> Encoder:
        """The causal mode as an encoder of its own, without what that leaves out."""


@runtime_checkable
class Streaming(Protocol):
    """An encoder that can run chunk by chunk; any chunking gives the same frames."""

    @property
    def look_ahead(self) -> int:
        """Feature frames after its own that an output frame depends on."""

    def initial_state(self, batch: int) -> Any:
        """What :meth:`chunk` starts from; every tensor in it has the batch first."""

    def operators(self) -> Any:
        """What all chunks of all streams share."""

    def chunk(
        self, features: Tensor, state: Any, lengths: Tensor, operators: Any = None
    ) -> tuple[Tensor, Tensor, Any]:
        """(batch, L, n_features), any L -> (batch, n, d_model), lengths (batch,), next state."""


class OnnxLayers(Protocol):
    """Adds layers to an ONNX graph, in which values are known by their names.

    Weights are named by ``name``. See :mod:`todm_sb.export.onnx_layers`, which has it.
    """

    def add(self, x: str, y: str) -> str:
        """Their sum."""

    def silu(self, x: str) -> str:
        """x sigmoid(x)"""

    def linear(self, x: str, module: nn.Linear, name: str) -> str:
        """Over the last axis."""

    def layer_norm(self, x: str, module: nn.LayerNorm, name: str) -> str:
        """Over the last axis."""

    def ssms(
        self,
        x: str,
        directions: Sequence[Iterable[DiagonalSSM]],
        name: str,
        states: list[str] | None = None,
    ) -> tuple[str, list[str]]:
        """Stacked SSMs on (batch, T, channels), padded frames silenced, a GELU between two.

        Args:
            x: frames.
            directions: the forward SSMs, and the backward ones where there are any.
            name: of the weights.
            states: for a stream, those of each of the forward SSMs.

        Returns:
            Frames, and for a stream the next states.
        """

    def gate(self, x: str) -> str:
        """(batch, T, 2 channels) -> (batch, T, channels): the first half, times the second's
        GELU."""


@runtime_checkable
class OnnxForm(Protocol):
    """An encoder of convolutional subsampling that can be exported to ONNX.

    One that is causal has a streaming form, too, whose state is that of :class:`Streaming`, with
    ``layers``: the states of each layer's SSMs.
    """

    @property
    def subsampling(self) -> ConvSubsampling:
        """What comes before :meth:`to_onnx`."""

    def to_onnx(
        self, build: OnnxLayers, x: str, states: Sequence[list[str]] | None = None
    ) -> tuple[str, list[list[str]]]:
        """Adds what :meth:`Encoder.encode` computes of all layers.

        Args:
            build: the graph.
            x: (batch, T', d_model), subsampled frames.
            states: for a stream, those of each layer.

        Returns:
            Frames (batch, T', d_model), of any value where they are padded, and for a stream the
            next states.
        """


def onnx_form(encoder: Encoder) -> OnnxForm:
    """The encoder, as one that can be exported to ONNX.

    Raises:
        ConfigError: if it cannot.
    """
    if not isinstance(encoder, OnnxForm):
        raise ConfigError(f"encoders of the kind {encoder.kind} cannot be exported to ONNX")
    return encoder


def causal_form(encoder: Encoder) -> Encoder:
    """An encoder that is causal, as streams need it: this one, or its causal mode alone.

    Raises:
        ConfigError: if it needs whole utterances.
    """
    if encoder.modes == (True,):
        return encoder
    if True not in encoder.modes or not isinstance(encoder, DualMode):
        raise ConfigError(
            f"this encoder ({encoder.kind}) needs whole utterances: train one that is causal or "
            "dual_mode"
        )
    return encoder.causal_form()


def streaming(encoder: Encoder) -> Streaming:
    """The encoder, as one that runs chunk by chunk.

    Raises:
        ConfigError: if it cannot.
    """
    if encoder.modes != (True,):
        raise ConfigError(f"this encoder ({encoder.kind}) is not causal and cannot stream")
    if not isinstance(encoder, Streaming):
        raise ConfigError(f"encoders of the kind {encoder.kind} cannot run chunk by chunk")
    return encoder


def check_space(space: SearchSpace, encoder: Encoder) -> None:
    """Makes sure that an encoder is the max subnet of a space and obeys its dimensions.

    Raises:
        ConfigError: if not, naming the dimension and both sizes.
    """
    if len(encoder.layers) != space.n_layers:
        raise ConfigError(
            f"the network has {len(encoder.layers)} layers, the max subnet of its search space "
            f"{space.n_layers}"
        )
    for key, sizes in space.sizes.items():
        if key not in encoder.dimensions:
            raise ConfigError(
                f"search space: encoders of the kind {encoder.kind} are not elastic in {key}, "
                f"only in depth and {', '.join(encoder.dimensions)}: leave it out"
            )
        if list(encoder.dimensions[key]) != sizes:
            raise ConfigError(
                f"the network has {DIMENSIONS[key].label} {list(encoder.dimensions[key])}, the max "
                f"subnet of its search space {sizes}"
            )
