"""Running the cells of a table, in one process or several, and what they amount to."""
from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from mmengine.config import Config

from clipgs_plugin.engine import cells
from clipgs_plugin.engine.cells import Data
from clipgs_plugin.engine.experiments import markdown_table, mean_and_spread, resumable, train
from clipgs_plugin.engine.table_spec import Row, Table
from clipgs_plugin.evaluation.bootstrap import Difference, paired_difference
from clipgs_plugin.evaluation.record import NAME
from clipgs_plugin.io.files import write_whole
from clipgs_plugin.io.lock import FolderInUse, folder_lock
from clipgs_plugin.models.checkpoints import export_point_cloud_checkpoint

WAIT = 2.0  # seconds between looks at a folder that another process fills


@dataclasses.dataclass(frozen=True)
class Runs:
    """The cells of a table and the folder of their results.

    Attributes:
        table: The table.
        out: Folder of all files.
        seeds: Number of seeds of a trained row.
        rows: Titles of the rows; empty for all that need nothing of the user.
        worlds: Folder of the toy worlds.
        data_root: Folder of the user's data in place of the worlds.
        options: Settings of the user for all configs, by dotted keys.
        changes: Settings of the user that the table was loaded with, which stand below it.

    Raises:
        ValueError: A title is unknown, or the table has fewer repeats than seeds.
    """

    table: Table
    out: Path
    seeds: int
    rows: tuple[str, ...] = ()
    worlds: Path = Path('work_dirs', 'tables', 'worlds')
    data_root: str | None = None
    options: Mapping = dataclasses.field(default_factory=dict)
    changes: Mapping = dataclasses.field(default_factory=dict)
    _settings: dict[tuple[str, int], str] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.table.select(self.rows)
        if self.seeds < 1 or 0 < len(self.table.repeats) < self.seeds:
            raise ValueError(f'{self.seeds} seeds: expected at least 1' + (
                f', and at most {len(self.table.repeats)}, the repeats of the table {self.table.name}'
                if self.table.repeats else ''))

    @property
    def data(self) -> Data:
        return Data(self.world_folder, self.data_root, self.options)

    def world_folder(self, world: Mapping) -> str:
        """Return the folder of a world."""
        return str(self.worlds / cells.described(world))

    def cells(self, rows: Iterable[Row] | None = None) -> list[tuple[Row, int]]:
        """List rows and seeds, seed after seed, so that an interrupted table has all rows; by default those to run."""
        rows = self.table.select(self.rows) if rows is None else rows
        return [(row, seed) for seed in range(self.seeds) for row in rows
                if row.trained or self.table.repeats or seed == 0]

    def path(self, row: Row, seed: int) -> Path:
        """Return the file of a cell's results."""
        if (row.title, seed) not in self._settings:  # a config takes a fifth of a second to load
            self._settings[row.title, seed] = cells.digest(self.table, row, seed, self.data)
        return self.out / 'cells' / cells.file_name(row, seed, self._settings[row.title, seed])

    def results(self) -> dict[str, dict[int, dict]]:
        """Read the results that are there, by title and seed, also of rows that run only if they are named."""
        found: dict[str, dict[int, dict]] = {}
        for row, seed in self.cells(None if self.rows else self.table.rows):
            try:
                path = self.path(row, seed)
            except FileNotFoundError:  # of the weights that decide its settings
                if not row.needs:
                    raise
                continue
            if path.is_file():
                found.setdefault(row.title, {})[seed] = json.loads(path.read_text(encoding='utf-8'))
        return found


def run_cells(
    runs: Runs,
    prepare: Callable[[Path, Mapping], object],
    shard: tuple[int, int] = (0, 1),
    track: Callable[[Iterable], Iterable] = iter,
) -> None:
    """Run the cells of a table that have no results yet; print a line for each on standard error.

    A cell takes the results of one that has the same settings, in this table or in one whose folder is beside it.

    Args:
        runs: Cells and their folder.
        prepare: Function that makes a world of some settings in a folder, or returns at once if it is there.
        shard: Number I and count N: this process runs every N-th cell, from the I-th on.
        track: Function that wraps the list of cells, such as a progress bar.
    """
    number, count = shard
    for row, seed in track(runs.cells()[number::count]):
        path = runs.path(row, seed)
        work_dir = path.with_suffix('')
        work_dir.mkdir(parents=True, exist_ok=True)
        try:
            with folder_lock(work_dir):
                known = path.is_file() or _taken(path, row)
                cfg = None if known else _prepared(runs, row, seed, work_dir, prepare)
                found = resumable(path, partial(cells.run_cell, cfg, runs.table, row))
        except FolderInUse:
            print(f'{row.title}, seed {seed}: another process runs it', file=sys.stderr)
            continue
        shown = ', '.join(f'{heading} {found["metrics"][name]:.1f}' for heading, name in runs.table.metrics.items()
                          if name in found['metrics'])
        print(f'{row.title}, seed {seed}: {shown} ({found["seconds"]:.0f} s{", read" if known else ""})',
              file=sys.stderr)


def _taken(path: Path, row: Row) -> bool:
    """Write the results that a row has for the same settings under another title or in a table beside this one."""
    settings = path.stem.rpartition('-')[2]
    other = min(path.parents[2].glob(f'*/cells/*-{settings}.json'), default=None)
    if other is None:
        return False
    found = json.loads(other.read_text(encoding='utf-8'))
    record = other.with_suffix('') / NAME
    if record.is_file():  # not of cells of earlier versions
        write_whole(path.with_suffix('') / NAME, [record.read_bytes()])
    write_whole(path, [json.dumps({**found, 'row': row.title}).encode()])
    return True


def _prepared(runs: Runs, row: Row, seed: int, work_dir: Path, prepare: Callable[[Path, Mapping], object]) -> Config:
    """Return the config of a cell, whose data and first checkpoint are made if need be."""
    table = runs.table
    start = table.pretrainings[row.start] if row.start else None
    if table.worlds and runs.data_root is None:
        for part in filter(None, (start, row)):
            if part.world is not None:
                _prepare_world(runs, table.worlds[part.world], prepare)
    checkpoint = str(_pretrained(runs, row.start)) if row.start else None
    return cells.cell_config(table, row, seed, runs.data, work_dir, checkpoint)


def _prepare_world(runs: Runs, world: Mapping, prepare: Callable[[Path, Mapping], object]) -> None:
    """Make a world unless its folder is complete; processes that want the same one wait for each other."""
    folder = Path(runs.world_folder(world))
    done = folder.parent / f'{folder.name}.made'
    if done.is_file():
        return
    with _waiting_lock(folder.parent / f'{folder.name}.making'):
        if not done.is_file():
            prepare(folder, world)
            done.touch()


def _pretrained(runs: Runs, name: str) -> Path:
    """Return the checkpoint of a pre-training, which is run if there is none."""
    table, part = runs.table, runs.table.pretrainings[name]
    file = runs.out / 'checkpoints' / f'{part.family}-{cells.digest(table, part, 0, runs.data)}.pth'
    work_dir = file.with_suffix('')
    with _waiting_lock(work_dir):
        if not file.is_file():
            model = train(cells.cell_config(table, part, 0, runs.data, work_dir))
            export_point_cloud_checkpoint(model.encoder, file.with_suffix('.part'), part.family)
            file.with_suffix('.part').rename(file)
    return file


@contextmanager
def _waiting_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder as soon as it is free."""
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            with folder_lock(folder):
                yield
                return
        except FolderInUse:
            time.sleep(WAIT)


def summarise(runs: Runs) -> tuple[str, dict]:
    """Format the results that are there as Markdown, and return them as plain data too."""
    table, found = runs.table, runs.results()
    rows = table.select(runs.rows) if runs.rows else table.rows
    row_of = {row.title: row for row in table.rows}
    lines = [[row.title, str(len(found.get(row.title, {})) or '-'),
              *(mean_and_spread(_values(found.get(row.title, {}), name)) for name in table.metrics.values())]
             for row in rows]
    text = [f'{table.title}\n', markdown_table(['', 'seeds', *table.metrics], lines)]
    if settings := [f'{key}={value}' for key, value in {**runs.changes, **runs.options}.items()]:
        text.append(f'\nWith {", ".join(settings)}.')
    if needed := [row for row in rows if row.needs and row.title not in found]:
        text.append('\nNot run: ' + '; '.join(f'{row.title} needs {row.needs}' for row in needed) + '.')
    compared = _compared(runs, found)
    pairs = [(first, second, {heading: difference(compared, first, second, name)
                              for heading, name in table.metrics.items()})
             for first, second in table.compare if first in found and second in found]
    if pairs:
        text += ['\nDifferences between rows, with their 95 % interval:\n',
                 markdown_table(['', *table.metrics], [[f'{second} − {first}', *map(_shown, each.values())]
                                                       for first, second, each in pairs])]
    plain = dict(table=table.name, title=table.title,
                 rows=[dict(title=title, seeds=sorted(each),
                            cells=[runs.path(row_of[title], seed).stem for seed in sorted(each)],
                            seconds=[cell['seconds'] for cell in each.values()],
                            metrics={name: _values(each, name) for name in _names(each)})
                       for title, each in found.items()],
                 differences=[dict(first=first, second=second,
                                   metrics={heading: each and dataclasses.asdict(each) for heading, each in by.items()})
                              for first, second, by in pairs])
    return '\n'.join(text), plain


def save_summary(runs: Runs) -> str:
    """Write ``table.md`` and ``table.json`` into the folder of a table; return the Markdown."""
    text, plain = summarise(runs)
    runs.out.mkdir(parents=True, exist_ok=True)
    write_whole(runs.out / 'table.md', [f'{text}\n'.encode()])
    write_whole(runs.out / 'table.json', [json.dumps(plain, indent=1).encode()])
    return text


def difference(found: Mapping[str, Mapping[int, dict]], first: str, second: str, name: str) -> Difference | None:
    """Estimate the difference of a metric between two rows, over the seeds that both have.

    Objects are resampled too if all cells have the outcomes of the same objects.

    Args:
        found: Results by title and seed.
        first: Title of the row that is subtracted.
        second: Title of the other row.
        name: Name of the metric.

    Returns:
        The difference in percent, or None if no seed of both has the metric.
    """
    seeds = sorted({*found[first]} & {*found[second]})
    pairs = [(found[first][seed], found[second][seed]) for seed in seeds]
    pairs = [pair for pair in pairs if all(name in cell['metrics'] for cell in pair)]
    if not pairs:
        return None
    objects = {cell['objects'].get(name) for pair in pairs for cell in pair}
    if len(objects) == 1 and None not in objects:
        sides = [torch.tensor([[100.0 * int(digit) for digit in cell['outcomes'][name]] for cell in side])
                 for side in zip(*pairs)]
    elif len(pairs) > 1:
        sides = [torch.tensor([cell['metrics'][name] for cell in side]) for side in zip(*pairs)]
    else:
        return None
    return paired_difference(*sides)


def _compared(runs: Runs, found: Mapping[str, dict[int, dict]]) -> dict[str, dict[int, dict]]:
    """Return results by title and seed, where an untrained row has its one result for every seed."""
    once = {row.title for row in runs.table.rows if not (row.trained or runs.table.repeats)}
    return {title: dict.fromkeys(range(runs.seeds), each[0]) if title in once else each
            for title, each in found.items()}


def _names(cells_of_row: Mapping[int, dict]) -> list[str]:
    return sorted(set().union(*(cell['metrics'] for cell in cells_of_row.values())))


def _values(cells_of_row: Mapping[int, dict], name: str) -> list[float]:
    return [cell['metrics'][name] for cell in cells_of_row.values() if name in cell['metrics']]


def _shown(estimate: Difference | None) -> str:
    return '-' if estimate is None else f'{estimate.mean:+.1f} [{estimate.low:+.1f}, {estimate.high:+.1f}]'
