"""Bundles damaged at random: each is refused with one line or, if nothing was damaged, loads."""

import copy
import hashlib
import json
import random

import pytest

from todm_sb.errors import ConfigError
from todm_sb.export.bundle import read_bundle

FILES = ("weights.safetensors", "tokenizer.model")
JUNK = (
    *(None, True, False, 0, -1, 1, 2, 3, 17, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, float("nan")),
    *("", "../x", "\0", "\x1b[2J", "lstm", "kaldi", "todm_sb bundle", "x" * 10_000),
    *([], {}, [[]], [1], [0] * 1000, {"a": 1}),
)


def load(folder):
    """Whether a bundle loads; anything but one clear line is an error."""
    try:
        read_bundle(folder)
    except ConfigError as error:
        line = str(error)
        assert line.startswith(f"bundle {folder}: ")
        assert line.isprintable()
        assert len(line) < 600
        return False
    return True


def damaged(data, rng):
    """Bytes with some flipped, cut off, doubled or overwritten."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        # The beginning, where the structure is, as often as the rest.
        end = len(data) if rng.random() < 0.5 else min(len(data), 2000)
        start = rng.randrange(end)
        stop = min(len(data), start + rng.choice((1, 4, 64)))
        kind = rng.randrange(4)
        if kind == 0:
            data[start] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[start:stop] = rng.randbytes(stop - start)
        elif kind == 2:
            del data[start:stop]
        else:
            data[start:start] = data[start:stop]
    return bytes(data)


def places(data):
    """Every container of nested JSON with each of its keys."""
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in list(items):
        yield data, key
        if isinstance(value, dict | list):
            yield from places(value)


def mutate(data, rng):
    """Changes JSON in a place or two: junk, a near number, a key gone, renamed or new."""
    for _ in range(rng.choice((1, 1, 2))):
        container, key = rng.choice(list(places(data)))
        value, kind = container[key], rng.randrange(5)
        if kind == 0 and type(value) in (int, float):
            container[key] = value + rng.choice((-1, 1, 1000)) * rng.choice((1, 0.5))
        elif kind == 1:
            del container[key]
        elif kind == 2 and isinstance(container, dict):
            container[rng.choice(("x", "../x", "__init__", key + " "))] = container.pop(key)
        elif kind == 3 and isinstance(container, list):
            container.append(value)
        else:
            # A copy, for the next change may be inside it.
            container[key] = copy.deepcopy(rng.choice(JUNK))


def restore(folder, whole):
    for name, data in whole.items():
        (folder / name).write_bytes(data)


def vouch_for(folder):
    """Makes the recorded sizes and hashes those of the files, as an attacker would."""
    manifest = json.loads((folder / "bundle.json").read_text())
    for name in FILES:
        data = (folder / name).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        manifest["files"][name] = {"bytes": len(data), "sha256": digest}
    (folder / "bundle.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "rounds", [75, pytest.param(2000, marks=pytest.mark.slow)], ids=["few", "many"]
)
@pytest.mark.parametrize("attack", ["bytes", "forged bytes", "json", "json bytes"])
def test_a_bundle_damaged_at_random_is_refused_with_one_line(bundle, attack, rounds):
    whole = {path.name: path.read_bytes() for path in bundle.iterdir()}
    rng = random.Random(attack)
    loaded = 0
    for _ in range(rounds):
        if attack == "json":
            data = json.loads(whole["bundle.json"])
            mutate(data, rng)
            text = json.dumps(data)
            (bundle / "bundle.json").write_text(text)
            unharmed = False
        else:
            name = "bundle.json" if attack == "json bytes" else rng.choice(FILES)
            content = damaged(whole[name], rng)
            (bundle / name).write_bytes(content)
            unharmed = content == whole[name]
            if attack == "forged bytes":
                vouch_for(bundle)
        loads = load(bundle)
        loaded += loads
        assert loads or not unharmed
        assert attack != "bytes" or loads == unharmed
        restore(bundle, whole)
    assert loaded < rounds
    assert load(bundle)
