"""Junk, and plain data with junk in it, for fuzz tests."""

import copy

JUNK = (
    *(None, True, False, 0, -1, 1, 2, 3, 17, 2**31, 2**63, 10**30, 10**400, 0.5, -0.0, 1e308),
    *(float("nan"), float("inf"), "", "../x", "\0", "\n", "\x1b[2J", "x" * 10_000),
    *("any", "three", "lstm", "kaldi", "todm_sb bundle"),
    *([], {}, [[]], [1], [0] * 1000, [3, 2, 1], {"a": 1}),
)


def places(data):
    """Every container of nested data with each of its keys."""
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in list(items):
        yield data, key
        if isinstance(value, dict | list):
            yield from places(value)


def mutated(data, rng):
    """A copy with a few places changed: junk, a near number, a key gone, renamed or new."""
    whole = {"": copy.deepcopy(data)}
    for _ in range(rng.choice((1, 1, 2))):
        container, key = rng.choice(list(places(whole)))
        value, kind = container[key], rng.randrange(5)
        if kind == 0 and type(value) in (int, float) and abs(value) < 1e300:
            container[key] = value + rng.choice((-1, 1, 1000)) * rng.choice((1, 0.5))
        elif kind == 1 and container is not whole:
            del container[key]
        elif kind == 2 and container is not whole and isinstance(container, dict):
            container[rng.choice(("x", "../x", "__init__", f"{key} "))] = container.pop(key)
        elif kind == 3 and isinstance(container, list):
            container.append(copy.deepcopy(value))
        else:
            # A copy, for the next change may be inside it.
            container[key] = copy.deepcopy(rng.choice(JUNK))
    return whole[""]
