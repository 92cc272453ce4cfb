import itertools
import math

import pytest
import torch

from todm_sb.nnet import fft_convolution
from todm_sb.nnet.fft_convolution import fft_convolve, fft_size, kernel_spectrum
from todm_sb.nnet.heads import gate_heads, spread_pairs
from todm_sb.nnet.ssm import DiagonalSSM, MultiHeadSSM, spectra_of

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def recurrence(ssm, u):
    """The SSM from its definition, frame by frame in complex numbers.

    s' = A s + u and y = 2 Re(C s) + D u, with u held for a time step dt (zero-order hold).
    """
    dt = torch.exp(ssm.log_dt_centre + ssm.log_dt).unsqueeze(-1)
    modes = torch.arange(ssm.log_decay.shape[1], dtype=dt.dtype)
    A = torch.complex(-torch.exp(ssm.log_decay) / 2, math.pi * (modes + ssm.frequency))
    A_bar = torch.exp(dt * A)
    B_bar = (A_bar - 1) / A
    C = torch.complex(ssm.C[..., 0], ssm.C[..., 1])
    s = torch.zeros(u.shape[0], *A.shape, dtype=A.dtype)
    outputs = []
    for t in range(u.shape[1]):
        s = A_bar * s + B_bar * u[:, t, :, None]
        outputs.append(2 * (C * s).sum(-1).real + ssm.D * u[:, t])
    return torch.stack(outputs, dim=1)


def gelu(x):
    return x / 2 * (1 + torch.erf(x / math.sqrt(2)))


def multi_head_ssm(module, x):
    """MH-SSM from its definition, on frames without padding."""
    y = x @ module.w_in.weight.T + module.w_in.bias
    for i, forward in enumerate(module.forward_ssms):
        u = gelu(y) if i else y
        y = recurrence(forward, u)
        if module.backward_ssms is not None:
            mirrored = recurrence(module.backward_ssms[i], u.flip(1)).flip(1)
            # The backward SSM of frame t starts at frame t + 1: the present is the forward one's.
            y = y + torch.cat([mirrored[:, 1:], torch.zeros_like(mirrored[:, :1])], dim=1)
    half = y.shape[-1] // 2
    return (y[..., :half] * gelu(y[..., half:])) @ module.w_out.weight.T + module.w_out.bias


@pytest.fixture
def ssm(scatter_parameters):
    return scatter_parameters(DiagonalSSM(6, state_size=4, heads=3).double())


@pytest.fixture
def make_multi_head(scatter_parameters):
    def make(**options):
        options = {"n_heads": 4, "d_inner": 8, "state_size": 3, **options}
        return scatter_parameters(MultiHeadSSM(5, **options).double())

    return make


def convolve(ssm, u):
    length = u.shape[1]
    return fft_convolve(u, kernel_spectrum(ssm.kernel(length), None, length))


def run_steps(ssm, u):
    log_r, theta, *c = ssm.discretise()
    state, outputs = 0, []
    for x in u.unbind(1):
        state = torch.polar(log_r.exp(), theta) * state + x.unsqueeze(-1)
        outputs.append(2 * (torch.complex(*c) * state).real.sum(-1) + ssm.D * x)
    return torch.stack(outputs, dim=1), torch.cat([state.real, state.imag], -1)


def run_chunks(module, u, sizes, state, operators=None):
    outputs = []
    for part in u.split(sizes, dim=1):
        y, state = module.chunk(part, state, operators)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


@pytest.mark.parametrize("length", [1, 2, 3, 16, 25, 37])
def test_the_convolution_is_the_zero_order_hold_recurrence(ssm, length):
    u = torch.randn(2, length, 6, dtype=torch.double)
    torch.testing.assert_close(convolve(ssm, u), recurrence(ssm, u), **EXACT)


@pytest.mark.parametrize("length", [1, 2, 37])
def test_stepping_is_the_zero_order_hold_recurrence(ssm, length):
    u = torch.randn(2, length, 6, dtype=torch.double)
    torch.testing.assert_close(run_steps(ssm, u)[0], recurrence(ssm, u), **EXACT)


@pytest.mark.parametrize("sizes", [[37], [1] * 37, [16, 16, 5], [1, 30, 2, 4]])
def test_any_chunking_is_the_zero_order_hold_recurrence(ssm, sizes):
    u = torch.randn(2, 37, 6, dtype=torch.double)
    y, state = run_chunks(ssm, u, sizes, ssm.initial_state(2))
    torch.testing.assert_close(y, recurrence(ssm, u), **EXACT)
    torch.testing.assert_close(state, run_steps(ssm, u)[1], **EXACT)


@pytest.mark.parametrize("length", [1, 4, 16, 50])
@pytest.mark.parametrize("sizes", [[37], [1] * 37, [16, 16, 5], [1, 30, 2, 4]])
def test_operators_of_blocks_of_any_length_serve_any_chunking(ssm, length, sizes):
    u = torch.randn(2, 37, 6, dtype=torch.double)
    y, state = run_chunks(ssm, u, sizes, ssm.initial_state(2), ssm.block_operators(length))
    torch.testing.assert_close(y, recurrence(ssm, u), **EXACT)
    torch.testing.assert_close(state, run_steps(ssm, u)[1], **EXACT)


def test_gradients_of_the_convolution_are_those_of_the_recurrence(ssm):
    u = torch.randn(2, 13, 6, dtype=torch.double, requires_grad=True)
    weights = torch.randn(2, 13, 6, dtype=torch.double)
    inputs = [u, *ssm.parameters()]
    by_convolution = torch.autograd.grad((convolve(ssm, u) * weights).sum(), inputs)
    by_recurrence = torch.autograd.grad((recurrence(ssm, u) * weights).sum(), inputs)
    for got, expected in zip(by_convolution, by_recurrence, strict=True):
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(got, expected, **EXACT)


def test_a_float32_kernel_stays_close_to_the_float64_one_over_long_utterances():
    ssm = DiagonalSSM(8, state_size=16, heads=4)
    single = ssm.kernel(2000)
    impulse = torch.zeros(1, 2000, 8, dtype=torch.double)
    impulse[:, 0] = 1
    double = recurrence(ssm.double(), impulse)[0].T
    torch.testing.assert_close(single.double(), double, rtol=0, atol=2e-4)


@pytest.mark.parametrize("length", [1, 2, 3, 8, 13])
def test_a_bidirectional_convolution_is_the_two_sided_sum_with_the_present_counted_once(
    length, monkeypatch
):
    u = torch.randn(2, length, 3, dtype=torch.double)
    past = torch.randn(3, length, dtype=torch.double)
    future = torch.randn(3, length, dtype=torch.double)
    expected = torch.zeros_like(u)
    for t in range(length):
        for s in range(length):
            tap = past[:, t - s] if s <= t else future[:, s - t - 1]
            expected[:, t] += tap * u[:, s]
    monkeypatch.setattr(fft_convolution, "CHANNELS_AT_ONCE", 2)
    for learns in (True, False):
        with torch.set_grad_enabled(learns):
            y = fft_convolve(u, kernel_spectrum(past, future, length))
        torch.testing.assert_close(y, expected, **EXACT)


@pytest.mark.parametrize("two_sided", [False, True])
def test_a_spectrum_made_for_longer_inputs_serves_shorter_ones(two_sided):
    u = torch.randn(2, 5, 3, dtype=torch.double)
    past = torch.randn(3, 11, dtype=torch.double)
    future = torch.randn(3, 11, dtype=torch.double) if two_sided else None
    short = kernel_spectrum(past[:, :5], future[:, :5] if two_sided else None, 5)
    y = fft_convolve(u, kernel_spectrum(past, future, 11))
    torch.testing.assert_close(y, fft_convolve(u, short), **EXACT)


def test_the_fft_is_the_smallest_even_size_of_small_factors_that_holds_the_convolution():
    sizes = sorted(2**a * odd for a in range(1, 13) for odd in (1, 3, 5, 9))
    for length in range(1, 1000):
        assert fft_size(length) == next(n for n in sizes if n >= 2 * length - 1)


@pytest.mark.parametrize(
    ("length", "size"), [(1, 2), (2, 4), (3, 6), (5, 10), (7, 16), (9, 18), (71, 144), (1025, 2304)]
)
def test_some_fft_sizes_by_hand(length, size):
    assert fft_size(length) == size


LENGTHS = [1, 2, 5, 7, 71]
# Each element of these is moved in turn.
FEW = [1, 2, 5, 7, 19]


def convolution_inputs(length):
    """Frames of two utterances of two channels, and the kernels of both directions."""
    shapes = [(2, length, 2), (2, length), (2, length)]
    return [torch.randn(*shape, dtype=torch.double, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("length", FEW)
def test_gradients_to_frames_and_kernels_are_the_numerical_ones(length):
    u, past, future = convolution_inputs(length)
    assert torch.autograd.gradcheck(
        lambda u, past: fft_convolve(u, kernel_spectrum(past, None, length)), (u, past)
    )
    assert torch.autograd.gradcheck(
        lambda u, past, future: fft_convolve(u, kernel_spectrum(past, future, length)),
        (u, past, future),
    )


def random_spectrum(length, requires_grad=True):
    """Not of any kernel: also its first and last frequency are complex."""
    shape = (2, fft_size(length) // 2 + 1)
    return torch.randn(*shape, dtype=torch.cdouble, requires_grad=requires_grad)


@pytest.mark.parametrize("made_for", [0, 1, 30])
@pytest.mark.parametrize("length", FEW)
def test_gradients_to_frames_and_spectrum_are_the_numerical_ones(length, made_for):
    u, *_ = convolution_inputs(length)
    assert torch.autograd.gradcheck(fft_convolve, (u, random_spectrum(length + made_for)))


@pytest.mark.parametrize("length", LENGTHS)
def test_either_input_alone_gets_the_gradient_it_gets_along_with_the_other(length):
    u, *_ = convolution_inputs(length)
    spectrum, weights = random_spectrum(length), torch.randn_like(u)
    to_u, to_spectrum = torch.autograd.grad(
        (fft_convolve(u, spectrum) * weights).sum(), (u, spectrum)
    )
    (fft_convolve(u, spectrum.detach()) * weights).sum().backward()
    assert spectrum.grad is None
    assert torch.equal(u.grad, to_u)
    u.grad = None
    (fft_convolve(u.detach(), spectrum) * weights).sum().backward()
    assert u.grad is None
    assert torch.equal(spectrum.grad, to_spectrum)
    assert not fft_convolve(u.detach(), spectrum.detach()).requires_grad


def test_gradients_of_the_convolution_are_those_of_autograd_on_the_two_sided_sum():
    length = 7
    u, past, future = convolution_inputs(length)
    rows = []
    for t in range(length):
        taps = [past[:, t - s] if s <= t else future[:, s - t - 1] for s in range(length)]
        rows.append((torch.stack(taps) * u).sum(1))
    weights = torch.randn_like(u)
    expected = torch.autograd.grad((torch.stack(rows, 1) * weights).sum(), (u, past, future))
    y = fft_convolve(u, kernel_spectrum(past, future, length))
    got = torch.autograd.grad((y * weights).sum(), (u, past, future))
    torch.testing.assert_close(got, expected, **EXACT)


def test_a_spectrum_gathers_the_gradients_of_all_its_uses():
    """As the subnets of a step share it."""
    spectrum = random_spectrum(5)
    inputs = [torch.randn(2, 5, 2, dtype=torch.double) for _ in range(3)]
    expected = sum(
        torch.autograd.grad(fft_convolve(u, spectrum).square().sum(), spectrum)[0] for u in inputs
    )
    for u in inputs:
        fft_convolve(u, spectrum).square().sum().backward()
    torch.testing.assert_close(spectrum.grad, expected, **EXACT)


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("longer", [6, 7, 8, 11, 71])
def test_gradients_through_a_spectrum_made_for_longer_inputs_are_the_same(two_sided, longer):
    u = torch.randn(2, 5, 2, dtype=torch.double, requires_grad=True)
    kernels = torch.randn(1 + two_sided, 2, longer, dtype=torch.double, requires_grad=True)
    weights = torch.randn_like(u)

    def run(length):
        past, *future = kernels[..., :length]
        spectrum = kernel_spectrum(past, future[0] if future else None, length)
        y = fft_convolve(u, spectrum)
        return y, *torch.autograd.grad((y * weights).sum(), (u, kernels))

    torch.testing.assert_close(run(longer), run(5), **EXACT)


def test_each_head_starts_in_its_own_part_of_the_time_scales():
    ssm = DiagonalSSM(40, heads=4, dt_range=(0.01, 1.0))
    dt = torch.exp(ssm.log_dt_centre + ssm.log_dt).detach().view(4, 10)
    assert dt.min() >= 0.01 - 1e-6
    assert dt.max() <= 1.0 + 1e-5
    # From global (small dt, slow) to local; equal parts on the log scale.
    for head in range(4):
        assert dt[head].min() >= 0.01 * 100 ** (head / 4) * (1 - 1e-5)
        assert dt[head].max() <= 0.01 * 100 ** ((head + 1) / 4) * (1 + 1e-5)
        assert dt[head].min() < dt[head].max()


def test_a_slow_head_remembers_longer_than_a_fast_one():
    kernel = DiagonalSSM(2, heads=2, dt_range=(0.005, 0.5)).kernel(400).abs().detach()
    slow, fast = kernel[:, 200:].sum(-1) / kernel[:, 1:].sum(-1)
    assert slow > 100 * fast


def test_the_second_half_of_the_heads_gates_the_first_through_gelu():
    y = torch.randn(2, 3, 8, dtype=torch.double)
    expected = torch.empty(2, 3, 4, dtype=torch.double)
    for i in range(4):
        expected[..., i] = y[..., i] * gelu(y[..., 4 + i])
    torch.testing.assert_close(gate_heads(y), expected, **EXACT)


@pytest.mark.parametrize("n_stack", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("length", [1, 2, 11])
def test_mh_ssm_is_its_definition(make_multi_head, n_stack, bidirectional, length):
    module = make_multi_head(n_stack=n_stack, bidirectional=bidirectional)
    x = torch.randn(2, length, 5, dtype=torch.double)
    y = module(x, torch.ones(2, length, 1, dtype=torch.double))
    torch.testing.assert_close(y, multi_head_ssm(module, x), **EXACT)


@pytest.mark.parametrize("n_stack", [1, 2])
def test_mh_ssm_reads_a_masked_batch_as_each_utterance_alone(make_multi_head, n_stack):
    module = make_multi_head(n_stack=n_stack)
    x = 100 * torch.randn(2, 9, 5, dtype=torch.double)
    mask = torch.ones(2, 9, 1, dtype=torch.double)
    mask[1, 6:] = 0
    y = module(x, mask)
    torch.testing.assert_close(y[:1], multi_head_ssm(module, x[:1]), **EXACT)
    torch.testing.assert_close(y[1:, :6], multi_head_ssm(module, x[1:, :6]), **EXACT)


def test_given_spectra_change_nothing(make_multi_head):
    module = make_multi_head(n_stack=2)
    x, mask = torch.randn(2, 9, 5, dtype=torch.double), torch.ones(2, 9, 1, dtype=torch.double)
    assert torch.equal(module(x, mask, module.spectra(9)), module(x, mask))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("at_once", [1, 2, 3, 6])
@pytest.mark.parametrize("length", [1, 2, 37])
def test_spectra_made_at_once_are_those_made_one_by_one_to_the_last_bit(
    scatter_parameters, monkeypatch, length, at_once, causal
):
    """And so are the gradients. Modules differ in channels, and have two SSMs in sequence each.

    Numbers fill vector registers: what is left over is computed by other instructions."""
    monkeypatch.setattr("todm_sb.nnet.ssm.SSMS_AT_ONCE", {"cpu": at_once})
    modules = [
        scatter_parameters(MultiHeadSSM(5, n_heads=2, d_inner=d_inner, state_size=4, n_stack=2))
        for d_inner in (16, 64, 32)
    ]
    ssms = [
        (forward, None if causal else backward)
        for module in modules
        for forward, backward in zip(module.forward_ssms, module.backward_ssms, strict=True)
    ]
    expected = [
        kernel_spectrum(forward.kernel(length), backward and backward.kernel(length), length)
        for forward, backward in ssms
    ]
    got = spectra_of(modules, length, causal)
    params = [p for pair in ssms for ssm in pair if ssm for p in ssm.parameters()]
    grads = [torch.randn_like(spectrum) for spectrum in expected]
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one, other)
    of_each = torch.autograd.grad(expected, params, grads)
    assert all(grad.abs().max() > 0 for grad in of_each) or length == 1
    for one, other in zip(torch.autograd.grad(got, params, grads), of_each, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("n_stack", [1, 2])
@pytest.mark.parametrize("sizes", [[11], [1] * 11, [4, 6, 1]])
def test_a_causal_mh_ssm_runs_chunk_by_chunk(make_multi_head, n_stack, sizes):
    module = make_multi_head(n_stack=n_stack, bidirectional=False)
    x = torch.randn(2, 11, 5, dtype=torch.double)
    for operators in (None, module.block_operators(4)):
        y, _ = run_chunks(module, x, sizes, module.initial_state(2), operators)
        torch.testing.assert_close(y, multi_head_ssm(module, x), **EXACT)


@pytest.mark.parametrize("n_stack", [1, 2])
def test_only_a_bidirectional_mh_ssm_sees_the_future(make_multi_head, n_stack):
    x = torch.randn(1, 12, 5, dtype=torch.double)
    changed = x.clone()
    changed[:, 7:] += 1
    mask = torch.ones(1, 12, 1, dtype=torch.double)
    difference = {}
    for bidirectional in (False, True):
        module = make_multi_head(n_stack=n_stack, bidirectional=bidirectional)
        difference[bidirectional] = (module(x, mask) - module(changed, mask)).abs().amax((0, 2))
    assert (difference[False][:7] < 1e-12).all()
    assert (difference[False][7:] > 1e-3).all()
    assert (difference[True] > 1e-6).all()


@pytest.fixture
def dtypes_of_ffts(monkeypatch):
    """The data types that reach the FFTs."""
    seen = set()

    def record(name):
        original = getattr(torch.fft, name)

        def call(tensor, *args, **kwargs):
            seen.add((name, tensor.dtype))
            return original(tensor, *args, **kwargs)

        monkeypatch.setattr(torch.fft, name, call)

    record("rfft")
    record("irfft")
    return seen


@torch.no_grad()
def test_ffts_keep_float32_under_autocast(make_multi_head, dtypes_of_ffts):
    module = make_multi_head(n_stack=2).float()
    x, mask = torch.randn(2, 30, 5), torch.ones(2, 30, 1)
    expected = module(x, mask)
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x, mask)
    assert dtypes_of_ffts == {("rfft", torch.float32), ("irfft", torch.complex64)}
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected, rtol=0, atol=0.02 * float(expected.abs().max()))


@torch.no_grad()
def test_kernel_spectra_are_the_same_under_autocast(make_multi_head):
    module = make_multi_head(n_stack=2).float()
    exact = module.spectra(30)
    with torch.autocast("cpu", torch.bfloat16):
        spectra = module.spectra(30)
    for got, expected in zip(spectra, exact, strict=True):
        assert torch.equal(got, expected)


@torch.no_grad()
def test_block_operators_are_the_same_under_autocast(make_multi_head):
    module = make_multi_head(bidirectional=False).float()
    (exact,) = module.block_operators()
    with torch.autocast("cpu", torch.bfloat16):
        (operators,) = module.block_operators()
    for got, expected in zip(operators, exact, strict=True):
        assert torch.equal(got, expected)


@torch.no_grad()
def test_chunks_keep_their_state_in_float32_under_autocast(scatter_parameters):
    module = scatter_parameters(MultiHeadSSM(8, n_heads=4, bidirectional=False), 0.05)
    # Long memory and a constant input: half precision would lose what is added to a full state.
    x = 1 + 0.1 * torch.randn(1, 400, 8)
    y, (state,) = run_chunks(module, x, [20] * 20, module.initial_state(1))
    with torch.autocast("cpu", torch.bfloat16):
        y_half, (state_half,) = run_chunks(module, x, [20] * 20, module.initial_state(1))
    assert state_half.dtype == torch.float32
    torch.testing.assert_close(state_half, state, rtol=0, atol=0.01 * float(state.abs().max()))
    torch.testing.assert_close(y_half.float(), y, rtol=0, atol=0.02 * float(y.abs().max()))


def test_an_odd_number_of_heads_cannot_gate():
    with pytest.raises(ValueError, match="n_heads must be even"):
        MultiHeadSSM(9, n_heads=3)


def test_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match=r"channels \(10\).*heads \(4\)"):
        MultiHeadSSM(5, n_heads=4)


def test_a_stack_needs_an_ssm():
    with pytest.raises(ValueError, match="n_stack"):
        MultiHeadSSM(8, n_heads=4, n_stack=0)


def test_decays_and_frequencies_start_within_their_spread():
    ssm = DiagonalSSM(200, state_size=8, spread=0.3)
    for parameter in (ssm.log_decay, ssm.frequency):
        assert 0.29 < parameter.abs().max() <= 0.3
        assert parameter.mean().abs() < 0.03
    assert not DiagonalSSM(200).log_decay.any()


@pytest.mark.parametrize("dt_range", [(0.5, 0.005), (0, 0.5), (-1, 1)])
def test_time_steps_must_be_positive_and_ascending(dt_range):
    with pytest.raises(ValueError, match="dt_range"):
        DiagonalSSM(4, dt_range=dt_range)


def test_a_bidirectional_mh_ssm_refuses_to_run_chunk_by_chunk(make_multi_head):
    module = make_multi_head(bidirectional=True)
    with pytest.raises(ValueError, match="bidirectional"):
        module.chunk(torch.randn(1, 4, 5, dtype=torch.double), module.initial_state(1))


@pytest.mark.parametrize("n_heads", [2, 4, 6, 8, 12, 16])
def test_any_leading_heads_span_local_to_global(n_heads):
    order = spread_pairs(n_heads)
    assert sorted(order) == list(range(n_heads))
    for pairs in range(1, n_heads // 2 + 1):
        half = n_heads // 2
        parts = sorted(order[:pairs] + order[half : half + pairs])
        assert (parts[0], parts[-1]) == (0, n_heads - 1)
        gaps = [b - a for a, b in itertools.pairwise(parts)]
        # No hole is wider than twice an even spread's.
        assert max(gaps) <= 2 * math.ceil((n_heads - 1) / (len(parts) - 1))


def test_heads_lie_from_slow_to_fast_unless_they_are_to_be_spread():
    plain, spread = (MultiHeadSSM(8, 4, spread_heads=s).forward_ssms[0] for s in (False, True))
    assert (plain.log_dt_centre.diff() >= 0).all()
    centres = plain.log_dt_centre[::4]
    torch.testing.assert_close(spread.log_dt_centre[::4], centres[torch.tensor([0, 1, 3, 2])])


@torch.no_grad()
def test_fewer_heads_are_the_heads_of_a_smaller_layer(scatter_parameters):
    layer = scatter_parameters(MultiHeadSSM(8, 4, n_stack=2)).eval().double()
    x, mask = torch.randn(2, 9, 8).double(), torch.ones(2, 9, 1).double()
    # By hand: without the channels of value head 1 and of its gate, head 3.
    small = MultiHeadSSM(8, 2, 8, n_stack=2).double()
    kept = [*range(4), *range(8, 12)]
    weights = {
        name: value[kept] if name not in ("w_out.weight", "w_out.bias") else value
        for name, value in layer.state_dict().items()
    }
    weights["w_out.weight"] = weights["w_out.weight"][:, :4]
    small.load_state_dict(weights)
    torch.testing.assert_close(layer(x, mask, n_heads=2), small(x, mask))
    torch.testing.assert_close(layer.extract(2)(x, mask), small(x, mask))
    with pytest.raises(ValueError, match="3 heads are not 2, 4"):
        layer(x, mask, n_heads=3)
