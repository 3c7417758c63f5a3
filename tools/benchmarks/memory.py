"""Peak memory of a process or GPU, and functions that wait for the GPU."""
from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path

import torch


def synchronised(function: Callable[[], object], device: str) -> Callable[[], object]:
    """Wrap a function so that it returns when the GPU is done."""
    if device == 'cpu':
        return function

    def call() -> None:
        function()
        torch.cuda.synchronize()
    return call


def reset_memory(device: str) -> float | None:
    """Reset the peak of memory; return its base in megabytes, 0 on a GPU, None if the system does not report it."""
    if device != 'cpu':
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return 0.0
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2 ** 20


def memory_since(before: float | None, device: str) -> float | None:
    """Return the peak of memory above the base, in megabytes."""
    if device != 'cpu':
        return torch.cuda.max_memory_allocated() / 2 ** 20
    return None if before is None else reset_memory(device) - before


class Memory:
    """Context that watches the memory of this process; ``anonymous`` is its peak growth in MB, ``mapped`` the end's."""

    def __enter__(self) -> Memory:
        self.before, self.anonymous, self.mapped = memory_of('RssAnon'), 0.0, 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error) -> None:
        self._ended.set()
        self._thread.join()
        self.mapped = memory_of('RssFile')

    def _watch(self) -> None:
        while True:
            ended = self._ended.wait(0.02)
            self.anonymous = max(self.anonymous, memory_of('RssAnon') - self.before)
            if ended:
                return


def memory_of(kind: str) -> float:
    """Return memory of this process in MB, 0 where the system does not report it."""
    path = Path('/proc/self/status')
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f'{kind}:')), 0.0)
