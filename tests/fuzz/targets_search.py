"""Readers of indexes in folders."""
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

import torch
from harness import Target
from torch.nn.functional import normalize

from clipgs_plugin.search import IndexCard, IndexWriter, SearchIndex, build_approximate

WIDTH, CODED = 8, 4200


@cache
def query() -> torch.Tensor:
    return normalize(torch.ones(WIDTH), dim=0)


def folder(folder: Path) -> Path:
    """Write an index of seven rows in two shards, one of them gone."""
    rows = normalize(torch.randn(7, WIDTH, generator=torch.Generator().manual_seed(0)), dim=1)
    with IndexWriter(folder / 'index', IndexCard('clipgs_toy', WIDTH), 4) as index:
        for i, row in enumerate(rows):
            index.add(f'/objects/{i}.ply', row, size=0, mtime_ns=0, gaussians=i, category='chair', quality=30.5)
        index.drop(['/objects/2.ply'])
    return folder / 'index'


def coded(folder: Path) -> Path:
    """Write an index with codes."""
    rows = normalize(torch.randn(CODED, WIDTH, generator=torch.Generator().manual_seed(0)), dim=1)
    with IndexWriter(folder / 'index', IndexCard('clipgs_toy', WIDTH)) as index:
        for i, row in enumerate(rows):
            index.add(f'/objects/{i}.ply', row, size=0, mtime_ns=0, gaussians=i)
    build_approximate(folder / 'index')
    return folder / 'index'


def read_coded(folder: Path) -> list:
    """Ask an index by its codes."""
    return SearchIndex.load(folder).find(query(), 10)


def read(folder: Path) -> list:
    """Read an index and ask it, without the hashes, which a stranger would write as well."""
    with patch('clipgs_plugin.search.folder.VERIFIED_BYTES', 0):
        index = SearchIndex.load(folder)
    return index.find(query(), 10, ['gaussians>=0', 'category!=table']) + index.find(query(), 10)


def unsound(matches: list) -> str | None:
    sound = all(isinstance(match.path, str) and abs(match.score) < 1.01 for match in matches)
    return None if sound and len(matches) <= 14 else f'matches {matches!r:.200}'


TARGETS = [Target('index-folder', folder, read, unsound)]
if find_spec('faiss') is not None:  # of the extra search
    TARGETS.append(Target('index-codes', coded, read_coded, unsound, kept=('*.npy', '*.parquet', 'index.json')))
