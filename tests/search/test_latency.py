import json
import platform
import random
import subprocess
import sys

import pytest
import torch

from todm_sb.search.latency import LatencyTable, decode_utterance, time_utterance
from todm_sb.supernet import SearchSpace, SubnetConfig, extract_subnet

SPACE = SearchSpace(4, 1, ffn_dims=(3, 12))
TABLE = LatencyTable(
    1.0,
    (0.2, 0.02, 6.0),
    tuple({"ffn_dims": {3: s, 12: 0.0}, "n_heads": {2: s / 4, 4: 0.0}} for s in (0.1, 0.01, 1.0)),
)


def test_a_subnet_takes_the_sum_of_its_layers_and_the_rest():
    assert TABLE(SubnetConfig((0, 1), ffn_dims=(12, 3))) == pytest.approx(1.21)
    assert TABLE(SubnetConfig((2,), ffn_dims=(12,))) == pytest.approx(7.0)
    assert TABLE(SubnetConfig((2,), ffn_dims=(3,), n_heads=(2,))) == pytest.approx(5.75)


def test_a_table_survives_json():
    assert LatencyTable.from_dict(json.loads(json.dumps(TABLE.to_dict()))) == TABLE


def test_every_layer_is_timed_at_every_width_and_nothing_is_left_changed(make_transducer):
    supernet = make_transducer()
    state = {key: value.clone() for key, value in supernet.state_dict().items()}
    threads = torch.get_num_threads()
    table = LatencyTable.measure(supernet, SPACE, torch.randn(1, 60, 6), repeats=2)
    assert [set(layer["ffn_dims"]) for layer in table.savings] == [{3, 12}] * 4
    assert all(layer["ffn_dims"][12] == 0 for layer in table.savings)
    assert table.rest > 0
    assert all(0 < t < 1 for t in table.layers)
    assert torch.get_num_threads() == threads
    assert all(torch.equal(value, state[key]) for key, value in supernet.state_dict().items())


# Prints the page faults of 48 MB that are made and freed again and again.
FAULTS = """
import resource, statistics, torch
from todm_sb.search.latency import _steady

def faults():
    start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(3_000_000) for _ in range(4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start

with _steady():
    print(statistics.median([faults() for _ in range(15)][5:]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="its allocator is meant")
@pytest.mark.slow
def test_memory_is_not_fetched_anew_in_each_run():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, check=True)
    assert float(done.stdout) < 100


def test_deeper_and_wider_subnets_take_longer(make_transducer):
    # Sizes far enough apart for any machine: 64 times the work of a layer, 4 times the layers.
    supernet = make_transducer(ffn_dims=[4096] * 4, d_model=64, n_heads=4)
    features = torch.randn(1, 400, 6)
    table = LatencyTable.measure(
        supernet, SearchSpace(4, 1, ffn_dims=(64, 4096)), features, repeats=3
    )
    narrow, wide = (SubnetConfig((0, 1), ffn_dims=(w, w)) for w in (64, 4096))
    deep = SubnetConfig((0, 1, 2, 3), ffn_dims=(4096,) * 4)
    assert table(narrow) < table(wide) < table(deep)
    times = time_utterance([extract_subnet(supernet, c) for c in (narrow, wide)], features, 3)
    assert times[0] < times[1]


def test_what_is_timed_is_reading_an_utterance(make_transducer):
    supernet = make_transducer()
    with torch.no_grad():
        supernet.joiner.output.bias[0] -= 5.5
    features = torch.randn(1, 60, 6)
    config = SPACE.random(random.Random(0))
    network = extract_subnet(supernet, config)
    encoded, n_frames = network.encoder(features, torch.tensor([60]))
    # The first label of the first frame that has one, by the joiner alone.
    joiner = network.joiner
    start, _ = network.predictor(torch.zeros(1, 1, dtype=torch.long))
    logits = joiner(joiner.project_encoder(encoded), joiner.project_predictor(start))
    labels = [x for x in logits[0, : n_frames[0]].argmax(-1).tolist() if x != 0]
    assert labels
    assert decode_utterance(network, features)[0] == labels[0]
