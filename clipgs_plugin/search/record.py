"""Record of the codes of an index: what they cover, how much of them a search reads, and their hashes."""
from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from clipgs_plugin.io.checked_json import read_json
from clipgs_plugin.io.files import sha256_of
from clipgs_plugin.search.card import Shard
from clipgs_plugin.search.layout import CODES, RECORD, TABLES

REMEDY = 'build it again with tools/search.py INDEX --build-approximate'
VERSION = 2  # the first had codes of 8 bits, which are no longer read
MAX_PROBES, MAX_CANDIDATES = 4096, 1 << 20
_RECALL = dict(objects=float, means=float, far=float)
_SCHEMA = dict(shards=[dict(rows=int, sha256=str)], probes=int, candidates=int, recall=_RECALL,
               sha256={TABLES: str, CODES: str})


@dataclass(frozen=True)
class Recall:
    """Recall at 10 of a search against exact search, when the codes were built."""

    objects: float  # of rows
    means: float    # of means of two rows, which lie between clusters
    far: float      # of queries about as far from all rows as texts are


@dataclass(frozen=True)
class Record:
    """Coverage of a file of codes, and how much of it a search reads."""

    shards: tuple[Shard, ...]  # of the index when it was built
    probes: int                # lists
    candidates: int            # rows whose vectors are compared exactly
    recall: Recall
    sha256: tuple[tuple[str, str], ...] = ()  # of the files by name

    def content(self) -> bytes:
        """Return the content of ``approximate.json``."""
        return json.dumps({'version': VERSION, **asdict(self), 'sha256': dict(self.sha256)}).encode()


def read_record(folder: Path) -> Record:
    """Read what the codes of an index cover.

    Raises:
        ValueError: The file is damaged, or of another version.
    """
    path = folder / RECORD
    if (version := read_json(path, schema=dict(version=int))['version']) != VERSION:
        raise ValueError(f'{path} is of version {version}, expected {VERSION}; {REMEDY}')
    content = read_json(path, schema=_SCHEMA)
    shards = tuple(Shard(shard['rows'], shard['sha256']) for shard in content['shards'])
    probes, candidates = content['probes'], content['candidates']
    sound = 1 <= probes <= MAX_PROBES and 1 <= candidates <= MAX_CANDIDATES
    if not sound or any(not 0 < shard.rows < 1 << 40 for shard in shards):
        raise ValueError(f'{path} has numbers out of range; it is damaged, {REMEDY}')
    return Record(shards, probes, candidates, Recall(*(content['recall'][name] for name in _RECALL)),
                  tuple((name, content['sha256'][name]) for name in (TABLES, CODES)))


def refuse_missing_codes(folder: Path) -> None:
    """Check that the files of codes exist.

    Raises:
        FileNotFoundError: One does not.
    """
    for name in (TABLES, CODES):
        if not (folder / name).is_file():
            raise FileNotFoundError(f'{folder / name} does not exist, a part of the codes; the vectors are sound, '
                                    f'{REMEDY}')


def refuse_other_codes(folder: Path) -> None:
    """Check that the files of codes are those that were written.

    Raises:
        FileNotFoundError: One does not exist.
        ValueError: The hash of one differs.
    """
    refuse_missing_codes(folder)
    for name, expected in read_record(folder).sha256:
        with (folder / name).open('rb') as file:
            if sha256_of(file) != expected:
                raise ValueError(f'{folder / name} is not the file that was written, its SHA-256 is not that of '
                                 f'{RECORD}; the vectors are sound, {REMEDY}')
