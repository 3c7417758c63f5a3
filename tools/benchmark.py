"""Time parts of the library beside plain baselines, and measure how robust its answers are.

Each benchmark is a function of a module in ``benchmarks/``: its keyword arguments become options, its docstring the
help, and the cases it returns the rows of a table.
"""
from __future__ import annotations

import dataclasses
import inspect
import json
import os
import platform
import sys
from collections.abc import Callable

import torch

from clipgs_plugin.tools._program import parser, run
from clipgs_plugin.tools.benchmarks import (
    backbones,
    bad_files,
    embed,
    embed_files,
    kernels,
    ops,
    page,
    points,
    points_model,
    refits,
    render,
    retrieval,
    robustness,
    scene_truth,
    scenes,
    search,
    start,
    triplets,
    upright,
    views,
)
from clipgs_plugin.tools.benchmarks.figures import Figure, table_of_figures
from clipgs_plugin.tools.benchmarks.timing import Case

Row = Case | Figure | page.Spread | points.PointErrors | points_model.Answers
BENCHMARKS: dict[str, Callable[..., list[Row]]] = {
    'ops': ops.ops, 'render': render.render, 'kernels': kernels.kernels, 'embed': embed.embed,
    'embed-files': embed_files.embed_files, 'bad-files': bad_files.bad_files,
    'precision': embed_files.precision,
    'backbones': backbones.backbones, 'triplets': triplets.triplets, 'views': views.views,
    'points': points.points, 'points-model': points_model.points_model,
    'upright': upright.upright, 'robustness': robustness.robustness, 'fitters': robustness.fitters,
    'refits': refits.refits, 'start': start.start, 'search': search.search,
    'retrieval': retrieval.retrieval, 'scene-speed': scenes.scene_speed,
    'scene-truth': scene_truth.scene_truth, 'page': page.page}


def table_of(cases: list[Case]):
    """Lay out cases as a table of rich; budgets that were missed are red."""
    from rich.table import Table

    def number(value: float | None, form: str) -> str:
        return '' if value is None else form.format(value)

    table, rows = Table(), []
    for case in cases:
        missed = case.budget_ms is not None and case.ms > case.budget_ms
        rows.append({
            'what': case.what, 'way': case.way, 'threads': str(case.threads),
            'ms': f'[red]{case.ms:.2f}[/]' if missed else f'{case.ms:.2f}', 'CPU ms': f'{case.cpu_ms:.2f}',
            'per': case.unit, 'a second': f'{1e3 / case.ms:.4g}' if case.unit == 'object' else '',
            'faster': number(case.times, 'x{:.1f}'), 'by CPU': number(case.cpu_times, 'x{:.1f}'),
            'budget ms': number(case.budget_ms, '{:g}'), 'MB': number(case.memory_mb, '{:.0f}'), 'note': case.note})
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    for name in columns:
        table.add_column(name, justify='left' if name in ('what', 'way', 'per', 'note') else 'right')
    for i, (case, row) in enumerate(zip(cases, rows)):
        last = cases[max(i - 1, 0)]
        if (case.what.partition(':')[0], case.threads) != (last.what.partition(':')[0], last.threads):
            table.add_section()
        table.add_row(*[row[name] for name in columns])
    return table


# Layout and legend of each kind of row.
LAYOUTS = {
    Case: (table_of, 'ms: least wall time of the repeats; CPU ms: summed over threads, less disturbed by other '
                     'programs; faster: speed-up over the first row'),
    Figure: (table_of_figures, 'standard error: of the mean over objects'),
    page.Spread: (page.table_of, 'of: frames, starts or folders; the load of the machine is in the first line'),
    points.PointErrors: (points.table_of, 'errors in units of those of a second sampling of the mesh: mean over '
                                          'meshes, ± standard deviation; loss left: share of the chamfer loss of the '
                                          'centres'),
    points_model.Answers: (points_model.table_of, '± standard deviation over seeds; gain: of top-1 over the centres, '
                                                  'in percentage points, ± standard error over objects; given back: '
                                                  'gain divided by the loss of the centres against samples of meshes')}


def machine() -> dict[str, object]:
    """Describe the machine the times belong to."""
    return {'processor': platform.processor() or platform.machine(), 'cores': os.cpu_count(),
            'load': round(os.getloadavg()[0], 1) if hasattr(os, 'getloadavg') else None,
            'python': platform.python_version(), 'torch': torch.__version__,
            'device': torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu'}


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__.splitlines()[0], 'python tools/benchmark.py ops --groups 512 --size 64')
    commands = args.add_subparsers(dest='benchmark', required=True, metavar='{' + ','.join(BENCHMARKS) + '}')
    for name, function in BENCHMARKS.items():
        command = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        command.add_argument('--json', action='store_true', help='print the cases as JSON and nothing else')
        for option in inspect.signature(function).parameters.values():
            command.add_argument(f'--{option.name.replace("_", "-")}', default=option.default,
                                 type=type(option.default), help='(%(default)r)')
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
        console = Console(width=None if sys.stdout.isatty() else 140)
        table, legend = LAYOUTS[type(cases[0])]
        console.print(table(cases))
        print(legend)
    return 0


def cli() -> None:
    """Run as the installed program ``clipgs-benchmark``."""
    run(main)


if __name__ == '__main__':
    cli()
