"""Few-shot episodes: support and query objects of a task, drawn by seed or read from a file."""
from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy import ndarray

from clipgs_plugin.io.checked_json import read_json
from clipgs_plugin.io.files import write_whole
from clipgs_plugin.registry import DATASETS

FORMAT = 1
SCARCE = ('refuse', 'leave_out', 'take_all')
_FOLD = {'classes': [str], 'support': [[str]], 'query': [[str]]}
_SCHEMA = {'format': int, 'one_set': bool, 'ways': int, 'shots': int, 'queries': int, 'seed': int, 'folds': [_FOLD]}


class Labelled(Protocol):
    """Labelled objects, such as :class:`FrozenFeatures`."""

    labels: Sequence[int]    # (n,), tensors too
    uids: Sequence[str]      # (n,)
    classes: Sequence[str]   # (C,)


@dataclass(frozen=True)
class Episode:
    """A task: the objects to learn from and the objects to classify, by uid and class.

    Attributes:
        classes: Names of the W classes; their order is that of the labels of the task.
        support: Uids of the support of each class.
        query: Uids of the queries of each class.
    """

    classes: tuple[str, ...]
    support: tuple[tuple[str, ...], ...]
    query: tuple[tuple[str, ...], ...]


@DATASETS.register_module()
class FewShotEpisodes:
    """Sequence of few-shot tasks over labelled objects.

    With ``query``, the support of a task is drawn from ``support`` and its queries from ``query``, as in the folds of
    Point-BERT: two sets with the same class names. Without, both are drawn from ``support`` and are disjoint, for data
    without a split. Task i depends on (seed, i), the uids and the classes alone: not on the order of objects, not on
    the other tasks, and not on the machine. With equal ways, the support of more shots contains that of fewer.

    Args:
        support: Labelled objects to learn from.
        query: Labelled objects to classify; None draws them from ``support``.
        ways: Number of classes of a task, drawn for each; None takes all classes, in their order.
        shots: Number of support objects a class.
        queries: Number of query objects a class; None takes all that are left.
        trials: Number of tasks.
        seed: Random seed.
        scarce: Rule for classes with fewer objects than shots and queries. ``'refuse'`` is an error, ``'leave_out'``
            draws tasks from the other classes, and ``'take_all'`` takes the objects that there are, the support first.

    Raises:
        ValueError: Too few classes, or too few objects in one; the message names it.

    Example:
        >>> episodes = FewShotEpisodes(train, test, ways=5, shots=10)  # Point-BERT: 10 trials, 20 queries a class
        >>> episodes[0].classes
        ('chair', 'lamp', 'mug', 'sofa', 'table')
    """

    def __init__(self, support: Labelled, query: Labelled | None = None, ways: int | None = 5, shots: int = 10,
                 queries: int | None = 20, trials: int = 10, seed: int = 0, scarce: str = 'refuse') -> None:
        for name, value in dict(ways=ways, shots=shots, queries=queries, trials=trials).items():
            if value is not None and value < 1:
                raise ValueError(f'{name}={value}: expected at least 1')
        if scarce not in SCARCE:
            raise ValueError(f'scarce={scarce!r}: expected one of {SCARCE}')
        if query is support:
            raise ValueError('support and query are the same objects; give two splits, or leave query out to draw both '
                             'from one set, disjoint')
        self.ways, self.shots, self.queries, self.trials, self.seed = ways, shots, queries, trials, seed
        self.disjoint_sets = query is not None
        self._support = _by_class(support)
        self._query = self._support if query is None else _by_class(query)
        shared = [name for name in support.classes if query is None or name in set(query.classes)]
        lacking = {name: problem for name in shared if (problem := self._lacks(name))}
        if lacking and scarce == 'refuse':
            name, problem = next(iter(lacking.items()))
            raise ValueError(f'class {name!r} has {problem}, or set scarce to leave the class out or to take all')
        self.classes = [name for name in shared if scarce == 'take_all' or name not in lacking]
        if len(self.classes) < max(ways or 0, 2):
            raise ValueError(f'{len(self.classes)} of {len(shared)} classes in support and query have enough objects, '
                             f'expected at least {max(ways or 0, 2)}' + (f' for ways={ways}; choose fewer' if ways
                                                                         else ''))

    def _lacks(self, name: str) -> str:
        """Describe what a class has too few of; empty if it has enough."""
        wanted, needed = self.queries or 1, self.shots
        text = f'{self.shots} shots'
        if not self.disjoint_sets:
            needed, text = needed + wanted, f'{text} and {wanted} queries'
        if len(self._support[name]) < needed:
            return (f'{len(self._support[name])} objects to learn from, expected at least {needed} ({text}); choose '
                    'fewer')
        if len(self._query[name]) < wanted:
            return f'{len(self._query[name])} objects to classify, expected at least {wanted}; choose fewer queries'
        return ''

    def __len__(self) -> int:
        return self.trials

    def __getitem__(self, index: int) -> Episode:
        if not 0 <= index < self.trials:
            raise IndexError(f'trial {index}: expected 0 to {self.trials - 1}')
        rng = np.random.default_rng((self.seed, index))
        names = self.classes
        if self.ways is not None:
            names = sorted(names)
            names = [names[i] for i in rng.permutation(len(names))[:self.ways]]
        support, query = [], []
        for name in names:
            drawn = _draw(rng, self._support[name])
            support.append(tuple(drawn[:self.shots]))
            left = _draw(rng, self._query[name]) if self.disjoint_sets else drawn[self.shots:]
            query.append(tuple(left[:self.queries]))
        return Episode(tuple(names), tuple(support), tuple(query))

    def __iter__(self):
        return (self[i] for i in range(self.trials))

    def save(self, path: str | PathLike) -> None:
        """Write the tasks as JSON."""
        content = dict(format=FORMAT, one_set=not self.disjoint_sets, ways=self.ways or 0, shots=self.shots,
                       queries=self.queries or 0, seed=self.seed, folds=[asdict(episode) for episode in self])
        write_whole(Path(path), [json.dumps(content, indent=1).encode()])


def load_episodes(path: str | PathLike) -> list[Episode]:
    """Read a file of :meth:`FewShotEpisodes.save`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, of another format, or a task repeats an object.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'folds {path} do not exist; write them with FewShotEpisodes.save')
    content = read_json(path.read_bytes(), str(path), _SCHEMA)
    if content['format'] != FORMAT:
        raise ValueError(f'{path}: folds of format {content["format"]}, expected {FORMAT}; write them again')
    episodes = []
    for number, fold in enumerate(content['folds']):
        support, query = ([uid for group in fold[part] for uid in group] for part in ('support', 'query'))
        parts = [support + query] if content['one_set'] else [support, query]  # two sets may use the same uids
        if not len(fold['classes']) == len(fold['support']) == len(fold['query']) or any(
                len(set(uids)) < len(uids) for uids in parts):
            raise ValueError(f'{path}: fold {number} repeats an object, or has not one list of support and of query a '
                             'class; write the folds again')
        episodes.append(Episode(tuple(fold['classes']), tuple(map(tuple, fold['support'])),
                                tuple(map(tuple, fold['query']))))
    return episodes


def _by_class(objects: Labelled) -> dict[str, list[str]]:
    """Return the sorted uids of each class."""
    groups: dict[str, list[str]] = {name: [] for name in objects.classes}
    for uid, label in zip(objects.uids, objects.labels):
        groups[objects.classes[int(label)]].append(uid)
    return {name: sorted(uids) for name, uids in groups.items()}


def _draw(rng: np.random.Generator, uids: Sequence[str]) -> list[str]:
    """Return the uids in random order."""
    order: ndarray = rng.permutation(len(uids))
    return [uids[i] for i in order]
