"""Checks of ``index.parquet`` against the shards."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clipgs_plugin.triplets.index import REBUILD, read_index
from clipgs_plugin.triplets.inspection.result import describe
from clipgs_plugin.triplets.layout import INDEX


def load_index(root: Path) -> tuple[object | None, list[str]]:
    """Read the index.

    Returns:
        The Arrow table, None if it is unusable, and the problems.
    """
    try:
        return read_index(root), []
    except FileNotFoundError:
        return None, [f'{INDEX} is missing: the run that writes the dataset has not finished; resume it, or use '
                      'clipgs_plugin.triplets.rebuild_index']
    except (OSError, ValueError) as error:
        return None, [describe(error)]


def compare_uids(rows: list[dict], indexed: list[dict]) -> Iterator[str]:
    """Compare the objects of one shard with the objects that the index lists for it."""
    uids, index_uids = [row['uid'] for row in rows], [row['uid'] for row in indexed]
    for extra, reason in ((set(index_uids) - set(uids), 'lists {} missing from the shard'),
                          (set(uids) - set(index_uids), 'lacks {} of the shard')):
        if extra:
            objects = f'{len(extra)} object{"s" * (len(extra) != 1)}'
            yield (f'{INDEX} {reason.format(objects)}, the first {min(extra)}; it may belong to another dataset; '
                   f'{REBUILD}')
    common = set(uids) & set(index_uids)
    if [uid for uid in uids if uid in common] != [uid for uid in index_uids if uid in common]:
        yield f'{INDEX} lists the objects in another order than the shard'


def compare_row(row: dict, indexed: dict) -> Iterator[str]:
    """Compare the columns of an object in the index with its values in the shard."""
    different = sorted(key for key, value in row.items() if key in indexed and indexed[key] != value)
    if different:
        key = different[0]
        yield (f'{INDEX} has {key} {indexed[key]!r}, the shard {row[key]!r}'
               + (f' ({len(different)} columns differ)' if len(different) > 1 else ''))
