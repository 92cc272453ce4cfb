"""Searches, recognisers and the search for subnets read on another device what they read on the
CPU, and wait for it once a turn."""

import copy

import pytest
import soundfile
import torch
from pretended import FAR

from todm_sb.bundle.bundle import write_bundle
from todm_sb.decoders.ctc import CTCSearcher
from todm_sb.decoders.networks import TransducerNetworks
from todm_sb.decoders.transducer import TransducerSearcher
from todm_sb.inference import StreamingSubnetASR, SubnetASR
from todm_sb.nnet.kaldi_fbank import KaldiFbank
from todm_sb.search.dev_set import DevSet, Utterances, speech
from todm_sb.supernet import SearchSpace

DEVICES = ("cpu", FAR)
WAITS_OF_A_TURN = 1


@pytest.fixture
def model(make_transducer, predictor):
    """A network that emits where its encoder is loud."""
    model = make_transducer(predictor, ctc=True)
    with torch.no_grad():
        model.joiner.project_encoder.weight.mul_(3)
        model.joiner.output.bias[0] = 1
    return model


SEARCHERS = {
    "greedy": lambda model: TransducerSearcher(model, max_symbols=3),
    "beam": lambda model: TransducerSearcher(model, 3, max_symbols=1, nbest=2),
    "beam of several labels": lambda model: TransducerSearcher(model, 3, max_symbols=3),
    "ctc": CTCSearcher,
}


def frames_of(model):
    torch.manual_seed(1)
    return 4 * torch.randn(3, 20, model.encoder.d_model), torch.tensor([20, 7, 16])


def same(found, expected):
    for of_found, of_expected in zip(found, expected, strict=True):
        for got, wanted in zip(of_found, of_expected, strict=True):
            assert (got.tokens, got.frames) == (wanted.tokens, wanted.frames)
            assert got.log_probs == pytest.approx(wanted.log_probs, abs=1e-5)
            assert got.score == pytest.approx(wanted.score, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "predictor"), [*((name, "lstm") for name in SEARCHERS), ("greedy", "stateless")]
)
def test_a_search_finds_what_it_finds_on_the_cpu(ledger, model, name):
    encoded, n_frames = frames_of(model)
    expected = SEARCHERS[name](model).search(encoded, n_frames)
    assert any(hypotheses[0].tokens for hypotheses in expected)
    far = copy.deepcopy(model).to(FAR)
    for lengths in (n_frames.to(FAR), n_frames):  # those of the CPU will do, too
        same(SEARCHERS[name](far).search(encoded.to(FAR), lengths), expected)


def test_lengths_as_fractions_may_be_on_either_device(ledger, make_transducer):
    model = make_transducer("stateless")
    encoded, n_frames = frames_of(model)
    expected = TransducerSearcher(model)(encoded, n_frames / 20)[0]
    far = copy.deepcopy(model).to(FAR)
    for fractions in (n_frames / 20, (n_frames / 20).to(FAR)):
        assert TransducerSearcher(far)(encoded.to(FAR), fractions)[0] == expected


class CountedNetworks(TransducerNetworks):
    """Takes down how often the host had waited at each call of the joiner: once a turn."""

    def __init__(self, model, ledger):
        super().__init__(model)
        self.ledger, self.waits = ledger, []

    def join(self, encoder, predictor):
        self.waits.append(self.ledger.reads.total() + self.ledger.writes.total())
        return super().join(encoder, predictor)


@pytest.mark.parametrize("predictor", ["lstm"])
@pytest.mark.parametrize(
    ("name", "batch"), [("greedy", 3), ("greedy", 1), ("beam", 3), ("beam of several labels", 3)]
)
def test_a_turn_of_a_search_waits_for_the_device_once(ledger, model, name, batch):
    encoded, n_frames = (x[:batch].to(FAR) for x in frames_of(model))
    networks = CountedNetworks(copy.deepcopy(model).to(FAR), ledger)
    SEARCHERS[name](networks).search(encoded, n_frames)
    waits = [b - a for a, b in zip(networks.waits, networks.waits[1:], strict=False)]
    assert len(waits) > 10
    assert max(waits) <= WAITS_OF_A_TURN


def test_subnets_have_the_error_rates_of_the_cpu(ledger, make_transducer):
    space = SearchSpace(n_layers=3, min_layers=1, ffn_dims=(6, 12))
    model = make_transducer(**space.sizes)
    features, n_features = 3 * torch.randn(2, 40, 6), torch.tensor([40, 23])
    said = [["A", "B"], ["C"]]
    rates = []
    for device in DEVICES:
        network = copy.deepcopy(model).to(device)
        batch = Utterances(features.to(device), n_features.to(device), said)
        dev_set = DevSet(network, [batch], lambda ids: [chr(64 + i) for i in ids])
        rates.append([dev_set.error_rate(subnet) for subnet in (space.max, space.min)])
        assert speech([batch], 50).device.type == device
    assert rates[0] == rates[1]
    assert rates[0][0] > 0


def test_a_recogniser_reads_what_it_reads_on_the_cpu(ledger, bundle):
    wavs, lens = 0.1 * torch.randn(2, 16000), torch.tensor([1.0, 0.6])
    near, far = (SubnetASR.from_bundle(bundle, run_opts={"device": d}) for d in DEVICES)
    assert far.mods.encoder.model.joiner.output.weight.device.type == FAR
    expected = near.transcribe_batch(wavs, lens)
    assert far.transcribe_batch(wavs, lens) == expected
    assert min(map(len, expected[1])) > 0


@pytest.mark.parametrize("snip_edges", [False, True])
def test_features_are_those_of_the_cpu(ledger, snip_edges):
    wavs, n_samples = torch.randn(2, 4000), torch.tensor([4000, 1234])
    near = KaldiFbank(8000, 20, snip_edges=snip_edges)
    features, n_frames = copy.deepcopy(near).to(FAR)(wavs.to(FAR), n_samples.to(FAR))
    expected, n_expected = near(wavs, n_samples)
    assert n_frames.tolist() == n_expected.tolist()
    torch.testing.assert_close(features.cpu(), expected)


def test_a_file_is_loaded_and_read_on_the_device(ledger, bundle, tmp_path):
    path = str(tmp_path / "noise.wav")
    soundfile.write(path, 0.1 * torch.randn(8000).numpy(), 8000)  # to be resampled
    near, far = (SubnetASR.from_bundle(bundle, run_opts={"device": d}) for d in DEVICES)
    assert far.load_audio(path).device.type == FAR
    torch.testing.assert_close(far.load_audio(path).cpu(), near.load_audio(path))
    assert far.transcribe_file(path) == near.transcribe_file(path) != ""


def test_a_bundle_is_the_same_from_any_device(ledger, bundle, bundle_parts, tmp_path):
    model = bundle_parts["model"].to(FAR)
    write_bundle(tmp_path / "far", **{**bundle_parts, "model": model})
    for path in bundle.iterdir():
        assert (tmp_path / "far" / path.name).read_bytes() == path.read_bytes()
    assert model.joiner.output.weight.device.type == FAR


@pytest.mark.parametrize("dual_mode", [False, True])
def test_a_stream_reads_what_it_reads_on_the_cpu(
    ledger, bundle_parts, make_transducer, tmp_path, dual_mode
):
    mode = {"dual_mode": True} if dual_mode else {"causal": True}
    model = make_transducer(vocab_size=17, n_features=20, **bundle_parts["space"].sizes, **mode)
    with torch.no_grad():
        model.joiner.output.bias[model.blank] -= 5
    fbank = {**bundle_parts["fbank"], "fbank_kind": "kaldi", "snip_edges": True}
    write_bundle(tmp_path / "stream", **{**bundle_parts, "model": model, "fbank": fbank})
    wavs, said = 0.1 * torch.randn(2, 8000), []
    for device in DEVICES:
        asr = StreamingSubnetASR.from_bundle(tmp_path / "stream", run_opts={"device": device})
        context = asr.make_streaming_context(2)
        # The second stream ends within the second chunk.
        lens = (None, torch.tensor([1.0, 0.5]), None)
        words = [
            asr.transcribe_chunk(context, *x) for x in zip(wavs.split(3000, 1), lens, strict=True)
        ]
        said.append([*words, asr.finish(context)])
    assert said[0] == said[1]
    assert all(map("".join, zip(*said[0], strict=True)))
