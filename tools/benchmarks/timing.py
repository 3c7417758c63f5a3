"""Timing of several ways of one task in one run."""
from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

import torch


@dataclasses.dataclass
class Case:
    """A row of a table: the best of the repeats of one task done in one way."""

    what: str
    way: str
    threads: int
    ms: float                       # wall time of one `unit`
    cpu_ms: float                   # CPU time of one `unit`, summed over threads
    unit: str
    times: float | None = None      # speed-up over the baseline in wall time
    cpu_times: float | None = None  # speed-up over the baseline in CPU time
    budget_ms: float | None = None
    memory_mb: float | None = None  # peak; the benchmark's help says of what
    note: str = ''


def measure(functions: Sequence[Callable[[], object]], seconds: float = 1.0,
            repeats: int = 3) -> list[tuple[float, float]]:
    """Return wall and CPU milliseconds of one call of each function, the least of the repeats after a warm-up.

    Args:
        functions: Functions to time, called in turn, so that a disturbance hits all of them alike.
        seconds: Time to repeat for, for each function.
        repeats: Minimum number of repeats, unless they take ten times as long.
    """
    for function in functions:
        function()
    limit, rounds = seconds * len(functions), 0
    wall, cpu = [math.inf] * len(functions), [math.inf] * len(functions)
    start = time.perf_counter()
    while not rounds or (spent := time.perf_counter() - start) < limit or (rounds < repeats and spent < 10 * limit):
        rounds += 1
        for i, function in enumerate(functions):
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            function()
            wall[i] = min(wall[i], time.perf_counter() - wall_start)
            cpu[i] = min(cpu[i], time.process_time() - cpu_start)
    return [(1e3 * a, 1e3 * b) for a, b in zip(wall, cpu)]


def compare(
    what: str,
    ways: dict[str, Callable[[], object]],  # the first is the baseline
    count: int,                             # units in one call
    unit: str,
    budgets_ms: dict[str, float] | None = None,
    notes: dict[str, str] | None = None,
    in_turn: bool = False,                  # for ratios; otherwise each way is timed undisturbed
) -> list[Case]:
    """Time several ways of one task on the present number of threads; return a case for each."""
    functions = list(ways.values())
    times = measure(functions) if in_turn else [measure([function])[0] for function in functions]
    return beside_first([Case(what, way, torch.get_num_threads(), ms / count, cpu_ms / count, unit,
                              budget_ms=(budgets_ms or {}).get(way), note=(notes or {}).get(way, ''))
                         for way, (ms, cpu_ms) in zip(ways, times)])


def beside_first(cases: list[Case]) -> list[Case]:
    """Set the speed-up of each case over the first; return the cases."""
    for case in cases[1:]:
        case.times, case.cpu_times = cases[0].ms / case.ms, cases[0].cpu_ms / case.cpu_ms
    return cases


def on_threads(counts: str, run: Callable[[], list[Case]]) -> list[Case]:
    """Call ``run`` under each number of threads, such as ``'1,2'``; return all cases."""
    before, cases = torch.get_num_threads(), []
    try:
        for count in counts.split(','):
            torch.set_num_threads(int(count))
            cases += run()
    finally:
        torch.set_num_threads(before)
    return cases
