"""Bundles damaged at random: each is refused with one line or, if nothing was damaged, loads."""

import json
import random

import pytest
from forged import vouch_for
from junk import mutated

from todm_sb.bundle.bundle import read_bundle
from todm_sb.utils.errors import ConfigError

FILES = ("weights.safetensors", "tokenizer.model")


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


def restore(folder, whole):
    for name, data in whole.items():
        (folder / name).write_bytes(data)


@pytest.mark.parametrize(
    "rounds", [25, pytest.param(2000, marks=pytest.mark.slow)], ids=["few", "many"]
)
@pytest.mark.parametrize("attack", ["bytes", "forged bytes", "json", "json bytes"])
def test_a_bundle_damaged_at_random_is_refused_with_one_line(bundle, attack, rounds):
    whole = {path.name: path.read_bytes() for path in bundle.iterdir()}
    rng = random.Random(attack)
    loaded = 0
    for _ in range(rounds):
        if attack == "json":
            text = json.dumps(mutated(json.loads(whole["bundle.json"]), rng))
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
