"""Run the experiments behind a table of the documentation and print it.

Each cell leaves a file with its results, so an interrupted table resumes, and several processes share one.
"""
from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path

from clipgs_plugin.tools._program import TINY_TABLE, parser, progress_bar, run
from clipgs_plugin.tools._settings import settings_action


def make_world(folder: Path, settings: Mapping) -> Path:
    """Make a toy world with the features of its teacher, unless the folder holds it already."""
    from clipgs_plugin.tools import cache_features
    from clipgs_plugin.toy_world.writing import write_world
    write_world(folder, **settings, track=iter)
    cache_features.main([str(folder), '--teacher', 'toy-clip'])
    return folder


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__.splitlines()[0], TINY_TABLE)
    args.add_argument('table', help='name of a table of configs/ablations, or path of a .py file')
    args.add_argument('--out', type=Path, help='folder of all results (work_dirs/tables/TABLE)')
    args.add_argument('--worlds', type=Path, default=Path('work_dirs', 'tables', 'worlds'),
                      help='folder of the toy worlds, which tables share (%(default)s)')
    args.add_argument('--seeds', type=int, default=5, help='runs of each row, seeds 0, 1, ... (%(default)s)')
    args.add_argument('--rows', nargs='+', default=[], metavar='TITLE', help='rows to run')
    args.add_argument('--shard', type=_shard, metavar='I/N',
                      help='run every N-th cell from the I-th on, I from 0 (the task of a Slurm array, else 0/1)')
    args.add_argument('--show', action='store_true', help='run nothing; print the cells that are there')
    args.add_argument('--data-root', help="folder of the configs' data, in place of toy worlds")
    args.add_argument('--cfg-options', nargs='+', action=settings_action(), default={}, metavar='KEY=VALUE',
                      help='settings that override all configs, for example train_cfg.max_epochs=5')
    args.add_argument('--table-options', nargs='+', action=settings_action(), default={}, metavar='KEY=VALUE',
                      help="settings that override the table's, for example worlds.main.num_train=600")
    options = args.parse_args(argv)

    from clipgs_plugin.engine import table_spec, tables
    # Logs go to standard error, also those of configs being read, so that standard output has the table alone.
    with redirect_stdout(sys.stderr):
        table = table_spec.load_table(options.table, options.table_options)
        runs = tables.Runs(table, options.out or Path('work_dirs', 'tables', table.name), options.seeds,
                           tuple(options.rows), options.worlds, options.data_root, options.cfg_options,
                           options.table_options)
        if not options.show:
            print(f'{table.title} Files go to {runs.out}')
            with progress_bar() as bar:
                tables.run_cells(runs, make_world, options.shard or _slurm_shard(),
                                 lambda cells: bar.track(cells, description='cells'))
        summary = tables.save_summary(runs)
    print(summary)
    return 0


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r'(\d+)/(\d+)', text)
    if not found or int(found[1]) >= int(found[2]):
        raise argparse.ArgumentTypeError(f'{text!r}: expected I/N with I from 0 to N - 1')
    return int(found[1]), int(found[2])


def _slurm_shard() -> tuple[int, int]:
    """Return the task of a Slurm array and their number, as counted from the array's first task."""
    task, first, count = (os.environ.get(f'SLURM_ARRAY_TASK_{name}') for name in ('ID', 'MIN', 'COUNT'))
    return (int(task) - int(first or 0), int(count)) if task and count else (0, 1)


def cli() -> None:
    """Run as the installed program ``clipgs-table``."""
    run(main)


if __name__ == '__main__':
    cli()
