"""``todm-sb inspect``: what a bundle holds, after checking all of it.

todm-sb inspect exported/all
todm-sb inspect exported/all --json
"""

from __future__ import annotations

import argparse
import json

from todm_sb.bundle.bundle import read_bundle
from todm_sb.bundle.manifest import BundledSubnet, Manifest
from todm_sb.cli.main import OK
from todm_sb.utils.hub import BUNDLE_FILES, model_folder
from todm_sb.utils.tables import scored_text, table_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``inspect``."""
    parser.add_argument("folder", help="of a bundle, or org/model[@revision] of the Hub")
    parser.add_argument("--json", action="store_true", help="print its bundle.json")


def run(arguments: argparse.Namespace) -> int:
    """Prints the bundle.

    Returns:
        The exit code.

    Raises:
        ConfigError: if anything in the bundle is not as it should be.
    """
    manifest = read_bundle(model_folder(arguments.folder, BUNDLE_FILES)).manifest
    print(json.dumps(manifest.to_dict(), indent=1) if arguments.json else summary(manifest))
    return OK


def summary(manifest: Manifest) -> str:
    """A bundle for people: kind, size, features and a table of its subnets."""
    features, space = manifest.features, manifest.space
    kind = "single subnet" if space is None else f"supernet of {space.size:,} subnets"
    n_bytes = sum(record.bytes for record in manifest.files.values())
    lines = [
        f"{kind}, {n_bytes / 1e6:.2f} MB, {manifest.network['vocab_size']} labels",
        f"{features['sample_rate']} Hz, {features['n_mels']} mel filters"
        f" ({features.get('fbank_kind', 'speechbrain')})",
    ]
    if space is not None:
        lines.append(f"search space {json.dumps(space.to_dict())}")
    figures = sorted({key for s in manifest.subnets for key in (*s.cost, *s.error_rates)})
    table = table_of([_row(s, figures) for s in manifest.subnets])
    scored = dict.fromkeys(scored_text(s.scored) for s in manifest.subnets if s.scored)
    return "\n".join([*lines, "", table, *scored])


def _row(subnet: BundledSubnet, figures: list[str]) -> dict[str, str]:
    known = {**subnet.cost, **subnet.error_rates}
    return {
        "subnet": subnet.name,
        **subnet.config.describe(),
        **{key: _figure(known[key]) if key in known else "" for key in figures},
    }


def _figure(value: float) -> str:
    """Counts in full, measurements to four digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
