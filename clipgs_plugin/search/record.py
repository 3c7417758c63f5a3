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
MAX_PROBES, MAX_CANDIDATES = 4096, 1 << 20
_READING = dict(probes=int, candidates=int, recall=float)
_SCHEMA = {'version': int, 'shards': [dict(rows=int, sha256=str)], **_READING, 'recall_between': float,
           'far?': _READING, 'near?': float, 'sha256?': {TABLES: str, CODES: str}}


@dataclass(frozen=True)
class Reading:
    """Part of the codes that a search reads, and how well it finds with it."""

    probes: int      # lists
    candidates: int  # rows whose vectors are compared exactly
    recall: float    # at 10 against exact search, when the codes were built


@dataclass(frozen=True)
class Record:
    """Coverage of a file of codes, and settings of its search."""

    shards: tuple[Shard, ...]    # of the index when it was built
    usual: Reading               # recall of rows
    recall_between: float        # likewise, of means of two rows
    far: Reading | None = None   # of queries far from all rows; None in older indexes, which ask once
    near: float = -1.            # least cosine of the best match of a query that is not far
    sha256: tuple[tuple[str, str], ...] = ()  # of the files by name; empty in older indexes

    def content(self) -> bytes:
        """Return the content of ``approximate.json``."""
        found = {'version': 1, 'shards': [asdict(shard) for shard in self.shards], **asdict(self.usual),
                 'recall_between': self.recall_between, 'near': self.near, 'sha256': dict(self.sha256)}
        return json.dumps(found | ({} if self.far is None else {'far': asdict(self.far)})).encode()


def read_record(folder: Path) -> Record:
    """Read what the codes of an index cover.

    Raises:
        ValueError: The file is damaged.
    """
    path = folder / RECORD
    content = read_json(path, schema=_SCHEMA)
    shards = tuple(Shard(shard['rows'], shard['sha256']) for shard in content['shards'])
    usual, far = (None if found is None else Reading(*(found[name] for name in _READING))
                  for found in (content, content.get('far')))
    sound = all(1 <= each.probes <= MAX_PROBES and 1 <= each.candidates <= MAX_CANDIDATES
                for each in (usual, far) if each is not None)
    if content['version'] != 1 or not sound or any(not 0 < shard.rows < 1 << 40 for shard in shards):
        raise ValueError(f'{path} has numbers out of range; it is damaged or of another version, {REMEDY}')
    return Record(shards, usual, content['recall_between'], far, content.get('near', -1.),
                  tuple(content.get('sha256', {}).items()))


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
    """Check that the files of codes are those that were written; older indexes do not tell.

    Raises:
        FileNotFoundError: One does not exist.
        ValueError: The hash of one differs.
    """
    refuse_missing_codes(folder)
    for name, expected in read_record(folder).sha256:
        if name not in (TABLES, CODES):
            continue
        with (folder / name).open('rb') as file:
            if sha256_of(file) != expected:
                raise ValueError(f'{folder / name} is not the file that was written, its SHA-256 is not that of '
                                 f'{RECORD}; the vectors are sound, {REMEDY}')
