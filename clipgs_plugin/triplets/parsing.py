"""Errors of the parsers that read a triplet dataset."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from clipgs_plugin.io.arrays import is_of_system, one_line


@contextmanager
def parsing(subject: object, remedy: str, problem: str = 'cannot be read') -> Iterator[None]:
    """Turn an error of a parser into a ValueError that names the file and the remedy.

    Errors of the disk and missing packages pass.

    Args:
        subject: Path of the file, or its path and the place in it.
        remedy: What the user can do.
        problem: What is wrong.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # tar, Arrow, safetensors, Pillow and JSON raise anything on arbitrary bytes
        if is_of_system(error):
            raise
        raise ValueError(f'{subject} {problem} ({one_line(error)}); {remedy}') from error
