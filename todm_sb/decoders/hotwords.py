"""Hot words: phrases that a beam search is to prefer, such as names (contextual biasing).

An automaton of Aho & Corasick (1975, "Efficient string matching") over labels knows, after each
label, the longest front of a phrase that a hypothesis ends with. Each label of a phrase brings its
part of the boost at once, so that the phrase survives in the beam until it is complete; what comes
to nothing is given back. So the score of a whole hypothesis is that of the network plus the boosts
of the phrases in it, and no more. icefall's and sherpa-onnx's context graphs do the same, but for
the ends of words: here CAT is not found in CATALOG.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from todm_sb.nnet.predictor import State

ROOT = 0


@dataclass
class _Node:
    """A front of phrases.

    Args:
        next: nodes one label longer.
        credit: advance on phrases that are longer, beyond the boost of the one that ends here.
        boost: of the phrases that end here, 0 for none.
        fail: node of the longest proper end that is a front, too.
    """

    next: dict[int, int]
    credit: float = 0.0
    boost: float = 0.0
    fail: int = ROOT


class HotwordGraph(nn.Module):
    """Boosts phrases; a :class:`todm_sb.decoders.fusion.Fusion`.

    The state of a hypothesis is a node. With ``P(s)``, what has been advanced at node s (the
    ``credit``, and the ``boost`` of phrases that end here), label v brings ``P(s') - P(s)``, and
    keeps the boosts of s if a word ends before it; so does the end of the utterance.

    Args:
        phrases: boost of each label of a phrase, by the phrase's labels. A negative boost is for
            phrases that were not said.
        ends_word: (V,), whether a word ends before a label.
        blank: id of blank.
    """

    def __init__(
        self,
        phrases: Mapping[tuple[int, ...], float],
        ends_word: Sequence[bool],
        blank: int = 0,
    ) -> None:
        super().__init__()
        self.blank = blank
        nodes = _trie(phrases)
        tables = _link(nodes)
        kept = [node.boost for node in nodes]
        advanced = [node.credit + node.boost for node in nodes]
        first = [nodes[ROOT].next.get(v, ROOT) for v in range(len(ends_word))]
        counts = torch.tensor([len(table) for table in tables])
        self.ends: Tensor
        self.kept: Tensor
        self.advanced: Tensor
        self.first: Tensor
        self.counts: Tensor
        self.starts: Tensor
        self.labels: Tensor
        self.targets: Tensor
        self.register_buffer("ends", torch.tensor(ends_word, dtype=torch.float32))
        self.register_buffer("kept", torch.tensor(kept))
        self.register_buffer("advanced", torch.tensor(advanced))
        self.register_buffer("first", torch.tensor(first))
        # Arcs that lead elsewhere than from the root, node by node.
        self.register_buffer("counts", counts)
        self.register_buffer("starts", counts.cumsum(0) - counts)
        self.register_buffer("labels", _integers(v for table in tables for v in table))
        self.register_buffer("targets", _integers(s for table in tables for s in table.values()))

    def predict(self, labels: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """See :class:`todm_sb.decoders.fusion.Fusion`; the state is (batch,), nodes."""
        if state is None:
            nodes = torch.full_like(labels, ROOT)
        else:
            rows, arcs = self._arcs(state[0])
            nodes = self.first[labels]
            taken = self.labels[arcs] == labels[rows]
            nodes[rows[taken]] = self.targets[arcs[taken]]
        return self._gains(nodes), (nodes,)

    def final(self, state: State) -> Tensor:
        """See :class:`todm_sb.decoders.fusion.Fusion`: advances are given back."""
        (nodes,) = state
        return self.kept[nodes] - self.advanced[nodes]

    def _gains(self, nodes: Tensor) -> Tensor:
        """(batch,) -> (batch, V)"""
        gains = self.advanced[self.first].repeat(len(nodes), 1)
        rows, arcs = self._arcs(nodes)
        gains[rows, self.labels[arcs]] = self.advanced[self.targets[arcs]]
        gains += self.kept[nodes].unsqueeze(1) * self.ends - self.advanced[nodes].unsqueeze(1)
        gains[:, self.blank] = 0
        return gains

    def _arcs(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """The arcs of each node but those from the root: rows of ``nodes``, and which arcs."""
        counts = self.counts[nodes]
        rows = torch.arange(len(nodes), device=nodes.device).repeat_interleave(counts)
        within = torch.arange(len(rows), device=nodes.device) - (counts.cumsum(0) - counts)[rows]
        return rows, self.starts[nodes][rows] + within


def _trie(phrases: Mapping[tuple[int, ...], float]) -> list[_Node]:
    """The fronts of phrases, from the empty one on, each with the boost of its own phrase alone."""
    nodes = [_Node({})]
    for labels, boost in phrases.items():
        at = ROOT
        for depth, label in enumerate(labels, start=1):
            if label not in nodes[at].next:
                nodes[at].next[label] = len(nodes)
                nodes.append(_Node({}))
            at = nodes[at].next[label]
            if depth < len(labels):
                nodes[at].credit = max(nodes[at].credit, boost * depth)
        nodes[at].boost = boost * len(labels)
    for node in nodes:
        if node.credit:  # a label counts once in ANN, which is a front of ANNA
            node.credit = max(node.credit - node.boost, 0.0)
    return nodes


def _link(nodes: list[_Node]) -> list[dict[int, int]]:
    """Sets ``fail``, the shorter fronts first, and adds to boosts those of phrases that are ends.

    Returns:
        For each node where labels lead, unless it is where they lead from the root.
    """
    tables: list[dict[int, int]] = [{} for _ in nodes]
    queue = deque(nodes[ROOT].next.values())
    for at in queue:
        tables[at] = dict(nodes[at].next)
    while queue:
        at = queue.popleft()
        fail = nodes[at].fail
        for label, longer in nodes[at].next.items():
            back = tables[fail].get(label, nodes[ROOT].next.get(label, ROOT))
            nodes[longer].fail = back
            nodes[longer].boost += nodes[back].boost
            tables[longer] = {**tables[back], **nodes[longer].next}
            queue.append(longer)
    return tables


def _integers(values: Iterable[int]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.long)
