import pytest
import torch
import torch.nn.functional as F

from todm_sb.losses.consistency import ctc_consistency
from todm_sb.utils.errors import ConfigError

LENGTHS = torch.tensor([5, 5, 3, 3])


def views(requires_grad=False):
    logits = torch.randn(4, 5, 7, dtype=torch.double, generator=torch.Generator().manual_seed(3))
    return logits.requires_grad_(requires_grad)


def frame_by_frame(log_probs):
    """Each view's divergence from the other, which is held fixed, frame by frame."""
    losses = []
    for one, other, n_frames in ((0, 1, 5), (2, 3, 3)):
        loss = 0
        for t in range(n_frames):
            for student, teacher in ((one, other), (other, one)):
                target = log_probs[teacher, t].detach()
                loss = loss + F.kl_div(log_probs[student, t], target, None, None, "sum", True) / 2
        losses.append(loss)
    return torch.stack(losses)


def test_it_is_the_divergence_of_each_view_from_the_other_held_fixed():
    logits, expected_logits = views(True), views(True)
    got = ctc_consistency(logits.log_softmax(-1), LENGTHS)
    expected = frame_by_frame(expected_logits.log_softmax(-1))
    torch.testing.assert_close(got, expected)
    weights = torch.tensor([1.0, 2.0], dtype=torch.double)
    (got * weights).sum().backward()
    (expected * weights).sum().backward()
    assert expected_logits.grad.abs().max() > 0.01
    torch.testing.assert_close(logits.grad, expected_logits.grad)


def test_equal_views_are_consistent():
    log_probs = views()[::2].repeat_interleave(2, 0).log_softmax(-1)
    assert ctc_consistency(log_probs, LENGTHS).abs().max() < 1e-12


def test_views_come_in_pairs():
    with pytest.raises(ConfigError, match="3 views of utterances: they must come in pairs"):
        ctc_consistency(views()[:3].log_softmax(-1), LENGTHS[:3])
