"""Products that TF32 must not touch, and that the rest of the program is left as it is."""

import threading

import pytest
import torch

from todm_sb.utils.products import exact_bmm, exact_products

MATMUL = torch.backends.cuda.matmul


@pytest.fixture(autouse=True, params=[False, True])
def tf32(request):
    """Switched on, as SpeechBrain does, or not."""
    before, MATMUL.allow_tf32 = MATMUL.allow_tf32, request.param
    yield request.param
    MATMUL.allow_tf32 = before


def test_it_is_off_inside_and_as_before_outside_even_after_an_error(tf32):
    with exact_products():
        assert not MATMUL.allow_tf32
        with exact_products():
            pass
        assert not MATMUL.allow_tf32
    assert MATMUL.allow_tf32 == tf32
    with pytest.raises(KeyError), exact_products():
        raise KeyError
    assert MATMUL.allow_tf32 == tf32


def test_it_is_off_as_long_as_a_thread_is_inside_and_as_before_when_the_last_has_left(tf32):
    inside, leave = threading.Event(), threading.Event()

    def other():
        with exact_products():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with exact_products():
        thread.start()
        inside.wait()
    assert not MATMUL.allow_tf32
    leave.set()
    thread.join()
    assert MATMUL.allow_tf32 == tf32


def test_the_product_and_its_gradient_are_those_of_the_definition(monkeypatch, tf32):
    seen = []
    bmm = torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda *x: seen.append(MATMUL.allow_tf32) or bmm(*x))
    a = torch.randn(3, 2, 5, dtype=torch.double, requires_grad=True)
    b = torch.randn(3, 5, 4, dtype=torch.double, requires_grad=True)
    expected = (a.unsqueeze(3) * b.unsqueeze(1)).sum(2)
    torch.testing.assert_close(exact_bmm(a, b), expected)
    assert torch.autograd.gradcheck(exact_bmm, (a, b))
    assert len(seen) > 2
    assert not any(seen)
    assert MATMUL.allow_tf32 == tf32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_product_is_in_float32_under_autocast(dtype):
    a, b = torch.randn(3, 2, 5, requires_grad=True), torch.randn(3, 5, 4, requires_grad=True)
    expected = (a.unsqueeze(3) * b.unsqueeze(1)).sum(2)
    wanted = torch.autograd.grad(expected.sum(), (a, b))
    with torch.autocast("cpu", dtype):
        found = exact_bmm(a, b)
        got = torch.autograd.grad(found.sum(), (a, b))
    torch.testing.assert_close((found, *got), (expected, *wanted))
