"""Outputs of tools/embed.py: the folder of an index, which grows, or one file."""
from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import numpy as np
import torch

from clipgs_plugin.io.checked_json import REMEDY as DAMAGED
from clipgs_plugin.io.files import write_whole
from clipgs_plugin.io.json_lines import JsonLines
from clipgs_plugin.search import IndexCard, IndexWriter, SearchIndex
from clipgs_plugin.triplets import ShardReader
from clipgs_plugin.triplets.codecs import to_json
from clipgs_plugin.triplets.layout import GAUSSIANS, shard_path

if TYPE_CHECKING:
    from clipgs_plugin.apis import Embedded, Failed

FAILED, UNFINISHED = 'failed.jsonl', '.unfinished'
_FAILURE = dict(path=str, size=int, mtime_ns=int, error=str, message=str)
SAVE_EVERY = 32  # files at least, of one file
PART = '.part'   # ending of a file that will replace another


class FolderOutput:
    """Context that keeps the folder of an index up to date, with a list of the files that cannot be embedded.

    Args:
        folder: Folder of the index.
        card: Origin of the vectors.
        retry_failed: True takes files again that failed before and have not changed.
        categories: True makes the name of its folder the category of a file.
    """

    def __init__(self, folder: Path, card: IndexCard, retry_failed: bool = False, categories: bool = False) -> None:
        self.index, self.failures = IndexWriter(folder, card), folder / FAILED
        self._retry_failed, self._categories = retry_failed, categories
        self._stack, self._log = ExitStack(), JsonLines(self.failures)
        self._failed: dict[str, dict] = {}  # entries by path
        self._seen: set[str] = set()        # their paths that exist, which an escaped path does not tell
        self._mark = folder / UNFINISHED
        self.was_killed = False  # the run before, perhaps by a file that crashed its process
        self.unchanged = self.failed_before = self.filled = 0
        self.gone: list[str] = []

    def __enter__(self) -> FolderOutput:
        with ExitStack() as stack:
            stack.enter_context(self.index)
            self.index.flush()  # before anything else lies in the folder, which is that of an index from now on
            stack.enter_context(self._log)
            self._failed = self._read_failures()
            stack.push(self._keep_failures)
            self.was_killed = self._mark.exists()
            self._mark.touch()
            stack.callback(self._mark.unlink, missing_ok=True)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info) -> None:
        self._stack.__exit__(*exc_info)

    def _read_failures(self) -> dict[str, dict]:
        """Read the list, by path."""
        try:
            return {entry['path']: entry for entry in self._log.entries(_FAILURE)}
        except ValueError as error:
            raise ValueError(f'{error.args[0].removesuffix(f"; {DAMAGED}")}; delete the line or the file, and what it '
                             'lists is tried again') from error

    def _keep_failures(self, *exc_info) -> None:
        """Write the list anew, without files that are embedded or gone by now."""
        self._log.__exit__(*exc_info)
        kept = [to_json(entry) for path, entry in self._failed.items() if path in self._seen or os.path.exists(path)]
        if kept:
            write_whole(self.failures, kept)
        else:
            self.failures.unlink()

    def __len__(self) -> int:
        return len(self.index)

    def outdated(self, inputs: Sequence[str | os.PathLike], files: Iterable[str]) -> list[str]:
        """Drop what is gone and return the files to embed: new and changed ones, without those that failed before."""
        files = list(files)
        self.gone = self.index.drop_missing(inputs)
        outdated = self.index.outdated(files)
        self.unchanged = len(files) - len(outdated)
        if self._categories:  # of rows that a run without the option has written
            self.filled = self.index.fill('category', {path: _category(path) for path in set(files) - set(outdated)})
        todo = [path for path in outdated if self._retry_failed or not self._is_known(path)]
        self.failed_before = len(outdated) - len(todo)
        self.index.drop(set(outdated).difference(todo))  # rows that a kill kept from being dropped
        return todo

    def add(self, found: Embedded) -> None:
        """Add an object.

        Raises:
            ValueError: A value cannot be stored, such as a name that is not Unicode.
        """
        columns = {'up_confidence': 1.0, **found.notes}
        for by, (axis, confidence) in columns.pop('up_opinions', {}).items():
            columns.update({f'up_{by}': axis, f'up_{by}_confidence': confidence})
        if self._categories:
            columns['category'] = _category(found.path)
        self.index.add(found.path, found.embedding, **columns)
        self._failed.pop(_escaped(found.path), None)

    def fail(self, failure: Failed) -> None:
        """List a file that cannot be embedded, and drop the row of its former content."""
        path = _escaped(failure.path)
        self._failed[path] = dict(zip(_FAILURE, (path, *_stat(failure.path), failure.error, _escaped(failure.message))))
        self._seen.add(path)
        self._log.add(to_json(self._failed[path]))
        self.index.drop([failure.path])

    def _is_known(self, path: str) -> bool:
        entry = self._failed.get(escaped := _escaped(path))
        if entry is None or (entry['size'], entry['mtime_ns']) != _stat(path):
            return False
        self._seen.add(escaped)
        return True


class FileOutput:
    """Context that collects embeddings in memory and writes them as one file.

    A new file grows. An earlier one is replaced at the end alone; until then, its successor grows in a file beside it.
    """

    gone, unchanged, filled, failed_before, failures, was_killed = (), 0, 0, 0, None, False

    def __init__(self, path: Path, card: IndexCard) -> None:
        self.path, self.card = path, card
        self._place = part_of(path) if path.exists() else path
        self._found: list[Embedded] = []
        self._saved = 0

    def __enter__(self) -> FileOutput:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=self.path.parent):  # refused before hours of work
            return self

    def __exit__(self, kind, *exc_info) -> None:
        if len(self._found) > self._saved:
            self.save()
        if not self._saved or self._place == self.path:
            return
        if kind is None:
            os.replace(self._place, self.path)
        else:
            print(f'note: {self.path} is as before; the {self._saved:,} embeddings of this run are in {self._place}',
                  file=sys.stderr)

    def __len__(self) -> int:
        return len(self._found)

    def outdated(self, inputs: Sequence[str | os.PathLike], files: Iterable[str]) -> list[str]:
        """Return all files."""
        return list(files)

    def add(self, found: Embedded) -> None:
        """Add an object, and write the file from time to time."""
        self._found.append(found)
        if len(self._found) - self._saved >= max(SAVE_EVERY, len(self._found) // 8):
            self.save()

    def fail(self, failure: Failed) -> None:
        """Ignore a failure."""

    def save(self) -> None:
        """Write the file."""
        notes = [found.notes for found in self._found]
        ups = tuple((note['up'], note.get('up_confidence', 1.0)) for note in notes)
        opinions = tuple(tuple(note['up_opinions'].values()) for note in notes if 'up_opinions' in note)
        SearchIndex(torch.stack([found.embedding for found in self._found]), tuple(each.path for each in self._found),
                    self.card.model, self.card.checkpoint, ups, self.card.options, opinions).save(self._place)
        self._saved = len(self._found)


def write_features(index: SearchIndex, root: Path, teacher: str, folder: Path) -> None:
    """Write the index of a triplet dataset into a folder, or add the objects that are new.

    Args:
        index: Index of :meth:`SearchIndex.from_features`.
        root: Folder of the dataset, which has categories, splits, captions and the PSNR as ``quality``.
        teacher: Name of the features.
        folder: Folder of the index.
    """
    reader = ShardReader(root)
    numbers = {str(shard_path(reader.root.resolve(), int(shard)) / f'{uid}.{GAUSSIANS}'): i
               for i, (shard, uid) in enumerate(zip(reader.shards, reader.uids))}
    rows = dict(zip(index.paths, index.embeddings))
    with IndexWriter(folder, IndexCard(index.model, index.embeddings.shape[1], teacher=teacher)) as writer:
        for path in writer.outdated(rows):
            i = numbers[path]
            quality = None if np.isnan(reader.psnr[i]) else float(reader.psnr[i])
            writer.add(path, rows[path], category=reader.categories[i], split=reader.splits[i], quality=quality,
                       caption=next((each['text'] for each in reader.read_record(i)['captions']), ''))


def part_of(path: Path) -> Path:
    """Return the file that grows while an earlier one is kept."""
    return path.with_name(path.name + PART)


def _category(path: str) -> str:
    """Return the name of the folder of a file."""
    return os.path.basename(os.path.dirname(path))


def _stat(path: str) -> tuple[int, int]:
    """Return size and time of a file, or what no file has."""
    try:
        found = os.stat(path)
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def _escaped(text: str) -> str:
    """Write bytes of file names that are not Unicode as escapes, as in ``caf\\udce9``."""
    return text.encode('utf-8', 'backslashreplace').decode()
