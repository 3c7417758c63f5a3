"""What every program of this folder shares: help with an example, exit codes, errors in one line."""
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
    """One that takes ``--up -y``, which argparse alone would read as two options."""

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
    """An argument parser whose help starts with one sentence and ends with an example.

    Args:
        description: The sentence.
        example: Lines that work in a fresh checkout, those that make what the last one needs first.
    """
    return _Parser(description=description, epilog='\n  '.join(['example:', *example]),
                   formatter_class=argparse.RawDescriptionHelpFormatter)


def add_experiment(args: argparse.ArgumentParser, setting: str) -> None:
    """The config to run and how to run it.

    Args:
        args: Parser to add to.
        setting: What ``--cfg-options`` may look like.
    """
    from mmengine.config import DictAction

    args.add_argument('config', help='path of a config, or the name of a shipped one')
    args.add_argument('--work-dir', help='folder of all that is written (./work_dirs/NAME of the config)')
    args.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                      help=f'settings that override the config\'s, like {setting}')
    args.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                      help='what started several processes, pytorch for torchrun (%(default)s)')
    args.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by old launchers, not used')


def load_inferencer(model: str, checkpoint: str | None, device: str) -> CLIPGSInferencer:
    """A model with its teacher; what its users should know goes to standard error.

    Raises:
        ValueError: A config without a checkpoint: answers of random weights would look like answers.
    """
    from clipgs_plugin import CLIPGSInferencer, get_config
    from clipgs_plugin.registry.catalogue import load_catalogue

    if checkpoint is None and model not in load_catalogue('models'):
        get_config(model)  # a wrong name is said first
        raise ValueError(f'{model} is a config, which brings no weights; name them with --checkpoint')
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter('always')
        clipgs = CLIPGSInferencer(model, checkpoint, device)
    for note in notes:
        print(f'note: {note.message}', file=sys.stderr)
    return clipgs


def read_upright(path: Path, up: str) -> GaussianCloud:
    """The Gaussians of a file whose up axis is ``up``, turned to have y up."""
    from clipgs_plugin import read_gaussians
    from clipgs_plugin.ops import axis_change

    cloud = read_gaussians(path)
    return cloud if up == 'y' else cloud.transform(axis_change(up, 'y'))


def progress_bar() -> Progress:
    """A progress bar with counts, time taken and time left; silent where nobody watches."""
    console = Console(stderr=True)
    return Progress(TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                    TextColumn('eta'), TimeRemainingColumn(), console=console, disable=not console.is_terminal)


def run(main: Callable[[], int]) -> None:
    """Exit with the program's status: 0 done, 1 failed with one line on stderr, 2 wrong use (argparse)."""
    try:
        sys.exit(main())
    except USER_ERRORS as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # what reads the output has had enough
        sys.stderr.close()
        sys.exit(0)
