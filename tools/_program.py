"""Shared parts of the programs: help with an example, exit codes, errors in one line."""
from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from clipgs_plugin import CLIPGSInferencer, GaussianCloud

AXES = ['x', 'y', 'z', '-x', '-y', '-z']
USER_ERRORS = (ValueError, FileNotFoundError, IsADirectoryError, PermissionError, ImportError)


class _Parser(argparse.ArgumentParser):
    """Argument parser that accepts ``--up -y``; argparse alone reads it as two options."""

    def parse_known_args(self, args=None, namespace=None):
        joined = []
        for word in sys.argv[1:] if args is None else args:
            if word in ('-x', '-y', '-z') and joined and joined[-1] in ('--up', '--to-up'):
                joined[-1] += f'={word}'
            else:
                joined.append(word)
        return super().parse_known_args(joined, namespace)


WORLD = 'python tools/make_toy_world.py work_dirs/toy_world'
FEATURES = 'python tools/cache_features.py work_dirs/toy_world --teacher toy-clip'
FILES = ('python tools/make_toy_world.py work_dirs/toys --num-train 1 --num-val 1 --num-test 1 '
         '--export work_dirs/files')
TINY_TABLE = ('python tools/run_table.py backbones --seeds 1 --only Uni3D --objects 120 --test-objects 60 '
              '--pretrain-objects 120 --epochs 1 --pretrain-epochs 1')
QUICKSTART = 'bash tools/quickstart.sh'


def parser(description: str, *example: str) -> argparse.ArgumentParser:
    """Make an argument parser whose help starts with a sentence and ends with an example.

    Args:
        description: First sentence of the help.
        example: Commands that work one after another in a fresh checkout; the last one is the program's own.
    """
    return _Parser(description=description, epilog='\n  '.join(['example:', *example]),
                   formatter_class=argparse.RawDescriptionHelpFormatter)


def add_experiment(args: argparse.ArgumentParser, setting: str) -> None:
    """Add the arguments of programs that run a config.

    Args:
        args: Parser to add to.
        setting: Example of ``--cfg-options``.
    """
    from mmengine.config import DictAction

    args.add_argument('config', help='path of a config, or name of a shipped one')
    args.add_argument('--work-dir', help='folder of all output (./work_dirs/NAME of the config)')
    args.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                      help=f'settings that override the config, for example {setting}')
    args.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                      help='launcher of several processes, pytorch for torchrun (%(default)s)')
    args.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by old launchers and ignored')


def load_inferencer(model: str, checkpoint: str | None, device: str) -> CLIPGSInferencer:
    """Load a model with its teacher; print its notes to standard error.

    Raises:
        ValueError: A config is given without a checkpoint; results of random weights would look like results.
    """
    from clipgs_plugin import CLIPGSInferencer, get_config
    from clipgs_plugin.registry.catalogue import load_catalogue

    if checkpoint is None and model not in load_catalogue('models'):
        get_config(model)  # a wrong name is reported first
        raise ValueError(f'{model} is a config and has no weights; name them with --checkpoint')
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter('always')
        clipgs = CLIPGSInferencer(model, checkpoint, device)
    for note in notes:
        print(f'note: {note.message}', file=sys.stderr)
    return clipgs


def read_upright(path: Path, up: str) -> GaussianCloud:
    """Read the Gaussians of a file and turn its up axis to y."""
    from clipgs_plugin import read_gaussians
    from clipgs_plugin.ops import axis_change

    cloud = read_gaussians(path)
    return cloud if up == 'y' else cloud.transform(axis_change(up, 'y'))


def progress_bar() -> Progress:
    """Make a progress bar with counts, elapsed and remaining time, which is silent without a terminal."""
    console = Console(stderr=True)
    return Progress(TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                    TextColumn('eta'), TimeRemainingColumn(), console=console, disable=not console.is_terminal)


def run(main: Callable[[], int]) -> None:
    """Run a program and exit: 0 for success, 1 for failure with one line on stderr, 2 for wrong use (argparse)."""
    try:
        sys.exit(main())
    except USER_ERRORS as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of the output has closed it
        sys.stderr.close()
        sys.exit(0)
