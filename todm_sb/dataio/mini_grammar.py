"""What is said in the mini corpus: a grammar of spoken commands."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from todm_sb.utils.errors import DataError

# Capitals stand for any one of their alternatives. The words are kept apart in sound: no two of
# them are homophones but FOR and FOUR, TO and TWO, which the sentence tells apart. Each sentence
# pattern has hundreds of variations, so that none is used up and all words stay frequent.
GRAMMAR: dict[str, tuple[str, ...]] = {
    "SENTENCE": (
        "turn the ROOM DEVICE POWER WHEN",
        "turn POWER the DEVICE in the ROOM WHEN",
        "please turn POWER the DEVICE WHEN",
        "turn the DEVICE POWER and DO the THING",
        "DO the ROOM THING WHEN",
        "please DO the THING in the ROOM WHEN",
        "make the ROOM light COLOUR WHEN",
        "turn POWER the COLOUR light in the ROOM",
        "set the ROOM heater to NUMBER degrees",
        "set the ROOM timer for NUMBER minutes",
        "set an alarm for HOUR to CHORE",
        "wake PERSON WHEN",
        "remind me to CHORE WHEN",
        "remind PERSON to CHORE",
        "CHORE WHEN",
        "tell PERSON dinner is ready in NUMBER minutes",
        "call PERSON WHEN and say WISH",
        "play some SOUND in the ROOM WHEN",
        "play SOUND for PERSON WHEN",
        "stop the SOUND after NUMBER minutes",
        "LEVEL the ROOM volume by NUMBER percent",
        "add NUMBER GOODS and some GROCERY to the list",
        "buy GROCERY and NUMBER GOODS WHEN",
        "how WARM will the ROOM be WHEN",
        "will the weather be WARM for PERSON WHEN",
        "check if PERSON locked the ROOM THING",
        "show me the ROOM camera WHEN",
        "read the message from PERSON WHEN",
    ),
    "ROOM": ("kitchen", "bedroom", "bathroom", "office", "garden"),
    "DEVICE": ("light", "heater", "fan", "radio", "television"),
    "POWER": ("on", "off"),
    "THING": ("door", "window", "gate", "curtain"),
    "DO": ("open", "close", "lock", "check"),
    "COLOUR": ("red", "blue", "green"),
    "LEVEL": ("raise", "lower"),
    "SOUND": ("music", "jazz", "news", "piano"),
    "PERSON": ("anna", "peter", "maria", "simon"),
    "CHORE": (
        "feed the PET",
        "water the flowers",
        "buy some GROCERY",
        "call PERSON",
    ),
    "PET": ("dog", "cat"),
    "WARM": ("warm", "cold"),
    "GROCERY": ("bread", "milk", "coffee"),
    "GOODS": ("apples", "lemons", "eggs"),
    "WISH": ("good night", "thank you"),
    "WHEN": ("now", "tonight", "at HOUR", "in NUMBER minutes", "tomorrow morning", "this evening"),
    "HOUR": ("six", "seven", "eight", "nine", "noon"),
    "NUMBER": ("UNIT", "TEEN", "TENS", "TENS UNIT"),
    "UNIT": ("two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "TEEN": ("ten", "eleven", "twelve", "fifteen"),
    "TENS": ("twenty", "thirty", "forty", "fifty"),
}
MIN_WORDS, MAX_WORDS = 4, 9


def distinct_sentences(rng: random.Random) -> Iterator[str]:
    """Draws sentences of the grammar, each at most once.

    Args:
        rng: source of the draws.

    Yields:
        Lower-case sentences of `MIN_WORDS` to `MAX_WORDS` words.

    Raises:
        DataError: once hardly any new sentence turns up.
    """
    seen: set[str] = set()
    while True:
        for _ in range(10_000):
            sentence = _expand("SENTENCE", rng)
            if sentence not in seen and MIN_WORDS <= len(sentence.split()) <= MAX_WORDS:
                break
        else:
            raise DataError(
                f"the mini corpus's grammar yields no more than {len(seen)} sentences: "
                "ask for fewer utterances"
            )
        seen.add(sentence)
        yield sentence


def vocabulary() -> list[str]:
    """Lists the words of the grammar.

    Returns:
        The distinct words, lower case, in alphabetical order.
    """
    texts = " ".join(text for alternatives in GRAMMAR.values() for text in alternatives)
    return sorted({word for word in texts.split() if word not in GRAMMAR})


def _expand(symbol: str, rng: random.Random) -> str:
    """Writes out one symbol of the grammar, alternatives being equally likely."""
    alternative = rng.choice(GRAMMAR[symbol])
    return re.sub(r"[A-Z]+", lambda match: _expand(match[0], rng), alternative)
