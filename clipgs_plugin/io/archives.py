"""Files of a folder and of the archives in it, read where they lie: members of zip and tar by their offsets.

Large sets are hundreds of archives, of which unpacking would need the space twice. An index is built once, kept beside
the set (or in the user's cache if that folder is read-only), and renewed for each archive whose size or time changed.
"""
from __future__ import annotations

import gzip
import hashlib
import json
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from clipgs_plugin.io.checked_json import check_types, read_json
from clipgs_plugin.io.files import PARSER_ERRORS, check_ratio, write_whole

INDEX = '.clipgs_index.json'
VERSION = 1
SHOWN_BYTES = 1 << 26  # of a tar between two movements of the bar
SUFFIXES = ('.zip', '.tar')
_LOCAL_HEADER = struct.Struct('<4s22xHH')
_ROW = [str, int, int, int, int]
_SCHEMA = {'version': int, 'archives': dict}
_ENTRY = {'size': int, 'mtime_ns': int, 'members': [_ROW]}


@dataclass(frozen=True)
class Place:
    """File of a set: a file of a folder, or a member of an archive.

    ``name`` is its path below the root, through the archive: ``000-000.zip/000-000/UID/point_cloud.ply``.
    """

    name: str
    file: str            # the file, or the archive that holds it
    offset: int = -1     # of the member's header (zip) or data (tar); -1: the whole file
    held: int = 0        # bytes in the archive
    size: int = 0        # bytes of the content
    crc: int = -1        # of a zip; -1 has none

    def read(self) -> bytes:
        """Read the content.

        Raises:
            FileNotFoundError: The file is gone.
            ValueError: The archive is damaged, or changed since it was indexed.
        """
        if self.offset < 0:
            return Path(self.file).read_bytes()
        path, end = Path(self.file), os.path.getsize(self.file)
        if self.offset + self.held > end:
            raise self._damaged(f'it ends at byte {self.offset + self.held}, the archive at {end}')
        with path.open('rb') as file:
            file.seek(self.offset)
            if self.crc < 0:
                data = file.read(self.held)
                if len(data) != self.size:
                    raise self._damaged('it is shorter than its header says')
                return data
            magic, name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size).ljust(_LOCAL_HEADER.size, b'\0'))
            if magic != b'PK\3\4':
                raise self._damaged('its header is missing')
            file.seek(name + extra, os.SEEK_CUR)
            data = file.read(self.held)
        return self._inflated(data)

    def _inflated(self, data: bytes) -> bytes:
        """Return the content of a member of a zip, stored or deflated."""
        if self.held != self.size or zlib.crc32(data) != self.crc:
            check_ratio(Path(self.file), f'{self.name} holds', self.size, self.held)
            try:
                data = zlib.decompressobj(-15).decompress(data, self.size)
            except zlib.error as error:
                raise self._damaged(str(error)) from None
        if len(data) != self.size or zlib.crc32(data) != self.crc:
            raise self._damaged('it does not match its checksum')
        return data

    def _damaged(self, reason: str) -> ValueError:
        return ValueError(f'{self.file}: {self.name} cannot be read ({reason}); the archive is damaged, download it '
                          'again')


def read_from_tar_gz(path: Path, name: str) -> bytes:
    """Read the one member with a file name of a small ``.tar.gz``, which has no offsets to read by.

    Raises:
        ValueError: The archive is damaged, or lacks the member.
    """
    held = path.stat().st_size
    try:
        with gzip.open(path) as file, tarfile.open(fileobj=file, mode='r|') as archive:
            for item in archive:
                check_ratio(path, f'{item.name[:80]} holds', item.size, held)
                if item.isreg() and item.name.rpartition('/')[2] == name:
                    return archive.extractfile(item).read()
    except (*PARSER_ERRORS, tarfile.TarError) as error:
        if str(path) in str(error):
            raise
        raise ValueError(f'{path}: damaged or no .tar.gz ({str(error)[:150]}); download it again') from None
    raise ValueError(f'{path}: lacks {name}; download it again')


def list_places(root: str | os.PathLike, accept: Callable[[str], object]) -> list[Place]:
    """List the files below a folder and in its archives whose names a function accepts, sorted by name.

    Args:
        root: Folder of the set, or one archive of it.
        accept: Function of the name below the root, true for a file to list.

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: An archive is damaged.
    """
    root = Path(root)
    if not root.exists():
        raise FileNotFoundError(f'{root} does not exist; name the folder of the set, as it was downloaded')
    base = root if root.is_dir() else root.parent
    files = visible_files(root) if root.is_dir() else [root]
    places, archives = [], {}
    for path in files:
        name = path.relative_to(base).as_posix()
        if path.suffix.lower() in SUFFIXES:
            archives[name] = path
        elif accept(name):
            places.append(Place(name, str(path)))
    for name, rows in _index(base, archives).items():
        places += [Place(f'{name}/{row[0]}', str(archives[name]), *row[1:]) for row in rows
                   if accept(f'{name}/{row[0]}')]
    return sorted(places, key=lambda place: place.name)


def visible_files(root: Path) -> list[Path]:
    """List the files below a folder, through links, in a fixed order; names that start with a dot are left out."""
    return [Path(folder, name) for folder, below, names in os.walk(root, followlinks=True)
            if not below.sort() for name in sorted(names) if not name.startswith('.')]


def _index(base: Path, archives: dict[str, Path]) -> dict[str, list[list]]:
    """Return the members of each archive, from the index as far as it is current."""
    if not archives:
        return {}
    known, found, stale = _load_index(base), {}, []
    for name, path in archives.items():
        status, old = path.stat(), known.get(name)
        if old and (old['size'], old['mtime_ns']) == (status.st_size, status.st_mtime_ns):
            found[name] = old
        else:
            stale.append(name)
    done = 0
    with _progress(f'Index of {base}', sum(archives[name].stat().st_size for name in stale)) as show:
        for name in stale:
            status = archives[name].stat()
            members = _members(archives[name], lambda place: show(done + place))
            found[name] = dict(size=status.st_size, mtime_ns=status.st_mtime_ns, members=members)
            show(done := done + status.st_size)
    if stale:
        content = json.dumps(dict(version=VERSION, archives={**known, **found})).encode()
        _save_index(base, content)
    return {name: found[name]['members'] for name in archives}


@contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar of bytes; the context's value is a function of those that are done."""
    columns = TextColumn('{task.description}'), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not total) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, completed=done)


def _index_files(base: Path) -> list[Path]:
    """Return where an index may lie: beside the set, and in the user's cache."""
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'clipgs_plugin' / 'indexes'
    return [base / INDEX, cache / f'{hashlib.sha256(str(base.resolve()).encode()).hexdigest()[:32]}.json']


def _load_index(base: Path) -> dict[str, dict]:
    """Return the archives of an index; those of a damaged or older one are listed again."""
    for path in _index_files(base):
        if path.is_file():
            try:
                content = read_json(path, schema=_SCHEMA)
                entries = content['archives'].values()
                check_types(list(entries), [_ENTRY], str(path))
                if content['version'] == VERSION and all(_is_within(row, entry['size']) for entry in entries
                                                         for row in entry['members']):
                    return content['archives']
            except ValueError:
                continue
    return {}


def _save_index(base: Path, content: bytes) -> None:
    """Write an index where it may be written; a set without one is listed again by the next program."""
    for path in _index_files(base):
        try:
            if path.parent != base:
                path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, [content])
            return
        except OSError:
            continue


def _members(path: Path, show: Callable[[int], object] = lambda place: None) -> list[list]:
    """List name, offset, held bytes, size and CRC of the files of an archive.

    Args:
        path: The archive.
        show: Function of the byte that the listing has reached.

    Raises:
        ValueError: The archive is damaged, or a member is encrypted or compressed by another method than deflate.
    """
    try:
        rows = _zip_members(path) if path.suffix.lower() == '.zip' else _tar_members(path, show)
    except (*PARSER_ERRORS, tarfile.TarError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise ValueError(f'{path}: damaged or no archive ({str(error)[:150]}); download it again') from None
    size = path.stat().st_size
    wrong = next((row for row in rows if not _is_within(row, size)), None)
    if wrong:
        raise ValueError(f'{path}: {wrong[0]} lies beyond its {size} bytes; it is damaged or incomplete, download it '
                         'again')
    return rows


def _is_within(row: list, size: int) -> bool:
    """Check that a member lies in an archive of a size in bytes."""
    return min(row[1:4]) >= 0 and row[1] + row[2] <= size


def _zip_members(path: Path) -> list[list]:
    rows = []
    with zipfile.ZipFile(path) as archive:
        for item in archive.infolist():
            if item.is_dir():
                continue
            if item.flag_bits & 1 or item.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f'{item.filename} is encrypted or compressed by method {item.compress_type}')
            rows.append([item.filename, item.header_offset, item.compress_size, item.file_size, item.CRC])
    return rows


def _tar_members(path: Path, show: Callable[[int], object]) -> list[list]:
    rows, shown = [], 0
    with tarfile.open(path, 'r:') as archive:
        for item in iter(archive.next, None):
            archive.members.clear()  # which else hold a kilobyte each
            if item.isreg():
                rows.append([item.name, item.offset_data, item.size, item.size, -1])
            if archive.offset - shown >= SHOWN_BYTES:
                show(shown := archive.offset)
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE).strip(b'\0'):  # tarfile takes a damaged header for the end
            raise ValueError(f'the header at byte {archive.offset} is damaged')
    return rows
