"""Replacement of the files of a labelled scene by those of another run: all of them, or none."""
from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clipgs_plugin.io.lock import folder_lock
from clipgs_plugin.search import commit as index_files

TABLE, LABELLED, COLOURED, SCORES = 'scene.objects.parquet', 'scene.labelled.ply', 'scene.coloured.ply', 'scores.npz'
OBJECTS, INDEX = 'objects', 'index'
MARK = '.label_scene'  # in a folder that has begun to be written, so that a killed run can be repeated
NEW, READY, MOVING = '.new', '.new.ready', '.new.moving'  # names of the folder of new files, one a step
_OWN = re.compile(rf'{OBJECTS}/\d{{4,}}\.ply')


@contextmanager
def replaced_together(out: Path) -> Iterator[Path]:
    """Give a folder for new files, which take the places of the earlier ones if the context ends well.

    The name of the folder is the decision: until it is ``READY``, nothing has changed; from then on, the next call
    completes what a kill has interrupted.

    Args:
        out: Folder of the labelled scene.

    Raises:
        OSError: The system cannot write, or another process writes the folder or its index.
    """
    with folder_lock(out):
        (out / MARK).touch()
        (out / INDEX).mkdir(exist_ok=True)
        with folder_lock(out / INDEX):
            _finish(out)
            new = out / NEW
            shutil.rmtree(new, ignore_errors=True)
            try:
                (new / OBJECTS).mkdir(parents=True)
                yield new
            except BaseException:
                shutil.rmtree(new, ignore_errors=True)
                raise
            os.replace(new, out / READY)
            _finish(out)


def is_replaced(folder: str | os.PathLike, path: str | os.PathLike) -> bool:
    """Return True for a path among the results in the folder of a labelled scene, which the next run replaces."""
    folder, path = Path(folder).resolve(), Path(path).resolve()
    if folder not in path.parents:
        return False
    name = path.relative_to(folder)
    return (name.parts[0] in (INDEX, NEW, READY, MOVING, TABLE, LABELLED, COLOURED, SCORES)
            or _OWN.fullmatch(name.as_posix()) is not None)


def _finish(out: Path) -> None:
    """Put new files in place, from the step on at which a kill has stopped that."""
    ready, moving = out / READY, out / MOVING
    if ready.is_dir():
        _replace_index(ready / INDEX, out / INDEX)  # the first, since it alone may need space
        for name in set(_own_files(out)) - set(_own_files(ready)):
            (out / name).unlink()
        os.replace(ready, moving)
    if moving.is_dir():
        (out / OBJECTS).mkdir(exist_ok=True)
        for name in _own_files(moving):
            os.replace(moving / name, out / name)
        shutil.rmtree(moving)


def _own_files(folder: Path) -> list[str]:
    """List the files of a labelled scene but the index, by their names within a folder."""
    objects = [f'{OBJECTS}/{path.name}' for path in (folder / OBJECTS).glob('*.ply')]
    return [*filter(_OWN.fullmatch, objects),
            *(name for name in (LABELLED, COLOURED, SCORES, TABLE) if (folder / name).is_file())]


def _replace_index(new: Path, index: Path) -> None:
    """Replace the files of an index whose lock is held."""
    index_files.finish(index)
    names = index_files.own_files(new)
    index_files.commit(index, ((name, [(new / name).read_bytes()]) for name in names),
                       [name for name in index_files.own_files(index) if name not in names])
