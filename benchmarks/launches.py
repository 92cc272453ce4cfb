"""What a sandwich step and a turn of a search ask of an accelerator, counted on a pretended one:
kernel launches, results that the host reads, and copies to the device that it waits for.

    python benchmarks/launches.py [--recipe mini_librispeech.yaml]

The step is that of supernet.yaml, or of another recipe, narrow: 16 layers, max, min and two random
subnets, distillation, augmentation, optimizer and log; against the step of max alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).parents[1] / "tests" / "device"))
# Before any backward.
from pretended import FAR, Ledger, pretended_device
from recipe_step import make_batch, make_brain

from todm_sb.decoders.networks import TransducerNetworks
from todm_sb.decoders.transducer import TransducerSearcher
from todm_sb.nnet.transducer import Transducer

TOP = 15
# Recipes, and their layers.
RECIPES = {"supernet.yaml": 16, "mini_librispeech.yaml": 8, "mini.yaml": 6}


def copy_of(ledger: Ledger) -> Ledger:
    """As it is now."""
    return Ledger(*map(Counter, (ledger.launches, ledger.reads, ledger.writes)))


def of_step(ledger: Ledger, **changes: Any) -> Ledger:
    """What the second step asks; the first, of max alone, makes the optimizer's state."""
    # The brain tells a line a minute.
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        brain = make_brain(Path(folder), FAR, sandwich_warmup=0.1, **changes)
        brain.on_fit_start()
        for brain.step in (1, 2):
            batch = make_batch(brain.hparams.vocab_size, seed=brain.step)
            ledger.clear()
            brain.fit_batch(batch)
        return copy_of(ledger)


class CountedNetworks(TransducerNetworks):
    """Counts turns: calls of the joiner."""

    turns = 0

    def join(self, encoder: torch.Tensor, predictor: torch.Tensor) -> torch.Tensor:
        """See :class:`todm_sb.decoders.networks.SearchNetworks`."""
        self.turns += 1
        return super().join(encoder, predictor)


def of_turn(ledger: Ledger, beam_size: int) -> str:
    """What a turn of a search asks, a row of the table: the mean over the turns of a batch."""
    torch.manual_seed(0)
    encoder = {"n_features": 8, "d_model": 16, "ffn_dims": [16], "n_heads": 2, "state_size": 2}
    model = Transducer(30, encoder, {"kind": "lstm", "d_model": 16}, 16).to(FAR).eval()
    with torch.no_grad():
        model.joiner.output.weight.mul_(8)  # else it says nothing
    networks = CountedNetworks(model)
    encoded, n_frames = torch.randn(8, 100, 16, device=FAR), torch.full((8,), 100, device=FAR)
    ledger.clear()
    TransducerSearcher(networks, beam_size, max_symbols=1).search(encoded, n_frames)
    counters = (ledger.launches, ledger.reads, ledger.writes)
    counts = " | ".join(f"{counter.total() / networks.turns:.2f}" for counter in counters)
    kind = "greedy search" if beam_size == 1 else f"beam {beam_size}"
    return f"| turn of {kind}, mean of {networks.turns} | {counts} |"


def print_top(title: str, counts: Counter[tuple[str, str]], part: int) -> None:
    """Prints the most frequent, by operator (part 0) or by place (1)."""
    summed: Counter[str] = Counter()
    for key, n in counts.items():
        summed[key[part]] += n
    print(f"\n{title}:")
    for name, n in summed.most_common(TOP):
        print(f"{n:6d}  {name}")


def main() -> None:
    """Print the table, and where the counts of the sandwich step come from."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", choices=RECIPES, default="supernet.yaml")
    recipe = parser.parse_args().recipe
    one_subnet = {"min_layers": RECIPES[recipe], "ffn_dims": [32]}
    with pretended_device() as ledger:
        sandwich = of_step(ledger, recipe=recipe)
        alone = of_step(ledger, recipe=recipe, n_random=0, search_space=one_subnet)
        turns = [of_turn(ledger, beam_size) for beam_size in (1, 4)]
    print("| what | launches | reads | writes |")
    print("| --- | ---: | ---: | ---: |")
    for name, found in (("sandwich step", sandwich), ("step of max alone", alone)):
        totals = (x.total() for x in (found.launches, found.reads, found.writes))
        print(f"| {name} | {' | '.join(map(str, totals))} |")
    print("\n".join(turns))
    print_top("launches of the sandwich step by operator", sandwich.launches, 0)
    print_top("launches by place", sandwich.launches, 1)
    print_top("reads by kind", sandwich.reads, 0)
    print_top("reads by place", sandwich.reads, 1)
    print_top("writes by place", sandwich.writes, 1)


if __name__ == "__main__":
    main()
