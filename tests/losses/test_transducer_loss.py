import math

import pytest
import torch
import torchaudio
from brute_force import alignments, enumerate_arcs
from torch.utils._python_dispatch import TorchDispatchMode

from todm_sb.losses import lattice, nodes
from todm_sb.losses.distillation import AlphaDivergence
from todm_sb.losses.forward_backward import forward_backward
from todm_sb.losses.lattice import following_labels, log_softmax, two_channel_loss, valid_nodes
from todm_sb.losses.lattice_kernel import kernel_loss
from todm_sb.losses.pruning import OUTSIDE
from todm_sb.losses.transducer import NODE_WEIGHTS, Teacher, lattice_loss, node_weights
from todm_sb.nnet.joiner import Joiner

SINGLE = {"rtol": 1e-5, "atol": 1e-5}
VOCAB = 5


def enumerate_logits(logits, labels):
    """The same from logits (T, U + 1, V) and the labels that follow."""
    assert len(labels) == logits.shape[1] - 1
    log_probs = logits.double().log_softmax(-1)
    rows = [torch.stack([log_probs[:, u, 0], log_probs[:, u, v]], -1) for u, v in enumerate(labels)]
    last = log_probs[:, -1, 0]
    return enumerate_arcs(torch.stack([*rows, torch.stack([last, 0 * last], -1)], 1))


def enumerate_loss(logits, labels):
    return enumerate_logits(logits, labels)[0]


class Case:
    """A joiner with inputs for utterances of T frames and U labels, and the logits written out."""

    def __init__(self, T, U, batch=1, dtype=torch.double):
        self.joiner = Joiner(4, 3, 6, VOCAB).to(dtype)
        with torch.no_grad():
            self.joiner.output.weight.mul_(5)
        self.encoder = torch.randn(batch, T, 6, dtype=dtype, requires_grad=True)
        self.predictor = torch.randn(batch, U + 1, 6, dtype=dtype, requires_grad=True)

    def logits(self):
        joint = torch.tanh(self.encoder.unsqueeze(2) + self.predictor.unsqueeze(1))
        return joint @ self.joiner.output.weight.T + self.joiner.output.bias

    def loss(self, labels, n_frames, n_labels, **options):
        return lattice_loss(
            self.joiner, self.encoder, self.predictor, labels, n_frames, n_labels, **options
        )

    def gradients(self, loss):
        return torch.autograd.grad(
            loss, [self.encoder, self.predictor, self.joiner.output.weight, self.joiner.output.bias]
        )


class Batch:
    """A joiner with inputs and targets of three utterances of different lengths."""

    def __init__(self, dtype=torch.double):
        self.joiner = Joiner(4, 3, 6, VOCAB).to(dtype)
        with torch.no_grad():
            self.joiner.output.weight.mul_(3)
        self.encoder = torch.randn(3, 5, 6, dtype=dtype, requires_grad=True)
        self.predictor = torch.randn(3, 4, 6, dtype=dtype, requires_grad=True)
        self.teacher_encoder = torch.randn(3, 5, 6, dtype=dtype)
        self.labels = torch.tensor([[1, 3, 3], [4, 2, 0], [0, 0, 0]])
        self.n_frames = torch.tensor([3, 5, 2])
        self.n_labels = torch.tensor([3, 2, 0])

    def loss(self, encoder=None, **options):
        return lattice_loss(
            joiner=self.joiner,
            encoder=self.encoder if encoder is None else encoder,
            predictor=self.predictor,
            labels=self.labels,
            n_frames=self.n_frames,
            n_labels=self.n_labels,
            **options,
        )

    def teacher(self, kind):
        """The teacher as a training step has it, from its own pass through the lattice."""
        with torch.no_grad():
            own = self.loss(self.teacher_encoder)
        weights = node_weights(kind, own.occupancy, self.n_frames, self.n_labels)
        return Teacher(self.teacher_encoder, weights, own.log_probs)

    def teacher_with(self, weights):
        return Teacher(self.teacher_encoder, weights)

    def logits(self, encoder=None):
        """The joiner's formula at all nodes."""
        encoder = self.encoder if encoder is None else encoder
        joint = torch.tanh(encoder.unsqueeze(2) + self.predictor.unsqueeze(1))
        return joint @ self.joiner.output.weight.T + self.joiner.output.bias

    def brute_force(self, encoder=None):
        """Loss of each utterance, and occupancy with zeros around each utterance's lattice."""
        logits = self.logits(encoder)
        losses, occupancy = [], torch.zeros(logits.shape[:3], dtype=torch.double)
        for i in range(3):
            T, U = self.n_frames[i].item(), self.n_labels[i].item()
            loss, own = enumerate_logits(logits[i, :T, : U + 1], self.labels[i, :U].tolist())
            losses.append(loss)
            occupancy[i, :T, : U + 1] = own
        return torch.stack(losses), occupancy

    def brute_force_weights(self, kind):
        """How much each node counts, written out."""
        if kind == "occupancy":
            return self.brute_force(self.teacher_encoder)[1].detach()
        weights = torch.zeros(3, 5, 4, dtype=torch.double)
        for i in range(3):
            T, U = self.n_frames[i].item(), self.n_labels[i].item()
            weights[i, :T, : U + 1] = (T + U) / (T * (U + 1))
        return weights

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
def test_the_loss_and_its_gradient_are_those_of_enumerated_alignments(T, U):
    case = Case(T, U)
    labels = torch.randint(1, VOCAB, (1, U))
    expected = enumerate_loss(case.logits()[0], labels[0].tolist())
    loss = case.loss(labels, torch.tensor([T]), torch.tensor([U]))
    assert loss.divergence is None
    assert loss.transducer.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(
        case.gradients(loss.transducer.sum()), case.gradients(expected), **SINGLE
    )


def test_each_utterance_of_a_padded_batch_has_its_own_loss_and_gradients(batch):
    expected, _ = batch.brute_force()
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
    expected, occupancy = batch.brute_force()
    torch.testing.assert_close(batch.loss().transducer.double(), expected, **SINGLE)
    # Without labels the only alignment passes every frame.
    torch.testing.assert_close(batch.loss().occupancy.double(), occupancy, **SINGLE)
    assert occupancy.sum((1, 2)).tolist() == batch.n_frames.tolist()


def test_a_blank_other_than_zero():
    case = Case(3, 2)
    loss = case.loss(torch.tensor([[1, 0]]), torch.tensor([3]), torch.tensor([2]), blank=4)
    # The same with blank's column moved to the front.
    logits = case.logits()
    moved = torch.cat([logits[..., 4:], logits[..., :4]], dim=-1)
    expected = enumerate_loss(moved[0], [2, 1])
    assert loss.transducer.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_loss_is_torchaudios_on_all_logits():
    case = Case(20, 8, batch=2, dtype=torch.float)
    labels = torch.randint(1, VOCAB, (2, 8))
    n_frames, n_labels = torch.tensor([20, 13]), torch.tensor([5, 8])
    expected = torchaudio.functional.rnnt_loss(
        case.logits(), labels.int(), n_frames.int(), n_labels.int(), blank=0, reduction="none"
    )
    loss = case.loss(labels, n_frames, n_labels).transducer
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(
        case.gradients(loss.sum()), case.gradients(expected.sum()), rtol=1e-4, atol=1e-4
    )


def test_the_occupancy_is_the_share_of_alignments_that_pass_a_node(batch):
    _, expected = batch.brute_force()
    occupancy = batch.loss().occupancy
    torch.testing.assert_close(occupancy.double(), expected, **SINGLE)
    for i in range(3):
        T, U = batch.n_frames[i].item(), batch.n_labels[i].item()
        assert occupancy[i].sum().item() == pytest.approx(T + U, rel=1e-5)
        # All alignments start at the first node and end in the last.
        assert occupancy[i, 0, 0].item() == pytest.approx(1, rel=1e-5)
        assert occupancy[i, T - 1, U].item() == pytest.approx(1, rel=1e-5)


def test_the_occupancy_is_exactly_zero_outside_an_utterances_lattice(batch):
    occupancy = batch.loss().occupancy
    assert occupancy.shape == (3, 5, 4)
    for i in range(3):
        T, U = batch.n_frames[i].item(), batch.n_labels[i].item()
        assert (occupancy[i, T:] == 0).all()
        assert (occupancy[i, :, U + 1 :] == 0).all()


def test_the_occupancy_of_a_long_lattice_still_adds_up_to_the_steps_of_a_path():
    n_frames, n_labels = torch.tensor([400, 271]), torch.tensor([60, 80])
    arcs = (2 * torch.randn(2, 400, 81, 2)).log_softmax(-1)
    _, occupancy = two_channel_loss(arcs, n_frames, n_labels)
    for got, steps in zip(occupancy.double().sum((1, 2)), n_frames + n_labels, strict=True):
        assert got.item() == pytest.approx(steps.item(), rel=1e-6)
    # Every alignment passes each frame and each row of labels.
    assert occupancy[0].sum(1).min() >= 1 - 1e-6
    assert occupancy[1, :271].sum(0).min() >= 1 - 1e-6


def test_on_a_cpu_a_long_lattice_is_summed_as_the_kernel_sums_it():
    n_frames, n_labels = torch.tensor([400, 271, 1, 0]), torch.tensor([60, 80, 7, 3])
    arcs = (2 * torch.randn(4, 400, 81, 3)).log_softmax(-1)[..., :2]
    arcs[1, :100, 40] = OUTSIDE
    arcs[0, 300:, :20] = -torch.inf
    arcs[1, 271:] = arcs[0, :, 61:] = math.nan  # nobody's
    loss, gradient = forward_backward(arcs, n_frames, n_labels)
    expected, expected_gradient = sum_by_the_kernel(
        arcs.nan_to_num(0, neginf=OUTSIDE), n_frames, n_labels
    )
    torch.testing.assert_close(loss.float(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient.float(), expected_gradient, rtol=1e-3, atol=1e-3)
    assert (gradient[1, 271:] == 0).all()


def test_a_lattice_that_no_alignment_passes_has_infinite_loss_and_no_gradient():
    arcs = torch.zeros(2, 3, 3, 2)
    arcs[0, :, 1] = -torch.inf
    loss, gradient = forward_backward(arcs, torch.tensor([3, 3]), torch.tensor([2, 2]))
    assert loss.tolist() == [math.inf, pytest.approx(-math.log(6))]
    assert not gradient[0].any()
    assert gradient[1].any()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_occupancy_carries_no_gradient_with_or_without_recording(batch, mode):
    recorded = batch.loss()
    assert recorded.transducer.requires_grad
    assert not recorded.occupancy.requires_grad
    with mode():
        silent = batch.loss()
    assert not silent.transducer.requires_grad
    assert torch.equal(silent.transducer, recorded.transducer)
    assert torch.equal(silent.occupancy, recorded.occupancy)


def test_occupancy_weights_are_the_occupancy(batch):
    occupancy = batch.loss().occupancy
    weights = node_weights("occupancy", occupancy, batch.n_frames, batch.n_labels)
    assert torch.equal(weights, occupancy)


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_uniform_weights_are_alike_on_an_utterances_own_nodes(batch, dtype):
    occupancy = batch.loss().occupancy.to(dtype)
    weights = node_weights("uniform", occupancy, batch.n_frames, batch.n_labels)
    assert weights.dtype == dtype
    expected = batch.brute_force_weights("uniform").to(dtype)
    torch.testing.assert_close(weights, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", NODE_WEIGHTS)
def test_node_weights_add_up_to_the_steps_of_a_path_and_are_zero_on_padding(batch, kind):
    weights = batch.teacher(kind).node_weights
    torch.testing.assert_close(weights.double(), batch.brute_force_weights(kind), **SINGLE)
    steps = (batch.n_frames + batch.n_labels).double()
    torch.testing.assert_close(weights.double().sum((1, 2)), steps, **SINGLE)
    valid = valid_nodes(batch.n_frames, batch.n_labels, 5, torch.arange(4))
    assert (weights[~valid] == 0).all()
    assert (weights[valid] > 0).all()
    assert not weights.requires_grad


def test_the_two_kinds_of_node_weights_differ(batch):
    occupancy, uniform = (batch.teacher(kind).node_weights for kind in NODE_WEIGHTS)
    assert (occupancy - uniform).abs().max() > 0.1


def test_an_unknown_kind_of_node_weights_is_refused():
    one = torch.tensor([1])
    with pytest.raises(ValueError, match=r"node weights must be one of .*'best path'"):
        node_weights("best path", torch.ones(1, 1, 2), one, one)


def explicit_divergence(batch, weights, alphas, clip):
    """Node by node, over each utterance's own lattice."""
    with torch.no_grad():
        students = batch.logits().softmax(-1)
        teachers = batch.logits(batch.teacher_encoder).softmax(-1)
    results = []
    for i in range(3):
        total = 0.0
        for t in range(batch.n_frames[i]):
            for u in range(batch.n_labels[i] + 1):
                q, p = students[i, t, u], teachers[i, t, u]
                sides = []
                for alpha in alphas:
                    if alpha == 1:
                        sides.append((p * (p / q).log()).sum().item())
                    else:
                        ratios = ((p / q) ** alpha).clamp(max=clip)
                        sides.append(((q * ratios).sum().item() - 1) / (alpha * (alpha - 1)))
                total += weights[i, t, u].item() * max(sides)
        results.append(total)
    return torch.tensor(results, dtype=torch.double)


@pytest.mark.parametrize("kind", NODE_WEIGHTS)
@pytest.mark.parametrize("alphas", [(1,), (-1, 1), (2,)])
def test_the_divergence_adds_up_an_utterances_own_nodes_by_their_weight(batch, kind, alphas):
    loss = batch.loss(teacher=batch.teacher(kind), divergence=AlphaDivergence(alphas, clip=5.0))
    expected = explicit_divergence(batch, batch.brute_force_weights(kind), alphas, 5.0)
    torch.testing.assert_close(loss.divergence.double(), expected, **SINGLE)
    torch.testing.assert_close(loss.transducer, batch.loss().transducer)
    assert torch.equal(loss.occupancy, batch.loss().occupancy)


def test_the_divergence_follows_any_weights_exactly(batch):
    weights = torch.rand(3, 5, 4, dtype=torch.double)
    weights[~valid_nodes(batch.n_frames, batch.n_labels, 5, torch.arange(4))] = 0
    loss = batch.loss(teacher=batch.teacher_with(weights), divergence=AlphaDivergence((-1, 1)))
    torch.testing.assert_close(
        loss.divergence, explicit_divergence(batch, weights, (-1, 1), 5.0), rtol=1e-9, atol=1e-9
    )


def test_occupancy_weights_give_the_divergence_expected_along_the_teachers_alignments(batch):
    """The mean over alignments, drawn from the teacher, of the sum over the nodes passed."""
    loss = batch.loss(teacher=batch.teacher("occupancy"), divergence=AlphaDivergence((1,)))
    with torch.no_grad():
        p = batch.logits(batch.teacher_encoder).log_softmax(-1)
        kl = (p.exp() * (p - batch.logits().log_softmax(-1))).sum(-1)
    for i in range(3):
        labels = [*batch.labels[i, : batch.n_labels[i]].tolist(), None]
        expected = total = 0.0
        for path in alignments(batch.n_frames[i].item(), len(labels) - 1):
            probability = math.exp(sum(p[i, t, u, labels[u] if up else 0] for t, u, up in path))
            expected += probability * sum(kl[i, t, u].item() for t, u, _ in path)
            total += probability
        assert loss.divergence[i].item() == pytest.approx(expected / total, rel=1e-5)


@pytest.mark.parametrize("kind", NODE_WEIGHTS)
def test_the_gradient_of_the_divergence_is_that_of_kl_written_out(batch, kind):
    teacher = batch.teacher(kind)
    loss = batch.loss(teacher=teacher, divergence=AlphaDivergence((1,)))
    q = batch.logits().log_softmax(-1)
    p = batch.logits(batch.teacher_encoder).log_softmax(-1).detach()
    expected = 0
    for i in range(3):
        for t in range(batch.n_frames[i]):
            for u in range(batch.n_labels[i] + 1):
                kl = (p[i, t, u].exp() * (p[i, t, u] - q[i, t, u])).sum()
                expected = expected + teacher.node_weights[i, t, u] * kl
    for got, exact in zip(
        batch.gradients(loss.divergence.sum()), batch.gradients(expected), strict=True
    ):
        torch.testing.assert_close(got, exact, rtol=1e-9, atol=1e-9)


def test_three_classes_on_the_lattice_look_at_the_label_that_follows(batch):
    weights = batch.brute_force_weights("uniform")
    loss = batch.loss(
        teacher=batch.teacher_with(weights), divergence=AlphaDivergence((1,), classes="three")
    )
    with torch.no_grad():
        q, p = batch.logits().softmax(-1), batch.logits(batch.teacher_encoder).softmax(-1)
    for i in range(3):
        U = batch.n_labels[i].item()
        expected = 0.0
        for t in range(batch.n_frames[i]):
            for u in range(U + 1):
                groups = [[0], [batch.labels[i, u].item()]] if u < U else [[0]]
                groups.append([v for v in range(VOCAB) if [v] not in groups])
                for group in groups:
                    a, b = p[i, t, u, group].sum().item(), q[i, t, u, group].sum().item()
                    expected += weights[i, t, u].item() * a * math.log(a / b)
        assert loss.divergence[i].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("teaching", [False, True])
@pytest.mark.parametrize("frames_at_once", [1, 2, 3])
@pytest.mark.parametrize(("held", "joint_held"), [(0, 0), (1 << 20, 0), (1 << 20, VOCAB)])
def test_a_few_frames_at_a_time_give_the_same_losses_and_gradients(
    batch, monkeypatch, teaching, frames_at_once, held, joint_held
):
    def run():
        options = {}
        if teaching:
            teacher = batch.teacher("occupancy")
            options = {"teacher": teacher, "divergence": AlphaDivergence((-1, 1))}
        loss = batch.loss(**options)
        total = loss.transducer.double().sum()
        if teaching:
            total = total + 0.7 * loss.divergence.sum()
        return loss, batch.gradients(total)

    whole, expected = run()
    seen = []
    compute = nodes._Workspace._log_softmax
    monkeypatch.setattr(
        nodes._Workspace,
        "_log_softmax",
        lambda *args: seen.append(args[1].shape[1]) or compute(*args),
    )
    monkeypatch.setattr(nodes, "LOGITS_AT_ONCE", {"cpu": frames_at_once * 3 * 4 * VOCAB + 1})
    monkeypatch.setattr(nodes, "HELD", {"cpu": held})
    monkeypatch.setattr(nodes, "JOINT_HELD_UP_TO", joint_held)
    parts, gradients = run()

    assert max(seen) == frames_at_once
    torch.testing.assert_close(parts.transducer, whole.transducer, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(parts.occupancy, whole.occupancy, rtol=1e-6, atol=1e-6)
    if teaching:
        torch.testing.assert_close(parts.divergence, whole.divergence, rtol=1e-12, atol=1e-12)
    for got, exact in zip(gradients, expected, strict=True):
        torch.testing.assert_close(got, exact, rtol=1e-6, atol=1e-6)


def test_held_log_probabilities_are_computed_once_and_teach_students(batch, monkeypatch):
    computed = []
    compute = nodes._Workspace._log_softmax
    monkeypatch.setattr(
        nodes._Workspace, "_log_softmax", lambda *args: computed.append(1) or compute(*args)
    )

    def count(work):
        computed.clear()
        result = work()
        return result, len(computed)

    teacher, n = count(lambda: batch.teacher("occupancy"))
    assert n == 1
    loss, n = count(lambda: batch.loss(teacher=teacher, divergence=AlphaDivergence()))
    assert n == 1
    _, n = count(lambda: batch.gradients(loss.transducer.sum() + loss.divergence.sum()))
    assert n == 0
    monkeypatch.setattr(nodes, "HELD", {"cpu": 0})
    anew, n = count(lambda: batch.teacher("occupancy"))
    assert n == 1
    assert anew.log_probs is None
    loss, n = count(lambda: batch.loss(teacher=anew, divergence=AlphaDivergence()))
    assert n == 2
    _, n = count(lambda: batch.gradients(loss.transducer.sum() + loss.divergence.sum()))
    assert n == 2


class _Zeros(TorchDispatchMode):
    """Takes down the shapes of tensors that are filled with zeros."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if "zero" in func.__name__:
            self.shapes.append(result.shape)
        return result


def test_the_backward_pass_makes_no_zeros_for_log_probabilities_without_a_gradient(batch):
    loss = batch.loss()
    with _Zeros() as zeros:
        batch.gradients(loss.transducer.sum())
    assert batch.joiner.output.weight.shape in zeros.shapes  # which a gradient is added up in
    assert loss.log_probs.shape not in zeros.shapes


def test_logits_too_many_for_even_one_frame_still_run(batch, monkeypatch):
    expected = batch.loss().transducer
    monkeypatch.setattr(nodes, "LOGITS_AT_ONCE", {"cpu": 1})
    torch.testing.assert_close(batch.loss().transducer, expected)


@pytest.mark.parametrize("kind", NODE_WEIGHTS)
@pytest.mark.parametrize("at_once", [1, 1 << 22])
def test_padding_changes_no_loss_and_gets_no_gradient(batch, monkeypatch, kind, at_once):
    monkeypatch.setattr(nodes, "LOGITS_AT_ONCE", {"cpu": at_once})

    def run():
        teacher = batch.teacher(kind)
        return teacher, batch.loss(teacher=teacher, divergence=AlphaDivergence((-1, 1)))

    teacher_before, before = run()
    with torch.no_grad():
        for i in range(3):
            T, U = batch.n_frames[i], batch.n_labels[i]
            for x in (batch.encoder[i, T:], batch.teacher_encoder[i, T:]):
                x.copy_(1e3 * torch.randn_like(x))
            batch.predictor[i, U + 1 :] = 1e3 * torch.randn_like(batch.predictor[i, U + 1 :])
            batch.labels[i, U:] = VOCAB - 1
    teacher_after, after = run()
    assert torch.equal(teacher_after.node_weights, teacher_before.node_weights)
    assert torch.equal(after.transducer, before.transducer)
    assert torch.equal(after.divergence, before.divergence)
    assert torch.equal(after.occupancy, before.occupancy)

    to_encoder, to_predictor, *_ = batch.gradients(
        after.transducer.double().sum() + after.divergence.sum()
    )
    for i in range(3):
        T, U = batch.n_frames[i], batch.n_labels[i]
        assert (to_encoder[i, T:] == 0).all()
        assert (to_predictor[i, U + 1 :] == 0).all()
        assert (to_encoder[i, :T] != 0).any(-1).all()


def test_the_teacher_and_what_it_reads_get_no_gradient(batch):
    batch.teacher_encoder.requires_grad_()
    loss = batch.loss(teacher=batch.teacher("occupancy"), divergence=AlphaDivergence((-1, 1)))
    (loss.transducer.double().sum() + loss.divergence.sum()).backward()
    assert batch.teacher_encoder.grad is None


def test_a_students_own_encoding_as_teacher_has_no_divergence(batch):
    teacher = Teacher(batch.encoder.detach(), batch.loss().occupancy)
    loss = batch.loss(teacher=teacher, divergence=AlphaDivergence((-1, 1)))
    torch.testing.assert_close(
        loss.divergence, torch.zeros(3, dtype=torch.double), rtol=0, atol=1e-12
    )


def test_the_sides_are_the_shares_of_weighted_nodes_where_each_alpha_is_worse(batch):
    q, p = (batch.logits(x).softmax(-1) for x in (None, batch.teacher_encoder))
    kl, other = (p * (p / q).log()).sum(-1), ((q * q / p).sum(-1) - 1) / 2
    weights = torch.rand(3, 5, 4, dtype=torch.double)
    expected = [((kl > other) * weights).sum(), ((other > kl) * weights).sum()]
    assert min(expected) > 0
    teacher = batch.teacher_with(weights)
    for alphas, order in (((1, -1), 1), ((-1, 1), -1)):
        notes = batch.loss(teacher=teacher, divergence=AlphaDivergence(alphas, clip=1e30)).notes
        assert [*notes] == [f"alpha {alpha}" for alpha in alphas]
        sides = torch.stack([*notes.values()])
        torch.testing.assert_close(sides, torch.stack(expected[::order]) / weights.sum())
    assert batch.loss(teacher=teacher, divergence=AlphaDivergence((1,))).notes == {}
    assert batch.loss().notes == {}


@pytest.mark.parametrize("kind", NODE_WEIGHTS)
@pytest.mark.parametrize("at_once", [1, 1 << 22])
def test_half_precision_joiners_give_float32_losses_and_gradients_to_all(
    monkeypatch, kind, at_once
):
    batch = Batch(torch.float)

    def run():
        loss = batch.loss(teacher=batch.teacher(kind), divergence=AlphaDivergence((-1, 1)))
        return loss, batch.gradients(loss.transducer.sum() + loss.divergence.sum())

    exact, expected = run()
    monkeypatch.setattr(nodes, "LOGITS_AT_ONCE", {"cpu": at_once})
    with torch.autocast("cpu", torch.bfloat16):
        half, gradients = run()
    for x in (half.transducer, half.divergence, half.occupancy):
        assert x.dtype == torch.float32
    torch.testing.assert_close(half.transducer, exact.transducer, rtol=0.02, atol=0.05)
    torch.testing.assert_close(half.divergence, exact.divergence, rtol=0.05, atol=0.05)
    torch.testing.assert_close(half.occupancy, exact.occupancy, rtol=0, atol=0.05)
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
    valid = valid_nodes(torch.tensor([3, 1]), torch.tensor([1, 2]), 3, torch.arange(3))
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
    loss, _ = two_channel_loss(log_probs, torch.tensor([3]), torch.tensor([2]))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def two_channels(dtype):
    """Log-probabilities of three lattices of different shapes, with their sizes."""
    n_frames, n_labels = torch.tensor([4, 2, 3]), torch.tensor([1, 3, 0])
    return (2 * torch.randn(3, 4, 4, 3)).log_softmax(-1)[..., :2].to(dtype), n_frames, n_labels


def enumerate_two_channels(log_probs, n_frames, n_labels):
    sizes = zip(log_probs, n_frames, n_labels, strict=True)
    return torch.stack([enumerate_arcs(x[:T, : U + 1])[0] for x, T, U in sizes])


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.double, 1e-5), (torch.float, 1e-5), (torch.bfloat16, 0.01)]
)
@pytest.mark.parametrize(
    "weigh",
    [
        lambda loss: loss.sum(),
        lambda loss: loss.mean(),
        lambda loss: 1024 * loss.sum() / 1024,
        lambda loss: (loss * torch.tensor([0.5, -3.0, 7.0])).sum(),
        lambda loss: loss[1],
        lambda loss: loss.square().sum(),
    ],
    ids=["sum", "mean", "scaled", "weighted", "one-utterance", "squared"],
)
def test_the_two_channel_gradient_is_that_of_enumerated_alignments(dtype, tolerance, weigh):
    log_probs, n_frames, n_labels = two_channels(dtype)
    exact = log_probs.double().requires_grad_()
    expected = enumerate_two_channels(exact, n_frames, n_labels)
    (expected_gradient,) = torch.autograd.grad(weigh(expected), exact)

    log_probs.requires_grad_()
    loss, occupancy = two_channel_loss(log_probs, n_frames, n_labels)
    (gradient,) = torch.autograd.grad(weigh(loss), log_probs)
    assert loss.dtype == occupancy.dtype == torch.promote_types(dtype, torch.float32)
    assert gradient.dtype == dtype
    torch.testing.assert_close(loss.double(), expected, **SINGLE)
    scale = expected_gradient.abs().max().item()
    torch.testing.assert_close(
        gradient.double(), expected_gradient, rtol=tolerance, atol=tolerance * scale
    )


def test_a_loss_scaled_on_its_way_back_scales_the_gradient_and_not_the_occupancy():
    log_probs, n_frames, n_labels = two_channels(torch.float)
    log_probs.requires_grad_()
    gradients, occupancies = [], []
    for scale in (1, 65536):
        loss, occupancy = two_channel_loss(log_probs, n_frames, n_labels)
        gradients += torch.autograd.grad(scale * loss.sum(), log_probs)
        occupancies.append(occupancy)
    assert torch.equal(gradients[1], 65536 * gradients[0])
    assert torch.equal(*occupancies)
    assert torch.equal(occupancies[0], -gradients[0].sum(-1))


def test_the_two_channel_loss_leaves_its_input_alone():
    log_probs, n_frames, n_labels = two_channels(torch.float)
    log_probs.requires_grad_()
    before = log_probs.detach().clone()
    two_channel_loss(log_probs, n_frames, n_labels)
    assert log_probs.grad is None
    assert torch.equal(log_probs, before)


def cuda_kernel(arcs, targets, n_frames, n_labels, **options):
    """torchaudio's on a GPU: it writes nothing for utterances of one frame or no label, and has no
    blocks to start where a batch has no others."""
    assert min(n_frames) > 0
    assert arcs.shape[1] == max(n_frames) > 1
    assert arcs.shape[2] == max(n_labels) + 1 > 1
    assert all(x.is_contiguous() and x.dtype == torch.int32 for x in (n_frames, n_labels))
    loss = RNNT_LOSS(arcs, targets, n_frames, n_labels, **options)
    unwritten = (n_frames == 1) | (n_labels == 0)
    garbage = arcs.sum((1, 2, 3)) * torch.where(unwritten, math.nan, 0)
    return torch.where(unwritten, garbage, loss)


RNNT_LOSS = torchaudio.functional.rnnt_loss


def sum_by_the_kernel(arcs, n_frames, n_labels):
    return kernel_loss(arcs.float(), n_frames, n_labels, (max(n_frames), max(n_labels)))


@pytest.mark.parametrize("kernel", [None, RNNT_LOSS, cuda_kernel], ids=["none", "cpu", "cuda"])
@pytest.mark.parametrize(
    ("n_frames", "n_labels"),
    [
        ([4, 1, 2, 1, 3], [2, 2, 0, 0, 1]),  # some of one frame or no label among others
        ([1, 1, 1, 1, 1], [3, 0, 2, 1, 3]),  # one frame
        ([4, 1, 3, 2, 4], [0, 0, 0, 0, 0]),  # no label
        ([1, 1, 1, 1, 1], [0, 0, 0, 0, 0]),
        ([3, 2, 2, 1, 1], [1, 1, 1, 1, 1]),  # none as long as the tensor
        ([4, 3, 2, 1, 1], [0, 0, 0, 3, 2]),  # T of one utterance, U of another
    ],
)
def test_utterances_of_one_frame_or_no_label_are_exact_in_any_batch(
    kernel, n_frames, n_labels, monkeypatch
):
    if kernel is not None:
        monkeypatch.setattr(torchaudio.functional, "rnnt_loss", kernel)
        monkeypatch.setattr(lattice, "forward_backward", sum_by_the_kernel)
    log_probs = (2 * torch.randn(5, 4, 4, 3)).log_softmax(-1)[..., :2].requires_grad_()
    sizes = torch.tensor([n_frames, n_labels], dtype=torch.int32)
    strided = sizes.T.contiguous().T  # as a loader may give them
    loss, occupancy = two_channel_loss(log_probs, *strided)
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0, 1.0])
    (gradient,) = torch.autograd.grad((loss * weights).sum(), log_probs)

    exact = log_probs.detach().double().requires_grad_()
    found = [enumerate_arcs(exact[i, :T, : U + 1]) for i, (T, U) in enumerate(sizes.T.tolist())]
    expected, occupancies = zip(*found, strict=True)
    expected = torch.stack(expected)
    (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), exact)
    torch.testing.assert_close(loss.double(), expected, **SINGLE)
    torch.testing.assert_close(gradient.double(), expected_gradient, **SINGLE)
    for row, own in zip(occupancy, occupancies, strict=True):
        expected_row = torch.zeros(4, 4, dtype=torch.double)
        expected_row[: own.shape[0], : own.shape[1]] = own
        torch.testing.assert_close(row.double(), expected_row, **SINGLE)


@pytest.mark.parametrize("T", [0, 3])
def test_without_frames_there_are_no_alignments_and_no_gradient(T):
    log_probs = torch.randn(3, T, 3, 2).log_softmax(-1).requires_grad_()
    n_frames = torch.tensor([T, 0, 0])
    loss, occupancy = two_channel_loss(log_probs, n_frames, torch.tensor([2, 2, 0]))
    assert loss[1:].tolist() == [math.inf, 0]
    (gradient,) = torch.autograd.grad(loss.sum(), log_probs)
    assert occupancy.shape == (3, T, 3)
    assert not gradient[1:].any()
    assert not occupancy[1:].any()
    if T:
        own, _ = enumerate_arcs(log_probs[0])
        assert loss[0].item() == pytest.approx(own.item(), rel=1e-5)


def test_a_batch_of_none_has_no_loss():
    nothing = torch.zeros(0, dtype=torch.long)
    loss, occupancy = two_channel_loss(torch.zeros(0, 4, 3, 2), nothing, nothing)
    assert (loss.shape, occupancy.shape) == ((0,), (0, 4, 3))


@pytest.mark.parametrize("kind", NODE_WEIGHTS)
@pytest.mark.parametrize("n_frames", [(3, 0), (0, 0)])
def test_an_utterance_without_frames_disturbs_no_other_in_distillation(kind, n_frames):
    case = Case(max(n_frames), 2, batch=2)
    labels, n_labels = torch.tensor([[1, 2], [3, 0]]), torch.tensor([2, 1])
    n_frames = torch.tensor(n_frames)

    def student(rows):
        with torch.no_grad():
            own = case.loss(labels, n_frames, n_labels)
        weights = node_weights(kind, own.occupancy, n_frames, n_labels)
        return lattice_loss(
            case.joiner,
            2 * case.encoder[rows],
            case.predictor[rows],
            labels[rows],
            n_frames[rows],
            n_labels[rows],
            teacher=Teacher(case.encoder.detach()[rows], weights[rows]),
            divergence=AlphaDivergence(),
        )

    both = student(slice(2))
    assert both.divergence[1] == 0
    gradients = case.gradients(both.divergence.sum() + both.transducer[0])
    assert all(gradient.isfinite().all() for gradient in gradients)
    if n_frames[0]:
        alone = student(slice(1))
        torch.testing.assert_close(both.divergence[0], alone.divergence[0])
        torch.testing.assert_close(both.notes, alone.notes)
