from types import SimpleNamespace

import pytest
import torch

from todm_sb.training.shared_part import SharedPart


def louder(features, lengths):
    return features + 10, lengths


@pytest.mark.parametrize(("options", "first"), [({}, 0), ({"augment_after": 3}, 3)])
def test_augmentation_starts_after_so_many_batches_and_only_in_training(
    make_transducer, options, first
):
    model = make_transducer().eval()
    features = torch.randn(1, 32, model.encoder.n_features)
    shared_part = SharedPart(
        lambda wavs, lengths, epoch: (features, torch.tensor([32])),
        model,
        SimpleNamespace(current=1),
        feature_augment=louder,
        **options,
    )
    batch = SimpleNamespace(
        sig=(torch.zeros(1, 5120), torch.ones(1)),
        tokens=(torch.tensor([[1, 2]]), torch.ones(1)),
    )
    plain = shared_part(batch, causal=False)[0].frames
    for batches in range(6):
        frames = shared_part(batch, causal=False, batches=batches)[0].frames
        assert frames.equal(plain) == (batches < first)
