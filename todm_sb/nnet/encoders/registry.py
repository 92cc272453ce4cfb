"""Encoders by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from todm_sb.nnet.encoders.protocol import Encoder
from todm_sb.nnet.kinds import arguments_of, own_arguments
from todm_sb.utils.errors import ConfigError, quoted
from todm_sb.utils.schema import one_of

# Of recipes and bundles that name none.
DEFAULT = "mhssm"


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
    so one recipe serves several kinds.

    Args:
        options: ``kind``, a registered name, or ``module.name`` for one that importing the module
            registers; ``sizes``, the largest choice of each layer by dimension (of
            :attr:`todm_sb.space.SearchSpace.sizes`), which no other option may contradict; and
            the arguments of that kind.

    Raises:
        ConfigError: on an unknown kind or argument, or a value that the encoder refuses.
    """
    options = dict(options)
    sizes = options.pop("sizes", None) or {}
    kind = _kind(options.pop("kind", DEFAULT))
    builders = {name: known.build for name, known in KINDS.items()}
    if strange := sorted(sizes.keys() - arguments_of(builders[kind])):
        raise ConfigError(f"encoder: {kind} has no {quoted(strange[0])}")
    for key, largest in sizes.items():
        if options.get(key, largest) not in (largest, *largest[:1]):
            raise ConfigError(
                f"encoder: {key} is {quoted(options[key])}, but the largest of the search space "
                f"{quoted(largest)}: change the search space"
            )
    options = own_arguments("encoder", kind, {**options, **sizes}, builders)
    check = KINDS[kind].check
    if check is not None:
        check(options, "encoder")
    try:
        return KINDS[kind].build(**options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"encoder: {error}") from error


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
    one_of(*checks)(kind, f"{where}.kind")
    checks[kind](value, where)


def _kind(name: Any) -> str:
    if isinstance(name, str) and name not in KINDS and "." in name:
        module, _, name = name.rpartition(".")
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(f"encoder: kind {module}.{name}: {error}") from error
    if name not in KINDS:
        raise ConfigError(f"encoder: kind must be one of {(*KINDS,)}, not {quoted(name)}")
    return name
