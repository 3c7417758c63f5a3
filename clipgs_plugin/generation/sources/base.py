"""What every source of objects has in common."""
from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from clipgs_plugin.generation.objects import Content, Listed
from clipgs_plugin.ops.rotations import AXES
from clipgs_plugin.triplets.layout import MAX_UID


class Source(Protocol):
    """Where objects come from. It is built from a config, lists quickly and loads one object at a time.

    Attributes:
        suffixes: Endings of the files it reads, lower case with the dot; empty where it reads none by their endings.
        up: The axis that points up in its files: ``'x'``, ``'y'``, ``'z'``, ``'-x'``, ``'-y'`` or ``'-z'``.
    """

    suffixes: tuple[str, ...]
    up: str

    def list(self, root: Path) -> Sequence[Listed]:
        """The objects below a folder, or of a file, in an order that depends on names only."""

    def load(self, listed: Listed) -> Content:
        """What the file of an object holds, in the frame of the file.

        Raises:
            ValueError, OSError: The file cannot be read; the message says why.
        """


def checked_axis(up: str) -> str:
    """An axis that a source is told.

    Raises:
        ValueError: It is none of ``x``, ``y``, ``z``, ``-x``, ``-y``, ``-z``.
    """
    if up not in AXES:
        raise ValueError(f'up={up!r}: expected one of {AXES}')
    return up


def uid_of(path: Path, root: Path) -> str:
    """A uid from the place of a file below the root: ``shoes/left one.glb`` becomes ``shoes-left_one``."""
    relative = path.relative_to(root) if path != root else Path(path.name)
    parts = [*relative.parts[:-1], relative.name.split('.')[0] or relative.name]
    return re.sub(r'[^A-Za-z0-9_-]+', '_', '-'.join(parts)).strip('_')[-MAX_UID:] or 'object'
