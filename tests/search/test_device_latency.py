"""Latencies of another device: which networks to time there, and what is made of the times."""

import json
import random

import pytest

from todm_sb.search.device_latency import device_table, fit
from todm_sb.search.latency import LatencyTable
from todm_sb.search.probes import FORMAT, network_id, probes, read_card, read_table
from todm_sb.space import SearchSpace, SubnetConfig
from todm_sb.utils.errors import ConfigError

SPACES = [
    SearchSpace(4, 2, ffn_dims=(4, 8, 16)),
    SearchSpace(6, 3, ffn_dims=(4, 8), n_heads=(1, 2, 4)),
    SearchSpace(5, 5, "top", ffn_dims=(4, 8)),  # of one depth: a layer's time is not known
    SearchSpace(3, 1),
]
NETWORK = "0123456789abcdef"


def seconds(config, rest=0.01, layer=0.004, widths=None):
    """Of a device whose layers are alike."""
    saved = widths or {4: 0.002, 8: 0.0015, 1: 0.0005, 2: 0.0001}
    active = [choice for _, of in config.active() for choice in of.values()]
    return rest + layer * len(config.layers) - sum(saved.get(choice, 0.0) for choice in active)


@pytest.mark.parametrize("space", SPACES, ids=lambda s: s.describe())
def test_the_times_of_probes_tell_those_of_all_subnets(space):
    assert len(set(probes(space))) == len(probes(space))
    assert {space.max} <= set(probes(space))
    table, missed = fit(space, [(config, seconds(config)) for config in probes(space)])
    assert missed < 1e-9
    rng = random.Random(0)
    for config in [space.min, space.max, *(space.random(rng) for _ in range(20))]:
        assert table(config) == pytest.approx(seconds(config))
    assert LatencyTable.from_dict(json.loads(json.dumps(table.to_dict()))) == table


@pytest.mark.parametrize("space", SPACES[:2], ids=lambda s: s.describe())
def test_probes_of_one_depth_or_without_one_choice_are_too_few(space):
    shallow = [c for c in probes(space) if len(c.layers) < space.n_layers]
    wide = [c for c in probes(space) if 4 not in dict(c.choices)["ffn_dims"]]
    for some in (shallow, wide):
        with pytest.raises(ConfigError, match=r"too few subnets were timed .* time all probes"):
            fit(space, [(config, 1.0) for config in some])


def test_relative_errors_are_what_is_small():
    space = SearchSpace(2, 1)
    one, two = probes(space)[0], probes(space)[1]
    noisy = [(one, 1.0), (one, 1.2), (two, 100.0)]
    table, missed = fit(space, noisy)
    expected = min(
        ((a - 1.0) ** 2 + (a / 1.2 - 1) ** 2, a) for a in (1 + i / 1e4 for i in range(2000))
    )[1]
    assert len(one.layers) < len(two.layers)
    assert table(one) == pytest.approx(expected, abs=2e-4)
    assert missed == pytest.approx(max(expected - 1, 1 - expected / 1.2), abs=1e-3)


@pytest.fixture
def table_file(tmp_path):
    """Writes a table of these changes."""
    space = SPACES[0]

    def write(of=None, **changes):
        measured = [
            {
                "folder": f"probes/{config.id}/{precision}",
                "threads": 1,
                "latency": factor * seconds(config),
                "probe": {
                    "subnet": config.to_dict(),
                    "precision": precision,
                    "network": NETWORK,
                    **(of or {}),
                },
            }
            for precision, factor in (("float32", 1.0), ("int8", 0.5))
            for config in probes(space)
        ]
        measured.append({"folder": "other", "threads": 1, "latency": 1.0, "probe": None})
        data = {
            "format": FORMAT,
            "version": 1,
            "device": {"machine": "aarch64"},
            "seconds": 10.0,
            "measured": measured,
            **changes,
        }
        path = tmp_path / "table.json"
        path.write_text(json.dumps(data), encoding="utf-8")
        return path

    return write


def test_a_table_is_of_one_network_length_precision_and_number_of_threads(table_file):
    path, space = table_file(), SPACES[0]
    for precision, factor in (("float32", 1.0), ("int8", 0.5)):
        table, _ = device_table(path, space, NETWORK, 10.0, precision, 1)
        assert table(space.min) == pytest.approx(factor * seconds(space.min))
    for wrong, message in [
        (("f" * 16, 10.0, "int8", 1), "of another network"),
        ((NETWORK, 5.0, "int8", 1), "add --seconds 10"),
        ((NETWORK, 10.0, "int8", 4), "no times of int8 with 4 threads, but of float32 with 1"),
    ]:
        with pytest.raises(ConfigError, match=message):
            device_table(path, space, *wrong)
    data = json.loads(path.read_text())
    for m in data["measured"]:
        m["latency"] = 1.0
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match="largest subnet is as fast as the smallest"):
        device_table(path, space, NETWORK, 10.0, "int8", 1)
    other = SearchSpace(4, 2, ffn_dims=(4, 16))
    with pytest.raises(ConfigError, match="outside the search space"):
        device_table(path, other, NETWORK, 10.0, "int8", 1)


def test_what_no_device_wrote_is_refused(table_file, tmp_path):
    with pytest.raises(ConfigError, match="does not exist: todm-sb latency"):
        read_table(tmp_path / "none.json")
    for changes in (
        {"format": "another"},
        {"seconds": 0},
        {"measured": []},
        {"measured": [{"folder": "a", "threads": 1, "latency": -1.0, "probe": None}]},
        {"of": {"precision": "int4"}},
    ):
        with pytest.raises(ConfigError, match=r"table\.json"):
            read_table(table_file(**changes))
    (tmp_path / "table.json").write_bytes(b"\xff{")
    with pytest.raises(ConfigError, match=r"table\.json"):
        read_table(tmp_path / "table.json")


def test_a_card_is_checked(tmp_path):
    assert read_card(tmp_path) is None
    card = {"subnet": {"layers": [0]}, "precision": "int8", "network": NETWORK}
    for content, message in [({**card, "subnet": 1}, "a subnet is"), ({}, "probe")]:
        (tmp_path / "probe.json").write_text(json.dumps(content))
        with pytest.raises(ConfigError, match=message):
            read_card(tmp_path)
    (tmp_path / "probe.json").write_text(json.dumps(card))
    assert SubnetConfig.from_dict(read_card(tmp_path)["subnet"]) == SubnetConfig((0,))


def test_networks_of_other_shapes_are_told_apart():
    config = {"d_joint": 8, "encoder": {"d_model": 4}}
    same = network_id({"encoder": {"d_model": 4}, "d_joint": 8}, SPACES[0])
    assert network_id(config, SPACES[0]) == same
    assert network_id(config, SPACES[1]) != same
    assert network_id({**config, "d_joint": 9}, SPACES[0]) != same
