import random
import weakref

import pytest
import torch
import torch.nn.functional as F
import torchaudio

from todm_sb.losses import nodes
from todm_sb.losses import pruning as pruning_module
from todm_sb.losses.consistency import ctc_consistency
from todm_sb.losses.distillation import AlphaDivergence
from todm_sb.losses.divergence import Divergence
from todm_sb.losses.lattice import log_softmax
from todm_sb.losses.pruning import CHOOSERS, Pruning
from todm_sb.losses.transducer import NODE_WEIGHTS, Teacher
from todm_sb.nnet.ssm_kernel import Modes
from todm_sb.supernet import SearchSpace, SubnetConfig
from todm_sb.supernet import objective as objective_module
from todm_sb.supernet.losses import to_host
from todm_sb.supernet.objective import Objective, Term, ctc_loss, prune
from todm_sb.supernet.sandwich import sample_sandwich, sandwich_backward
from todm_sb.supernet.schedule import Schedule
from todm_sb.supernet.trunk import Labels, Trunk
from todm_sb.training.evaluation import encode_each
from todm_sb.training.loss_names import means_of_step
from todm_sb.training.watch import values_of_subnets
from todm_sb.utils.errors import ConfigError

SPACE = SearchSpace(4, 1, ffn_dims=(3, 7, 12))
SUBNETS = [
    SPACE.max,
    SPACE.min,
    SubnetConfig((0, 2, 3), ffn_dims=(7, 12, 3)),
    SubnetConfig((1, 2), ffn_dims=(12, 7)),
]
LENGTHS = torch.tensor([40, 27])
LABELS = Labels(torch.tensor([[3, 1, 6, 6], [2, 5, 0, 0]]), torch.tensor([4, 2]))


def features(dtype):
    return torch.randn(2, 40, 6, generator=torch.Generator().manual_seed(5), dtype=dtype)


def explicit_occupancy(log_probs, labels):
    """How probable it is that an alignment of one utterance passes each node, (T, U + 1).

    Each node adds a zero to the score of the alignments that pass it: the derivative of their
    summed log-probability with respect to it is the share of these alignments.
    """
    T, rows, _ = log_probs.shape
    passed = torch.zeros(T, rows, dtype=torch.double, requires_grad=True)
    score = {}
    for t in range(T):
        for u in range(rows):
            ways = [log_probs.new_zeros(())] if t == u == 0 else []
            if t:
                ways.append(score[t - 1, u] + log_probs[t - 1, u, 0])
            if u:
                ways.append(score[t, u - 1] + log_probs[t, u - 1, labels[u - 1]])
            score[t, u] = torch.stack(ways).logsumexp(0) + passed[t, u]
    return torch.autograd.grad(score[T - 1, rows - 1], passed)[0]


def kl_of(p, q):
    return (p.exp() * (p - q)).sum(-1)


def explicit_losses(model, subnet, kd_nodes, teacher_log_probs=None, compare=kl_of):
    """Transducer and CTC losses of one subnet and its KL, or another divergence, from the teacher,
    on a graph of its own, from public parts."""
    encoded, n_frames = model.encoder(features(next(model.parameters()).dtype), LENGTHS, subnet)
    predicted, _ = model.predictor(F.pad(LABELS.ids, (1, 0), value=0))
    joint = torch.tanh(
        model.joiner.project_encoder(encoded).unsqueeze(2)
        + model.joiner.project_predictor(predicted).unsqueeze(1)
    )
    logits = joint @ model.joiner.output.weight.T + model.joiner.output.bias
    transducer = torchaudio.functional.rnnt_loss(
        logits.float(), LABELS.ids.int(), n_frames.int(), LABELS.lengths.int(), blank=0
    )
    ctc = 0
    for i in range(2):
        log_probs = model.ctc_output(encoded[i, : n_frames[i]]).log_softmax(-1)
        labels = LABELS.ids[i, : LABELS.lengths[i]]
        n = (torch.tensor([len(log_probs)]), torch.tensor([len(labels)]))
        ctc = ctc + F.ctc_loss(log_probs.unsqueeze(1), labels.unsqueeze(0), *n, reduction="sum") / 2
    q = logits.log_softmax(-1)
    kl = 0
    if teacher_log_probs is not None:
        for i in range(2):
            T, U = n_frames[i], LABELS.lengths[i]
            p = teacher_log_probs[i, :T, : U + 1]
            nodes = compare(p, q[i, :T, : U + 1])
            if kd_nodes == "occupancy":
                kl = kl + (nodes * explicit_occupancy(p, LABELS.ids[i])).sum() / 2
            else:
                kl = kl + nodes.mean() * (T + U) / 2
    return transducer, ctc, kl, q.detach()


def gradients(model):
    grads = {
        name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()
    }
    model.zero_grad()
    return grads


def step(model, objective, subnets, **options):
    dtype = next(model.parameters()).dtype
    trunk = Trunk.compute(model, features(dtype), LENGTHS, LABELS.ids)
    return sandwich_backward(model, objective, trunk, LABELS, subnets, **options)


@pytest.mark.parametrize("kd_nodes", NODE_WEIGHTS)
@pytest.mark.parametrize("predictor", ["lstm", "stateless"])
@pytest.mark.parametrize(("ctc_weight", "kd_weight"), [(0.3, 0.7), (0.0, 1.0), (0.3, 0.0)])
def test_a_step_adds_up_the_gradients_of_each_subnet_on_its_own(
    make_transducer, predictor, ctc_weight, kd_weight, kd_nodes
):
    model = make_transducer(predictor, ctc=True, dtype=torch.double).train()
    teacher, expected_losses = None, []
    for subnet in SUBNETS:
        transducer, ctc, kl, log_probs = explicit_losses(model, subnet, kd_nodes, teacher)
        total = transducer + ctc_weight * ctc + kd_weight * kl
        total.backward()
        teacher = log_probs if teacher is None else teacher
        expected_losses.append(
            [float(torch.as_tensor(x).detach()) for x in (total, transducer, ctc, kl)]
        )
    expected = gradients(model)

    objective = Objective(ctc_weight, kd_weight, AlphaDivergence((1,)), kd_nodes)
    losses = step(model, objective, SUBNETS)
    got = gradients(model)

    for i, (loss, (total, transducer, ctc, kl)) in enumerate(
        zip(losses, expected_losses, strict=True)
    ):
        assert loss.total.item() == pytest.approx(total, rel=1e-5)
        expected_terms = {"transducer": transducer}
        if ctc_weight:
            expected_terms["ctc"] = ctc
        if i and kd_weight:
            expected_terms["kd"] = kl
        got_terms = {name: term.item() for name, term in loss.terms.items()}
        assert got_terms == pytest.approx(expected_terms, rel=1e-5)
    for name, exact in expected.items():
        if exact is None or (not ctc_weight and name.startswith("ctc_output")):
            assert got[name] is None or (got[name] == 0).all()
            continue
        # torchaudio computes in float32.
        scale = exact.abs().max()
        assert scale > 1e-6, name
        assert (got[name] - exact).abs().max() < 1e-4 * scale + 1e-7, name


def test_gradients_add_to_those_already_there(make_transducer):
    model = make_transducer()
    objective = Objective(kd_weight=1.0, divergence=AlphaDivergence())
    step(model, objective, SUBNETS)
    once = gradients(model)
    step(model, objective, SUBNETS)
    step(model, objective, SUBNETS)
    for name, twice in gradients(model).items():
        torch.testing.assert_close(twice, 2 * once[name], rtol=1e-4, atol=1e-5)


def test_a_loss_can_be_scaled_on_its_way_back(make_transducer):
    model = make_transducer()
    objective = Objective(kd_weight=1.0, divergence=AlphaDivergence())
    plain = step(model, objective, SUBNETS)
    expected = gradients(model)
    scaled = step(model, objective, SUBNETS, backward=lambda loss: (8 * loss).backward())
    for name, got in gradients(model).items():
        torch.testing.assert_close(got, 8 * expected[name], rtol=1e-4, atol=1e-4)
    for a, b in zip(plain, scaled, strict=True):
        torch.testing.assert_close(vars(b), vars(a), rtol=0, atol=0)


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("pruning", [None, Pruning(s_range=2)])
def test_micro_batches_change_no_gradient(make_transducer, pruning, views):
    model = make_transducer(ctc=True, simple_joiner=True).double()
    objective = Objective(0.3, 0.7, pruning=pruning, consistency_weight=views - 1.0)
    batch = torch.randn(3 * views, 40, 6, dtype=torch.double)
    n_frames = torch.tensor([40, 27, 33]).repeat_interleave(views)
    labels = Labels(torch.tensor([[3, 1, 6], [2, 5, 0], [4, 4, 1]]), torch.tensor([3, 2, 3]))
    labels = labels.repeated(views)
    ids = labels.ids

    def gradients_and_losses(micro_batches):
        trunk = Trunk.compute(model, batch, n_frames, ids)
        losses = sandwich_backward(
            model, objective, trunk, labels, SUBNETS, micro_batches=micro_batches
        )
        return gradients(model), [
            {"total": x.total.item()} | {name: term.item() for name, term in x.terms.items()}
            for x in losses
        ]

    expected_gradients, expected_losses = gradients_and_losses(1)
    for micro_batches in (2, 3, 8):
        got, losses = gradients_and_losses(micro_batches)
        for name, grad in expected_gradients.items():
            torch.testing.assert_close(got[name], grad, msg=lambda text, name=name: name + text)
        for subnet, expected in zip(losses, expected_losses, strict=True):
            assert subnet == pytest.approx(expected)


def test_a_micro_batch_may_be_of_utterances_without_a_frame(make_transducer):
    model, found = make_transducer(ctc=True), []
    labels = Labels(LABELS.ids, torch.tensor([4, 0]))
    for n in (1, 2):
        trunk = Trunk.compute(model, features(torch.float), torch.tensor([40, 0]), labels.ids)
        losses = sandwich_backward(model, Objective(0.3), trunk, labels, SUBNETS, micro_batches=n)
        found.append(([x.total for x in losses], gradients(model)))
    torch.testing.assert_close(*found)


def test_a_step_needs_at_least_one_micro_batch(make_transducer):
    with pytest.raises(ConfigError, match="micro_batches must be at least 1, not 0"):
        step(make_transducer(), Objective(), SUBNETS, micro_batches=0)


def test_layers_in_no_subnet_of_the_step_get_no_gradient(make_transducer):
    model = make_transducer()
    step(model, Objective(kd_weight=0.0), [SubnetConfig((0, 2), ffn_dims=(12, 12))])
    for name, grad in gradients(model).items():
        if name.startswith(("encoder.layers.1.", "encoder.layers.3.")):
            assert grad is None or (grad == 0).all()
        else:
            assert grad is not None, name


def test_a_causal_step_of_a_dual_mode_network_is_one_of_its_causal_form(make_transducer):
    model = make_transducer(ctc=True, dual_mode=True, look_ahead=1)
    objective = Objective(0.3, 1.0, AlphaDivergence())
    got = []
    for network, causal in ((model.causal_form(), False), (model, True)):
        trunk = Trunk.compute(network, features(torch.float), LENGTHS, LABELS.ids, causal)
        losses = sandwich_backward(network, objective, trunk, LABELS, SUBNETS)
        got.append((losses, gradients(network)))
    (losses, expected), (dual_losses, dual) = got
    assert [x.total for x in dual_losses] == [x.total for x in losses]
    for name, grad in dual.items():
        assert torch.equal(grad, expected[name]) if name in expected else grad is None, name
    assert {name for name in dual if ".backward_ssms." in name} == dual.keys() - expected.keys()


def test_each_subnet_of_a_causal_step_is_asked_to_be_causal(make_transducer, monkeypatch):
    model, asked = make_transducer(dual_mode=True), []
    encode = model.encoder.encode

    def recorded(frames, lengths, subnet, shared, causal):
        asked.append(causal)
        return encode(frames, lengths, subnet, shared, causal)

    monkeypatch.setattr(model.encoder, "encode", recorded)
    trunk = Trunk.compute(model, features(torch.float), LENGTHS, LABELS.ids, causal=True)
    sandwich_backward(model, Objective(), trunk, LABELS, SUBNETS)
    assert asked == [True] * len(SUBNETS)
    del asked[:]
    trunk = Trunk.compute(model, features(torch.float), LENGTHS, LABELS.ids)
    list(encode_each(model, {"max": (SPACE.max, False), "max-causal": (SPACE.max, True)}, trunk))
    assert asked == [False, True]


def test_the_ctc_head_runs_for_who_asks_it(make_transducer):
    model, calls = make_transducer(ctc=True), []
    model.ctc_output.register_forward_hook(lambda *a: calls.append(a))
    for end, n_calls in ((0.0, 1), (0.3, len(SUBNETS))):
        weight = Schedule(0.3, end, 0, 10)
        step(model, Objective(weight, pruning=Pruning(by="ctc")), SUBNETS, batches=10)
        assert len(calls) == n_calls
        del calls[:]


def test_a_frozen_trunk_learns_nothing_and_the_rest_does(make_transducer):
    model, names = make_transducer(), ("encoder.subsampling.", "predictor.")
    expected = gradients_of_step(model)
    for name, parameter in model.named_parameters():
        if name.startswith(names) or "_ssms." in name or "project_predictor" in name:
            parameter.requires_grad_(False)
    for name, grad in gradients_of_step(model).items():
        if model.get_parameter(name).requires_grad:
            torch.testing.assert_close(grad, expected[name])
        else:
            assert grad is None


def test_a_tensor_that_is_shared_twice_gets_both_gradients():
    x = torch.ones(2, requires_grad=True)
    trunk = Trunk(x * 1, LENGTHS, (x * 2,) * 2, x * 3)
    leaves = trunk.cut()
    (leaves.shared[0].sum() + 10 * leaves.shared[1].sum()).backward()
    trunk.backward(leaves)
    assert x.grad.tolist() == [22, 22]


def gradients_of_step(model):
    step(model, Objective(kd_weight=0.5), SUBNETS[:2])
    return gradients(model)


class SquaredDifference(Divergence):
    """A divergence that nobody but this file knows."""

    def value(self, log_q, log_p, labels, blank):
        return (log_q - log_p).square().sum(-1)

    def gradient(self, log_q, log_p, labels, blank):
        return 2 * (log_q - log_p)


class Doubtful(SquaredDifference):
    """The same, which also tells how much the teacher doubts, and the student."""

    n_notes = 2

    def at_nodes(self, log_q, log_p, labels, blank):
        doubts = (1 - x.exp().amax(-1) for x in (log_p, log_q))
        return self.value(log_q, log_p, labels, blank), *doubts

    def summary(self, notes, weights):
        teacher, student = (notes * weights.unsqueeze(-1)).sum((0, 1, 2)) / len(notes)
        return {"teacher's doubt": teacher, "student's doubt": student}


class Beside(SquaredDifference):
    """The same, and in its gradient what does not matter."""

    def gradient(self, log_q, log_p, labels, blank):
        return super().gradient(log_q, log_p, labels, blank) + 3 * log_q.exp()


@pytest.mark.parametrize("kind", [SquaredDifference, Doubtful, Beside])
@pytest.mark.parametrize("kd_nodes", NODE_WEIGHTS)
@pytest.mark.parametrize("at_once", [1, 1 << 20])
def test_another_divergence_is_trained_with_the_gradient_that_autograd_finds(
    make_transducer, monkeypatch, kind, kd_nodes, at_once
):
    monkeypatch.setitem(nodes.LOGITS_AT_ONCE, "cpu", at_once)
    model = make_transducer(ctc=True, dtype=torch.double).train()
    teacher, expected_kd = None, []
    for subnet in SUBNETS:
        transducer, _, squares, log_probs = explicit_losses(
            model, subnet, kd_nodes, teacher, lambda p, q: (q - p).square().sum(-1)
        )
        (transducer + 0.01 * squares).backward()
        expected_kd.append(float(torch.as_tensor(squares).detach()))
        teacher = log_probs if teacher is None else teacher
    expected = gradients(model)

    losses = step(model, Objective(0.0, 0.01, kind(), kd_nodes), SUBNETS)
    got = gradients(model)
    assert [x.terms["kd"].item() for x in losses[1:]] == pytest.approx(expected_kd[1:], rel=1e-5)
    for name, exact in expected.items():
        if exact is not None and not name.startswith("ctc_output"):
            torch.testing.assert_close(got[name].double(), exact.double(), rtol=1e-4, atol=1e-5)


def test_what_a_divergence_has_to_tell_reaches_the_losses_of_each_student(make_transducer):
    model = make_transducer(dtype=torch.double)
    whole, halves = (
        step(model, Objective(0.0, 1.0, Doubtful()), SUBNETS, micro_batches=n) for n in (1, 2)
    )
    assert whole[0].notes == {}
    for in_one, in_two in zip(whole[1:], halves[1:], strict=True):
        assert [*in_one.notes] == ["teacher's doubt", "student's doubt"]
        for name, value in in_one.notes.items():
            assert value > 0.1
            assert in_two.notes[name].item() == pytest.approx(value.item(), rel=1e-9)
    # All have one teacher.
    assert len({x.notes["teacher's doubt"].item() for x in whole[1:]}) == 1
    assert len({x.notes["student's doubt"].item() for x in whole[1:]}) == 3


@pytest.mark.parametrize("wrong", ["kl", None, 3, AlphaDivergence])
def test_what_is_no_divergence_is_refused(wrong):
    with pytest.raises(ConfigError, match="divergence cannot be"):
        Objective(divergence=wrong)


def test_weights_that_depend_on_the_step_are_those_of_the_step(make_transducer):
    model = make_transducer(ctc=True)
    decaying = Objective(Schedule(1.0, 0.3, 10, 30), Schedule(0.0, 0.5, 0, 20))
    for at, ctc_weight, kd_weight in [(0, 1.0, 0.0), (15, 0.825, 0.375), (None, 0.3, 0.5)]:
        got = step(model, decaying, SUBNETS, batches=at), gradients(model)
        expected = step(model, Objective(ctc_weight, kd_weight), SUBNETS), gradients(model)
        assert [x.total.item() for x in got[0]] == pytest.approx(
            [x.total.item() for x in expected[0]], rel=1e-6
        )
        assert ("kd" in got[0][1].terms) == (kd_weight > 0)
        torch.testing.assert_close(got[1], expected[1])


def test_a_further_term_is_added_with_its_weight_and_told_by_its_name(make_transducer):
    def size(outputs):
        return outputs.encoded.square().mean()

    def of_students(outputs):
        return None if outputs.lattice.divergence is None else outputs.encoded.abs().mean()

    model = make_transducer(ctc=True)
    further = {"size": Term(size, 2.0), "own": Term(of_students), "off": Term(size, 0.0)}
    plain = step(model, Objective(0.3, 0.7), SUBNETS)
    model.zero_grad()
    losses = step(model, Objective(0.3, 0.7, further=further), SUBNETS)
    for x, before in zip(losses, plain, strict=True):
        own = x.terms.get("own", 0.0)
        assert ("own" in x.terms) == (x is not losses[0])
        assert "off" not in x.terms
        expected = before.total + 2 * x.terms["size"] + own
        assert x.total.item() == pytest.approx(float(expected), rel=1e-6)
    numbers = to_host(losses)
    logged = means_of_step(numbers)
    assert logged["term size"] == losses[0].terms["size"].item()
    assert logged["term own"] == pytest.approx(sum(x.terms["own"].item() for x in losses[1:]) / 3)
    told = values_of_subnets(SUBNETS, numbers)
    assert told["term size"] == [x.terms["size"].item() for x in losses]
    assert len(told["term own"]) == 3


@pytest.mark.parametrize("name", ["losses", "step", "layers", "lr", "max", "random"])
def test_a_further_term_hides_nothing_else_that_is_told_of_a_step(make_transducer, name):
    further = {name: Term(lambda outputs: outputs.encoded.square().mean())}
    plain, with_it = (
        values_of_subnets(SUBNETS, to_host(step(make_transducer(ctc=True), objective, SUBNETS)))
        for objective in (Objective(0.3, 0.7), Objective(0.3, 0.7, further=further))
    )
    assert {key: value for key, value in with_it.items() if key != f"term {name}"} == plain


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ({"ctc": Term(lambda _: None)}, "there is a term ctc already"),
        ({"size": 3}, "size cannot be 3: give a Term"),
        ("size", "further cannot be 'size'"),
    ],
)
def test_a_further_term_that_makes_no_sense_is_refused(further, message):
    with pytest.raises(ConfigError, match=message):
        Objective(further=further)


def test_the_max_subnet_teaches_and_does_not_learn_from_its_students(make_transducer):
    model = make_transducer()
    taught = Objective(kd_weight=1.0, divergence=AlphaDivergence())
    losses = step(model, taught, SUBNETS)
    assert "kd" not in losses[0].terms
    assert all(loss.terms["kd"] > 0 for loss in losses[1:])
    assert not any(loss.total.requires_grad for loss in losses)
    model.zero_grad()
    alone = step(model, taught, SUBNETS[:1])
    assert torch.equal(alone[0].total, losses[0].total)


@pytest.mark.parametrize("kd_nodes", NODE_WEIGHTS)
def test_what_a_subnet_teaches_with_is_cut_off_from_its_graph(make_transducer, kd_nodes):
    model = make_transducer()
    trunk = Trunk.compute(model, features(torch.float), LENGTHS, LABELS.ids)
    objective = Objective(kd_weight=0.0, kd_nodes=kd_nodes)
    losses, lead = objective(model, trunk, LABELS, SPACE.max)
    teacher = lead.teacher
    assert losses.total.requires_grad
    assert not teacher.encoder.requires_grad
    assert not teacher.node_weights.requires_grad
    encoded, _ = model.encoder(features(torch.float), LENGTHS)
    torch.testing.assert_close(teacher.encoder, model.joiner.project_encoder(encoded).detach())


@pytest.mark.parametrize("kd_nodes", NODE_WEIGHTS)
def test_a_subnet_teaches_at_the_nodes_of_its_own_alignments_or_at_all(make_transducer, kd_nodes):
    model = make_transducer()
    trunk = Trunk.compute(model, features(torch.float), LENGTHS, LABELS.ids)
    subnet = SUBNETS[2]
    teacher = Objective(kd_nodes=kd_nodes)(model, trunk, LABELS, subnet)[1].teacher
    with torch.no_grad():
        encoded, n_frames = model.encoder(features(torch.float), LENGTHS, subnet)
        frames = model.joiner.project_encoder(encoded).unsqueeze(2)
        log_probs = model.joiner(frames, trunk.predictor.unsqueeze(1)).double().log_softmax(-1)
    expected = torch.zeros(log_probs.shape[:3], dtype=torch.double)
    for i in range(2):
        T, U = n_frames[i], LABELS.lengths[i]
        nodes = (i, slice(T), slice(U + 1))
        if kd_nodes == "occupancy":
            expected[nodes] = explicit_occupancy(log_probs[nodes], LABELS.ids[i])
        else:
            expected[nodes] = (T + U) / (T * (U + 1))
    torch.testing.assert_close(teacher.node_weights.double(), expected, rtol=1e-4, atol=1e-5)


def test_the_first_subnet_leads_all_others(make_transducer):
    model = make_transducer()
    objective = Objective(kd_weight=1.0)
    led_by, offered = [], []

    def recorded(model, trunk, labels, subnet, lead, *others):
        led_by.append(lead)
        losses, own_lead = objective(model, trunk, labels, subnet, lead, *others)
        offered.append(own_lead)
        return losses, own_lead

    step(model, recorded, SUBNETS)
    assert isinstance(offered[0].teacher, Teacher)
    assert led_by[0] is None
    assert len(led_by) == 4
    assert all(lead is offered[0] for lead in led_by[1:])


def test_nodes_count_by_occupancy_unless_told_otherwise(make_transducer):
    model = make_transducer()
    runs = {
        name: [loss.terms["kd"] for loss in step(model, Objective(**options), SUBNETS)[1:]]
        for name, options in [
            ("default", {}),
            ("occupancy", {"kd_nodes": "occupancy"}),
            ("uniform", {"kd_nodes": "uniform"}),
        ]
    }
    assert runs["default"] == runs["occupancy"]
    assert all(a != b for a, b in zip(runs["default"], runs["uniform"], strict=True))


def test_an_unknown_kind_of_node_weights_is_refused():
    with pytest.raises(ConfigError, match=r"kd_nodes must be one of .*'best path'"):
        Objective(kd_nodes="best path")


@pytest.mark.parametrize("kd_nodes", NODE_WEIGHTS)
def test_a_student_as_large_as_its_teacher_has_nothing_to_learn(make_transducer, kd_nodes):
    model = make_transducer()
    losses = step(model, Objective(kd_nodes=kd_nodes), [SPACE.max, SPACE.max])
    assert losses[1].terms["kd"].item() == pytest.approx(0, abs=1e-5)


def test_no_weight_means_no_ctc_head_and_no_teacher_are_needed(make_transducer):
    model = make_transducer(ctc=False)
    losses = step(model, Objective(ctc_weight=0.0, kd_weight=0.0), SUBNETS)
    assert all([*loss.terms] == ["transducer"] for loss in losses)
    assert all(torch.equal(loss.total, loss.terms["transducer"]) for loss in losses)


def test_the_trunk_is_computed_once_a_step(make_transducer, monkeypatch):
    model = make_transducer()
    calls = []
    for module in (model.encoder.subsampling, model.predictor, model.joiner.project_predictor):
        module.register_forward_hook(lambda m, *_: calls.append(type(m).__name__))
    original = Modes.kernel
    # On a CPU of one layer at a time, both directions at once.
    monkeypatch.setattr(Modes, "kernel", lambda *a: calls.append("kernel") or original(*a))
    step(model, Objective(kd_weight=1.0, divergence=AlphaDivergence()), SUBNETS)
    assert sorted(calls) == ["ConvSubsampling", "LSTMPredictor", "Linear"] + ["kernel"] * 4


class Held:
    """Stands for a tensor that a graph holds for its backward pass."""

    def __init__(self, tensor):
        self.tensor = tensor


def test_a_subnets_graph_is_gone_before_the_next_is_built(make_transducer):
    model = make_transducer(ctc=True).train()
    objective = Objective(0.3, 1.0, AlphaDivergence())
    alive, before, after = weakref.WeakSet(), [], []

    def pack(tensor):
        held = Held(tensor)
        alive.add(held)
        return held

    def recorded(*args):
        before.append(len(alive))
        result = objective(*args)
        after.append(len(alive))
        return result

    trunk = Trunk.compute(model, features(torch.float), LENGTHS, LABELS.ids)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.tensor):
        sandwich_backward(model, recorded, trunk, LABELS, SUBNETS)
    assert before == [0, 0, 0, 0]
    assert all(n > 20 for n in after)


def test_of_log_probabilities_the_lead_s_alone_outlive_their_subnet(make_transducer, monkeypatch):
    original, held, alive = objective_module.lattice_loss, [], []

    def lattice_loss(*args):
        alive.append(sum(x() is not None for x in held))
        losses = original(*args)
        held.append(weakref.ref(losses.log_probs))
        return losses

    monkeypatch.setattr(objective_module, "lattice_loss", lattice_loss)
    step(make_transducer(), Objective(), SUBNETS)
    assert alive == [0, 1, 1, 1]


@pytest.mark.parametrize("kd_nodes", NODE_WEIGHTS)
def test_a_step_under_bfloat16_autocast_has_about_the_gradients_of_float32(
    make_transducer, kd_nodes
):
    model = make_transducer(ctc=True)
    objective = Objective(0.3, 1.0, AlphaDivergence(), kd_nodes)
    exact_losses = step(model, objective, SUBNETS)
    exact = torch.cat([g.flatten() for g in gradients(model).values()])
    with torch.autocast("cpu", torch.bfloat16):
        losses = step(model, objective, SUBNETS)
    got = gradients(model)
    assert all(grad is not None and grad.isfinite().all() for grad in got.values())
    got = torch.cat([g.flatten() for g in got.values()])
    assert F.cosine_similarity(got, exact, dim=0) > 0.99
    for a, b in zip(losses, exact_losses, strict=True):
        assert a.total.item() == pytest.approx(b.total.item(), rel=0.02)


def test_a_band_of_all_labels_adds_the_simple_loss_of_the_first_subnet_to_a_plain_step(
    make_transducer,
):
    model = make_transducer(ctc=True, simple_joiner=True, dtype=torch.double)
    pruning = Pruning(s_range=9, simple_weight=0.5, warmup_batches=100)
    trunk = Trunk.compute(model, features(torch.double), LENGTHS, LABELS.ids)
    encoded = model.encoder.encode(trunk.frames, trunk.n_frames, SUBNETS[0], trunk.shared)
    simple, _ = prune(model, pruning, encoded, trunk, LABELS)
    (0.5 * simple).backward()
    plain = step(model, Objective(0.3, 0.7), SUBNETS)
    expected = gradients(model)

    pruned = step(model, Objective(0.3, 0.7, pruning=pruning), SUBNETS)
    got = gradients(model)
    for name, exact in expected.items():
        torch.testing.assert_close(got[name], exact, rtol=1e-4, atol=1e-5)
    assert pruned[0].terms["simple"].item() == pytest.approx(simple.item(), rel=1e-5)
    for a, b in zip(pruned, plain, strict=True):
        assert a.terms["transducer"].item() == pytest.approx(b.terms["transducer"].item(), rel=1e-5)
        assert ("simple" not in a.terms) == (a is not pruned[0])


@pytest.mark.parametrize("by", CHOOSERS)
def test_one_band_of_the_first_subnet_serves_all(make_transducer, monkeypatch, by):
    model = make_transducer(simple_joiner=True, ctc=True)
    bands, used = [], []
    original, lattice = pruning_module.choose_band, objective_module.lattice_loss

    def choose_band(*args):
        bands.append(original(*args))
        return bands[-1]

    def lattice_loss(*args):
        used.append(args[-2])
        return lattice(*args)

    monkeypatch.setattr(pruning_module, "choose_band", choose_band)
    monkeypatch.setattr(objective_module, "lattice_loss", lattice_loss)
    step(model, Objective(0.3, kd_weight=1.0, pruning=Pruning(s_range=2, by=by)), SUBNETS)
    assert len(bands) == 1
    assert bands[0].width == 2
    assert len(used) == 4
    assert used[0] is (None if by == "max" else bands[0])
    assert all(band is bands[0] for band in used[1:])


@pytest.mark.parametrize("by", CHOOSERS)
def test_where_no_band_covers_enough_the_lattice_is_whole(make_transducer, by):
    model = make_transducer(simple_joiner=True, ctc=True)
    whole = step(model, Objective(0.3, 0.7), SUBNETS)
    options = {"s_range": 2, "by": by, "warmup_batches": 0}
    for coverage, same in [(0.9999, True), (0.0, False)]:
        pruning = Pruning(coverage=coverage, **options)
        losses = step(model, Objective(0.3, 0.7, pruning=pruning), SUBNETS)
        assert (losses[0].terms["transducer"] == whole[0].terms["transducer"]) == (
            same or by == "max"
        )
        assert (losses[1].terms["transducer"] == whole[1].terms["transducer"]) == same
        assert (losses[1].terms["kd"] == whole[1].terms["kd"]) == same


def test_a_band_of_all_rows_by_the_max_subnet_changes_no_gradient(make_transducer):
    model = make_transducer(ctc=True)
    step(model, Objective(0.3, 0.7), SUBNETS)
    expected = gradients(model)
    step(model, Objective(0.3, 0.7, pruning=Pruning(s_range=9, by="max")), SUBNETS)
    for name, got in gradients(model).items():
        torch.testing.assert_close(got, expected[name], rtol=1e-4, atol=1e-5)


def test_the_pruned_loss_warms_up_with_the_optimizers_steps(make_transducer):
    model = make_transducer(simple_joiner=True)
    objective = Objective(kd_weight=0.0, pruning=Pruning(warmup_batches=10))
    for at, simple, pruned in [(0, 1.0, 0.1), (5, 0.75, 0.55), (10, 0.5, 1.0), (None, 0.5, 1.0)]:
        first, second = step(model, objective, SUBNETS[:2], batches=at)
        total = simple * first.terms["simple"] + pruned * first.terms["transducer"]
        assert first.total.item() == pytest.approx(total.item(), rel=1e-6)
        alone = pruned * second.terms["transducer"].item()
        assert second.total.item() == pytest.approx(alone, rel=1e-6)


def test_a_loss_without_its_head_is_refused(make_transducer):
    model = make_transducer()
    with pytest.raises(ConfigError, match="pruning needs a simple joiner: set the model's simple"):
        step(model, Objective(pruning=Pruning()), SUBNETS)
    with pytest.raises(ConfigError, match="ctc_weight needs a CTC head: set the model's ctc: True"):
        step(model, Objective(ctc_weight=0.3), SUBNETS)


def test_a_ctc_head_that_learns_nothing_is_of_no_use():
    for never in (0.0, Schedule(0.0)):
        with pytest.raises(ConfigError, match="a band by ctc needs a CTC head that learns: set"):
            Objective(never, pruning=Pruning(by="ctc"))
    # All views would be alike soon, and tell nothing.
    with pytest.raises(ConfigError, match="consistency_weight needs a CTC head that learns: set"):
        Objective(consistency_weight=0.2)


def test_two_views_are_trained_as_utterances_of_their_own_and_drawn_to_each_other(make_transducer):
    model = make_transducer(ctc=True, dtype=torch.double)
    views = torch.randn(4, 40, 6, dtype=torch.double)
    n_frames, labels = LENGTHS.repeat_interleave(2), LABELS.repeated(2)

    def losses(objective, labels):
        trunk = Trunk.compute(model, views, n_frames, labels.ids)
        return sandwich_backward(model, objective, trunk, labels, SUBNETS[:2])

    plain = losses(Objective(0.3, 0.7), Labels(labels.ids, labels.lengths))
    drawn = losses(Objective(0.3, 0.7, consistency_weight=0.2), labels)
    for subnet, without, found in zip(SUBNETS, plain, drawn, strict=False):
        terms = dict(found.terms)
        encoded, T = model.encoder(views, n_frames, subnet)
        log_probs = model.ctc_output(encoded).log_softmax(-1)
        consistency = ctc_consistency(log_probs, T).mean()
        torch.testing.assert_close(terms.pop("consistency"), consistency.detach())
        torch.testing.assert_close(terms, dict(without.terms))
        torch.testing.assert_close(found.total, without.total + 0.2 * consistency.detach())
    alone = losses(Objective(0.3, consistency_weight=0.2), Labels(labels.ids, labels.lengths))
    assert "consistency" not in alone[0].terms


def test_ctc_is_zero_where_labels_need_more_frames_than_there_are(make_transducer):
    model = make_transducer(ctc=True)
    encoded = torch.randn(2, 3, 8)
    labels = Labels(torch.tensor([[1, 2, 3], [1, 1, 1]]), torch.tensor([3, 3]))
    logits = model.ctc_output(encoded)
    losses = ctc_loss(log_softmax(logits), torch.tensor([3, 3]), labels, model.blank)
    log_probs = logits[0].log_softmax(-1)
    expected = -(log_probs[0, 1] + log_probs[1, 2] + log_probs[2, 3])  # the only alignment
    assert losses[0].item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses[1] == 0


@pytest.mark.parametrize("n_random", [0, 1, 4])
def test_a_sandwich_is_max_min_and_random_subnets(n_random):
    subnets = sample_sandwich(SPACE, n_random, random.Random(0))
    assert subnets[:2] == [SPACE.max, SPACE.min]
    assert len(subnets) == 2 + n_random
    assert all(config in SPACE for config in subnets)


def test_a_space_of_one_subnet_is_trained_as_a_plain_network():
    assert sample_sandwich(SearchSpace(2, 2, ffn_dims=(8,)), 3, random.Random(0)) == [
        SubnetConfig((0, 1), ffn_dims=(8, 8))
    ]


def test_sandwiches_repeat_with_the_seed_and_vary_over_steps():
    draws = []
    for seed in (1, 1, 2):
        rng = random.Random(seed)
        draws.append([sample_sandwich(SPACE, 2, rng) for _ in range(3)])
    assert draws[0] == draws[1] != draws[2]
    assert draws[0][0] != draws[0][1]
