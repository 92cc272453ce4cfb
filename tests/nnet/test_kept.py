"""What is kept for inference: the same tensors while weights stay, others when they do not."""

import copy
import pickle

import pytest
import torch

from todm_sb.nnet import ssm as ssm_module
from todm_sb.nnet.fft_convolution import fft_size
from todm_sb.nnet.kept import KeptTensors
from todm_sb.nnet.ssm import KEPT_BYTES, MultiHeadSSM


class Counted:
    """Computes, and counts how often."""

    def __init__(self, weight, size=4):
        self.weight, self.size, self.n = weight, size, 0

    def __call__(self):
        self.n += 1
        return [self.weight.detach().sum() * torch.ones(self.size)]


@pytest.fixture
def weight():
    return torch.nn.Parameter(torch.ones(3))


def test_it_computes_once_for_each_key(weight):
    kept, compute = KeptTensors(1000), Counted(weight)
    first = kept.get("a", [weight], compute)
    assert kept.get("a", [weight], compute) is first
    kept.get("b", [weight], compute)
    assert compute.n == 2


def _written(weight):
    with torch.no_grad():
        weight.mul_(2)
    return weight


CHANGES = {
    "written to": _written,
    "loaded": lambda w: (torch.nn.ParameterList([w]).load_state_dict({"0": 2 * w.detach()}), w)[1],
    "stepped": lambda w: (setattr(w, "grad", -w.detach()), torch.optim.SGD([w], 1.0).step(), w)[2],
    "replaced": lambda w: torch.nn.Parameter(2 * w.detach()),
    "moved": lambda w: (setattr(w, "data", 2 * w.data), w)[1],
    "in double": lambda w: (setattr(w, "data", 2 * w.data.double()), w)[1],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_it_computes_again_once_weights_have_changed(weight, change):
    kept = KeptTensors(1000)
    assert kept.get("a", [weight], Counted(weight))[0][0] == 3
    changed = change(weight)
    compute = Counted(changed)
    assert kept.get("a", [changed], compute)[0][0] == 6
    kept.get("a", [changed], compute)
    assert compute.n == 1


def test_it_keeps_the_last_used_within_its_bytes(weight):
    kept, compute = KeptTensors(2 * 16), Counted(weight)
    for key in ("a", "b", "a", "c"):  # b is out
        kept.get(key, [weight], compute)
    assert (compute.n, kept.n_bytes) == (3, 32)
    kept.get("a", [weight], compute)
    kept.get("c", [weight], compute)
    assert compute.n == 3
    kept.get("b", [weight], compute)
    assert compute.n == 4


def test_what_is_larger_than_all_its_bytes_is_not_kept(weight):
    kept, compute = KeptTensors(15), Counted(weight)
    kept.get("a", [weight], compute)
    kept.get("a", [weight], compute)
    assert (compute.n, kept.n_bytes) == (2, 0)


def test_weights_that_nobody_watches_are_not_trusted():
    with torch.inference_mode():
        weight = torch.ones(3)
        kept, compute = KeptTensors(1000), Counted(weight)
        kept.get("a", [weight], compute)
        weight.mul_(2)
        assert kept.get("a", [weight], compute)[0][0] == 6


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_begins_with_nothing(weight, copied):
    kept = KeptTensors(1000)
    kept.get("a", [weight], Counted(weight))
    other = copied(kept)
    assert (other.most_bytes, other.n_bytes) == (1000, 0)
    assert kept.n_bytes == 16


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return MultiHeadSSM(8, n_heads=4, state_size=4).eval()


def run(layer, n_frames, **options):
    x = torch.randn(1, n_frames, 8, generator=torch.Generator().manual_seed(n_frames))
    with torch.no_grad():
        return layer(x, torch.ones(1, n_frames, 1), **options)


def test_a_layer_makes_its_spectra_once_for_all_lengths_of_a_size(layer, monkeypatch):
    made = []
    spectra_of = ssm_module.spectra_of
    monkeypatch.setattr(
        ssm_module, "spectra_of", lambda *args: made.append(args[1:]) or spectra_of(*args)
    )
    for n_frames in (30, 31, 32, 30, 33):
        x = torch.randn(1, n_frames, 8)
        with torch.no_grad():
            exact = layer(x, torch.ones(1, n_frames, 1), layer.spectra(n_frames))
            made.pop()
            torch.testing.assert_close(layer(x, torch.ones(1, n_frames, 1)), exact)
    assert made == [(32, False), (36, False)]


@pytest.mark.parametrize("change", ["step", "train", "weights"])
def test_a_layer_that_learns_forgets(layer, change):
    run(layer, 20)
    if change == "train":  # even what is written past all counters
        layer.train()
        layer.forward_ssms[0].C.data.mul_(2)
        layer.eval()
    elif change == "step":
        layer(torch.randn(1, 20, 8), torch.ones(1, 20, 1)).sum().backward()
        torch.optim.SGD(layer.parameters(), 0.1).step()
    else:
        layer.load_state_dict({k: 1.5 * v for k, v in layer.state_dict().items()})
    torch.testing.assert_close(run(layer, 20), run(copy.deepcopy(layer), 20), rtol=0, atol=0)


def test_gradients_reach_the_kernels_of_a_layer_that_has_kept_some(layer):
    run(layer, 20)
    layer(torch.randn(1, 20, 8), torch.ones(1, 20, 1)).sum().backward()
    assert layer.forward_ssms[0].C.grad.abs().max() > 0


def test_causal_spectra_are_kept_apart(layer):
    both, causal = run(layer, 20), run(layer, 20, causal=True)
    assert not torch.allclose(both, causal)
    torch.testing.assert_close(run(layer, 20), both, rtol=0, atol=0)
    torch.testing.assert_close(run(layer, 20, causal=True), causal, rtol=0, atol=0)


def test_what_is_kept_holds_the_spectra_of_80_seconds():
    bins = fft_size(80 * 25) // 2 + 1
    assert 1024 * bins * torch.complex64.itemsize <= KEPT_BYTES


def test_an_extracted_layer_has_its_own(layer):
    run(layer, 20)
    small = layer.extract(2)
    torch.testing.assert_close(run(small, 20), run(layer, 20, n_heads=2))
