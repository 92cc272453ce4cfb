"""Encoders by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from todm_sb.nnet.encoders.protocol import Encoder
from todm_sb.nnet.kinds import arguments_of, own_arguments
from todm_sb.utils.errors import ConfigError, quoted
from todm_sb.utils.own_modules import import_own

# Of recipes and bundles that name none.
DEFAULT = "mhssm"

# What makes another network of it: a kind without them must not take them for tuning.
_PROMISES = ("causal", "dual_mode")


@dataclass(frozen=True)
class Kind:
    """A kind of encoder.

    Args:
        build: its class.
        check: refuses arguments, which may come from a stranger, that are not plain or out of any
            reasonable range; takes them and their place, e.g. ``network.encoder``. None where
            bundles cannot hold it.
    """

    build: Callable[..., Encoder]
    check: Callable[[Any, str], None] | None = None


KINDS: dict[str, Kind] = {}


def register(name: str, check: Callable[[Any, str], None] | None = None) -> Callable[[Any], Any]:
    """Enters a class of encoders under a name, its ``kind``.

    Args:
        name: for ``encoder: {kind: ...}``.
        check: see :class:`Kind`.
    """

    def enter(cls: Any) -> Any:
        cls.kind = name
        KINDS[name] = Kind(cls, check)
        return cls

    return enter


def build_encoder(options: Mapping[str, Any]) -> Encoder:
    """Builds an encoder from plain types.

    Arguments that it does not have but another kind has are left out, with one line in the log:
    so one recipe serves several kinds. What a user counts on, ``causal`` and ``dual_mode``, is not.

    Args:
        options: ``kind``, a registered name, or ``module.name`` for one that importing the module
            registers; ``sizes``, the largest choice of each layer by dimension (of
            :attr:`todm_sb.space.SearchSpace.sizes`), which no other option may contradict; and
            the arguments of that kind.

    Raises:
        ConfigError: on an unknown kind or argument, a value that the encoder refuses, or a class
            that builds no :class:`Encoder`.
    """
    options = dict(options)
    sizes = options.pop("sizes", None) or {}
    kind = _kind(options.pop("kind", DEFAULT))
    builders = {name: known.build for name, known in KINDS.items()}
    if strange := sorted(sizes.keys() - arguments_of(builders[kind])):
        raise ConfigError(
            f"encoder: {kind} has no {quoted(strange[0])}: leave it out of the search space "
            f"({strange[0]}: null)"
        )
    for key in _PROMISES:
        if options.get(key) and key not in arguments_of(builders[kind]):
            raise ConfigError(
                f"encoder: {kind} cannot be {key}: set {key}: False, or take another kind"
            )
    for key, largest in sizes.items():
        if options.get(key, largest) not in (largest, *largest[:1]):
            raise ConfigError(
                f"encoder: {key} is {quoted(options[key])}, but the largest of the search space "
                f"{quoted(largest)}: change the search space"
            )
    options = own_arguments("encoder", kind, {**options, **sizes}, builders)
    check = KINDS[kind].check
    if check is not None:
        _check_sizes(kind, options, sizes, check)
    try:
        encoder = KINDS[kind].build(**options)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(f"encoder: {kind}: {error}") from error
    return _whole(kind, encoder)


def _check_sizes(
    kind: str,
    options: Mapping[str, Any],
    sizes: Mapping[str, list[int]],
    check: Callable[[Any, str], None],
) -> None:
    """Checks arguments; where the search space has one that has to be a single number, says so."""
    try:
        check(options, "encoder")
    except ConfigError as error:
        for key in sizes:
            if str(error).startswith(f"encoder.{key} "):
                raise ConfigError(
                    f"{error}: if {kind} is not elastic in {key}, leave it out of the search space"
                ) from error
        raise


def _whole(kind: str, encoder: Any) -> Encoder:
    """The encoder, if it is one.

    Raises:
        ConfigError: if not, naming what it lacks.
    """
    needed = {*Encoder.__annotations__, *(k for k in vars(Encoder) if not k.startswith("_"))}
    lacking = sorted(name for name in needed if not hasattr(encoder, name))
    if lacking or not isinstance(encoder, nn.Module):
        what = f"lacks {', '.join(lacking)}" if lacking else "is no torch.nn.Module"
        raise ConfigError(
            f"encoder: {kind} {what}: see todm_sb.nnet.encoders.Encoder, or derive it from "
            "StackedEncoder"
        )
    return cast(Encoder, encoder)


def check_encoder(value: Any, where: str) -> None:
    """Checks what a stranger says an encoder is: arguments of a registered kind, which no name in
    them can make anything else of.

    Args:
        value: anything.
        where: its place, for the message.

    Raises:
        ConfigError: if it is not.
    """
    kind = value.get("kind", DEFAULT) if type(value) is dict else DEFAULT
    checks = {name: kind.check for name, kind in KINDS.items() if kind.check is not None}
    if kind not in [*checks]:  # nothing here is hashed
        raise ConfigError(
            f"{where}.kind must be {' or '.join(map(repr, checks))}, not {quoted(kind)}; one of "
            "your own has to be imported first (todm-sb --import), and registered with a check"
        )
    checks[kind](value, where)


def _kind(name: Any) -> str:
    if isinstance(name, str) and name not in KINDS and "." in name:
        module, _, own = name.rpartition(".")
        import_own(module, f"encoder: kind {quoted(name)}")
        name = own
    if name not in [*KINDS]:
        raise ConfigError(f"encoder: kind must be one of {(*KINDS,)}, not {quoted(name)}")
    return name
