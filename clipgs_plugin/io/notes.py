"""Notes of a splat file beside its Gaussians: the mode of rendering and the comments."""
from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipgs_plugin.io import ply, render_modes, spz
from clipgs_plugin.io.files import refuse_damage
from clipgs_plugin.io.formats import Format, format_of_file


@dataclass(frozen=True)
class Notes:
    """Notes of a file; ``render_mode`` is ``'default'``, ``'antialiased'`` or ``'2dgs'``."""

    render_mode: str = render_modes.DEFAULT
    comments: tuple[str, ...] = ()


def read_notes(path: str | os.PathLike) -> Notes:
    """Read the notes of a ``.ply`` or ``.spz`` file; other formats have none.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The header of the file is damaged.
    """
    path = Path(path)
    format = format_of_file(path)
    with refuse_damage(path, f'{format.description} file'):
        if format.name in ('ply', 'compressed-ply'):
            comments = ply.open_ply(path).comments
            return Notes(render_modes.mode_of_comments(comments), comments)
        if format.name == 'spz' and spz.is_antialiased(path):
            return Notes(render_modes.ANTIALIASED)
    return Notes()


def write_options(notes: Notes, format: Format) -> dict[str, Any]:
    """Return the options of ``write_gaussians`` that keep notes, as far as a format stores them."""
    if format.name in ('ply', 'compressed-ply'):
        declared = render_modes.mode_of_comments(notes.comments) == notes.render_mode
        return dict(comments=notes.comments + (() if declared else render_modes.comments_of_mode(notes.render_mode)))
    return dict(antialiased=notes.render_mode == render_modes.ANTIALIASED) if format.name == 'spz' else {}
