"""What sorting the units of a plain network by their importance brings to its subnets.

    python importance.py RUN --shares 0.75 0.5 0.25

RUN is a training of one network (``individual.yaml``, or any with a search space of one point); of
a supernet the largest subnet is taken, whose first hidden units are the useful ones already. Its
feed-forward layers, or its pairs of SSM heads, are cut to a share, without any training, with their
units in four orders: as they are, at random, by the norms of their weights, and by their
importance, which is measured on the training data as a training with ``init_from`` does. Prints the
transducer loss (nats an utterance) and the word error rate (%, greedy) of the dev set.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from trained import batches

from todm_sb.dataio.faults import TRAIN
from todm_sb.dataio.split import read_split
from todm_sb.dataio.text import words_of_ids
from todm_sb.nnet.elastic import ElasticFFN
from todm_sb.nnet.transducer import Transducer
from todm_sb.search.dev_set import DevSet
from todm_sb.space import SubnetConfig
from todm_sb.space.dimensions import FFN, HEADS
from todm_sb.supernet import Objective
from todm_sb.supernet.importance import importance, sort_units
from todm_sb.supernet.trunk import Labels, Trunk
from todm_sb.training.adaptation import speech_of
from todm_sb.training.runs import dev_dataset, dev_utterances, load_run, run_tokenizer
from todm_sb.utils.tables import table_of

Order = Callable[[Any, Tensor], Tensor]


def at_random(part: Any, scores: Tensor) -> Tensor:
    """Of each unit, a number drawn."""
    return torch.rand_like(scores)


def by_norms(part: Any, scores: Tensor) -> Tensor:
    """Of each hidden unit, the product of both norms; of heads that of their projection."""
    if isinstance(part, ElasticFFN):
        return part.w_1.weight.norm(dim=1) * part.w_2.weight.norm(dim=0)
    return torch.stack([w.norm() for w in part.w_out.weight.chunk(len(scores), dim=1)])


def by_importance(part: Any, scores: Tensor) -> Tensor:
    """Of each unit, the score that it has."""
    return scores


ORDERS: dict[str, Order | None] = {
    "as they are": None,
    "at random": at_random,
    "by norms": by_norms,
    "by importance": by_importance,
}


def ordered(model: Transducer, scores: dict[Any, Tensor], order: Order | None) -> Transducer:
    """A copy with its units in an order.

    Args:
        model: stays as it is.
        scores: the importance of its units.
        order: gives scores to sort by; None leaves units where they are.
    """
    found = copy.deepcopy((model, scores))
    if order is not None:
        sort_units({part: order(part, x) for part, x in found[1].items()})
    return found[0]


def cut(model: Transducer, key: str, share: float) -> SubnetConfig:
    """All layers, each at a share of its size in one dimension."""
    least = 2 if key == HEADS.key else 1
    sizes = [max(least, int(share * x) // least * least) for x in model.encoder.dimensions[key]]
    return SubnetConfig(range(len(sizes)), **{key: sizes})


@torch.no_grad()
def loss_of(model: Transducer, trunks: list[tuple[Trunk, Labels]], config: SubnetConfig) -> float:
    """The transducer loss of a subnet over the full lattice, in nats an utterance."""
    total = n = 0.0
    for trunk, labels in trunks:
        losses, _ = Objective(kd_weight=0.0)(model, trunk, labels, config)
        total += float(losses.total) * len(labels.lengths)
        n += len(labels.lengths)
    return total / n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--dimension", choices=[FFN.key, HEADS.key], default=FFN.key)
    parser.add_argument("--shares", nargs="+", type=float, default=[0.75, 0.5, 0.25])
    args = parser.parse_args()
    torch.manual_seed(0)
    hparams = load_run(args.run)
    model, tokenizer = hparams["model"], run_tokenizer(hparams)
    dev = [*dev_utterances(hparams, dev_dataset(hparams, tokenizer), torch.device("cpu"))]
    train = read_split(hparams, tokenizer, hparams["train_csv"], TRAIN)
    scores = importance(model, speech_of(hparams, train), [args.dimension])
    rows = []
    for name, order in ORDERS.items():
        network = ordered(model, scores, order)
        measured = DevSet(network, dev, partial(words_of_ids, tokenizer))
        with torch.no_grad():
            trunks = [*batches({**hparams, "model": network}, n=1000)]
        row = {args.dimension: name}
        for share in (1.0, *args.shares):
            config = cut(network, args.dimension, share)
            loss, wer = loss_of(network, trunks, config), measured.error_rate(config)
            row[f"{share:.0%}"] = f"{loss:.3f}, {wer:.1f} %"
        rows.append(row)
    print(table_of(rows))


if __name__ == "__main__":
    main()
