"""What a search found: every subnet that was evaluated, the Pareto front, the best for a budget."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from todm_sb.search.budget import format_cost
from todm_sb.search.probes import PRECISIONS
from todm_sb.space import SearchSpace, SubnetConfig
from todm_sb.utils.errors import ConfigError, written_by
from todm_sb.utils.files import write_atomic


@dataclass(frozen=True)
class Evaluated:
    """A subnet whose error rate is known.

    Args:
        config: the subnet.
        wer: word error rate on the dev set in percent.
        costs: ``params`` (number), ``macs`` (number, at the search's audio length), ``bytes`` and
            ``bytes_int8`` of the weights, and ``latency`` (seconds) where it was measured.
    """

    config: SubnetConfig
    wer: float
    costs: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {
            "id": self.config.id,
            **self.config.to_dict(),
            "WER": self.wer,
            "costs": self.costs,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Evaluated:
        """Inverse of :meth:`to_dict`."""
        return cls(SubnetConfig.pick(data), data["WER"], data["costs"])


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Args:
        cost: which of the costs was searched by, e.g. ``params``.
        seconds: of audio, that MACs and latency are meant for.
        space: where was searched.
        subnets: all that were evaluated.
        methods: the ids of the subnets that each method evaluated: the search and the baselines.
        budgets: in the unit of the cost, ascending.
        checkpoint: tells the weights apart, see :func:`todm_sb.training.runs.weights_id`.
        scored: what the error rates are of, see :func:`todm_sb.utils.tables.scored_text`.
        dev_set: tells the utterances apart, see :func:`todm_sb.dataio.fingerprint.dev_set_id`.
        precision: of the networks whose error rates these are, one of
            :data:`todm_sb.search.probes.PRECISIONS`.
        decoding: plain values that tell how they were decoded; None of earlier versions.
    """

    cost: str
    seconds: float
    space: SearchSpace
    subnets: tuple[Evaluated, ...]
    methods: dict[str, tuple[str, ...]]
    budgets: tuple[float, ...] = ()
    checkpoint: str = ""
    scored: dict[str, Any] = field(default_factory=dict)
    dev_set: str = ""
    precision: str = PRECISIONS[0]
    decoding: Any = None

    def of(self, method: str) -> list[Evaluated]:
        """The subnets that a method evaluated."""
        ids = set(self.methods[method])
        return [subnet for subnet in self.subnets if subnet.config.id in ids]

    def front(self, subnets: Iterable[Evaluated] | None = None) -> list[Evaluated]:
        """The Pareto front, cheapest first: no other subnet is as good at no higher cost.

        Args:
            subnets: among these, all when None.
        """
        return front_of(self.subnets if subnets is None else subnets, self.cost)

    def best(self, budget: float) -> Evaluated:
        """The subnet with the lowest error rate within a budget, the cheapest where several are.

        Raises:
            ConfigError: if every subnet that was evaluated costs more.
        """
        within = [subnet for subnet in self.front() if subnet.costs[self.cost] <= budget]
        if not within:
            smallest = min((subnet.costs[self.cost] for subnet in self.subnets), default=None)
            known = "none was evaluated" if smallest is None else format_cost(smallest, self.cost)
            raise ConfigError(
                f"budget {format_cost(budget, self.cost)} is below the smallest subnet ({known})"
            )
        return within[-1]

    def save(self, path: Path) -> None:
        """Writes ``pareto.json``; a reader never sees half of it."""
        data = {
            "cost": self.cost,
            "seconds": self.seconds,
            "checkpoint": self.checkpoint,
            "scored": self.scored,
            "dev_set": self.dev_set,
            "precision": self.precision,
            "decoding": self.decoding,
            "search_space": self.space.to_dict(),
            "budgets": [{"budget": b, "subnet": self.best(b).config.id} for b in self.budgets],
            "front": [subnet.config.id for subnet in self.front()],
            "methods": {name: list(ids) for name, ids in self.methods.items()},
            "subnets": [s.to_dict() for s in sorted(self.subnets, key=_by(self.cost))],
        }
        write_atomic(path, json.dumps(data, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> SearchResult:
        """Inverse of :meth:`save`.

        Raises:
            ConfigError: if the file is missing or no such file.
        """
        if not path.is_file():
            raise ConfigError(f"{path} does not exist: run todm-sb search first")
        with written_by("todm-sb search", path):
            data = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                data["cost"],
                data["seconds"],
                SearchSpace.from_dict(data["search_space"]),
                tuple(Evaluated.from_dict(subnet) for subnet in data["subnets"]),
                {name: tuple(ids) for name, ids in data["methods"].items()},
                tuple(entry["budget"] for entry in data["budgets"]),
                data["checkpoint"],
                data["scored"],
                data["dev_set"],
                data["precision"],
                data.get("decoding"),
            )


def front_of(subnets: Iterable[Evaluated], cost: str) -> list[Evaluated]:
    """The Pareto front, cheapest first: no other subnet is as good at no higher cost.

    Args:
        subnets: among these.
        cost: which of their costs.
    """
    best: list[Evaluated] = []
    for subnet in sorted(subnets, key=_by(cost)):
        if not best or subnet.wer < best[-1].wer:
            best.append(subnet)
    return best


def _by(cost: str) -> Callable[[Evaluated], tuple[float, float, str]]:
    return lambda subnet: (subnet.costs[cost], subnet.wer, subnet.config.id)
