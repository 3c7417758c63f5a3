"""Interface of a source of objects."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from clipgs_plugin.generation.objects import Content, Listed
from clipgs_plugin.ops.rotations import AXES


class Source(Protocol):
    """A source of objects, built from a config. It lists quickly and loads one object at a time.

    Attributes:
        suffixes: Endings of the files it reads, lower case with the dot; empty if it reads folders.
        up: Up axis of its files: ``'x'``, ``'y'``, ``'z'``, ``'-x'``, ``'-y'`` or ``'-z'``.
    """

    suffixes: tuple[str, ...]
    up: str

    def list(self, root: Path) -> Sequence[Listed]:
        """List the objects below a folder, or of one file, in an order that depends on names only."""

    def load(self, listed: Listed) -> Content:
        """Load an object in the frame of its file.

        Raises:
            ValueError, OSError: The file cannot be read; the message names the reason.
        """


def check_axis(up: str) -> str:
    """Return an up axis unchanged.

    Raises:
        ValueError: The axis is none of ``x``, ``y``, ``z``, ``-x``, ``-y``, ``-z``.
    """
    if up not in AXES:
        raise ValueError(f'up={up!r}: expected one of {AXES}')
    return up
