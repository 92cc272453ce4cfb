import itertools
import math

import pytest
import torch
import torchaudio
from torch import nn

from todm_sb.losses import transducer
from todm_sb.losses.distillation import AlphaDivergence
from todm_sb.losses.transducer import (
    following_labels,
    lattice_loss,
    log_softmax,
    two_channel_loss,
    valid_nodes,
)
from todm_sb.nnet.joiner import Joiner

# torchaudio computes the lattice in float32.
SINGLE = {"rtol": 1e-5, "atol": 1e-5}
VOCAB = 5


def enumerate_loss(logits, labels):
    """-log of the summed probabilities of all alignments of one utterance.

    An alignment orders T blanks, each a step to the next frame, and the U labels; its last step
    is a blank. logits: (T, U + 1, V).
    """
    T, rows, _ = logits.shape
    U = rows - 1
    assert len(labels) == U
    log_probs = logits.double().log_softmax(-1)
    scores = []
    for label_steps in itertools.combinations(range(T - 1 + U), U):
        t = u = 0
        score = 0
        for step in range(T + U):
            if step in label_steps:
                score = score + log_probs[t, u, labels[u]]
                u += 1
            else:
                score = score + log_probs[t, u, 0]
                t += 1
        assert (t, u) == (T, U)
        scores.append(score)
    assert len(scores) == math.comb(T - 1 + U, U)
    return -torch.stack(scores).logsumexp(0)


class Table(nn.Module):
    """A joiner that looks its logits up: the encoder's frame holds those of all its nodes."""

    vocab_size = VOCAB

    def forward(self, encoder, predictor):
        return encoder.squeeze(2).unflatten(-1, (predictor.shape[2], VOCAB))


class Batch:
    """A joiner with inputs and targets of three utterances of different lengths."""

    def __init__(self, dtype=torch.double):
        self.joiner = Joiner(4, 3, 6, VOCAB).to(dtype)
        with torch.no_grad():
            self.joiner.output.weight.mul_(3)
        self.encoder = torch.randn(3, 5, 6, dtype=dtype, requires_grad=True)
        self.predictor = torch.randn(3, 4, 6, dtype=dtype, requires_grad=True)
        self.teacher = torch.randn(3, 5, 6, dtype=dtype)
        self.labels = torch.tensor([[1, 3, 3], [4, 2, 0], [0, 0, 0]])
        self.n_frames = torch.tensor([3, 5, 2])
        self.n_labels = torch.tensor([3, 2, 0])

    def loss(self, **options):
        return lattice_loss(
            joiner=self.joiner,
            encoder=self.encoder,
            predictor=self.predictor,
            labels=self.labels,
            n_frames=self.n_frames,
            n_labels=self.n_labels,
            **options,
        )

    def logits(self, encoder=None):
        """The joiner's formula at all nodes."""
        encoder = self.encoder if encoder is None else encoder
        joint = torch.tanh(encoder.unsqueeze(2) + self.predictor.unsqueeze(1))
        return joint @ self.joiner.output.weight.T + self.joiner.output.bias

    def brute_force(self):
        logits = self.logits()
        return torch.stack(
            [
                enumerate_loss(
                    logits[i, : self.n_frames[i], : self.n_labels[i] + 1],
                    self.labels[i, : self.n_labels[i]].tolist(),
                )
                for i in range(3)
            ]
        )

    def gradients(self, loss):
        inputs = [
            self.encoder,
            self.predictor,
            self.joiner.output.weight,
            self.joiner.output.bias,
        ]
        return torch.autograd.grad(loss, inputs)


@pytest.fixture
def batch():
    return Batch()


@pytest.mark.parametrize(("T", "U"), [(1, 0), (4, 0), (1, 1), (1, 3), (2, 2), (5, 1), (4, 4)])
def test_the_loss_and_its_gradient_to_logits_are_those_of_enumerated_alignments(T, U):
    logits = 2 * torch.randn(1, T, U + 1, VOCAB, dtype=torch.double)
    labels = torch.randint(1, VOCAB, (1, U))
    logits.requires_grad_()
    expected = enumerate_loss(logits[0], labels[0].tolist())
    (expected_gradient,) = torch.autograd.grad(expected, logits)

    loss = lattice_loss(
        joiner=Table(),
        encoder=logits.flatten(2),
        predictor=torch.zeros(1, U + 1, 1, dtype=torch.double),
        labels=labels,
        n_frames=torch.tensor([T]),
        n_labels=torch.tensor([U]),
    )
    (gradient,) = torch.autograd.grad(loss.transducer.sum(), logits)
    assert loss.divergence is None
    assert loss.transducer.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(gradient, expected_gradient, **SINGLE)


def test_each_utterance_of_a_padded_batch_has_its_own_loss_and_gradients(batch):
    expected = batch.brute_force()
    loss = batch.loss().transducer
    torch.testing.assert_close(loss.double(), expected, **SINGLE)
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.double)
    for got, exact in zip(
        batch.gradients((loss.double() * weights).sum()),
        batch.gradients((expected * weights).sum()),
        strict=True,
    ):
        assert exact.abs().max() > 1e-2
        torch.testing.assert_close(got, exact, **SINGLE)


def test_no_utterance_of_a_batch_needs_labels():
    batch = Batch()
    batch.predictor = batch.predictor.detach()[:, :1].requires_grad_()
    batch.labels, batch.n_labels = torch.zeros(3, 0, dtype=torch.long), torch.tensor([0, 0, 0])
    expected = batch.brute_force()
    torch.testing.assert_close(batch.loss().transducer.double(), expected, **SINGLE)


def test_a_blank_other_than_zero():
    logits = torch.randn(1, 3, 3, VOCAB, dtype=torch.double)
    labels = torch.tensor([[1, 0]])
    loss = lattice_loss(
        joiner=Table(),
        encoder=logits.flatten(2),
        predictor=torch.zeros(1, 3, 1),
        labels=labels,
        n_frames=torch.tensor([3]),
        n_labels=torch.tensor([2]),
        blank=4,
    )
    # The same with blank's column moved to the front.
    moved = torch.cat([logits[..., 4:], logits[..., :4]], dim=-1)
    expected = enumerate_loss(moved[0], [2, 1])
    assert loss.transducer.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_loss_is_torchaudios_on_all_logits():
    torch.manual_seed(3)
    logits = torch.randn(2, 20, 9, VOCAB, requires_grad=True)
    labels = torch.randint(1, VOCAB, (2, 8))
    n_frames, n_labels = torch.tensor([20, 13]), torch.tensor([5, 8])
    expected = torchaudio.functional.rnnt_loss(
        logits, labels.int(), n_frames.int(), n_labels.int(), blank=0, reduction="none"
    )
    loss = lattice_loss(
        joiner=Table(),
        encoder=logits.flatten(2),
        predictor=torch.zeros(2, 9, 1),
        labels=labels,
        n_frames=n_frames,
        n_labels=n_labels,
    ).transducer
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(
        torch.autograd.grad(loss.sum(), logits),
        torch.autograd.grad(expected.sum(), logits),
        rtol=1e-4,
        atol=1e-5,
    )


def explicit_divergence(batch, alphas, clip):
    """Node by node: the mean over an utterance's own nodes, times its T + U path steps."""
    with torch.no_grad():
        students, teachers = batch.logits().softmax(-1), batch.logits(batch.teacher).softmax(-1)
    results = []
    for i in range(3):
        T, U = batch.n_frames[i].item(), batch.n_labels[i].item()
        total = 0.0
        for t in range(T):
            for u in range(U + 1):
                q, p = students[i, t, u], teachers[i, t, u]
                sides = []
                for alpha in alphas:
                    if alpha == 1:
                        sides.append((p * (p / q).log()).sum().item())
                    else:
                        ratios = ((p / q) ** alpha).clamp(max=clip)
                        sides.append(((q * ratios).sum().item() - 1) / (alpha * (alpha - 1)))
                total += max(sides)
        results.append(total / (T * (U + 1)) * (T + U))
    return torch.tensor(results, dtype=torch.double)


@pytest.mark.parametrize("alphas", [(1,), (-1, 1), (2,)])
def test_the_divergence_is_the_mean_of_an_utterances_own_nodes_times_its_steps(batch, alphas):
    loss = batch.loss(teacher=batch.teacher, divergence=AlphaDivergence(alphas, clip=5.0))
    torch.testing.assert_close(
        loss.divergence.double(), explicit_divergence(batch, alphas, 5.0), rtol=1e-9, atol=1e-9
    )
    torch.testing.assert_close(loss.transducer, batch.loss().transducer)


def test_the_gradient_of_the_divergence_is_that_of_kl_written_out(batch):
    loss = batch.loss(teacher=batch.teacher, divergence=AlphaDivergence((1,)))
    q, p = batch.logits().log_softmax(-1), batch.logits(batch.teacher).log_softmax(-1).detach()
    expected = 0
    for i in range(3):
        T, U = batch.n_frames[i].item(), batch.n_labels[i].item()
        nodes = (slice(T), slice(U + 1))
        kl = (p[i][nodes].exp() * (p[i][nodes] - q[i][nodes])).sum()
        expected = expected + kl / (T * (U + 1)) * (T + U)
    for got, exact in zip(
        batch.gradients(loss.divergence.sum()), batch.gradients(expected), strict=True
    ):
        torch.testing.assert_close(got, exact, rtol=1e-9, atol=1e-9)


def test_three_classes_on_the_lattice_look_at_the_label_that_follows(batch):
    loss = batch.loss(teacher=batch.teacher, divergence=AlphaDivergence((1,), classes="three"))
    with torch.no_grad():
        q, p = batch.logits().softmax(-1), batch.logits(batch.teacher).softmax(-1)
    for i in range(3):
        T, U = batch.n_frames[i].item(), batch.n_labels[i].item()
        total = 0.0
        for t in range(T):
            for u in range(U + 1):
                groups = [[0], [batch.labels[i, u].item()]] if u < U else [[0]]
                groups.append([v for v in range(VOCAB) if [v] not in groups])
                for group in groups:
                    a, b = p[i, t, u, group].sum().item(), q[i, t, u, group].sum().item()
                    total += a * math.log(a / b)
        expected = total / (T * (U + 1)) * (T + U)
        assert loss.divergence[i].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("teaching", [False, True])
@pytest.mark.parametrize("frames_at_once", [1, 2, 3])
def test_a_few_frames_at_a_time_give_the_same_losses_and_gradients(
    batch, monkeypatch, teaching, frames_at_once
):
    options = {"teacher": batch.teacher, "divergence": AlphaDivergence((-1, 1))} if teaching else {}

    def run():
        loss = batch.loss(**options)
        total = loss.transducer.double().sum()
        if teaching:
            total = total + 0.7 * loss.divergence.sum()
        return loss, batch.gradients(total)

    whole, expected = run()
    seen = []
    forward = Joiner.forward
    monkeypatch.setattr(
        Joiner, "forward", lambda *args: seen.append(args[1].shape[1]) or forward(*args)
    )
    monkeypatch.setattr(transducer, "LOGITS_AT_ONCE", frames_at_once * 3 * 4 * VOCAB + 1)
    parts, gradients = run()

    assert max(seen) == frames_at_once
    torch.testing.assert_close(parts.transducer, whole.transducer, rtol=1e-6, atol=1e-6)
    if teaching:
        torch.testing.assert_close(parts.divergence, whole.divergence, rtol=1e-12, atol=1e-12)
    for got, exact in zip(gradients, expected, strict=True):
        torch.testing.assert_close(got, exact, rtol=1e-6, atol=1e-6)


def test_logits_too_many_for_even_one_frame_still_run(batch, monkeypatch):
    expected = batch.loss().transducer
    monkeypatch.setattr(transducer, "LOGITS_AT_ONCE", 1)
    torch.testing.assert_close(batch.loss().transducer, expected)


@pytest.mark.parametrize("at_once", [1, 1 << 22])
def test_padding_changes_no_loss_and_gets_no_gradient(batch, monkeypatch, at_once):
    monkeypatch.setattr(transducer, "LOGITS_AT_ONCE", at_once)
    options = {"teacher": batch.teacher, "divergence": AlphaDivergence((-1, 1))}
    before = batch.loss(**options)
    with torch.no_grad():
        for i in range(3):
            T, U = batch.n_frames[i], batch.n_labels[i]
            batch.encoder[i, T:] = 1e3 * torch.randn_like(batch.encoder[i, T:])
            batch.teacher[i, T:] = 1e3 * torch.randn_like(batch.teacher[i, T:])
            batch.predictor[i, U + 1 :] = 1e3 * torch.randn_like(batch.predictor[i, U + 1 :])
            batch.labels[i, U:] = VOCAB - 1
    after = batch.loss(**options)
    assert torch.equal(after.transducer, before.transducer)
    assert torch.equal(after.divergence, before.divergence)

    to_encoder, to_predictor, *_ = batch.gradients(
        after.transducer.double().sum() + after.divergence.sum()
    )
    for i in range(3):
        T, U = batch.n_frames[i], batch.n_labels[i]
        assert (to_encoder[i, T:] == 0).all()
        assert (to_predictor[i, U + 1 :] == 0).all()
        assert (to_encoder[i, :T] != 0).any(-1).all()


def test_the_teacher_and_what_it_reads_get_no_gradient(batch):
    batch.teacher.requires_grad_()
    loss = batch.loss(teacher=batch.teacher, divergence=AlphaDivergence((-1, 1)))
    (loss.transducer.double().sum() + loss.divergence.sum()).backward()
    assert batch.teacher.grad is None


def test_no_graph_is_built_for_the_teachers_logits(batch):
    seen = []

    def divergence(student, teacher, labels, blank):
        seen.append((student.requires_grad, teacher.requires_grad))
        return AlphaDivergence((1,))(student, teacher, labels, blank)

    batch.loss(teacher=batch.teacher, divergence=divergence)
    assert seen == [(True, False)]


def test_a_students_own_encoding_as_teacher_has_no_divergence(batch):
    loss = batch.loss(teacher=batch.encoder.detach(), divergence=AlphaDivergence((-1, 1)))
    torch.testing.assert_close(
        loss.divergence, torch.zeros(3, dtype=torch.double), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("at_once", [1, 1 << 22])
def test_half_precision_joiners_give_float32_losses_and_gradients_to_all(monkeypatch, at_once):
    batch = Batch(torch.float)
    options = {"teacher": batch.teacher, "divergence": AlphaDivergence((-1, 1))}

    def run():
        loss = batch.loss(**options)
        return loss, batch.gradients(loss.transducer.sum() + loss.divergence.sum())

    exact, expected = run()
    monkeypatch.setattr(transducer, "LOGITS_AT_ONCE", at_once)
    with torch.autocast("cpu", torch.bfloat16):
        half, gradients = run()
    assert half.transducer.dtype == half.divergence.dtype == torch.float32
    torch.testing.assert_close(half.transducer, exact.transducer, rtol=0.02, atol=0.05)
    torch.testing.assert_close(half.divergence, exact.divergence, rtol=0.05, atol=0.05)
    for got, reference in zip(gradients, expected, strict=True):
        assert (
            torch.nn.functional.cosine_similarity(got.flatten(), reference.flatten(), dim=0) > 0.99
        )


def test_log_softmax_is_float32_or_better():
    for given, expected in [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ]:
        log_probs = log_softmax(torch.zeros(3, 4, dtype=given))
        assert log_probs.dtype == expected
        assert log_probs.exp().sum(-1).tolist() == pytest.approx([1] * 3)


def test_each_row_is_left_by_its_label_and_the_last_by_none():
    labels = torch.tensor([[3, 4, 2], [4, 9, 9]])
    following = following_labels(labels, torch.tensor([3, 1]), blank=0)
    assert following.tolist() == [[3, 4, 2, 0], [4, 0, 0, 0]]


def test_valid_nodes_are_those_of_an_utterances_own_lattice():
    valid = valid_nodes(torch.tensor([3, 1]), torch.tensor([1, 2]), 3, 3)
    assert valid[0].tolist() == [[True, True, False]] * 3
    assert valid[1].tolist() == [[True] * 3, [False] * 3, [False] * 3]


def test_the_two_channel_loss_sums_the_alignments_of_a_lattice():
    log_probs = torch.randn(1, 3, 3, 2, dtype=torch.double)
    blank, label = log_probs[0].unbind(-1)
    # All paths from (0, 0) to (2, 2), then the final blank.
    alpha = {}
    for t in range(3):
        for u in range(3):
            ways = [0.0] if t == u == 0 else []
            if t:
                ways.append(alpha[t - 1, u] + blank[t - 1, u].item())
            if u:
                ways.append(alpha[t, u - 1] + label[t, u - 1].item())
            alpha[t, u] = torch.tensor(ways, dtype=torch.double).logsumexp(0).item()
    expected = -(alpha[2, 2] + blank[2, 2].item())
    loss = two_channel_loss(log_probs, torch.tensor([3]), torch.tensor([2]))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
