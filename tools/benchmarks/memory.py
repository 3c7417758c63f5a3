"""Peak memory of a process or GPU, and functions that wait for the GPU."""
from __future__ import annotations

import sys
from collections.abc import Callable

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
