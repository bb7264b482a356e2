"""What a process holds of its own, looked at while a test does something else."""

import statistics
import threading
import time
from pathlib import Path

MB = 1 << 20


def private_bytes(pid):
    """Memory that only this process has: no shared buffers, no files, no code."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)


def threads(pid):
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def files(pid):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


class PrivateMemory:
    """`with PrivateMemory(pid) as memory:` samples until the end of the block, or of the process,
    which the end of the block complains about."""

    def __init__(self, pid, interval=0.005):
        self.pid = pid
        self.interval = interval
        self.samples = [(time.monotonic(), private_bytes(pid))]
        self._died = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_error):
        self._stop.set()
        self._thread.join()
        assert not self._died, f"process {self.pid} ended while its memory was watched"

    def _run(self):
        while not self._stop.wait(self.interval):
            try:
                self.samples.append((time.monotonic(), private_bytes(self.pid)))
            except (FileNotFoundError, ProcessLookupError):
                self._died = True
                return

    @property
    def peak(self):
        return max(size for _at, size in self.samples)

    def has_stopped_growing(self, seconds=2.0):
        """No new peak for so long."""
        peak = self.peak
        first = next(at for at, size in self.samples if size >= peak - MB)
        return time.monotonic() - first > seconds


def slope(samples):
    """Least squares through (seconds, bytes): bytes a second."""
    return statistics.linear_regression(*zip(*samples)).slope
