"""Training on another device is training on the CPU, and never mixes the two."""

import copy
import random

import pytest
import torch
from pretended import FAR
from recipe_step import make_batch, make_brain
from speechbrain import Stage

from todm_sb.losses.distillation import AlphaDivergence
from todm_sb.losses.lattice import two_channel_loss
from todm_sb.losses.pruning import Pruning
from todm_sb.nnet.transducer import Transducer
from todm_sb.optim import ScaledAdam
from todm_sb.supernet import SearchSpace
from todm_sb.supernet.objective import Objective
from todm_sb.supernet.sandwich import sample_sandwich, sandwich_backward
from todm_sb.supernet.trunk import Labels, Trunk
from todm_sb.training import adaptation
from todm_sb.training.adaptation import Start
from todm_sb.training.checkpoints import SafeCheckpointer
from todm_sb.training.recipe import Recipe
from todm_sb.training.sources import Source

SPACE = SearchSpace(n_layers=2, min_layers=1, ffn_dims=(6, 12))
STEPS = 2
DEVICES = ("cpu", FAR)

ENCODERS = {
    "mhssm": {"n_heads": 2, "state_size": 2},
    "dual mode": {"n_heads": 2, "state_size": 2, "dual_mode": True},
    "conformer": {"kind": "conformer", "n_heads": 2, "kernel_size": 3},
}
OBJECTIVES = {
    "full": Objective(ctc_weight=0.3, kd_weight=0.5),
    "three classes, uniform": Objective(
        divergence=AlphaDivergence(classes="three"), kd_nodes="uniform"
    ),
    "simple": Objective(pruning=Pruning(s_range=2, coverage=0.5, encoder_smoothing=0.1)),
    "ctc": Objective(ctc_weight=0.3, pruning=Pruning(s_range=2, by="ctc", coverage=0.9)),
    "max": Objective(pruning=Pruning(s_range=2, by="max"), kd_nodes="uniform"),
}


def make_model(encoder, predictor):
    torch.manual_seed(0)
    sizes = {"n_features": 6, "d_model": 8, "channels": [2, 2], "time_strides": [2, 2]}
    return Transducer(
        vocab_size=7,
        encoder={**sizes, **SPACE.sizes, **ENCODERS[encoder]},
        predictor={"kind": predictor, "d_model": 6},
        d_joint=8,
        ctc=True,
        simple_joiner=True,
    )


@pytest.mark.parametrize(
    ("encoder", "predictor", "objective", "micro_batches"),
    [
        ("mhssm", "lstm", "full", 1),
        ("mhssm", "stateless", "three classes, uniform", 2),
        ("dual mode", "lstm", "simple", 2),
        ("conformer", "stateless", "ctc", 1),
        ("conformer", "lstm", "max", 3),
    ],
)
def test_a_sandwich_has_the_gradients_of_the_cpu(
    ledger, encoder, predictor, objective, micro_batches
):
    near = make_model(encoder, predictor)
    far = copy.deepcopy(near).to(FAR)
    subnets = sample_sandwich(SPACE, 1, random.Random(1))
    features, ids = torch.randn(3, 40, 6), torch.randint(1, 7, (3, 4))
    # With an utterance of few frames and one without a label.
    lengths, n_labels = torch.tensor([40, 17, 25]), torch.tensor([4, 2, 0])
    losses = []
    for model, device in zip((near, far), DEVICES, strict=True):
        labels = Labels(ids.to(device), n_labels.to(device))
        inputs = features.to(device), lengths.to(device), labels.ids
        trunk = Trunk.compute(model, *inputs, causal=encoder == "dual mode")
        found = sandwich_backward(
            model, OBJECTIVES[objective], trunk, labels, subnets, micro_batches=micro_batches
        )
        losses.append([float(x.total) for x in found])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for (name, p), q in zip(near.named_parameters(), far.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None:
            torch.testing.assert_close(q.grad.cpu(), p.grad, rtol=1e-4, atol=1e-5)


def test_the_lattice_takes_lengths_of_either_device(ledger):
    arcs = torch.randn(3, 4, 3, 2).log_softmax(-1)
    lengths = torch.tensor([4, 3, 1]), torch.tensor([2, 0, 1])
    for at in ("cpu", FAR):
        found = two_channel_loss(arcs.to(FAR), *(n.to(at) for n in lengths))
        for got, expected in zip(found, two_channel_loss(arcs, *lengths), strict=True):
            torch.testing.assert_close(got.cpu(), expected)


SMALL = {"search_space": {"n_layers": 2, "min_layers": 1}, "vocab_size": 17}


def train(folder, device, steps=STEPS, **changes):
    """A brain that has trained, and its losses."""
    brain = make_brain(folder / device, device, **{**SMALL, **changes})
    brain.on_fit_start()
    losses = []
    for brain.step in range(1, steps + 1):
        losses.append(brain.fit_batch(make_batch(17, seed=brain.step)).item())
    return brain, losses


def test_steps_of_the_recipe_are_those_of_the_cpu(ledger, tmp_path):
    """With its augmentation, dropout, normalisation, losses, guard, optimizer and log."""
    (near, near_losses), (far, far_losses) = (train(tmp_path, device) for device in DEVICES)
    assert far_losses == pytest.approx(near_losses, rel=1e-5)
    found = far.modules["model"].state_dict()
    for name, value in near.modules["model"].state_dict().items():
        assert found[name].device.type == FAR
        torch.testing.assert_close(found[name].cpu(), value, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        far.modules["normalize"].glob_mean.cpu(), near.modules["normalize"].glob_mean
    )


@pytest.mark.slow
def test_in_bfloat16_and_micro_batches_the_losses_are_those_of_the_cpu(ledger, tmp_path):
    options = {"precision": "bf16", "micro_batches": 2}
    near, far = (train(tmp_path, device, **options)[1] for device in DEVICES)
    assert far == pytest.approx(near, rel=1e-3)
    assert far != near


def test_validation_is_that_of_the_cpu(ledger, tmp_path, char_tokenizer_path):
    from sentencepiece import SentencePieceProcessor

    losses, errors = [], []
    for device in DEVICES:
        brain, _ = train(tmp_path, device, steps=1)  # statistics of the features
        brain.tokenizer = SentencePieceProcessor(model_file=str(char_tokenizer_path))
        with torch.no_grad():
            brain.modules["model"].joiner.output.bias[0] -= 1
        brain.modules.eval()
        brain.on_stage_start(Stage.VALID, 1)
        losses.append(float(brain.evaluate_batch(make_batch(17), Stage.VALID)))
        errors.append(brain.evaluation.errors.by_rate_and_name())
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert errors[0] == errors[1]


def test_an_adaptation_is_that_of_the_cpu(ledger, tmp_path, monkeypatch):
    """From a plain network and its statistics: those of the CPU, and its order of units."""
    source = make_brain(tmp_path, "cpu", **SMALL).modules
    source["features"](*make_batch(17).sig)
    normalize = source["normalize"]
    begun_from = (normalize.norm_type, normalize._statistics_dict())
    start = Start(Recipe(tmp_path), "a", source=Source(source["model"], b"", {}, *begun_from))
    monkeypatch.setattr(adaptation, "make_loader_kwargs", lambda *_: {})
    monkeypatch.setattr(adaptation, "make_dataloader", lambda _: [make_batch(17)])
    losses, weights = [], []
    for device in DEVICES:
        (tmp_path / device).mkdir()
        brain = make_brain(tmp_path / device, device, normalize={"update_until_epoch": 1}, **SMALL)
        start.begin(vars(brain.hparams), None)
        weights.append({k: v.cpu().clone() for k, v in brain.modules["model"].state_dict().items()})
        brain.on_fit_start()
        brain.step = 1
        losses.append(brain.fit_batch(make_batch(17, seed=1)).item())
    torch.testing.assert_close(*weights)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def optimised(device, n, state=None):
    """Parameters after n steps more of an optimizer, and its state."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 4), (5,), (1,), (4, 2)]
    params = [torch.randn(s, generator=generator).to(device).requires_grad_() for s in shapes]
    if state is not None:
        with torch.no_grad():
            for p, saved in zip(params, state["params"], strict=True):
                p.copy_(saved)
    optimizer = ScaledAdam(params, lr=0.05)
    if state is not None:
        optimizer.load_state_dict(state["optimizer"])
    for step in range(n):
        for i, p in enumerate(params):
            p.grad = (
                torch.sin(torch.arange(1.0, p.numel() + 1) * (step + i + 1))
                .view(p.shape)
                .to(device)
            )
        optimizer.step()
    return {"params": params, "optimizer": optimizer.state_dict()}


def test_the_optimizer_goes_on_from_a_checkpoint_of_either_device(ledger, tmp_path):
    expected = optimised("cpu", 7, optimised("cpu", 6))["params"]
    for device in DEVICES:
        torch.save(optimised(device, 6), tmp_path / "state.pt")
        for other in DEVICES:
            state = torch.load(tmp_path / "state.pt", map_location="cpu")
            found = optimised(other, 7, state)["params"]
            for p, q in zip(found, expected, strict=True):
                assert p.device.type == other
                torch.testing.assert_close(p.detach().cpu(), q.detach())


@pytest.mark.parametrize("saved_on", DEVICES)
@pytest.mark.parametrize("loaded_on", DEVICES)
def test_a_checkpoint_of_a_device_is_loaded_on_any(ledger, tmp_path, saved_on, loaded_on):
    model = make_model("mhssm", "lstm").to(saved_on)
    SafeCheckpointer(tmp_path, {"model": model}).save_checkpoint()
    other = make_model("mhssm", "lstm").to(loaded_on)
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    SafeCheckpointer(tmp_path, {"model": other}).recover_if_possible()
    for p, q in zip(other.parameters(), model.parameters(), strict=True):
        assert p.device.type == loaded_on
        assert torch.equal(p.cpu(), q.cpu())
