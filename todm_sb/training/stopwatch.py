"""How long the parts of a run took, over all its restarts."""

from __future__ import annotations

import json
import time
from pathlib import Path

from speechbrain.utils.distributed import if_main_process

from todm_sb.training.distributed import all_gather, n_ranks


class Stopwatch:
    """Wall and processor seconds by name.

    Processor time is that of all threads of all processes that train together, which start and stop
    at once; it tells what a run costs even where other programs share the machine.
    """

    def __init__(self) -> None:
        self.stopped: dict[str, tuple[float, float]] = {}
        self.running: tuple[str, float, float] | None = None

    def start(self, name: str) -> None:
        """Begins to count under a name, and stops counting under another."""
        self.stop()
        self.running = (name, time.perf_counter(), time.process_time())

    def stop(self) -> None:
        """Stops counting. All processes have to call it."""
        if self.running is not None:
            _, _, processor = self.running
            spent = all_gather(time.process_time() - processor)
            self.stopped, self.running = self._counted(sum(spent)), None

    def seconds(self) -> dict[str, dict[str, float]]:
        """So far: by name, ``wall`` and ``processor`` seconds; while it runs the other processes
        are taken to be as busy as this one."""
        return {
            name: {"wall": wall, "processor": processor}
            for name, (wall, processor) in self._counted().items()
        }

    def save(self, path: Path) -> None:
        """Writes the first process's seconds so far: the hooks of SpeechBrain's Checkpointer."""
        if if_main_process():
            Path(path).write_text(json.dumps(self._counted()), encoding="utf-8")

    def load(self, path: Path, end_of_epoch: bool) -> None:
        """Goes on from what :meth:`save` wrote; what was lost after that does not count."""
        saved = json.loads(Path(path).read_text(encoding="utf-8"))
        self.stopped, self.running = {name: tuple(x) for name, x in saved.items()}, None

    def _counted(self, spent: float | None = None) -> dict[str, tuple[float, float]]:
        """Seconds by name, with the processor time that all have spent since it was started."""
        counted = dict(self.stopped)
        if self.running is not None:
            name, wall, processor = self.running
            if spent is None:
                spent = n_ranks() * (time.process_time() - processor)
            before = counted.get(name, (0.0, 0.0))
            counted[name] = (before[0] + time.perf_counter() - wall, before[1] + spent)
        return counted
