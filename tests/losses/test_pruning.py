from itertools import pairwise

import pytest
import torch
from brute_force import alignments, enumerate_arcs

from todm_sb.losses.distillation import AlphaDivergence
from todm_sb.losses.lattice import two_channel_loss
from todm_sb.losses.pruning import Band, Pruning, choose_band, ctc_lattice, simple_lattice
from todm_sb.losses.transducer import NODE_WEIGHTS, Teacher, lattice_loss, node_weights
from todm_sb.nnet.joiner import Joiner
from todm_sb.utils.errors import ConfigError

# torchaudio computes the lattice in float32.
SINGLE = {"rtol": 1e-5, "atol": 1e-5}
VOCAB = 5
LABELS = torch.tensor([[1, 3, 3], [4, 2, 0], [2, 0, 0]])
N_FRAMES = torch.tensor([3, 5, 2])
N_LABELS = torch.tensor([3, 2, 1])
WHOLE = Band(torch.zeros(3, 5, dtype=torch.long), 4)
# Passable by hand: from row 0 to the last, never back, never further than its width allows.
NARROW = Band(torch.tensor([[0, 1, 2, 2, 2], [0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]), 2)


def randn(*shape):
    return torch.randn(*shape, dtype=torch.double)


def utterances():
    return [(i, N_FRAMES[i].item(), N_LABELS[i].item()) for i in range(3)]


# Simple lattice


def mean_unigram(predictor):
    """The average of the predictor's distributions over all rows that utterances have."""
    rows = torch.cat([predictor[i, : U + 1].softmax(-1) for i, _, U in utterances()])
    return rows.mean(0)


def explicit_simple_arcs(encoder, predictor, i, T, U, pruning):
    """Smoothed log-probabilities of one utterance's arcs, from tensors over the vocabulary."""
    both = (encoder[i, :T, None] + predictor[i, None, : U + 1]).log_softmax(-1)
    rows = predictor[i, : U + 1].log_softmax(-1).expand(T, -1, -1)
    frames = (encoder[i, :T] + mean_unigram(predictor).log()).log_softmax(-1)
    frames = frames.unsqueeze(1).expand(-1, U + 1, -1)
    a, b = pruning.predictor_smoothing, pruning.encoder_smoothing
    log_probs = (1 - a - b) * both + a * rows + b * frames
    labels = [*LABELS[i, :U].tolist(), 0]
    nexts = torch.stack([log_probs[:, u, v] for u, v in enumerate(labels)], 1)
    return torch.stack([log_probs[..., 0], nexts], -1)


def test_the_ctc_head_is_a_simple_joiner_whose_predictor_says_nothing():
    log_probs, silent = (2 * randn(3, 5, VOCAB)).log_softmax(-1), torch.zeros(3, 4, VOCAB)
    lengths = N_FRAMES, N_LABELS
    _, expected = simple_lattice(
        log_probs, silent, LABELS, *lengths, 0, Pruning(predictor_smoothing=0)
    )
    got = ctc_lattice(log_probs, LABELS, *lengths, 0)
    torch.testing.assert_close(got, expected, **SINGLE)


@pytest.mark.parametrize("shares", [(0.0, 0.0), (0.25, 0.0), (0.2, 0.3), (0.0, 1.0)])
def test_the_simple_lattice_is_the_formula_over_all_alignments(shares):
    pruning = Pruning(predictor_smoothing=shares[0], encoder_smoothing=shares[1])
    encoder = (2 * randn(3, 5, VOCAB)).requires_grad_()
    predictor = (2 * randn(3, 4, VOCAB)).requires_grad_()
    loss, occupancy = simple_lattice(encoder, predictor, LABELS, N_FRAMES, N_LABELS, 0, pruning)
    expected = []
    for i, T, U in utterances():
        arcs = explicit_simple_arcs(encoder, predictor, i, T, U, pruning)
        own_loss, own_occupancy = enumerate_arcs(arcs)
        expected.append(own_loss)
        torch.testing.assert_close(occupancy[i, :T, : U + 1].double(), own_occupancy, **SINGLE)
        assert occupancy[i].sum().item() == pytest.approx(T + U, rel=1e-5)
    expected = torch.stack(expected)
    torch.testing.assert_close(loss, expected, **SINGLE)
    weights = torch.tensor([1.0, -2.0, 0.5])
    for got, exact in zip(
        torch.autograd.grad((loss * weights).sum(), [encoder, predictor]),
        torch.autograd.grad((expected * weights).sum(), [encoder, predictor]),
        strict=True,
    ):
        assert exact.abs().max() > 1e-2
        torch.testing.assert_close(got, exact, **SINGLE)


@pytest.mark.parametrize("scale", [10, 40])
def test_saturated_logits_of_the_simple_lattice_have_the_gradient_of_the_formula(scale):
    pruning = Pruning(predictor_smoothing=0)
    encoder = (scale * torch.randn(3, 5, VOCAB)).requires_grad_()
    predictor = (0.1 * torch.randn(3, 4, VOCAB)).requires_grad_()
    loss, _ = simple_lattice(encoder, predictor, LABELS, N_FRAMES, N_LABELS, 0, pruning)
    expected = sum(
        enumerate_arcs(
            explicit_simple_arcs(encoder.double(), predictor.double(), i, T, U, pruning)
        )[0]
        for i, T, U in utterances()
    )
    assert loss.sum().item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(
        torch.autograd.grad(loss.sum(), [encoder, predictor]),
        torch.autograd.grad(expected, [encoder, predictor]),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_simple_lattice_is_in_float32_under_autocast(dtype):
    peaks = 15 * torch.eye(VOCAB).repeat(3, 1, 1)
    encoder = (peaks + torch.randn(3, 5, VOCAB)).requires_grad_()
    predictor = (peaks.flip(2)[:, :4] + torch.randn(3, 4, VOCAB)).requires_grad_()

    def found():
        arguments = LABELS, N_FRAMES, N_LABELS, 0, Pruning(encoder_smoothing=0.1)
        loss, occupancy = simple_lattice(encoder, predictor, *arguments)
        return loss, occupancy, *torch.autograd.grad(loss.sum(), (encoder, predictor))

    expected = found()
    with torch.autocast("cpu", dtype):
        torch.testing.assert_close(found(), expected)


def test_the_simple_lattice_stays_finite_where_encoder_and_predictor_disagree():
    encoder = torch.full((1, 4, VOCAB), -200.0)
    predictor = torch.full((1, 3, VOCAB), -200.0)
    encoder[..., 0], predictor[..., 1] = 200, 200
    encoder.requires_grad_()
    loss, occupancy = simple_lattice(
        encoder,
        predictor,
        torch.tensor([[1, 2]]),
        torch.tensor([4]),
        torch.tensor([2]),
        0,
        Pruning(),
    )
    assert loss.isfinite().all()
    assert occupancy.isfinite().all()
    (gradient,) = torch.autograd.grad(loss.sum(), encoder)
    assert gradient.isfinite().all()


# Band


def random_occupancy(T, U, sharpness):
    arcs = sharpness * torch.randn(1, T, U + 1, 2)
    n_frames, n_labels = torch.tensor([T]), torch.tensor([U])
    return two_channel_loss(arcs.log_softmax(-1), n_frames, n_labels)[1], n_frames, n_labels


@pytest.mark.parametrize("T", [1, 2, 7, 30])
@pytest.mark.parametrize("U", [0, 1, 4, 9, 23])
@pytest.mark.parametrize("s_range", [2, 3, 5, 40])
def test_a_band_is_passable_from_the_first_node_to_the_last(T, U, s_range):
    for sharpness in (0, 1, 10):
        occupancy, n_frames, n_labels = random_occupancy(T, U, sharpness)
        band = choose_band(occupancy, n_frames, n_labels, s_range)
        start = band.start[0].tolist()
        # No wider than asked for, unless so few frames could not hold the labels.
        assert band.width == min(max(s_range, -(-U // T) + 1), U + 1)
        assert start[0] == 0
        assert start[-1] + band.width == U + 1
        for a, b in pairwise(start):
            assert 0 <= b - a <= max(band.width - 1, 0)


def test_each_utterance_of_a_batch_has_the_band_it_has_alone():
    shapes = [(12, 9), (20, 3), (7, 1), (4, 0)]
    parts = [random_occupancy(T, U, 2) for T, U in shapes]
    occupancy = torch.zeros(4, 20, 10)
    for i, (T, U) in enumerate(shapes):
        occupancy[i, :T, : U + 1] = parts[i][0]
    n_frames, n_labels = (torch.tensor(x) for x in zip(*shapes, strict=True))
    band = choose_band(occupancy, n_frames, n_labels, 4)
    for i, (T, U) in enumerate(shapes):
        alone = choose_band(*parts[i], 4)
        assert band.start[i, :T].tolist() == alone.start[0].tolist()
        assert (band.start[i] + band.width <= 10).all()
        assert (band.start[i, T:] == max(U - 3, 0)).all()


def test_an_utterance_without_frames_leaves_the_bands_of_others():
    occupancy, n_frames, n_labels = random_occupancy(7, 4, 3)
    alone = choose_band(occupancy, n_frames, n_labels, 3)
    both = choose_band(
        torch.cat([occupancy, torch.zeros(1, 7, 5)]),
        torch.tensor([7, 0]),
        torch.tensor([4, 4]),
        3,
    )
    assert both.width == alone.width == 3
    assert torch.equal(both.start[:1], alone.start)


def test_a_band_follows_a_sharp_alignment():
    # Labels come in bursts of two a frame, which a band of three rows can follow.
    path = [0, 0, 2, 2, 4, 4, 4, 5, 7, 7]
    arcs = torch.full((1, 10, 8, 2), -20.0)
    for t, u in enumerate(path):
        arcs[0, t, u, 0] = 0
        for v in range(path[t - 1] if t else 0, u):
            arcs[0, t, v, 1] = 0
    n_frames, n_labels = torch.tensor([10]), torch.tensor([7])
    _, occupancy = two_channel_loss(arcs, n_frames, n_labels)
    band = choose_band(occupancy, n_frames, n_labels, 3)
    inside = band.spread(torch.ones(1, 10, 3, 1), 8, outside=0.0)[..., 0]
    assert (occupancy > 0.5).sum() == 10 + 7
    assert (inside[occupancy > 0.5] == 1).all()


def test_taking_and_spreading_are_each_others_inverse():
    lattice = torch.arange(60.0).view(3, 5, 4)
    taken = NARROW.take(lattice)
    assert taken[0, 1].tolist() == [5, 6]
    spread = NARROW.spread(taken.unsqueeze(-1), 4, outside=-1.0).squeeze(-1)
    assert (spread[0, 1] == torch.tensor([-1.0, 5.0, 6.0, -1.0])).all()
    assert torch.equal(NARROW.take(spread), taken)
    assert (spread == -1).sum() == 3 * 5 * 2


def test_selected_rows_gather_their_gradients():
    rows = torch.randn(3, 4, 2, requires_grad=True)
    selected = NARROW.select(rows)
    assert torch.equal(selected[0, 1], rows[0, 1:3])
    (gradient,) = torch.autograd.grad(selected.sum(), rows)
    assert gradient[0, :, 0].tolist() == [1, 2, 4, 3]


# Pruned loss


class Batch:
    """A joiner with inputs of three utterances of different lengths."""

    def __init__(self):
        self.joiner = Joiner(4, 3, 6, VOCAB).double()
        with torch.no_grad():
            self.joiner.output.weight.mul_(3)
        self.encoder = randn(3, 5, 6).requires_grad_()
        self.predictor = randn(3, 4, 6).requires_grad_()
        self.teacher_encoder = randn(3, 5, 6)

    def loss(self, encoder=None, **options):
        encoder = self.encoder if encoder is None else encoder
        return lattice_loss(
            self.joiner, encoder, self.predictor, LABELS, N_FRAMES, N_LABELS, **options
        )

    def log_probs(self, encoder):
        joint = torch.tanh(encoder.unsqueeze(2) + self.predictor.unsqueeze(1))
        return (joint @ self.joiner.output.weight.T + self.joiner.output.bias).log_softmax(-1)

    def gradients(self, loss):
        return torch.autograd.grad(
            loss, [self.encoder, self.predictor, self.joiner.output.weight, self.joiner.output.bias]
        )

    def brute_force(self, band, encoder=None):
        """Loss and occupancy over the alignments all of whose nodes are in the band."""
        log_probs = self.log_probs(self.encoder if encoder is None else encoder)
        inside = {(i, t, u) for i in range(3) for t in range(5) for u in band.rows[i, t].tolist()}
        losses, occupancy = [], torch.zeros(3, 5, 4, dtype=torch.double)
        for i, T, U in utterances():
            labels = [*LABELS[i, :U].tolist(), 0]
            paths = [
                path for path in alignments(T, U) if all((i, t, u) in inside for t, u, _ in path)
            ]
            scores = torch.stack(
                [
                    sum(log_probs[i, t, u, labels[u] if is_label else 0] for t, u, is_label in path)
                    for path in paths
                ]
            )
            losses.append(-scores.logsumexp(0))
            for path, share in zip(paths, scores.detach().softmax(0), strict=True):
                for t, u, _ in path:
                    occupancy[i, t, u] += share
        return torch.stack(losses), occupancy


@pytest.fixture
def batch():
    return Batch()


@pytest.mark.parametrize("band", [NARROW, WHOLE], ids=["narrow", "whole"])
def test_the_pruned_loss_sums_the_alignments_inside_the_band(batch, band):
    expected, occupancy = batch.brute_force(band)
    loss = batch.loss(band=band)
    torch.testing.assert_close(loss.transducer, expected, **SINGLE)
    torch.testing.assert_close(loss.occupancy.double(), band.take(occupancy), **SINGLE)
    weights = torch.tensor([1.0, -2.0, 0.5])
    for got, exact in zip(
        batch.gradients((loss.transducer * weights).sum()),
        batch.gradients((expected * weights).sum()),
        strict=True,
    ):
        assert exact.abs().max() > 1e-2
        torch.testing.assert_close(got, exact, **SINGLE)


def test_pruning_leaves_probability_out_and_never_adds_any(batch):
    assert (batch.loss(band=NARROW).transducer > batch.loss().transducer + 1e-3).any()
    assert (batch.loss(band=NARROW).transducer >= batch.loss().transducer - 1e-6).all()


@pytest.mark.parametrize("s_range", [4, 9])
@pytest.mark.parametrize("kd_nodes", NODE_WEIGHTS)
def test_a_band_of_all_labels_is_the_full_lattice(batch, s_range, kd_nodes):
    def losses(band):
        with torch.no_grad():
            occupancy = batch.loss(batch.teacher_encoder, band=band).occupancy
        weights = node_weights(kd_nodes, occupancy, N_FRAMES, N_LABELS, band)
        teacher = Teacher(batch.teacher_encoder, weights)
        return batch.loss(teacher=teacher, divergence=AlphaDivergence(), band=band)

    full = losses(None)
    band = choose_band(batch.loss().occupancy, N_FRAMES, N_LABELS, s_range)
    pruned = losses(band)
    torch.testing.assert_close(pruned.transducer, full.transducer)
    torch.testing.assert_close(pruned.divergence, full.divergence)
    torch.testing.assert_close(pruned.occupancy, full.occupancy)
    total, full_total = (x.transducer.sum() + x.divergence.sum() for x in (pruned, full))
    torch.testing.assert_close(batch.gradients(total), batch.gradients(full_total))


@pytest.mark.parametrize("kd_nodes", NODE_WEIGHTS)
def test_distillation_runs_on_the_band(batch, kd_nodes):
    with torch.no_grad():
        occupancy = batch.loss(batch.teacher_encoder, band=NARROW).occupancy
    weights = node_weights(kd_nodes, occupancy, N_FRAMES, N_LABELS, NARROW)
    teacher = Teacher(batch.teacher_encoder, weights)
    loss = batch.loss(teacher=teacher, divergence=AlphaDivergence((1,)), band=NARROW)

    q, p = batch.log_probs(batch.encoder), batch.log_probs(batch.teacher_encoder).detach()
    kl = (p.exp() * (p - q)).sum(-1)
    _, passed = batch.brute_force(NARROW, batch.teacher_encoder)
    for i, T, U in utterances():
        nodes = [(t, u) for t in range(T) for u in NARROW.rows[i, t].tolist() if u <= U]
        if kd_nodes == "occupancy":
            expected = sum(kl[i, t, u] * passed[i, t, u] for t, u in nodes)
        else:
            expected = sum(kl[i, t, u] for t, u in nodes) * (T + U) / len(nodes)
        assert loss.divergence[i].item() == pytest.approx(expected.item(), rel=1e-4)
    total = loss.divergence.sum()
    assert all(g.abs().max() > 1e-3 for g in batch.gradients(total))


def test_chunks_of_frames_change_nothing(batch, monkeypatch):
    with torch.no_grad():
        occupancy = batch.loss(batch.teacher_encoder, band=NARROW).occupancy
    teacher = Teacher(batch.teacher_encoder, occupancy)
    options = {"teacher": teacher, "divergence": AlphaDivergence(), "band": NARROW}
    whole = batch.loss(**options)
    expected = batch.gradients(whole.transducer.sum() + whole.divergence.sum())
    # Two frames at a time.
    monkeypatch.setattr("todm_sb.losses.nodes.LOGITS_AT_ONCE", {"cpu": 2 * 3 * 2 * VOCAB})
    chunked = batch.loss(**options)
    torch.testing.assert_close(chunked.transducer, whole.transducer)
    torch.testing.assert_close(chunked.divergence, whole.divergence)
    got = batch.gradients(chunked.transducer.sum() + chunked.divergence.sum())
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(("rows_a_frame", "width"), [(1, 2), (3, 4), (7, 8), (15, 16), (41, None)])
def test_a_band_is_as_wide_as_it_takes_to_cover_the_alignments(rows_a_frame, width):
    T, n_rows = 40, 21
    centre = torch.arange(T).mul(n_rows - 1).div(T - 1).round().unsqueeze(1)
    distance = (torch.arange(n_rows) - centre).abs()
    occupancy = (distance <= rows_a_frame // 2).double().unsqueeze(0)
    lengths = torch.tensor([T]), torch.tensor([n_rows - 1])
    band = Pruning(s_range=2, coverage=0.9).choose(occupancy, *lengths)
    assert (band and band.width) == width
    if band:
        assert band.take(occupancy).sum() >= 0.9 * occupancy.sum()
    assert Pruning(s_range=2).choose(occupancy, *lengths).width == 2


# Settings


def test_the_warm_up_moves_weight_from_the_simple_to_the_pruned_loss():
    pruning = Pruning(simple_weight=0.5, warmup_batches=2000)
    assert pruning.weights(0) == (1.0, pytest.approx(0.1))
    assert pruning.weights(1000) == (pytest.approx(0.75), pytest.approx(0.55))
    assert pruning.weights(2000) == pruning.weights(9999) == pruning.weights(None) == (0.5, 1.0)
    assert Pruning(warmup_batches=0).weights(0) == (0.5, 1.0)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match=r"s_range is 1: a band needs at least 2"):
        Pruning(s_range=1)
    with pytest.raises(ConfigError, match=r"by must be one of \('simple', .*\), not 'CTC'"):
        Pruning(by="CTC")
    with pytest.raises(ConfigError, match="coverage is a share below 1, not 1"):
        Pruning(coverage=1)
    with pytest.raises(ConfigError, match=r"predictor_smoothing \(0.7\).*together at most 1"):
        Pruning(predictor_smoothing=0.7, encoder_smoothing=0.4)
