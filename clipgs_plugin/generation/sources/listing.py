"""Search for the files of a source, and the uids, categories and splits that follow from their paths."""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from clipgs_plugin.generation.objects import Listed
from clipgs_plugin.triplets.layout import MAX_UID

SPLITS = {'train': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val', 'test': 'test'}


def find_files(root: Path, suffixes: Sequence[str]) -> list[Path]:
    """Find the files below a folder by their endings in upper or lower case, sorted; a file is its own result.

    Hidden files and folders (a leading dot) are skipped.

    Raises:
        FileNotFoundError: ``root`` does not exist.
    """
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise FileNotFoundError(f'{root}: no such file or folder')
    endings = tuple(suffix.lower() for suffix in suffixes)
    return sorted(path for path in root.rglob('*') if path.name.lower().endswith(endings) and path.is_file()
                  and not any(part.startswith('.') for part in path.relative_to(root).parts))


def list_files(root: Path, paths: Sequence[Path]) -> list[Listed]:
    """List one object per path, with distinct uids.

    The first folder below the root is the category, unless each of these folders holds a single object. A folder or a
    file named train, val or test sets the split; the default is train.

    Args:
        root: Folder that was searched, or the one file.
        paths: Paths below the root.
    """
    folders = [_category(path, root) for path in paths]
    are_classes = max(Counter(folder for folder in folders if folder).values(), default=0) > 1
    uids = distinct_uids([path_uid(path, root) for path in paths],
                         ['_'.join(path.name.split('.')[1:]) for path in paths])
    return [Listed(uid, path, folder if are_classes else None, split=path_split(path, root))
            for uid, path, folder in zip(uids, paths, folders)]


def clean_uid(name: str) -> str:
    """Replace the characters that a uid may not contain, and keep its last ``MAX_UID`` characters."""
    return re.sub(r'[^A-Za-z0-9_-]+', '_', name).strip('_')[-MAX_UID:] or 'object'


def path_uid(path: Path, root: Path) -> str:
    """Make a uid from a path below the root: ``shoes/left one.glb`` becomes ``shoes-left_one``."""
    *folders, name = _parts_below(path, root)
    return clean_uid('-'.join([*folders, name.split('.')[0] or name]))


def path_split(path: Path, root: Path) -> str:
    """Return the split that a folder below the root or the file is named after, train by default."""
    names = [part.split('.')[0].lower() for part in _parts_below(path, root)]
    return next((SPLITS[name] for name in names if name in SPLITS), 'train')


def distinct_uids(uids: Sequence[str], additions: Sequence[str]) -> list[str]:
    """Make uids distinct: repeated ones get their addition, then a number, in their order."""
    counts = Counter(uids)
    taken, result = set(), []
    for uid, addition in zip(uids, additions):
        uid = name = _join(uid, addition) if counts[uid] > 1 and addition else uid
        number = 1
        while name in taken:
            number += 1
            name = _join(uid, str(number))
        taken.add(name)
        result.append(name)
    return result


def _join(uid: str, addition: str) -> str:
    return f'{uid}_{addition}'[-MAX_UID:]


def _parts_below(path: Path, root: Path) -> tuple[str, ...]:
    return path.relative_to(root).parts if path != root else (path.name,)


def _category(path: Path, root: Path) -> str | None:
    return next((name for name in _parts_below(path, root)[:-1] if name.lower() not in SPLITS), None)
