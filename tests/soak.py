"""What the soak tests look at: memory and open files of this process. Linux only."""

import gc
import os
from pathlib import Path


def resident_mb():
    """Resident memory in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def open_files():
    """Open file handles: files, pipes, sockets."""
    return len(os.listdir("/proc/self/fd"))


class Gauge:
    """Takes memory and file handles down, now and then."""

    def __init__(self):
        self.memory, self.files = [], []

    def read(self):
        gc.collect()
        self.memory.append(resident_mb())
        self.files.append(open_files())

    def assert_flat(self, settled, mb):
        """After the first ``settled`` readings nothing grows by more than ``mb``.

        Peaks are compared, for what a step needs comes and goes.
        """
        rest = self.memory[settled:]
        half = len(rest) // 2
        assert half > 2
        assert max(rest[half:]) < max(rest[:half]) + mb, self.memory
        assert max(self.files[settled:]) <= max(self.files[:settled]), self.files
