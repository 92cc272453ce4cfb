"""``todm-sb plan``: what a recipe's training takes, and in what time at the best on given cards.

todm-sb plan hparams/supernet.yaml --gpus 8 --card h100
todm-sb plan hparams/supernet.yaml --gpus 1 --card a100 h100 l40s --max_batch_seconds=1200

Counted from the YAML, without data and without a GPU. Any key of the YAML can be overridden, as
``--key=value``. The times are what the cards' data sheets allow, or what launching the operators
took the host where that was measured, of a training whose steps are all sandwiches.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ruamel.yaml.scalarstring import DoubleQuotedScalarString as Text

from todm_sb.cli.main import OK
from todm_sb.experiments.compare.recipe import load_for_planning
from todm_sb.experiments.plan.cards import CARDS
from todm_sb.experiments.plan.plan import Data, cards_table, counted_table, plan_of
from todm_sb.training.arguments import parse_arguments
from todm_sb.training.recipe import Recipe, is_placeholder
from todm_sb.utils.arguments import at_least, beside_a_recipe, positive


def main(argv: Sequence[str]) -> int:
    """Prints the plan.

    Returns:
        The exit code.

    Raises:
        ConfigError: if the recipe or an override is not as it should be.
    """
    arguments, others = parse(argv)
    recipe, options = parse_arguments([str(arguments.hparams), *others])
    # Neither data nor folders are touched.
    named = {key: Text("-") for key, node in recipe.tree().items() if is_placeholder(node)}
    given = {name: getattr(options, name) for name in options.overridden_args}
    hparams = load_for_planning(Recipe(recipe.file, {**recipe.overrides, **named}))
    hparams |= given
    precision = hparams.get("precision", "fp32")
    data = Data(arguments.hours, arguments.seconds, arguments.labels_per_second)
    plan = plan_of(hparams, precision, arguments.gpus, data)
    print(counted_table(plan, data), end="\n\n")
    print(cards_table(plan, [CARDS[name] for name in arguments.card]))
    return OK


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The arguments of ``plan``, and those that are for the recipe."""
    parser, known = beside_a_recipe("plan", __doc__), Data()
    parser.add_argument("--gpus", type=at_least(1), default=1, help="default: 1")
    parser.add_argument(
        "--card", nargs="+", choices=CARDS, default=["h100"], help="one or more; default: h100"
    )
    parser.add_argument(
        "--hours", type=positive, default=known.hours, help=f"of audio; default: {known.hours}"
    )
    parser.add_argument(
        "--seconds",
        type=positive,
        default=known.seconds,
        help=f"of an utterance, on average; default: {known.seconds}",
    )
    parser.add_argument(
        "--labels_per_second",
        type=positive,
        default=known.labels_per_second,
        help=f"default: {known.labels_per_second}",
    )
    return parser.parse_known_args(list(argv))
