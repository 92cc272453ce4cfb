"""gpu.md: the tables of all parts, and the hours of the recipe that follow."""

from __future__ import annotations

from typing import Any

from check_runner import Context, machine, problems

from todm_sb.experiments.plan.plan import Data
from todm_sb.utils.tables import table_of

# The recipe's passes over LibriSpeech, and its hours of audio.
PASSES, HOURS = 90, Data.hours

TITLES = {
    "parity": "Against the CPU in float64 (TF32 off)",
    "speed": "A training step of supernet.yaml: max, min, two random subnets, optimizer",
    "training": "A tiny training of the recipe",
    "processes": "Under torchrun",
    "decoding": "Decoding, peer SpeechBrain's search on the same networks",
    "peers": "The peers' step: forward and backward, without optimizer",
    "plan": "As todm-sb plan counts it",
}


def report(results: dict[str, dict[str, Any]], context: Context) -> tuple[str, bool]:
    """The page, and whether all parts have passed.

    Args:
        results: of the parts, by name.
        context: of all.
    """
    found = machine()
    where = f"{found['card']} ({found['memory']}, driver {found['driver']})"
    if context.device == "cpu":
        where = "CPU, at toy size: **no GPU was at hand**, so that no figure here is of one"
    versions = ", ".join(f"{x} {found[x]}" for x in ("torch", "torchaudio", "speechbrain"))
    parts = ["# GPU check", f"{where}; {versions}. By `make gpu-check`."]
    passed = True
    for name, result in results.items():
        wrong = problems(result)
        passed &= not wrong
        state = "passed" if not wrong else "**failed**: " + "; ".join(wrong)
        parts += [f"## {TITLES[name]}", f"{name}, {result['seconds']} s: {state}"]
        if result["rows"]:
            parts.append(table_of([_cells(row) for row in result["rows"]]))
    hours = hours_of(results.get("speed", {"rows": []})["rows"])
    if hours:
        parts += [
            f"## Hours of {PASSES} passes over {HOURS} h",
            "Those of 8 are an eighth, without what sending gradients takes.",
            table_of(hours),
        ]
    return "\n\n".join(parts) + "\n", passed


def hours_of(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """A row for each kind of step that fits."""
    fits = [row for row in rows if "audio hours an hour" in row]
    return [
        {
            "step": row["what"],
            "on 1": f"{PASSES * HOURS / row['audio hours an hour']:,.1f}",
            "on 8": f"{PASSES * HOURS / row['audio hours an hour'] / 8:,.1f}",
        }
        for row in fits
    ]


def _cells(row: dict[str, Any]) -> dict[str, str]:
    return {name: _cell(value) for name, value in row.items()}


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
