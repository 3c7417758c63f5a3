"""What every program of this folder shares: help with an example, exit codes, errors in one line."""
from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

USER_ERRORS = (ValueError, FileNotFoundError, IsADirectoryError, PermissionError)


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
QUICKSTART = 'bash tools/quickstart.sh'


def parser(description: str, *example: str) -> argparse.ArgumentParser:
    """An argument parser whose help starts with one sentence and ends with an example.

    Args:
        description: The sentence.
        example: Lines that work in a fresh checkout, those that make what the last one needs first.
    """
    return _Parser(description=description, epilog='\n  '.join(['example:', *example]),
                   formatter_class=argparse.RawDescriptionHelpFormatter)


def progress_bar(**kwargs) -> Progress:
    """A progress bar with counts, rate of time and ETA; silent where nobody watches."""
    console = Console(stderr=True)
    return Progress(TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                    TextColumn('eta'), TimeRemainingColumn(), console=console, disable=not console.is_terminal,
                    **kwargs)


def run(main: Callable[[], int]) -> None:
    """Exit with the program's status: 0 done, 1 failed with one line on stderr, 2 wrong use (argparse)."""
    try:
        sys.exit(main())
    except USER_ERRORS as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
