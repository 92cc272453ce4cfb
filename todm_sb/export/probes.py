"""Networks whose times on a device tell those of all subnets of a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from todm_sb.export.onnx import FILES, write_both
from todm_sb.export.run import common_parts
from todm_sb.search.probes import CARD, PRECISIONS, network_id, probes
from todm_sb.supernet import SubnetConfig, extract_subnet
from todm_sb.training.runs import load_run
from todm_sb.utils.ownership import check_place, new_export


def write_probes(
    run: Path, target: Path, causal: bool = False, others: Sequence[SubnetConfig] = ()
) -> list[Path]:
    """Writes ``<subnet>/float32`` and ``<subnet>/int8`` of each of
    :func:`todm_sb.search.probes.probes`, as :func:`todm_sb.export.onnx.write_both` does, with a
    ``probe.json`` each.

    Args:
        run: ``output_folder`` of train.py.
        target: folder to write; earlier probes there are replaced.
        causal: of a dual-mode network's causal form.
        others: subnets to write besides.

    Returns:
        The folders.

    Raises:
        ConfigError: if the run cannot be loaded, its network has no ONNX form, or the target is no
            place for an export.
    """
    check_place(target, run)
    hparams = load_run(run, causal)
    model, space = hparams["model"].deployed(), hparams["space"]
    configs = list(dict.fromkeys([*probes(space), *map(space.check, others)]))
    parts = common_parts(run, hparams)
    folders = [f"{config.id}/{precision}" for config in configs for precision in PRECISIONS]
    names = [f"{folder}/{name}" for folder in folders for name in (*FILES, CARD)]
    card = {"network": network_id(model.config, space)}
    with new_export(target, "probes", names) as new:
        for config in configs:
            for folder in write_both(new / config.id, extract_subnet(model, config), **parts):
                own = {"subnet": config.to_dict(), "precision": folder.name, **card}
                (folder / CARD).write_text(json.dumps(own), encoding="utf-8")
    return [target / folder for folder in folders]
