from types import SimpleNamespace

import pytest
import torch

from todm_sb.nnet.speed_perturb import SpeedPerturb
from todm_sb.supernet.objective import Objective
from todm_sb.supernet.schedule import Schedule
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


def test_audio_is_augmented_in_float32_whatever_the_training_runs_in():
    speed, noise = SpeedPerturb([90]), torch.nn.Conv1d(1, 1, 3, padding=1)
    shared_part = SharedPart(
        lambda wavs, lengths, epoch: (wavs.unsqueeze(2), torch.tensor([wavs.shape[1]])),
        None,
        SimpleNamespace(current=1),
        wav_augment=speed,
        noise_augment=lambda wavs, lengths: (noise(wavs), lengths),
        feature_augment=lambda x, lengths: (noise(x.mT), lengths),
    )
    batch = SimpleNamespace(
        sig=(torch.randn(1, 900), torch.ones(1)), tokens=(torch.tensor([[1]]), torch.ones(1))
    )
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features = shared_part.inputs(batch, batches=0)[0]
    with torch.no_grad():
        assert features.equal(shared_part.inputs(batch, batches=0)[0])
    assert features.dtype == torch.float32


def test_views_are_masked_apart_as_soon_as_there_are_masks(make_transducer):
    model = make_transducer()
    shared_part = SharedPart(
        lambda wavs, lengths, epoch: (wavs[:, :64].reshape(2, 32, 2), torch.tensor([32, 20])),
        model,
        SimpleNamespace(current=1),
        feature_augment=lambda x, lengths: (x + torch.arange(len(x))[:, None, None], lengths),
        mask_after=3,
        views=Objective(0.3, consistency_weight=Schedule(0.2, 0.0, 4, 6)).views,
    )
    wavs = torch.randn(2, 5120)
    batch = SimpleNamespace(
        sig=(wavs, torch.ones(2)),
        tokens=(torch.tensor([[1, 2], [3, 0]]), torch.tensor([1.0, 0.5])),
    )
    one_view, n_frames, labels = shared_part.inputs(batch, batches=2)
    assert one_view.equal(wavs[:, :64].reshape(2, 32, 2))
    assert n_frames.tolist() == [32, 20]
    assert labels.views == 1
    features, n_frames, labels = shared_part.inputs(batch, batches=3)
    assert features.equal(one_view[[0, 0, 1, 1]] + torch.arange(4)[:, None, None])
    assert n_frames.tolist() == [32, 32, 20, 20]
    assert labels.views == 2
    assert labels.ids.tolist() == [[1, 2], [1, 2], [3, 0], [3, 0]]
    assert labels.lengths.tolist() == [2, 2, 1, 1]
    assert shared_part.inputs(batch, batches=5)[2].views == 2
    assert shared_part.inputs(batch, batches=6)[2].views == 1  # its weight is 0 by now
    assert shared_part.inputs(batch)[2].views == 1
