"""Embedding of a folder in which some files are damaged, as tools/embed.py does it."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from clipgs_plugin.tools.benchmarks.timing import Case

DISTINCT = 200  # toy objects, which the files repeat
# Ways to damage the bytes of a file of any format.
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    'empty': lambda data: b'', 'a text': lambda data: b'this is no splat\n', 'cut short': lambda data: data[:-7],
    'half of it': lambda data: data[:len(data) // 64 * 32 + 5],
    'another start': lambda data: b'\xff' * 64 + data[64:], 'zeros': lambda data: bytes(len(data) // 32 * 32 + 1)}


def bad_files(files: int = 10_000, bad: int = 50, model: str = 'clipgs_toy', workers: int = 2, gaussians: int = 1024,
              seed: int = 0) -> list[Case]:
    """Embed a folder of toy objects in three formats, some of whose files are damaged in six ways, twice, and compare
    the rows of the index and the lines of failed.jsonl with the files that are sound and damaged. MB is the peak of
    the largest process."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, index = Path(temporary) / 'files', Path(temporary) / 'index'
        damaged = write_files(folder, files, bad, gaussians, seed)
        return [embedded(folder, index, damaged, way, f'{files:,} files, {bad} of them damaged', model, workers)
                for way in ('first run', 'second run')]


def write_files(folder: Path, files: int, bad: int, gaussians: int, seed: int) -> set[str]:
    """Write sound files, most of them as links to a few, and damaged ones; return the paths of the latter."""
    from clipgs_plugin.toy_world.writing import export_files
    toys = export_files(folder.with_name('toys'), min(DISTINCT, files), gaussians, seed)
    chosen = set(np.random.default_rng(seed).permutation(files)[:bad].tolist())
    ways, damaged = list(DAMAGES.values()), set()
    folder.mkdir()
    for i in range(files):
        toy = toys[i % len(toys)]
        path = folder / f'{i:06d}{toy.suffix}'
        if i in chosen:
            path.write_bytes(ways[len(damaged) % len(ways)](toy.read_bytes()))
            damaged.add(str(path))
        else:
            link(toy, path)
    return damaged


def link(source: Path, path: Path) -> None:
    """Link a file, or copy it where the system does not link."""
    try:
        os.link(source, path)
    except OSError:
        shutil.copyfile(source, path)


def embedded(folder: Path, index: Path, damaged: set[str], way: str, what: str, model: str, workers: int) -> Case:
    """Run the program on a folder, and describe what is in the index and in the list of failures."""
    from clipgs_plugin.io.json_lines import JsonLines
    from clipgs_plugin.search import SearchIndex
    start, before = time.perf_counter(), os.times()
    command = [sys.executable, '-m', 'clipgs_plugin.tools.embed', str(folder), '-o', str(index), '--model', model,
               '--workers', str(workers)]
    status = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
    seconds, after = time.perf_counter() - start, os.times()
    cpu = sum(after[2:4]) - sum(before[2:4])
    rows = set(SearchIndex.load(index, verify=True).paths)
    listed = {entry['path'] for entry in JsonLines(index / 'failed.jsonl').entries(dict(path=str, message=str))}
    files = {entry.path for entry in os.scandir(folder)}
    right = rows == files - damaged and listed == damaged
    return Case(what, way, workers, 1e3 * seconds / len(files), 1e3 * cpu / len(files), 'object', memory_mb=largest(),
                note=f'{len(rows):,} rows and {len(listed)} lines of failed.jsonl, {"" if right else "NOT "}those of '
                     f'the sound and the damaged files; status {status}, {seconds:.0f} s')


def largest() -> float | None:
    """Return the peak memory in MB of the largest process that has ended, None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 2 ** 20
