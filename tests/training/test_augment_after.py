from types import SimpleNamespace

import pytest
import torch

from todm_sb.training.shared_part import SharedPart


def louder(features, lengths):
    return features + 10, lengths


def other(wavs, lengths):
    return wavs + 1, lengths


@pytest.mark.parametrize(
    ("options", "first_wavs", "first_masks"),
    [
        ({}, 0, 0),
        ({"augment_after": 3}, 3, 3),
        ({"augment_after": 2, "mask_after": 4}, 2, 4),
        ({"augment_after": 3, "mask_after": 1}, 3, 1),
    ],
)
def test_augmentation_starts_after_so_many_batches_and_only_in_training(
    make_transducer, options, first_wavs, first_masks
):
    model = make_transducer().eval()
    features = torch.randn(1, 32, model.encoder.n_features)
    shared_part = SharedPart(
        lambda wavs, lengths, epoch: (features + wavs.mean(), torch.tensor([32])),
        model,
        SimpleNamespace(current=1),
        wav_augment=other,
        feature_augment=louder,
        **options,
    )
    batch = SimpleNamespace(
        sig=(torch.zeros(1, 5120), torch.ones(1)),
        tokens=(torch.tensor([[1, 2]]), torch.ones(1)),
    )

    def frames_of(features):
        return model.encoder.subsampling(features, torch.tensor([32]))[0]

    assert shared_part(batch, causal=False)[0].frames.equal(frames_of(features))
    for batches in range(6):
        frames = shared_part(batch, causal=False, batches=batches)[0].frames
        added = 1.0 * (batches >= first_wavs) + 10.0 * (batches >= first_masks)
        torch.testing.assert_close(frames, frames_of(features + added))
