"""Time parts of the library beside plain baselines, in one run on one machine.

Each benchmark is a function in the table ``BENCHMARKS``: its keyword arguments become options, its docstring its help,
and the cases it returns the rows of a table.
"""
from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from clipgs_plugin.tools._program import parser, run

BENCHMARKS: dict[str, Callable[..., list[Case]]] = {}


@dataclasses.dataclass
class Case:
    """One row: the best of the repeats of one thing done one way."""

    what: str
    way: str
    threads: int
    ms: float                      # per `unit`, on the clock
    cpu_ms: float                  # per `unit`, of all threads together
    unit: str
    times: float | None = None     # as fast as the baseline, on the clock
    cpu_times: float | None = None  # the same, of the processor
    budget_ms: float | None = None
    note: str = ''


def benchmark(function: Callable[..., list[Case]]) -> Callable[..., list[Case]]:
    """Make a function a subcommand."""
    BENCHMARKS[function.__name__] = function
    return function


def measure(function: Callable[[], object], seconds: float = 1.0, repeats: int = 3) -> tuple[float, float]:
    """Milliseconds of one call, on the clock and of the processor, each the least of the repeats after a warm-up.

    Args:
        function: What to time.
        seconds: Repeats go on for that long.
        repeats: At least so many, unless they take ten times as long.
    """
    function()
    wall, cpu = [], []
    start = time.perf_counter()
    while (not wall or (spent := time.perf_counter() - start) < seconds
           or (len(wall) < repeats and spent < 10 * seconds)):
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        function()
        wall.append(time.perf_counter() - wall_start)
        cpu.append(time.process_time() - cpu_start)
    return min(wall) * 1e3, min(cpu) * 1e3


def compare(
    what: str,
    ways: dict[str, Callable[[], object]],  # the first is the baseline
    count: int,                             # units in one call
    unit: str,
    budgets_ms: dict[str, float] | None = None,
    notes: dict[str, str] | None = None,
) -> list[Case]:
    """A case for each way of doing one thing, on the threads torch may use now."""
    cases = []
    for way, function in ways.items():
        ms, cpu_ms = (value / count for value in measure(function))
        cases.append(Case(what, way, torch.get_num_threads(), ms, cpu_ms, unit,
                          times=cases[0].ms / ms if cases else None,
                          cpu_times=cases[0].cpu_ms / cpu_ms if cases else None,
                          budget_ms=(budgets_ms or {}).get(way), note=(notes or {}).get(way, '')))
    return cases


def on_threads(counts: str, run: Callable[[], list[Case]]) -> list[Case]:
    """The cases of ``run`` under each number of threads, given as in ``'1,2'``."""
    before, cases = torch.get_num_threads(), []
    try:
        for count in counts.split(','):
            torch.set_num_threads(int(count))
            cases += run()
    finally:
        torch.set_num_threads(before)
    return cases


# ops


def noisy_tori(clouds: int, points: int) -> Tensor:
    """Object surfaces with noise, shuffled, (clouds, points, 3)."""
    g = torch.Generator().manual_seed(0)
    u, v = torch.rand(2, clouds, points, generator=g) * 2 * torch.pi
    ring = 1 + 0.4 * v.cos()
    surface = torch.stack([ring * u.cos(), ring * u.sin(), 0.4 * v.sin()], dim=-1)
    return surface + 0.003 * torch.randn(clouds, points, 3, generator=g)


def plain_fps(points: Tensor, num_samples: int) -> Tensor:
    """The loop found in most point cloud code."""
    b, n, _ = points.shape
    picks = torch.zeros(b, num_samples, dtype=torch.int64)
    distance = torch.full((b, n), 1e10)
    farthest = torch.zeros(b, dtype=torch.int64)
    batch = torch.arange(b)
    for i in range(num_samples):
        picks[:, i] = farthest
        center = points[batch, farthest].view(b, 1, 3)
        squared = ((points - center) ** 2).sum(-1)
        closer = squared < distance
        distance[closer] = squared[closer]
        farthest = distance.max(-1)[1]
    return picks


def plain_knn(points: Tensor, queries: Tensor, k: int) -> Tensor:
    """All distances from the expanded square, then the smallest."""
    squared = (queries ** 2).sum(-1)[:, :, None] - 2 * queries @ points.mT + (points ** 2).sum(-1)[:, None]
    return squared.topk(k, dim=-1, largest=False, sorted=False)[1]


@benchmark
def ops(points: int = 10_000, clouds: int = 8, groups: int = 512, size: int = 32, threads: str = '1,2') -> list[Case]:
    """Farthest point sampling, neighbours and orders on the CPU; baseline: the naive loops in torch."""
    from clipgs_plugin import ops
    from clipgs_plugin.ops.ordering import CURVES

    batch = noisy_tori(clouds, points)
    columns = torch.cat([batch, torch.rand(clouds, points, 11)], dim=-1)
    naive_centers = plain_fps(batch, groups)
    centers, neighbors = ops.group(batch, groups, size)
    queries = batch.gather(1, centers[..., None].expand(-1, -1, 3))
    patches = batch.gather(1, neighbors.flatten(1)[..., None].expand(-1, -1, 3)).view(clouds, groups, size, 3)
    same = (naive_centers == centers).float().mean()
    same_sets = (plain_knn(batch, queries, size).sort().values == neighbors.sort().values).float().mean()
    standard = (points, clouds, groups, size) == (10_000, 8, 512, 32)

    def naive_group():
        plain_knn(batch, batch.gather(1, plain_fps(batch, groups)[..., None].expand(-1, -1, 3)), size)

    def cases() -> list[Case]:
        return [
            *compare('FPS and kNN', {
                'naive loop': naive_group,
                'reference': lambda: ops.group(batch, groups, size, backend='reference'),
                'cpu': lambda: ops.group(batch, groups, size, backend='cpu'),
            }, clouds, 'cloud', {'cpu': 2.5} if standard and torch.get_num_threads() == 2 else None),
            *compare('FPS', {
                'naive loop': lambda: plain_fps(batch, groups),
                'reference': lambda: ops.farthest_point_sample(batch, groups, backend='reference'),
                'cpu': lambda: ops.farthest_point_sample(batch, groups, backend='cpu'),
            }, clouds, 'cloud', notes={'cpu': f'{same:.2%} of the indices of the naive loop'}),
            *compare('kNN', {
                'naive': lambda: plain_knn(batch, queries, size),
                'reference': lambda: ops.knn(batch, queries, size, backend='reference'),
                'cpu': lambda: ops.knn(batch, queries, size, backend='cpu'),
            }, clouds, 'cloud', notes={'cpu': f'{same_sets:.2%} of the indices of the naive way'}),
            *[case for curve in CURVES for case in compare(
                f'{curve} order in patches', {'torch': lambda curve=curve: ops.curve_order(patches, curve)}, clouds,
                'cloud')],
            *compare('order by content', {
                'lexsort': lambda: [np.lexsort(rows.T[::-1]) for rows in columns.numpy()],
                'torch': lambda: ops.canonical_order(columns),
            }, clouds, 'cloud', {'torch': 2.0}),
        ]
    return on_threads(threads, cases)


# render


def surface_gaussians(points: int):
    """Overlapping Gaussians on a torus that covers 47 % of a picture taken at distance 3.2 under 40 degrees."""
    from clipgs_plugin import GaussianCloud
    g = torch.Generator().manual_seed(0)
    extent = 0.025 * (10_000 / points) ** 0.5
    return GaussianCloud(means=0.635 * noisy_tori(1, points)[0], quats=torch.randn(points, 4, generator=g),
                         log_scales=0.4 * torch.randn(points, 3, generator=g) + math.log(extent),
                         opacity_logits=torch.randn(points, generator=g) + 1,
                         sh=0.5 * torch.randn(points, 1, 3, generator=g))


@benchmark
def render(points: int = 10_000, size: int = 128, threads: str = '1,2') -> list[Case]:
    """Drawing one view on the CPU, without and with the way back; baseline: the plain reference in torch."""
    from clipgs_plugin import ops

    cloud = surface_gaussians(points)
    viewmat = ops.sphere_cameras(1, 3.2, elevation=40.0)
    camera = ops.intrinsics(40, size, size)[None]
    fitted = cloud.apply(lambda x: x.clone().requires_grad_())
    picture, alpha = ops.render(cloud, viewmat, camera, size, size)
    target = picture.flip(1)
    standard = (points, size) == (10_000, 128)

    def step(backend: str) -> None:
        image, _ = ops.render(fitted, viewmat, camera, size, size, backend=backend)
        torch.autograd.grad((image - target).abs().mean(), [value for _, value in fitted.fields()])

    def cases() -> list[Case]:
        budgeted = standard and torch.get_num_threads() == 2
        backends = ('reference', 'cpu')
        return [
            *compare('forward', {b: lambda b=b: ops.render(cloud, viewmat, camera, size, size, backend=b)
                                 for b in backends}, 1, 'view', {'cpu': 5} if budgeted else None,
                     {'cpu': f'covers {(alpha > 0.5).float().mean():.0%}'}),
            *compare('forward, L1 and backward', {b: lambda b=b: step(b) for b in backends}, 1, 'view',
                     {'cpu': 12} if budgeted else None),
        ]
    return on_threads(threads, cases)


# kernels

FIRST_USES = {
    'point kernels': 'ops.group(torch.rand(1, 500, 3), 32, 8)',
    'rasteriser': ('c = clipgs_plugin.GaussianCloud(*(torch.randn(s, requires_grad=True) for s in '
                   '((9, 3), (9, 4), (9, 3), (9,), (9, 1, 3))))\n'
                   'ops.render(c, ops.look_at((0., 0., 9.))[None], ops.intrinsics(40, 32, 32)[None], 32, 32)[0]'
                   '.sum().backward()'),
}


@benchmark
def kernels() -> list[Case]:
    """First use of the compiled kernels in a new process, with nothing on disk and with their machine code there."""
    cases = []
    for what, call in FIRST_USES.items():
        code = ('import time, torch, clipgs_plugin\nfrom clipgs_plugin import ops\n'
                'wall, cpu = time.perf_counter(), time.process_time()\n'
                f'{call}\nprint(time.perf_counter() - wall, time.process_time() - cpu)')
        with tempfile.TemporaryDirectory() as cache:
            for way, budget_ms in (('compiled', 20_000), ('from disk', 1_000)):
                done = subprocess.run([sys.executable, '-c', code], env={**os.environ, 'NUMBA_CACHE_DIR': cache},
                                      capture_output=True, text=True, check=True)
                ms, cpu_ms = (float(seconds) * 1e3 for seconds in done.stdout.split())
                cases.append(Case(what, way, 1, ms, cpu_ms, 'process', times=cases[-1].ms / ms if cases else None,
                                  cpu_times=cases[-1].cpu_ms / cpu_ms if cases else None,
                                  budget_ms=budget_ms, note='with the import of numba'))
    return cases


# the program


def table_of(cases: list[Case]):
    from rich.table import Table
    table = Table('what', 'way', 'threads', 'ms', 'CPU ms', 'per', 'faster', 'by CPU', 'budget ms', 'note')
    for column in table.columns[2:5] + table.columns[6:9]:
        column.justify = 'right'
    last = None
    for case in cases:
        if last is not None and (case.what, case.threads) != last:
            table.add_section()
        last = case.what, case.threads
        missed = case.budget_ms is not None and case.ms > case.budget_ms
        table.add_row(case.what, case.way, str(case.threads), f'[red]{case.ms:.2f}[/]' if missed else f'{case.ms:.2f}',
                      f'{case.cpu_ms:.2f}', case.unit, '' if case.times is None else f'x{case.times:.1f}',
                      '' if case.cpu_times is None else f'x{case.cpu_times:.1f}',
                      '' if case.budget_ms is None else f'{case.budget_ms:g}', case.note)
    return table


def machine() -> dict[str, object]:
    """What the numbers depend on."""
    return {'processor': platform.processor() or platform.machine(), 'cores': os.cpu_count(),
            'load': round(os.getloadavg()[0], 1) if hasattr(os, 'getloadavg') else None,
            'python': platform.python_version(), 'torch': torch.__version__,
            'device': torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu'}


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__.splitlines()[0], 'python tools/benchmark.py ops --groups 512 --size 64')
    commands = args.add_subparsers(dest='benchmark', required=True, metavar='{' + ','.join(BENCHMARKS) + '}')
    for name, function in BENCHMARKS.items():
        command = commands.add_parser(name, help=function.__doc__, description=function.__doc__,
                                      formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        command.add_argument('--json', action='store_true', help='print the cases as JSON and nothing else')
        for option in inspect.signature(function).parameters.values():
            command.add_argument(f'--{option.name.replace("_", "-")}', default=option.default,
                                 type=type(option.default), help=' ')
    options = vars(args.parse_args(argv))
    name, as_json = options.pop('benchmark'), options.pop('json')
    where = machine()
    if not as_json:
        print(f'{name}: ' + ', '.join(f'{key} {value}' for key, value in where.items()))
    cases = BENCHMARKS[name](**options)
    if as_json:
        print(json.dumps({'benchmark': name, 'options': options, 'machine': where,
                          'cases': [dataclasses.asdict(case) for case in cases]}, indent=2))
    else:
        from rich.console import Console
        Console(width=None if sys.stdout.isatty() else 140).print(table_of(cases))
        print('ms: the least of the repeats; CPU ms: of all threads, which other programs disturb less; '
              'faster: than the first way')
    return 0


if __name__ == '__main__':
    run(main)
