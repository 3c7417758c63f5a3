"""Replacement of several files of a folder at once, which a kill cannot leave half done."""
from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from clipgs_plugin.io.checked_json import read_json
from clipgs_plugin.io.files import write_whole
from clipgs_plugin.io.lock import folder_lock
from clipgs_plugin.search.layout import CARD, CODES, PENDING, RECORD, REMOVED, TABLES, metadata_name, vectors_name

DECIDED = 'commit.json'
PATIENCE = 100  # times
T = TypeVar('T')


def commit(folder: Path, files: Iterable[tuple[str, Iterable[bytes | memoryview]]],
           gone: Sequence[str] = ()) -> None:
    """Write files and remove others: all of them, or none.

    The files are written aside. A list of them is the decision: before it, a kill changes nothing; after it,
    :func:`finish` completes the rest.

    Args:
        folder: Folder whose lock the caller holds.
        files: Names within the folder and their content, made as it is written.
        gone: Names to remove.

    Raises:
        OSError: The system cannot write; the error names the file, and the folder is as before.
    """
    aside = folder / PENDING
    shutil.rmtree(aside, ignore_errors=True)
    try:
        names = []
        aside.mkdir(parents=True, exist_ok=True)
        for name, parts in files:
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            write_whole(aside / name, parts)
            names.append(name)
        write_whole(aside / DECIDED, [json.dumps({'files': names, 'gone': list(gone)}).encode()])
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    finish(folder)


def finish(folder: Path) -> None:
    """Complete a commit that was decided, and drop one that was not.

    Raises:
        OSError: The system cannot write.
        ValueError: The decision is damaged.
    """
    aside = folder / PENDING
    if (aside / DECIDED).is_file():
        decision = read_json(aside / DECIDED, schema={'files': [str], 'gone': [str]})
        for name in decision['files'] + decision['gone']:
            if not _is_own(name):
                raise ValueError(f'{aside / DECIDED}: {name!a} is no file of an index; delete {aside}')
        for name in decision['files']:
            if (aside / name).is_file():  # else it is in place already
                (folder / name).parent.mkdir(exist_ok=True)
                os.replace(aside / name, folder / name)
        for name in decision['gone']:
            with suppress(FileNotFoundError):
                (folder / name).unlink()
    shutil.rmtree(aside, ignore_errors=True)


def own_files(folder: Path) -> list[str]:
    """List the files of an index by their names within its folder."""
    names = [path.relative_to(folder).as_posix() for pattern in ('*', '*/*') for path in folder.glob(pattern)]
    return sorted(filter(_is_own, names))


def is_pending(folder: Path) -> bool:
    """Return True while files of a folder are being replaced, or if a kill has interrupted that."""
    return (folder / PENDING / DECIDED).is_file()


def _is_own(name: str) -> bool:
    """Return True for names that a writer gives, all of which lie in the folder."""
    stem = name.rpartition('_')[2].partition('.')[0]
    number = int(stem) if stem.isascii() and stem.isdigit() and len(stem) < 10 else -1
    return name in (CARD, REMOVED, RECORD, TABLES, CODES) or (
        number >= 0 and name in (vectors_name(number), metadata_name(number)))


def read_unchanged(folder: Path, read: Callable[[], T]) -> T:
    """Read a folder, again if its files were being replaced meanwhile.

    What a killed process has left is completed first, unless another one is writing or the folder is read-only.

    Args:
        folder: Folder of an index.
        read: Function that reads it; its errors count if nothing was replaced.
    """
    for _ in range(PATIENCE):
        if is_pending(folder):
            with suppress(OSError), folder_lock(folder):
                finish(folder)
        before = _card_of(folder)
        try:
            found = read()
        except (ValueError, FileNotFoundError):
            if not is_pending(folder) and _card_of(folder) == before:
                raise
        else:
            if not is_pending(folder) and _card_of(folder) == before:
                return found
        time.sleep(0.02)
    raise OSError(f'{folder} is being written, or was left half written in a place that cannot be written; try again, '
                  'or run tools/embed.py again where it was made')


def _card_of(folder: Path) -> bytes | None:
    return (folder / CARD).read_bytes() if (folder / CARD).is_file() else None
