import math

import pytest
import torch

from todm_sb.losses.distillation import AlphaDivergence, three_classes
from todm_sb.losses.divergence import Divergence

UNCLIPPED = 1e30
ALPHAS = [-1, 0, 0.5, 1, 2]
NEAR_LIMITS = [-1e-4, 1e-4, 0.01, 0.49, 0.99, 1 - 1e-4, 1 + 1e-4]
# Where the definition itself has no digits left in float64.
AT_LIMITS = [1e-9, 1 + 1e-9]
BLANK = 0


def formula(q, p, alpha, clip=math.inf):
    """D_a(p || q) of one node from its definition, on probabilities in float64."""
    if alpha == 1:
        return (p * (p / q).log()).sum()
    if alpha == 0:
        return (q * (q / p).log()).sum()
    ratios = ((p / q) ** alpha).clamp(max=clip)
    return ((q * ratios).sum() - 1) / (alpha * (alpha - 1))


def gradient(q, p, alpha, clip=math.inf):
    """AlphaNet's gradient with respect to logits: -E_q[rho(w) d log q], rho = w f' - f."""
    w = p / q
    rho = torch.empty_like(q)
    for i in range(len(q)):
        if alpha == 1:  # f = w log w
            rho[i] = w[i] * (w[i].log() + 1) - w[i] * w[i].log()
        elif alpha == 0:  # f = -log w
            rho[i] = -1 + w[i].log()
        else:  # f = (w^a - 1) / (a (a - 1)), with w^a bounded wherever it occurs
            power = min(w[i].item() ** alpha, clip)
            rho[i] = power / (alpha - 1) - (power - 1) / (alpha * (alpha - 1))
    jacobian = torch.eye(len(q), dtype=q.dtype) - q  # d log q_i / d logit_j
    return -((q * rho).unsqueeze(1) * jacobian).sum(0)


def random_logits(*shape, scale=1.0):
    return scale * torch.randn(*shape, dtype=torch.double)


class Differentiable(torch.autograd.Function):
    """The divergence with the gradient that it states."""

    @staticmethod
    def forward(ctx, log_q, log_p, labels, divergence):
        ctx.save_for_backward(log_q, log_p, labels)
        ctx.divergence = divergence
        return divergence.value(log_q, log_p, labels, BLANK)

    @staticmethod
    def backward(ctx, grad):
        return ctx.divergence.gradient(*ctx.saved_tensors, BLANK) * grad.unsqueeze(-1), *3 * [None]


def divergence_of(student, teacher, labels=None, **options):
    labels = torch.zeros(student.shape[:-1], dtype=torch.long) if labels is None else labels
    divergence = AlphaDivergence(**options)
    return Differentiable.apply(
        student.log_softmax(-1), teacher.log_softmax(-1), labels, divergence
    )


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_value_is_the_definition(alpha):
    student, teacher = random_logits(10, 6), random_logits(10, 6)
    values = divergence_of(student, teacher, alphas=(alpha,), clip=UNCLIPPED)
    for i in range(10):
        expected = formula(student[i].softmax(-1), teacher[i].softmax(-1), alpha)
        assert values[i].item() == pytest.approx(expected.item(), rel=1e-9)
        assert values[i] > 0


@pytest.mark.parametrize("limit", [0, 1])
def test_alphas_near_zero_and_one_approach_the_kl_divergences(limit):
    student, teacher = random_logits(10, 6), random_logits(10, 6)
    kl = divergence_of(student, teacher, alphas=(limit,))
    for offset in (-1e-5, 1e-5):
        near = divergence_of(student, teacher, alphas=(limit + offset,), clip=UNCLIPPED)
        torch.testing.assert_close(near, kl, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("alpha", [*ALPHAS, *NEAR_LIMITS, *AT_LIMITS])
@pytest.mark.parametrize(("vocab", "scale"), [(2, 1), (2, 8), (30, 1), (30, 4), (5000, 1)])
def test_float32_keeps_the_digits_of_any_alpha(alpha, vocab, scale):
    """a (a - 1) divides what rounding leaves; the definition needs float64 near 0 and 1."""
    student, teacher = (random_logits(20, vocab, scale=scale).float() for _ in range(2))
    values = divergence_of(student, teacher, alphas=(alpha,), clip=1e12)
    exact = round(alpha) if alpha in AT_LIMITS else alpha
    for i in range(20):
        q, p = student[i].double().softmax(-1), teacher[i].double().softmax(-1)
        expected = formula(q, p, exact, clip=1e12)
        assert values[i].item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("alpha", [*ALPHAS, *NEAR_LIMITS])
@pytest.mark.parametrize("clip", [1.0, 5.0, UNCLIPPED])
def test_float32_keeps_the_digits_of_any_alphas_gradient(alpha, clip):
    student = random_logits(20, 30, scale=2).float().requires_grad_()
    teacher = random_logits(20, 30, scale=2).float()
    values = divergence_of(student, teacher, alphas=(alpha,), clip=clip)
    values.sum().backward()
    for i in range(20):
        q, p = student[i].detach().double().softmax(-1), teacher[i].double().softmax(-1)
        expected = gradient(q, p, alpha, clip)
        torch.testing.assert_close(student.grad[i].double(), expected, rtol=1e-4, atol=1e-5)
        # Where clipping bites close to 1, values are in the thousands.
        expected = formula(q, p, alpha, clip).item()
        assert values[i].item() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_clipping_ceases_to_bite_as_alpha_approaches_zero():
    student, teacher = random_logits(20, 6, scale=4), random_logits(20, 6, scale=4)
    kl = divergence_of(student, teacher, alphas=(0,))
    near = divergence_of(student, teacher, alphas=(1e-7,), clip=5.0)
    torch.testing.assert_close(near, kl, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("alpha", [-1, 0.5, 2])
@pytest.mark.parametrize("clip", [1.5, 5.0])
def test_clipping_bounds_the_powers_of_the_ratios(alpha, clip):
    student, teacher = random_logits(20, 6, scale=2), random_logits(20, 6, scale=2)
    values = divergence_of(student, teacher, alphas=(alpha,), clip=clip)
    bites = 0
    for i in range(20):
        q, p = student[i].softmax(-1), teacher[i].softmax(-1)
        expected = formula(q, p, alpha, clip)
        assert values[i].item() == pytest.approx(expected.item(), rel=1e-9)
        bites += expected.item() != pytest.approx(formula(q, p, alpha).item())
    assert bites > 0


@pytest.mark.parametrize("alpha", [0, 1])
def test_the_kl_limits_are_never_clipped(alpha):
    student, teacher = random_logits(20, 6, scale=4), random_logits(20, 6, scale=4)
    tight = divergence_of(student, teacher, alphas=(alpha,), clip=1.0)
    assert torch.equal(tight, divergence_of(student, teacher, alphas=(alpha,), clip=UNCLIPPED))


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("clip", [1.5, 5.0, UNCLIPPED])
def test_the_gradient_is_the_papers_estimate(alpha, clip):
    student = random_logits(20, 6, scale=2).requires_grad_()
    teacher = random_logits(20, 6, scale=2)
    values = divergence_of(student, teacher, alphas=(alpha,), clip=clip)
    weights = torch.rand(20, dtype=torch.double)
    (values * weights).sum().backward()
    for i in range(20):
        q, p = student[i].detach().softmax(-1), teacher[i].softmax(-1)
        expected = weights[i] * gradient(q, p, alpha, clip)
        torch.testing.assert_close(student.grad[i], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_unclipped_the_gradient_is_the_derivative_of_the_value(alpha):
    student = random_logits(10, 6).requires_grad_()
    teacher = random_logits(10, 6)
    expected = torch.autograd.grad(
        sum(formula(student[i].softmax(-1), teacher[i].softmax(-1), alpha) for i in range(10)),
        student,
    )
    values = divergence_of(student, teacher, alphas=(alpha,), clip=UNCLIPPED)
    got = torch.autograd.grad(values.sum(), student)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("alphas", [(-1, 1), (1, -1), (-1, 0, 2)])
def test_the_adaptive_divergence_is_the_largest_side_with_its_gradient(alphas):
    student = random_logits(30, 6, scale=2).requires_grad_()
    teacher = random_logits(30, 6, scale=2)
    values = divergence_of(student, teacher, alphas=alphas, clip=5.0)
    values.sum().backward()
    labels = torch.zeros(30, dtype=torch.long)
    log_q, log_p = student.detach().log_softmax(-1), teacher.log_softmax(-1)
    _, side = AlphaDivergence(alphas).at_nodes(log_q, log_p, labels, BLANK)
    chosen = set()
    for i in range(30):
        q, p = student[i].detach().softmax(-1), teacher[i].softmax(-1)
        sides = {alpha: formula(q, p, alpha, 5.0).item() for alpha in alphas}
        worst = max(sides, key=sides.get)
        assert alphas[side[i]] == worst
        chosen.add(worst)
        assert values[i].item() == pytest.approx(sides[worst], rel=1e-9)
        torch.testing.assert_close(
            student.grad[i], gradient(q, p, worst, 5.0), rtol=1e-9, atol=1e-9
        )
    assert len(chosen) >= 2


def test_the_default_is_adaptive_between_minus_one_and_one_clipped_at_five():
    default = AlphaDivergence()
    assert (default.alphas, default.clip, default.classes) == ((-1.0, 1.0), 5.0, "vocabulary")


@pytest.mark.parametrize("classes", ["vocabulary", "three"])
@pytest.mark.parametrize("alphas", [(1,), (-1, 1)])
def test_no_gradient_reaches_the_teacher(classes, alphas):
    student = random_logits(4, 6).requires_grad_()
    teacher = random_logits(4, 6).requires_grad_()
    labels = torch.tensor([1, 2, 0, 5])
    divergence_of(student, teacher, labels, alphas=alphas, classes=classes).sum().backward()
    assert student.grad.abs().max() > 1e-3
    assert teacher.grad is None or (teacher.grad == 0).all()


@pytest.mark.parametrize("classes", ["vocabulary", "three"])
@pytest.mark.parametrize("alpha", [*ALPHAS, *NEAR_LIMITS, *AT_LIMITS])
@pytest.mark.parametrize("size", [80, 1000])
@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_extreme_logits_give_finite_values_and_gradients(classes, alpha, size, dtype):
    signs = torch.tensor([[1, -1, 0, 0], [-1, 1, 1, -1], [1, 1, -1, -1], [0, 0, 0, 0]])
    student = (size * signs).to(dtype).requires_grad_()
    labels = torch.tensor([1, 2, 0, 3])
    for teacher in (student.detach(), -student.detach(), student.detach().flip(0)):
        values = divergence_of(student, teacher, labels, alphas=(alpha,), classes=classes)
        (grad,) = torch.autograd.grad(values.sum(), student)
        assert values.isfinite().all()
        assert grad.isfinite().all()


@pytest.mark.parametrize("classes", ["vocabulary", "three"])
@pytest.mark.parametrize("alpha", [*ALPHAS, *NEAR_LIMITS, *AT_LIMITS])
def test_a_student_like_its_teacher_has_no_divergence_and_no_gradient(classes, alpha):
    student = random_logits(5, 6, scale=3).requires_grad_()
    labels = torch.tensor([1, 2, 0, 5, 3])
    values = divergence_of(student, student.detach(), labels, alphas=(alpha,), classes=classes)
    values.sum().backward()
    torch.testing.assert_close(values, torch.zeros_like(values), rtol=0, atol=1e-12)
    torch.testing.assert_close(student.grad, torch.zeros_like(student), rtol=0, atol=1e-12)


@pytest.mark.parametrize("blank", [0, 3])
def test_three_classes_are_blank_the_label_and_the_sum_of_the_rest(blank):
    log_probs = random_logits(2, 3, 6).log_softmax(-1)
    labels = torch.tensor([[1, 2, blank], [5, blank, 4]])
    probs = three_classes(log_probs, labels, blank).exp()
    for i in range(2):
        for j in range(3):
            p, label = log_probs[i, j].exp(), labels[i, j].item()
            follows = label != blank
            rest = sum(p[v] for v in range(6) if v not in (blank, label))
            expected = torch.stack(
                [p[blank], p[label] if follows else torch.zeros_like(rest), rest]
            )
            torch.testing.assert_close(probs[i, j], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_divergence_of_three_classes_is_the_formula_on_their_probabilities(alpha):
    student = random_logits(3, 6).requires_grad_()
    teacher, labels = random_logits(3, 6), torch.tensor([1, 4, BLANK])

    def classes(logits, label):
        p = logits.softmax(-1)
        rest = sum(p[v] for v in range(6) if v not in (BLANK, label))
        kept = [p[BLANK], rest] if label == BLANK else [p[BLANK], p[label], rest]
        return torch.stack(kept)

    expected = [
        formula(classes(student[i], labels[i].item()), classes(teacher[i], labels[i].item()), alpha)
        for i in range(3)
    ]
    values = divergence_of(
        student, teacher, labels, alphas=(alpha,), clip=UNCLIPPED, classes="three"
    )
    torch.testing.assert_close(values, torch.stack(expected), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        torch.autograd.grad(values.sum(), student),
        torch.autograd.grad(sum(expected), student),
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": "two"}, "classes must be one of .*'two'"),
        ({"alphas": ()}, "alphas must hold at least one"),
        ({"clip": 0.5}, "clip must be at least 1"),
    ],
)
def test_settings_without_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AlphaDivergence(**options)


def test_a_divergence_without_one_of_its_methods_cannot_be_made():
    lacking = type("Lacking", (Divergence,), {"value": AlphaDivergence.value})
    with pytest.raises(TypeError, match="gradient"):
        lacking()
