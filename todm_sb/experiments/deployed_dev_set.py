"""Error rates of subnets as they are deployed: from audio to text, by a device's engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from todm_sb.experiments.evaluation import Evaluated, EvaluationSet, evaluate
from todm_sb.inference.recogniser import Recogniser
from todm_sb.space import SubnetConfig


class DeployedDevSet:
    """Utterances on which every subnet is made anew, as ``todm-sb evaluate`` decodes them.

    Args:
        utterances: to decode.
        tokenizer: of the network.
        recogniser_of: makes the recogniser of a subnet.
        smallest: a subnet that is evaluated at once, so that one without a deployed form is told
            of before a search begins.

    Raises:
        ConfigError: if it has none.
    """

    def __init__(
        self,
        utterances: EvaluationSet,
        tokenizer: Any,
        recogniser_of: Callable[[SubnetConfig], Recogniser],
        smallest: SubnetConfig,
    ) -> None:
        self.utterances = utterances
        self.tokenizer = tokenizer
        self.recogniser_of = recogniser_of
        self._smallest, self._of_smallest = smallest, self._evaluate(smallest)

    @property
    def scored(self) -> dict[str, Any]:
        """What the error rates are of, see :func:`todm_sb.utils.tables.scored_text`."""
        return self._of_smallest.scored

    def error_rate(self, config: SubnetConfig) -> float:
        """Word error rate of a subnet in percent; what cannot be decoded counts as nothing heard.

        Args:
            config: the subnet.
        """
        known = config == self._smallest
        return (self._of_smallest if known else self._evaluate(config)).rates()["WER"]

    def _evaluate(self, config: SubnetConfig) -> Evaluated:
        return evaluate(config.id, self.recogniser_of(config), self.tokenizer, self.utterances)
