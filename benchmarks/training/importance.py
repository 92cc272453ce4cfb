"""What sorting the units of a plain network by their importance brings to its subnets.

    python importance.py RUN --shares 0.75 0.5 0.25

RUN is a training of one network (``individual.yaml``, or any with a search space of one point); of
a supernet the largest subnet is taken, whose first units are the useful ones already. Its
feed-forward layers are cut to a share of their width, without any training, with their units in
four orders: as they are, at random, by the norms of their weights, and by their importance, which
is measured on the training data as a training with ``init_from`` does. Prints the word error rate
(%, greedy) of the dev set.
"""

from __future__ import annotations

import argparse
import copy
from functools import partial
from pathlib import Path

import torch

from todm_sb.dataio.faults import TRAIN
from todm_sb.dataio.split import read_split
from todm_sb.dataio.text import words_of_ids
from todm_sb.nnet.elastic import ElasticFFN
from todm_sb.nnet.transducer import Transducer
from todm_sb.search.dev_set import DevSet
from todm_sb.space import SubnetConfig
from todm_sb.space.dimensions import FFN
from todm_sb.supernet.importance import sort_by_importance
from todm_sb.training.adaptation import speech_of
from todm_sb.training.runs import dev_dataset, dev_utterances, load_run, run_tokenizer
from todm_sb.utils.tables import table_of


@torch.no_grad()
def reorder(model: Transducer, by_norm: bool) -> Transducer:
    """A copy whose hidden units are ordered by the norms of their weights, or at random."""
    model = copy.deepcopy(model)
    for ffn in model.encoder.modules():
        if isinstance(ffn, ElasticFFN):
            scores = torch.rand(ffn.d_hidden)
            if by_norm:
                scores = ffn.w_1.weight.norm(dim=1) * ffn.w_2.weight.norm(dim=0)
            order = scores.argsort(descending=True)
            for tensor in (ffn.w_1.weight, ffn.w_1.bias):
                tensor.copy_(tensor[order])
            ffn.w_2.weight.copy_(ffn.w_2.weight[:, order])
    return model


def cut(model: Transducer, share: float) -> SubnetConfig:
    """All layers, each at a share of its width."""
    widths = model.encoder.dimensions[FFN.key]
    return SubnetConfig(range(len(widths)), **{FFN.key: [max(1, int(share * w)) for w in widths]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--shares", nargs="+", type=float, default=[0.75, 0.5, 0.25])
    args = parser.parse_args()
    torch.manual_seed(0)
    hparams = load_run(args.run)
    model, tokenizer = hparams["model"], run_tokenizer(hparams)
    dev = [*dev_utterances(hparams, dev_dataset(hparams, tokenizer), torch.device("cpu"))]
    train = read_split(hparams, tokenizer, hparams["train_csv"], TRAIN)
    by_importance = copy.deepcopy(model)
    sort_by_importance(by_importance, speech_of(hparams, train), [FFN.key])
    orders = {
        "as it is": model,
        "at random": reorder(model, by_norm=False),
        "by norms": reorder(model, by_norm=True),
        "by importance": by_importance,
    }
    rows = []
    for name, network in orders.items():
        measured = DevSet(network, dev, partial(words_of_ids, tokenizer))
        rates = {share: measured.error_rate(cut(network, share)) for share in (1.0, *args.shares)}
        rows.append({"units": name, **{f"{s:.0%} of each": f"{r:.1f}" for s, r in rates.items()}})
    print(table_of(rows))


if __name__ == "__main__":
    main()
