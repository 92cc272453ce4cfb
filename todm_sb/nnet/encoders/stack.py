"""A stack of elastic layers, any subset of them and each at its own choice of every dimension, and
the encoders that are made of one."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from torch import Tensor, nn

from todm_sb.nnet.elastic import copy_with
from todm_sb.nnet.sizes import n_bytes, n_parameters
from todm_sb.space import SubnetConfig
from todm_sb.space.dimensions import FFN
from todm_sb.utils.schema import Check, flag, integer, mapping, nullable, number, one_of, sequence

Self = TypeVar("Self", bound="StackedEncoder")

WIDTH = integer(1, FFN.largest)


def check_stacked(kind: str, own: Mapping[str, Check]) -> Check:
    """Check of what an encoder of convolutional subsampling and elastic feed-forward layers can be
    asked for, also by a bundle, which may come from a stranger.

    Args:
        kind: its name in the registry.
        own: checks of the arguments that not all such encoders have; each can be left out.
    """
    return mapping(
        {"n_features": integer(1, 1024), "d_model": WIDTH, FFN.key: sequence(WIDTH, 1, 128)},
        {
            "kind": one_of(kind),
            **own,
            "dropout": number(0, 1),
            "adaptive_dropout": flag,
            "dropout_width": nullable(WIDTH),
            "channels": sequence(integer(1, 4096), 1, 8),
            "time_strides": sequence(integer(1, 64), 1, 8),
        },
    )


class ElasticLayer(Protocol):
    """What a layer of a :class:`LayerStack` can be asked; choices are named as dimensions are."""

    def extract(self, **choices: int) -> nn.Module:
        """A standalone layer of this choice, equal in outputs."""

    def macs(self, n_frames: int, **choices: int) -> int:
        """Multiply-accumulates of so many frames."""


class LayerStack(nn.ModuleList):
    """The layers of an encoder; everything of them that depends on a subnet, but running them.

    Args:
        layers: see :class:`ElasticLayer`.

    Raises:
        TypeError: if one is none.
    """

    def __init__(self, layers: Iterable[nn.Module] = ()) -> None:
        super().__init__(layers)
        for layer in self:
            for name in ("extract", "macs"):
                if not callable(getattr(layer, name, None)):
                    raise TypeError(f"{type(layer).__name__}, a layer of it, lacks {name}")

    if TYPE_CHECKING:  # a layer has methods that nn.Module does not declare

        def __getitem__(self, index: Any) -> Any: ...
        def __iter__(self) -> Iterator[Any]: ...

    def active(self, subnet: SubnetConfig | None = None) -> Iterator[tuple[int, dict[str, int]]]:
        """Index and choices of each layer of a subnet; of all layers, at their largest, if None.

        Raises:
            IndexError: if the subnet names a layer that does not exist.
        """
        for i, choices in subnet.active() if subnet else ((i, {}) for i in range(len(self))):
            if i >= len(self):
                raise IndexError(f"subnet has layer {i}, the encoder {len(self)} layers")
            yield i, choices

    def extract(self, subnet: SubnetConfig) -> LayerStack:
        """The layers of a subnet, each cut to its choices; nothing is shared."""
        layers = LayerStack(self[i].extract(**choices) for i, choices in self.active(subnet))
        layers.training = self.training
        return layers

    def n_parameters(self, subnet: SubnetConfig | None = None) -> int:
        """Parameters of :meth:`extract`, exactly."""
        return self._sum(subnet, "parameters", n_parameters)

    def n_bytes(self, subnet: SubnetConfig | None = None, dtype: str = "float32") -> int:
        """Bytes of the weights of :meth:`extract`; see :func:`todm_sb.nnet.sizes.n_bytes`."""
        return self._sum(subnet, dtype, lambda layer: n_bytes(layer, dtype))

    def macs(self, n_frames: int, subnet: SubnetConfig | None = None) -> int:
        """Multiply-accumulates of so many frames."""
        return sum(self[i].macs(n_frames, **choices) for i, choices in self.active(subnet))

    def _sum(self, subnet: SubnetConfig | None, what: str, size: Callable[[nn.Module], int]) -> int:
        """A size added up over a subnet's layers; each layer at each choice is cut out once, and
        of its shape alone."""
        known = self.__dict__.setdefault("_known", {})
        total = 0
        for i, choices in self.active(subnet):
            key = (what, i, *choices.items())
            if key not in known:
                known[key] = size(copy.deepcopy(self[i]).to("meta").extract(**choices))
            total += known[key]
        return total


class StackedEncoder(nn.Module, ABC):
    """What encoders have in common that subsample frames, then run a :class:`LayerStack`.

    A subclass that sets the attributes below and defines ``dimensions`` and ``encode`` is an
    :class:`todm_sb.nnet.encoders.Encoder`. All parameters lie in modules; those besides ``layers``
    are part of every subnet.

    Attributes:
        kind, config, modes, n_features, d_model: see :class:`todm_sb.nnet.encoders.Encoder`.
        subsampling: see :class:`todm_sb.nnet.subsampling.ConvSubsampling`.
        layers: the elastic part.
    """

    kind: ClassVar[str]
    config: dict[str, Any]
    modes: tuple[bool, ...] = (False,)
    n_features: int
    d_model: int
    subsampling: Any
    layers: LayerStack

    def built_with(self, arguments: Mapping[str, Any]) -> None:
        """Keeps what it is built with, as plain types: sets ``config`` and the two widths.

        Args:
            arguments: ``locals()`` of ``__init__`` before it has any of its own.
        """
        own = {k: v for k, v in arguments.items() if k not in ("self", "__class__")}
        plain = {k: list(v) if isinstance(v, (list, tuple)) else v for k, v in own.items()}
        self.config = {"kind": self.kind, **plain}
        self.n_features, self.d_model = own["n_features"], own["d_model"]

    @property
    @abstractmethod
    def dimensions(self) -> Mapping[str, tuple[int, ...]]:
        """For each elastic dimension that it obeys, by key, the largest choice of each layer."""

    def n_frames(self, n_features: Any) -> Any:
        """Encoder frames of utterances of so many feature frames, integers or a tensor."""
        return self.subsampling.output_lengths(n_features)

    def shared(self, n_frames: int, causal: bool = False) -> tuple[Tensor, ...]:
        """What all subnets of a step share besides frames: nothing."""
        return ()

    def shareable(self, n_frames: int) -> int:
        """The most frames for which :meth:`shared` serves batches of ``n_frames`` as well: what is
        shared is taken to be of one number of frames."""
        return n_frames

    @abstractmethod
    def encode(
        self,
        frames: Tensor,
        lengths: Tensor,
        subnet: SubnetConfig | None = None,
        shared: tuple[Tensor, ...] | None = None,
        causal: bool = False,
    ) -> Tensor:
        """The elastic part; see :meth:`todm_sb.nnet.encoders.Encoder.encode`."""

    def forward(
        self,
        features: Tensor,
        lengths: Tensor,
        subnet: SubnetConfig | None = None,
        causal: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Encodes a batch.

        Args:
            features: (batch, T, n_features).
            lengths: (batch,), integer feature frames of each utterance.
            subnet: None for the max subnet.
            causal: run a dual-mode network as a causal one.

        Returns:
            (batch, T', d_model), exactly zero on padded frames, and the lengths in frames T'.
        """
        frames, lengths = self.subsampling(features, lengths)
        return self.encode(frames, lengths, subnet, causal=causal), lengths

    def extract(self: Self, subnet: SubnetConfig) -> Self:
        """A plain, smaller encoder with the outputs that this one has under a subnet; its config
        has the sizes that the subnet chose, layer by layer, or the one number that all had."""
        small = copy_with(self, {self.layers: self.layers.extract(subnet)})
        for key, sizes in small.dimensions.items():
            if any(size != self.config[key] for size in sizes):
                small.config[key] = list(sizes)
        return small

    def n_parameters(self, subnet: SubnetConfig | None = None) -> int:
        """Parameters of the subnet, exactly."""
        return sum(map(n_parameters, self._rest())) + self.layers.n_parameters(subnet)

    def n_bytes(self, subnet: SubnetConfig | None = None, dtype: str = "float32") -> int:
        """Bytes of the subnet's weights; see :func:`todm_sb.nnet.sizes.n_bytes`."""
        rest = sum(n_bytes(part, dtype) for part in self._rest())
        return rest + self.layers.n_bytes(subnet, dtype)

    def macs(self, n_features: int, subnet: SubnetConfig | None = None) -> int:
        """Multiply-accumulates of an utterance of so many feature frames."""
        layers = self.layers.macs(self.n_frames(n_features), subnet)
        return self.subsampling.macs(n_features) + layers

    def _rest(self) -> list[nn.Module]:
        return [part for name, part in self.named_children() if name != "layers"]
