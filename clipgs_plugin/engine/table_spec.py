"""Tables of experiments as data: rows of config overrides, the metrics to show and the rows to compare."""
from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from clipgs_plugin.apis.configs import config_root, get_config

FOLDER = 'ablations'


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """A point-cloud model from which rows start, trained once a table and exported in the format of its family.

    Attributes:
        config: Name or path of its config.
        family: Family of the exported checkpoint.
        options: Settings that override the config's, by dotted keys.
        world: Name of the table's world it is trained on.
    """

    config: str
    family: str
    options: Mapping = dataclasses.field(default_factory=dict)
    world: str | None = 'main'


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        title: Name in the table.
        config: Name or path of its config; None takes the table's.
        options: Settings that override the config's, by dotted keys.
        start: Name of the pre-training from which it starts; None starts as the config says.
        world: Name of the table's world it is trained and tested on; None takes the data of the config.
        trained: False for a model that is only tested, and so has no seeds.
        needs: What a user must have for the row, such as published weights; it runs only if it is named.
    """

    title: str
    config: str | None = None
    options: Mapping = dataclasses.field(default_factory=dict)
    start: str | None = None
    world: str | None = 'main'
    trained: bool = True
    needs: str = ''


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of experiments.

    Attributes:
        name: Name of the table, the stem of its file.
        title: Sentence above the table.
        rows: Rows in their order.
        metrics: Metric of each column, by the heading of the column.
        config: Name or path of the config of rows without one.
        options: Settings of all rows and pre-trainings, by dotted keys, below those of the row.
        worlds: Settings of toy worlds, by name; without any, rows take the data of their configs.
        pretrainings: Pre-trainings by name.
        tests: Settings that make a test set of the config's own, by name, where the metrics of a test are called
            ``NAME/METRIC``; empty for the config's own test set.
        probe: Settings that make the dataset of labelled objects of the config's test dataset. A linear probe on
            their pooled features is then the metric ``probe/top1``. None does without.
        compare: Pairs of titles (a, b); the difference b - a is estimated.
        repeats: Settings of each repeat, such as its fold, besides the seed; empty for repeats by seed alone.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    metrics: Mapping[str, str]
    config: str | None = None
    options: Mapping = dataclasses.field(default_factory=dict)
    worlds: Mapping[str, Mapping] = dataclasses.field(default_factory=dict)
    pretrainings: Mapping[str, Pretraining] = dataclasses.field(default_factory=dict)
    tests: Mapping[str, Mapping] = dataclasses.field(default_factory=dict)
    probe: Mapping | None = None
    compare: tuple[tuple[str, str], ...] = ()
    repeats: tuple[Mapping, ...] = ()

    def __post_init__(self) -> None:
        titles = [row.title for row in self.rows]
        if len(set(titles)) < len(titles):
            raise ValueError(f'table {self.name}: two rows have the same title among {titles}; rename one')
        _check_known(self, 'compare', {title for pair in self.compare for title in pair}, titles)
        _check_known(self, 'start', {row.start for row in self.rows} - {None}, self.pretrainings)
        if self.worlds:
            used = {part.world for part in (*self.rows, *self.pretrainings.values())}
            _check_known(self, 'world', used - {None}, self.worlds)
        for row in self.rows:
            if row.config is None and self.config is None:
                raise ValueError(f'table {self.name}: row {row.title!r} has no config; set config of the row or of '
                                 'the table')

    def select(self, titles: Sequence[str] = ()) -> list[Row]:
        """Return the rows with the given titles, or without any those that need nothing of the user.

        Raises:
            ValueError: A title is unknown.
        """
        _check_known(self, 'rows', set(titles), [row.title for row in self.rows])
        return [row for row in self.rows if (row.title in titles if titles else not row.needs)]


def _check_known(table: Table, field: str, found: set[str], known) -> None:
    if unknown := sorted(found - set(known)):
        raise ValueError(f'table {table.name}, {field} {unknown}: expected some of {list(known)}')


def list_tables() -> list[str]:
    """List the names of the shipped tables."""
    return sorted(path.stem for path in (config_root() / FOLDER).glob('*.py'))


def load_table(name: str | Path, options: Mapping | None = None) -> Table:
    """Load a table by its name or the path of its file.

    Args:
        name: Name of a shipped table, or path of a ``.py`` file.
        options: Settings that override the table's, by dotted keys, such as ``worlds.main.num_train``.

    Raises:
        FileNotFoundError: There is no such table; the message lists the shipped ones.
        ValueError: A field of the table is missing or unknown.
    """
    path = Path(name) if Path(name).suffix == '.py' else config_root() / FOLDER / f'{name}.py'
    if not path.is_file():
        raise FileNotFoundError(f'no table is named {str(name)!r}; expected one of {", ".join(list_tables())}, or the '
                                'path of a .py file')
    content = {key: value for key, value in get_config(path, options).to_dict().items() if not key.startswith('_')}
    parts = {'rows': tuple(_build(Row, row, path) for row in content.pop('rows', ())),
             'pretrainings': {key: _build(Pretraining, each, path)
                              for key, each in content.pop('pretrainings', {}).items()},
             'compare': tuple(map(tuple, content.pop('compare', ()))), 'repeats': tuple(content.pop('repeats', ()))}
    return _build(Table, {**content, **parts, 'name': path.stem}, path)


def _build(kind: type, content: Mapping, path: Path):
    """Build a part of a table from plain data."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(set(content) - set(fields))
    missing = sorted(name for name, field in fields.items() if name not in content
                     and field.default is field.default_factory is dataclasses.MISSING)
    if unknown or missing:
        raise ValueError(f'{path}: {kind.__name__.lower()} with unknown {unknown} and missing {missing}; its fields '
                         f'are {list(fields)}')
    return kind(**content)
