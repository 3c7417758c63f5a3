"""Files with one JSON object a line, which grow line by line and outlast a kill."""
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clipgs_plugin.io.checked_json import read_json

MAX_LINE = 1 << 20  # bytes


class JsonLines:
    """Context with a file open for appending; a last line that a kill cut off is removed.

    Args:
        path: The file, which is created if there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> JsonLines:
        self._file = self.path.open('a+b', buffering=0)
        end = self._file.seek(0, os.SEEK_END)
        while end:
            self._file.seek(end - 1)
            if self._file.read(1) == b'\n':
                break
            end -= 1
        self._file.truncate(end)
        return self

    def __exit__(self, *exc_info) -> None:
        self._file.close()

    def entries(self, schema: Any = dict) -> Iterator[dict]:
        """Yield the objects of the file.

        Args:
            schema: Expected types, see :func:`~clipgs_plugin.io.checked_json.check_types`.

        Raises:
            ValueError: A line is no such object.
        """
        with self.path.open('rb') as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b''), 1):
                yield read_json(line, f'{self.path}: line {number}', schema)

    def add(self, line: bytes) -> None:
        """Append a line, with its end.

        Raises:
            OSError: It cannot be written, and the file is as before.
        """
        end = self._file.seek(0, os.SEEK_END)
        try:
            while line:  # a disk that fills up takes a part of it, and refuses the rest
                line = line[self._file.write(line):]
        except OSError as error:
            self._file.truncate(end)
            error.filename = str(self.path)
            raise

    def clear(self) -> None:
        """Remove all lines."""
        self._file.truncate(0)
