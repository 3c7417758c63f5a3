"""What every program of this folder shares: help with an example, exit codes, errors in one line."""
from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

USER_ERRORS = (ValueError, FileNotFoundError, IsADirectoryError, PermissionError)


def parser(description: str, example: str) -> argparse.ArgumentParser:
    """An argument parser whose help starts with one sentence and ends with an example."""
    return argparse.ArgumentParser(description=description, epilog=f'example:\n  {example}',
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
