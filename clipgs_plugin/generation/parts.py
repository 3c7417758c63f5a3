"""Joining of the parts that the jobs of an array have made into one dataset."""
from __future__ import annotations

import os
import shutil
from pathlib import Path

from clipgs_plugin.io.files import write_whole
from clipgs_plugin.io.lock import folder_lock
from clipgs_plugin.triplets.codecs import to_json
from clipgs_plugin.triplets.index import rebuild_index, scan_shard
from clipgs_plugin.triplets.layout import (
    FAILED,
    INDEX,
    JOINED,
    PARTS,
    SETTINGS,
    TIMINGS,
    list_shards,
    part_path,
    shard_path,
)
from clipgs_plugin.triplets.settings import describe_differences, read_settings


def join_parts(out: str | Path) -> int:
    """Join all finished parts, and the objects that the dataset already has, into one dataset.

    Shards are moved part by part and logs are concatenated. A join that was killed continues when it is started
    again. A dataset without parts counts as joined.

    Args:
        out: Folder of the dataset, the ``out`` of the runs that made the parts.

    Returns:
        Number of objects in the dataset.

    Raises:
        FileNotFoundError: There are no parts and no dataset, or a part is missing or unfinished.
        ValueError: The parts belong to different arrays, their settings or those of the dataset differ, or an object
            is stored twice. Nothing has been moved.
        FolderInUse: A run writes the dataset.
    """
    out = Path(out)
    if not out.is_dir():
        raise FileNotFoundError(f'{out} does not exist; runs with num_shards (--num-shards) make it')
    with folder_lock(out):
        return _join(out)


def _join(out: Path) -> int:
    """Return :func:`join_parts` of a locked folder."""
    if (out / JOINED).exists():  # left by a join that was killed at its end
        shutil.rmtree(out / JOINED)
    parts = _find_parts(out)
    if not parts:
        if (out / INDEX).is_file():
            return read_settings(out)['counts']['objects']
        raise FileNotFoundError(f'{out / PARTS} holds no parts; runs with num_shards (--num-shards) write them')
    settings = _check_parts(out, parts)

    (out / INDEX).unlink(missing_ok=True)  # until the join ends, the dataset must not look complete
    (out / 'shards').mkdir(exist_ok=True)
    write_whole(out / SETTINGS, [to_json(settings, indent=2)])
    number = max(list_shards(out), default=-1)
    for part in parts:
        for shard in list_shards(part):
            number += 1
            os.replace(shard_path(part, shard), shard_path(out, number))
    count = rebuild_index(out)
    for name in (FAILED, TIMINGS):  # a join that was killed below has written lines already: keep each line once
        write_whole(out / name, dict.fromkeys(line for folder in (out, *parts) for line in _lines(folder / name)))
    os.replace(out / PARTS, out / JOINED)
    shutil.rmtree(out / JOINED)
    return count


def _find_parts(out: Path) -> list[Path]:
    """Return the folders of all parts of the array, missing ones included."""
    names = sorted(path.name for path in (out / PARTS).glob('[0-9]*-of-[0-9]*'))
    if not names:
        return []
    count = int(names[0].partition('-of-')[2])
    parts = [part_path(out, i, count) for i in range(count)]
    foreign = sorted(set(names) - {part.name for part in parts})
    if foreign:
        raise ValueError(f'{out / PARTS} holds {names[0]} and {foreign[0]}, parts of different arrays; delete the '
                         'parts of one array')
    return parts


def _check_parts(out: Path, parts: list[Path]) -> dict:
    """Return the common settings of the parts, which are all finished and share no object with the dataset."""
    for part in parts:
        if not (part / INDEX).is_file():
            raise FileNotFoundError(f'{part} is not finished; run its shard_index '
                                    f'(--shard-index {int(part.name[:5])}) again')
    remedies = dict.fromkeys(parts, 'make it again')
    if (out / SETTINGS).is_file() or list_shards(out):
        remedies[out] = f'move {out / PARTS} into another folder and join it there'
    wanted, seen = _settings(parts[0]), {}
    for folder, remedy in remedies.items():
        found = _settings(folder)
        if found != wanted:
            raise ValueError(f'{folder} was made with other settings than {parts[0]}: '
                             f'{describe_differences(found, wanted)}; {remedy}')
        for uid in _uids(folder):
            if uid in seen:
                raise ValueError(f'{uid!r} is in {seen[uid]} and in {folder}; {remedy}')
            seen[uid] = folder
    return wanted


def _settings(folder: Path) -> dict:
    return {key: value for key, value in read_settings(folder).items() if key != 'counts'}


def _uids(folder: Path) -> list[str]:
    """Return the uids in the shards of a folder; a join that was killed may have moved some of its shards."""
    import pyarrow.parquet as pq
    shards = set(list_shards(folder))
    if (folder / INDEX).is_file():
        columns = pq.read_table(folder / INDEX, columns=['uid', 'shard']).to_pydict()
        return [uid for uid, shard in zip(columns['uid'], columns['shard']) if shard in shards]
    return [row['uid'] for shard in shards for row in scan_shard(shard_path(folder, shard))]


def _lines(path: Path) -> list[bytes]:
    """Return the lines of a log, without a last line that a kill cut off."""
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    return [line for line in lines if line.endswith(b'\n')]
