"""How hard distillation pulls at a student, beside the student's own losses, and whither."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from todm_sb.nnet.transducer import Transducer
from todm_sb.space import SubnetConfig
from todm_sb.supernet.objective import Objective
from todm_sb.supernet.schedule import at
from todm_sb.supernet.trunk import Labels, Trunk


def distillation_pull(
    objective: Objective,
    model: Transducer,
    trunk: Trunk,
    labels: Labels,
    teacher: SubnetConfig,
    student: SubnetConfig,
    batches: float | None = None,
) -> dict[str, Tensor]:
    """Compares the gradient of the divergence with that of the student's own losses.

    Nothing is added to ``grad``, and dropout draws what it would have drawn without this. The
    student's own losses count once, whatever ``student_weight`` is: they are what to compare with,
    even where they are not trained for.

    Args:
        objective: whose weights count; its divergence must weigh something.
        model: the supernet.
        trunk: of a batch, with gradients.
        labels: of that batch.
        teacher: the first subnet of the step.
        student: another one.
        batches: reference batches so far, see :class:`Objective`.

    Returns:
        Scalars, by name: the ``kd ratio`` of the norms and the ``kd cosine`` between the two, each
        at ``projected``, the encoder's outputs as the joiner sees them, and at the parameters of
        the ``joiner`` and of the ``encoder``'s layers, but for what of them is in the trunk, and
        for what is frozen.
    """
    objective = replace(objective, student_weight=1.0)
    seen: list[Tensor] = []
    projection = model.joiner.project_encoder
    devices = [trunk.frames.device] if trunk.frames.is_cuda else []
    with torch.random.fork_rng(devices):
        # The lead alone is kept: the teacher's graph would lie beside the student's.
        lead = objective(model, trunk, labels, teacher, None, batches)[1]
        with projection.register_forward_hook(lambda module, inputs, output: seen.append(output)):
            losses, _ = objective(model, trunk, labels, student, lead, batches)
    soft = at(objective.kd_weight, batches) * losses.terms["kd"]
    places = _places(model, seen)
    wanted = [tensor for tensors in places.values() for tensor in tensors]
    if not wanted:
        return {}
    of_soft, of_hard = (
        iter(torch.autograd.grad(loss, wanted, retain_graph=True, allow_unused=True))
        for loss in (soft, losses.total - soft)
    )
    found = {}
    for place, tensors in places.items():
        pairs = [(next(of_soft), next(of_hard)) for _ in tensors]
        # A subnet leaves out parameters, and a loss may not see one.
        used = [(x, y) for x, y in pairs if x is not None and y is not None]
        if used:
            a, b = map(_flat, zip(*used, strict=True))
            found[f"kd ratio {place}"] = a.norm() / b.norm()
            found[f"kd cosine {place}"] = cosine_similarity(a, b, dim=0)
    return found


def _places(model: Transducer, projected: list[Tensor]) -> dict[str, list[Tensor]]:
    """Where the gradients are compared: what of these tensors has one."""
    places: dict[str, Iterable[Tensor]] = {
        "projected": projected,
        "joiner": model.joiner.parameters(),
        "encoder": model.encoder.layers.parameters(),
    }
    return {name: [x for x in tensors if x.requires_grad] for name, tensors in places.items()}


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])
