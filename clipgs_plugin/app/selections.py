"""Export of chosen objects: as a list, or as a folder of copies."""
from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from clipgs_plugin.app.objects import IndexedObjects

KINDS = dict(txt='text/plain; charset=utf-8', csv='text/csv; charset=utf-8', json='application/json')
_FOLDER = re.compile(r'\w[\w .-]{0,79}')


def selection_list(rows: Sequence[dict], kind: str) -> bytes:
    """Write chosen objects as a list.

    Args:
        rows: Values by column, with ``path``.
        kind: ``'txt'``, one path a line; ``'csv'`` or ``'json'``, all columns.

    Raises:
        ValueError: The kind is unknown, or a path with a line break is to be a line.
    """
    if kind == 'txt':
        broken = next((row['path'] for row in rows if re.search(r'[\r\n]', row['path'])), None)
        if broken is not None:
            raise ValueError(f'{broken!r} has a line break and cannot be a line of a list; export json instead')
        return ''.join(f'{row["path"]}\n' for row in rows).encode('utf-8', 'surrogateescape')
    if kind == 'csv':
        buffer = io.StringIO(newline='')
        writer = csv.DictWriter(buffer, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows({key: _plain(value) for key, value in row.items()} for row in rows)
        return buffer.getvalue().encode('utf-8', 'surrogateescape')
    if kind == 'json':
        return json.dumps(list(rows), indent=1).encode()
    raise ValueError(f'{kind!r}: expected one of {", ".join(KINDS)}')


def _plain(value):
    """Keep a spreadsheet from taking a text for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in '=+-@\t\r' else value


def copy_selection(objects: IndexedObjects, rows: Sequence[int], parent: Path, name: str) -> Path:
    """Copy the files of chosen objects into a new folder.

    The copies keep their names; equal names get the number of their row.

    Args:
        objects: Objects of the index.
        rows: Rows of the chosen ones.
        parent: Folder of all exports.
        name: Name of the new folder.

    Raises:
        ValueError: The name is not one of a folder, or a file is no splat.
        OSError: The folder exists, or a file cannot be copied; the copies before it stay.
    """
    if not _FOLDER.fullmatch(name) or name != name.strip(' .'):
        raise ValueError(f'{name[:80]!r} is not a name for a folder; use up to 80 letters, digits, spaces and -_.')
    files = {row: objects.file(row) for row in dict.fromkeys(rows)}  # a missing file is reported before any copy
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / name
    try:
        folder.mkdir()
    except FileExistsError:
        raise FileExistsError(f'{folder} exists; choose another name') from None
    for row, file in files.items():
        target = folder / file.name
        if target.exists():
            target = folder / f'{row}_{file.name}'
        shutil.copyfile(file, target)
    return folder
