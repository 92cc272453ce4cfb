"""The sizes at which subnets and individually trained networks are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from todm_sb.space import SearchSpace, SubnetConfig
from todm_sb.training.evaluation import own_subnets
from todm_sb.utils.errors import ConfigError


@dataclass(frozen=True)
class Size:
    """A uniform subnet, and the network of its size.

    Args:
        subnet: in the supernet.
        parameters: deployed ones, of either.
    """

    subnet: SubnetConfig
    parameters: int

    @property
    def name(self) -> str:
        """Layers and choices, e.g. ``6x384``."""
        return self.subnet.label


def evenly_spaced_sizes(
    space: SearchSpace, n_parameters: Callable[[SubnetConfig], int], n: int = 5
) -> list[Size]:
    """Sizes from min to max, as evenly spread in parameters as uniform subnets allow.

    Args:
        space: of the supernet.
        n_parameters: of a subnet.
        n: number of sizes.

    Returns:
        ``n`` different sizes, smallest first.

    Raises:
        ConfigError: if ``n`` is below 2, or the space has fewer uniform subnets.
    """
    uniform = space.uniform()
    if not 2 <= n <= len(uniform):
        raise ConfigError(
            f"cannot compare at {n} sizes: the search space has {len(uniform)} uniform ones, "
            "and at least 2 are needed"
        )
    smallest, *between, largest = sorted(
        (Size(subnet, n_parameters(subnet)) for subnet in uniform), key=lambda s: s.parameters
    )
    chosen = [smallest, largest]
    for i in range(1, n - 1):
        target = smallest.parameters + i / (n - 1) * (largest.parameters - smallest.parameters)
        nearest = min(between, key=lambda size: abs(size.parameters - target))
        between.remove(nearest)
        chosen.append(nearest)
    return sorted(chosen, key=lambda size: size.parameters)


def named_sizes(
    space: SearchSpace,
    named: Mapping[str, dict | None] | None,
    n_parameters: Callable[[SubnetConfig], int],
) -> list[Size]:
    """The sizes that a recipe names itself: min, max and its named subnets.

    Args:
        space: of the supernet.
        named: the recipe's ``named_subnets``.
        n_parameters: of a subnet.

    Returns:
        Different sizes, smallest first.

    Raises:
        ConfigError: if a subnet is outside the space, or the space has but one; or if there is no
            one network of a subnet's size, or one of two.
    """
    subnets = dict.fromkeys([space.min, *own_subnets(space, named).values(), space.max])
    if len(subnets) < 2:
        raise ConfigError("cannot compare: the search space has one subnet")
    known: dict[str, SubnetConfig] = {}
    for subnet in subnets:
        if any(len(set(values)) > 1 for _, values in subnet.choices):
            raise ConfigError(
                f"cannot compare with {subnet.to_json()}: a network of its own has layers that are "
                "alike; name uniform subnets, or give a number of --sizes"
            )
        if subnet.label in known:
            raise ConfigError(
                f"cannot compare with both {known[subnet.label].to_json()} and {subnet.to_json()}: "
                f"a network of the size {subnet.label} is one; name one of them"
            )
        known[subnet.label] = subnet
    return sorted((Size(x, n_parameters(x)) for x in subnets), key=lambda size: size.parameters)
