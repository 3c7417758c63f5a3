"""Shared parts of the programs that make pages of an index."""
from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from clipgs_plugin.tools._program import prepare_cloud, repeated_preparation

if TYPE_CHECKING:
    from clipgs_plugin import GaussianCloud
    from clipgs_plugin.app.catalog import Catalog
    from clipgs_plugin.app.thumbnails import Thumbnails

EXTRA = ('fastapi', 'uvicorn', 'viser')  # app


class PageFolders(NamedTuple):
    """Folders of thumbnails and tags of an index."""

    own: Path            # written
    former: Path | None  # read: the one beside an index in a place that cannot be written


@lru_cache(1)  # which says once what it says
def page_folders(index: Path, chosen: Path | None) -> PageFolders:
    """Find the folders of thumbnails and tags: beside the index, or in the user's cache if that cannot be written.

    Args:
        index: Folder or file of the index.
        chosen: Folder that the user names; None for the usual one.
    """
    path = index.resolve()
    beside = path.with_name(f'{path.name}.page')
    if chosen is not None or _can_write(beside):
        return PageFolders(chosen or beside, None)
    cache = Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'clipgs_plugin' / 'pages'
    own = cache / f'{path.name}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}'
    print(f'note: {beside} cannot be written; thumbnails and tags are kept in {own}, or where --page says',
          file=sys.stderr)
    return PageFolders(own, beside if beside.is_dir() else None)


def thumbnails_of(catalog: Catalog, folders: PageFolders) -> Thumbnails:
    """Return the thumbnails of an index."""
    from clipgs_plugin.app.thumbnails import Thumbnails
    return Thumbnails(folders.own / 'thumbnails', catalog.objects, folders.former and folders.former / 'thumbnails')


def tag_file(folders: PageFolders) -> Path:
    """Return the file of tags, which starts as a copy of the one that cannot be written."""
    path = folders.own / 'tags.json'
    if folders.former is not None and (former := folders.former / path.name).is_file() and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(former, path)
    return path


def _can_write(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder if folder.is_dir() else folder.parent):
            return True
    except OSError:
        return False


def read_catalog(path: Path) -> Catalog:
    """Read an index whose objects are prepared as they were embedded.

    Raises:
        OSError, ValueError: It cannot be read, or is damaged.
    """
    from clipgs_plugin.app.catalog import Catalog
    from clipgs_plugin.app.objects import IndexedObjects
    from clipgs_plugin.search import SearchIndex
    index = SearchIndex.load(path)
    removals = [word for word in index.options if not word.startswith(('--up', '--turns'))]
    prepare = preparation(index.options) if removals else None
    return Catalog(index, IndexedObjects(index, prepare, ' '.join(removals)))


def preparation(words: tuple[str, ...]) -> Callable[[GaussianCloud, str], GaussianCloud]:
    """Return a function that prepares an object with a given up axis by the other options of an index."""
    options = vars(repeated_preparation(words))
    return lambda cloud, up: prepare_cloud(cloud, argparse.Namespace(**{**options, 'up': up}))[0]


def processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def require(*packages: str) -> None:
    """Check that packages of the extra ``app`` are installed; the error names all of the extra that are not.

    Raises:
        ImportError: One is not.
    """
    missing = [name for name in EXTRA if find_spec(name) is None]
    if set(missing) & set(packages):
        raise ImportError(f'the page needs {" and ".join(missing)}, of the extra app; pip install {" ".join(missing)}')
