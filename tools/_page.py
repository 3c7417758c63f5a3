"""Shared parts of the programs that make pages of an index."""
from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path


def page_folder(index: Path) -> Path:
    """Return the folder beside an index for its thumbnails and tags."""
    return index.resolve().with_name(f'{index.resolve().name}.page')


def made_page_folder(index: Path, page: Path | None) -> Path:
    """Make the folder for the thumbnails and tags of an index, beside it unless it is named.

    Raises:
        OSError: It cannot be made, as beside an index on a disk that is read-only.
    """
    folder = page or page_folder(index)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f'{folder}, the folder of thumbnails and tags, cannot be made ({error.strerror}); name another '
                      'with --page FOLDER') from error
    return folder


def processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def require(*packages: str) -> None:
    """Check that packages of the extra ``app`` are installed.

    Raises:
        ImportError: One is not.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ImportError(f'the page needs {" and ".join(missing)}, of the extra app; pip install {" ".join(missing)}')
