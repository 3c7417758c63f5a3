"""What sources of files have in common: finding them, and naming what they hold."""
from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from clipgs_plugin.generation.objects import Listed
from clipgs_plugin.generation.sources.base import uid_of
from clipgs_plugin.triplets.layout import MAX_UID

SPLITS = {'train': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val', 'test': 'test'}


def find_files(root: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files below a folder whose names end so in upper or lower case, sorted; a file is its own listing.

    Hidden files and folders (a leading dot) are passed over.

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


def list_files(root: Path, paths: Sequence[Path], split: str = 'train') -> list[Listed]:
    """One object a file, with uids that differ.

    The first folder below the root is the category, unless every such folder holds one object only and so is the
    object's own. A folder or a file named train, val or test says the split.

    Args:
        root: Folder, or the one file.
        paths: Files below it.
        split: Where no name says one.
    """
    folders = [_category(path, root) for path in paths]
    classes = max(Counter(folder for folder in folders if folder).values(), default=0) > 1
    uids = distinct([uid_of(path, root) for path in paths], ['_'.join(path.name.split('.')[1:]) for path in paths])
    return [Listed(uid, path, folder if classes else None, split=split_of(path, root, split))
            for uid, path, folder in zip(uids, paths, folders)]


def split_of(path: Path, root: Path, default: str) -> str:
    """The split that a folder below the root, or the file, is named after."""
    names = [part.split('.')[0].lower() for part in _below(path, root)]
    return next((SPLITS[name] for name in names if name in SPLITS), default)


def distinct(uids: Sequence[str], additions: Sequence[str]) -> list[str]:
    """Uids that differ: those that occur more than once get their addition, then a number, in their order."""
    counts = Counter(uids)
    longer = [uid if counts[uid] == 1 or not addition else _with(uid, addition)
              for uid, addition in zip(uids, additions)]
    taken, result = set(), []
    for uid in longer:
        number, name = 1, uid
        while name in taken:
            number += 1
            name = _with(uid, str(number))
        taken.add(name)
        result.append(name)
    return result


def _with(uid: str, addition: str) -> str:
    return f'{uid}_{addition}'[-MAX_UID:]


def _below(path: Path, root: Path) -> tuple[str, ...]:
    return path.relative_to(root).parts if path != root else (path.name,)


def _category(path: Path, root: Path) -> str | None:
    return next((name for name in _below(path, root)[:-1] if name.lower() not in SPLITS), None)
