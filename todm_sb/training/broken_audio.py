"""Audio that could not be decoded when a batch was made, though the check had found it sound."""

from __future__ import annotations

import logging
from collections.abc import Mapping

logger = logging.getLogger(__name__)


# What becomes of an utterance that is evaluated.
COUNTS_AS_DELETED = "cannot be decoded, its words count as deleted"


class BrokenAudioLog:
    """Names broken audio, each once."""

    def __init__(self) -> None:
        # Names and reasons, with the file: two splits can have utterances of one name.
        self.named: set[tuple[str, str]] = set()

    def warn(self, broken: Mapping[str, str], consequence: str) -> None:
        """Logs what was not named before.

        Args:
            broken: reasons by utterance.
            consequence: what becomes of it.
        """
        for name, reason in broken.items():
            if (name, reason) not in self.named:
                self.named.add((name, reason))
                n = len(self.named)
                logger.warning("%s %s: %s; %d so far", name, consequence, reason, n)
