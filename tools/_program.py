"""Shared parts of the programs: help with an example, exit codes, errors in one line, names as they were called."""
from __future__ import annotations

import argparse
import errno
import io
import os
import re
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from clipgs_plugin import CLIPGSInferencer, GaussianCloud

AXES = ['x', 'y', 'z', '-x', '-y', '-z']
USER_ERRORS = (ValueError, OSError, ImportError)
REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), 'free some space and files, or write elsewhere'),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), 'check its permissions, or name another place'),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), 'a file lies where a folder is wanted, name another'),
    errno.ENAMETOOLONG: 'name it shorter'}

# Names under which the programs are installed.
INSTALLED = {
    'train': 'clipgs-train', 'test': 'clipgs-test', 'embed': 'clipgs-embed', 'search': 'clipgs-search',
    'convert_gaussians': 'clipgs-convert', 'convert_checkpoint': 'clipgs-convert-checkpoint',
    'make_triplets': 'clipgs-triplets', 'inspect_triplets': 'clipgs-inspect', 'cache_features': 'clipgs-features',
    'make_toy_world': 'clipgs-toy-world', 'list_backbones': 'clipgs-list-backbones', 'report': 'clipgs-report',
    'run_table': 'clipgs-table', 'benchmark': 'clipgs-benchmark', 'doctor': 'clipgs-doctor'}


def as_called(text: str) -> str:
    """Replace ``tools/NAME.py`` by the installed name of the program, if the running one was called by its own."""
    if Path(sys.argv[0]).stem not in INSTALLED.values():
        return text
    return re.sub(r'(?:python )?tools/(\w+)\.py', lambda match: INSTALLED.get(match[1], match[0]), text)


class _Parser(argparse.ArgumentParser):
    """Argument parser that accepts ``--up -y``, which argparse reads as two options, and names programs as called."""

    def _print_message(self, message, file=None):
        super()._print_message(as_called(message), file)

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
TRAINED = 'python tools/train.py clipgs_pointbert-nano_15e_toy-world --work-dir work_dirs/run'


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


def check_output(args: argparse.ArgumentParser, path: Path, suffixes: tuple[str, ...], kind: str,
                 read: Callable[[Path], object]) -> None:
    """End the program unless a file may be written: its name has the suffix, and it replaces nothing but its own kind.

    Args:
        args: Parser that reports wrong use.
        path: File to write.
        suffixes: Endings of which the name has one.
        kind: Description of the file, such as ``'an index'``.
        read: Function that fails for a file of another kind, by an error of ``USER_ERRORS`` or as an archive.
    """
    if not path.name.lower().endswith(suffixes):
        args.error(f'{path}: the name of {kind} ends in {" or ".join(suffixes)}')
    if path.exists():
        try:
            read(path)
        except (*USER_ERRORS, zipfile.BadZipFile):
            args.error(f'{path} exists and is not {kind}; name another file')


def usable_device(name: str) -> str:
    """Check that tensors can be made on a device; return its name.

    Raises:
        ValueError: The name is unknown, or the device is absent.
    """
    import torch
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0].partition('. ')[0]
        raise ValueError(f'--device {name} cannot be used ({reason}); choose another, such as cpu') from error
    return name


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
        clipgs = CLIPGSInferencer(model, checkpoint, usable_device(device))
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
    """Run a program and exit.

    The status is 0 for success and for output whose reader has gone, 1 for failure with one line on standard error,
    2 for wrong use (argparse), and 130 for Ctrl-C. Characters that the output cannot encode are printed as escapes.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')
    try:
        status = main()
        sys.stdout.flush()
    except SystemExit as exit_:
        closed = isinstance(exit_.__context__, BrokenPipeError)  # rich exits with 1 then
        status = 0 if closed else exit_.code
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        status = 130
    except BrokenPipeError:  # the reader of the output has closed it
        _discard_output()
        status = 0
    except USER_ERRORS as error:
        print(f'error: {as_called(one_line(error))}', file=sys.stderr)
        _discard_output()
        status = 1
    sys.exit(status)


def one_line(error: Exception) -> str:
    """Describe an error; one of the system is given the name of its file and the remedy."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    parts = [error.filename, error.strerror]
    text = ': '.join(os.fsdecode(part) for part in parts if isinstance(part, (str, bytes)))
    return '; '.join(filter(None, [text, REMEDIES.get(error.errno)]))


def _discard_output() -> None:
    """Drop output that cannot be written, which the interpreter would try to write once more when it exits."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
