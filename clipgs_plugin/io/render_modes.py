"""Renderer that Gaussians were trained with, as comments of ``.ply`` files and a flag of ``.spz`` declare it.

Brush and PlayCanvas write ``SplatRenderMode: mip``, Postshot ``antialiased 1``. The values of the Gaussians are
read alike in every mode; the pictures differ.
"""
from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

DEFAULT, ANTIALIASED, DISCS = 'default', 'antialiased', '2dgs'
_BRUSH, _POSTSHOT = 'splatrendermode:', 'antialiased '
_VALUES = {_BRUSH: {'default': DEFAULT, 'mip': ANTIALIASED, '2dgs': DISCS},
           _POSTSHOT: {'0': DEFAULT, '1': ANTIALIASED}}
_COMMENTS = {DEFAULT: (), ANTIALIASED: ('SplatRenderMode: mip',), DISCS: ('SplatRenderMode: 2dgs',)}
_EFFECTS = {ANTIALIASED: 'with antialiasing (Mip-Splatting): pictures without its filter show small Gaussians too bold',
            DISCS: 'as discs (2DGS): their third scale has no meaning'}


def mode_of_comments(comments: Iterable[str]) -> str:
    """Return the mode that comments declare, the last one if several do, else ``'default'``."""
    mode = DEFAULT
    for comment in comments:
        text = comment.strip().lower()
        for key, values in _VALUES.items():
            if text.startswith(key):
                mode = values.get(text.removeprefix(key).strip(), mode)
    return mode


def comments_of_mode(mode: str) -> tuple[str, ...]:
    """Return the comments that declare a mode; none for ``'default'``."""
    return _COMMENTS[mode]


def warn_of_mode(path: Path, mode: str) -> None:
    """Warn that a file was trained with another renderer than the one of ``ops.render``."""
    if mode in _EFFECTS:
        warnings.warn(f'{path}: trained {_EFFECTS[mode]}', stacklevel=6)
