"""Checks of shards as files."""
from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from clipgs_plugin.triplets.layout import GAUSSIANS, OPEN, PARTS, RECORD, SHARDS, VIEW, shard_path

_MEMBER = re.compile(rf'[A-Za-z0-9_-]+\.({re.escape(GAUSSIANS)}|{RECORD}|\d+{re.escape(VIEW)})')
_CHUNK = 1 << 20  # bytes read at a time


def find_shards(root: Path) -> tuple[list[int], list[str]]:
    """List the numbers of the shards, ascending, and the problems of the other files."""
    shards, problems = [], []
    for path in sorted((root / SHARDS).glob('*')):
        name = f'{SHARDS}/{path.name}'
        if re.fullmatch(r'\d{5,}\.tar', path.name) and path == shard_path(root, int(path.stem)) and path.is_file():
            shards.append(int(path.stem))
        elif path.name.endswith(f'.tar{OPEN}'):
            problems.append(f'{name}: the open shard of a run that has not finished; resume the run')
        else:
            problems.append(f'{name} is not a shard (00000.tar, 00001.tar, ...); move it elsewhere')
    if (root / PARTS).is_dir():
        problems.append(f'{PARTS}/ contains parts of job arrays that are not in the shards; join them with '
                        'tools/make_triplets.py --join')
    return sorted(shards), problems


def check_members(path: Path) -> Iterator[str]:
    """Check that every tar member belongs to an object, and that only zeros follow the last one.

    Tar readers stop silently at a damaged header, as if the tar file ended there.
    """
    end, others = 0, []
    with tarfile.open(path, 'r:') as tar:
        for info in tar:
            end = info.offset_data + -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            if not _MEMBER.fullmatch(info.name):
                others.append(info.name)
    if others:
        yield (f'{path.name} contains {len(others)} file{"s" * (len(others) != 1)} without an object, the first '
               f'{others[0]}')
    with path.open('rb') as file:
        file.seek(end)
        while chunk := file.read(_CHUNK):
            if chunk.strip(b'\0'):
                yield (f'{path.name} continues after byte {end} without a readable tar header: it is damaged, and tar '
                       'readers lose the rest; download it again')
                return


def hash_file(file: BinaryIO) -> str:
    """Compute the sha256 of a file that is open at its start."""
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def read_bytes(file: BinaryIO, offset: int, size: int) -> bytes:
    """Read a member of a shard.

    Raises:
        ValueError: The file ends before the member does.
    """
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise ValueError(f'the file is truncated: expected bytes {offset} to {offset + size}')
    return data
