"""Tags that a user gives to objects, in a small JSON file beside the index."""
from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from clipgs_plugin.io.checked_json import read_json
from clipgs_plugin.io.files import write_whole
from clipgs_plugin.io.lock import FolderInUse, folder_lock

FORMAT = 1
MAX_TAGS, MAX_LENGTH, MAX_ENTRIES = 500, 60, 2_000_000
_MAX_BYTES = 2 ** 29
_JOINER = '\u200d'  # of emoji
_PATIENCE = 3.0  # seconds that a write waits for that of another process


class TagFile:
    """Paths of objects by tag.

    Tags follow the path of an object, since the rows of an index change as it grows. The file is read before each
    change and written whole, so two pages of one index do not undo each other's tags.

    Args:
        path: File, which need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mutex = threading.Lock()

    def read(self) -> dict[str, list[str]]:
        """Return the paths of every tag.

        Raises:
            ValueError: The file is damaged.
        """
        if not self.path.is_file():
            return {}
        if self.path.stat().st_size > _MAX_BYTES:
            raise ValueError(f'{self.path} has more than {_MAX_BYTES:,} bytes and is no file of tags; remove it')
        content = read_json(self.path, schema=dict(format=int, tags=dict))
        if content['format'] != FORMAT:
            raise ValueError(f'{self.path} has format {content["format"]}, expected {FORMAT}; update clipgs_plugin')
        for tag, paths in content['tags'].items():
            if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
                raise ValueError(f'{self.path}: {tag[:MAX_LENGTH]!r} is not a list of paths; mend or remove the file')
        return content['tags']

    def change(self, tag: str, paths: Iterable[str], on: bool) -> dict[str, list[str]]:
        """Add a tag to objects, or take it away; return the paths of every tag.

        Raises:
            ValueError: The tag is empty, too long or not printable, or there are too many.
            OSError: The file cannot be written.
        """
        tag = tag.strip()
        if not 0 < len(tag) <= MAX_LENGTH or not tag.replace(_JOINER, '').isprintable():
            raise ValueError(f'a tag has 1 to {MAX_LENGTH} printable characters, {tag[:MAX_LENGTH]!r} does not')
        with self._writing():
            tags = self.read()
            found = dict.fromkeys(tags.get(tag, ()))
            for path in paths:
                if on:
                    found[path] = None
                else:
                    found.pop(path, None)
            if found:
                tags[tag] = list(found)
            else:
                tags.pop(tag, None)
            if len(tags) > MAX_TAGS or sum(map(len, tags.values())) > MAX_ENTRIES:
                raise ValueError(f'more than {MAX_TAGS} tags or {MAX_ENTRIES:,} tagged objects; remove some first')
            write_whole(self.path, [json.dumps(dict(format=FORMAT, tags=tags), indent=1).encode()])
            return tags

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the lock of the file's folder; wait a moment for another process."""
        end = time.monotonic() + _PATIENCE
        with self._mutex, ExitStack() as held:
            while True:
                try:
                    held.enter_context(folder_lock(self.path.parent))
                    break
                except FolderInUse:
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.02)
            yield
