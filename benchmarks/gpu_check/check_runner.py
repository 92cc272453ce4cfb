"""Runs the parts of the check, each in a process of its own with a time limit."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# The code beside this, whatever is installed, and what other benchmarks have.
sys.path[:0] = [str(ROOT), str(HERE.parent)]

# Seconds of all parts, and module and seconds of each; its function has its name. The most
# important come first.
SECONDS = 270.0
PARTS: dict[str, tuple[str, float]] = {
    "parity": ("check_parity", 40),
    "speed": ("check_speed", 90),
    "training": ("check_training", 60),
    "processes": ("check_training", 50),
    "decoding": ("check_decoding", 40),
    "peers": ("check_peers", 40),
    "plan": ("check_speed", 30),
}
# How the process of a part begins. CUDA wants it from scratch; on a CPU it is a fork of this one,
# which has loaded the libraries: that takes longer than most parts do.
STARTS = {"cuda": "spawn", "cpu": "fork"}
# With less left no part begins.
LEAST = 5.0

Row = dict[str, Any]


@dataclass(frozen=True)
class Context:
    """What a part is told.

    Args:
        device: ``cpu`` or ``cuda``.
        size: ``toy`` or ``paper``.
        out: folder of the results.
    """

    device: str
    size: str
    out: Path


def machine() -> dict[str, str]:
    """Card and driver (empty where there is none) and versions, without a process on the GPU."""
    card = ["", "", ""]
    if shutil.which("nvidia-smi"):
        query = "--query-gpu=name,driver_version,memory.total"
        command = ["nvidia-smi", query, "--format=csv,noheader"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode == 0 and found.stdout.strip():
            card = [x.strip() for x in found.stdout.splitlines()[0].split(",")]
    versions = {name: version(name) for name in ("torch", "torchaudio", "speechbrain")}
    return {"card": card[0], "driver": card[1], "memory": card[2], **versions}


def key_of(context: Context) -> dict[str, str]:
    """What a result is of: machine, size and code."""
    digest = hashlib.sha256()
    files = [*(ROOT / "todm_sb").rglob("*.py"), *(ROOT / "recipes").rglob("*.yaml")]
    for path in sorted([*files, *HERE.glob("*.py")]):
        digest.update(path.read_bytes())
    return {
        **machine(),
        "device": context.device,
        "size": context.size,
        "code": digest.hexdigest()[:12],
    }


def run_parts(names: Sequence[str], context: Context, seconds: float) -> dict[str, dict]:
    """Runs what has not passed yet.

    Args:
        names: of parts.
        context: of all.
        seconds: for all of them; what is not begun by then waits for the next time. With more than
            :data:`SECONDS` each part has so many times as long.

    Returns:
        What each part has found, by name: ``rows``, ``done``, ``error`` and ``seconds``.
    """
    context.out.mkdir(parents=True, exist_ok=True)
    key, end = key_of(context), time.monotonic() + seconds
    patience = max(1.0, seconds / SECONDS)
    if STARTS[context.device] == "fork":
        _load(names)
    results = {}
    for name in names:
        known = read(name, context)
        if known is None or known.get("key") != key or problems(known):
            limit = min(patience * PARTS[name][1], end - time.monotonic())
            known = _run(name, context, key, limit)
        results[name] = known
    return results


def _load(names: Sequence[str]) -> None:
    """Imports what parts need; a part that lacks something tells it by itself."""
    # The second is what optimizers and tensors without elements load when they are first made.
    for module in ("torch", "torch._dynamo", *(PARTS[name][0] for name in names)):
        with contextlib.suppress(ImportError):
            import_module(module)
    sys.modules["torch"].set_num_threads(1)  # at toy size more would wait for each other


def problems(result: dict[str, Any]) -> list[str]:
    """What is wrong with the result of a part; nothing where it has passed."""
    wrong = [result["error"]] if result["error"] else []
    wrong += [f"{row['what']}: {row}" for row in result["rows"] if row.get("ok") is False]
    return wrong or ([] if result["done"] else ["not finished"])


def read(name: str, context: Context) -> dict[str, Any] | None:
    """What a part has left, if anything; a file of something else is none."""
    try:
        found = json.loads(path_of(name, context).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = isinstance(found, dict) and found.keys() >= {"rows", "done", "error"}
    return found if known else None


def path_of(name: str, context: Context) -> Path:
    """Where a part leaves its result."""
    return context.out / f"{name}.json"


def _run(name: str, context: Context, key: dict[str, str], limit: float) -> dict[str, Any]:
    nothing = {"key": key, "rows": [], "done": False, "error": "", "seconds": 0.0}
    path_of(name, context).unlink(missing_ok=True)
    if limit < LEAST:
        return {**nothing, "error": "no time was left; the same command goes on"}
    start = multiprocessing.get_context(STARTS[context.device])
    process = start.Process(target=child, args=(PARTS[name][0], name, context))
    begin = time.monotonic()
    process.start()
    try:
        process.join(limit)
        code = process.exitcode
        error = f"broken off after {limit:.0f} s" if code is None else ""
        error = f"ended with status {code}" if code else error
    finally:
        _end(process)
    result = {**nothing, **(read(name, context) or {}), "key": key}
    result["error"] = result["error"] or error
    result["seconds"] = round(time.monotonic() - begin, 1)
    _write(path_of(name, context), result)
    return result


def _end(process: Any) -> None:
    """Ends what is left of a part, with all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()  # should it have no group of its own yet
    process.join()


def child(module: str, name: str, context: Context) -> None:
    """Runs a part in this process, and ends with 1 where it raised something; keeps each row as
    soon as it is there. What it says goes to a log.

    Args:
        module: that has the part.
        name: of the part, and of its function.
        context: of all parts.
    """
    os.setsid()
    with (context.out / f"{name}.log").open("w") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    result: dict[str, Any] = {"context": asdict(context) | {"out": ""}, "rows": []}
    result |= {"done": False, "error": ""}
    try:
        rows: Iterator[Row] = getattr(import_module(module), name)(context)
        for row in rows:
            result["rows"].append(row)
            _write(path_of(name, context), result)
        result["done"] = True
    except Exception as error:
        traceback.print_exc()
        result["error"] = f"{type(error).__name__}: {error}"[:300]
    _write(path_of(name, context), result)
    sys.exit(0 if result["done"] else 1)


def _write(path: Path, result: dict[str, Any]) -> None:
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(result, indent=1), encoding="utf-8")
    draft.replace(path)
