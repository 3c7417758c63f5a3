"""The few-shot folds of ModelNet40 that Point-BERT published."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy import ndarray

from clipgs_plugin.datasets.base import GaussianDataset
from clipgs_plugin.datasets.episodes import Episode, Labelled
from clipgs_plugin.datasets.public.class_names import MODELNET40
from clipgs_plugin.io.files import refuse_damage
from clipgs_plugin.io.pickles import read_pickle
from clipgs_plugin.registry import DATASETS
from clipgs_plugin.structures.discs import surface_discs

GREY = 0.4  # colour of point clouds without one
FOLDS, QUERIES = 10, 20  # folds of a setting, test objects of a class in a fold


def fold_file(root: str | Path, ways: int, shots: int, fold: int) -> Path:
    """Find the file of a fold, in ``5way10shot/`` (Point-BERT's documentation) or ``5way_10shot/`` (its code).

    Raises:
        FileNotFoundError: Neither is there.
    """
    places = [Path(root) / f'{ways}way{mark}{shots}shot' / f'{fold}.pkl' for mark in ('', '_')]
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        raise FileNotFoundError(f'fold {places[0]} does not exist, nor does {places[1]}; download the folds of '
                                'Point-BERT (ModelNetFewshot) and name their folder')
    return found


@DATASETS.register_module()
class PublishedFold(GaussianDataset):
    """One part of a published few-shot fold, as Gaussians: each point with a normal is a thin grey disc.

    A file is a pickle of ``{'train': [(points (8192, 6), label, class), ...], 'test': ...}``, with 20 test objects a
    class. Only arrays and plain data are unpickled. Labels are those of the task, 0 to ways - 1; classes are named by
    ``class_names``, or by their numbers.

    Args:
        root: Folder of the folds, ``ModelNetFewshot``.
        ways: Number of classes.
        shots: Number of support objects a class.
        fold: Number of the fold, 0 to 9.
        part: ``'train'`` or ``'test'``.
        class_names: Names of the 40 classes in their order.
        pipeline, seed, test_mode: See :class:`GaussianDataset`.

    Raises:
        FileNotFoundError: There is no such fold.
        ValueError: The file is damaged, of another layout, or could run code.
    """

    def __init__(self, root: str | Path, ways: int, shots: int, fold: int, part: str,
                 class_names: Sequence[str] | None = None, pipeline: Sequence[dict | Callable] = (), seed: int = 0,
                 test_mode: bool = True) -> None:
        super().__init__(pipeline, seed, test_mode)
        if part not in ('train', 'test'):
            raise ValueError(f"part={part!r}: expected 'train' or 'test'")
        self.path, self.part = fold_file(root, ways, shots, fold), part
        with refuse_damage(self.path, 'few-shot fold'):
            self._items = [_item(entry) for entry in read_pickle(self.path)[part]]
        originals = dict((label, original) for _, label, original in self._items)
        if sorted(originals) != list(range(ways)):
            raise ValueError(f'{self.path}: {part} has labels {sorted(originals)}, expected 0 to {ways - 1}')
        self.numbers = [originals[label] for label in range(ways)]  # of the classes, by the label of the task
        if class_names is not None and not 0 <= min(self.numbers) <= max(self.numbers) < len(class_names):
            raise ValueError(f'{self.path}: classes {min(self.numbers)} to {max(self.numbers)}, but class_names has '
                             f'{len(class_names)}; give the names of all classes in their order')
        self.classes = [str(number) if class_names is None else class_names[number] for number in self.numbers]

    def __len__(self) -> int:
        return len(self._items)

    def load(self, index: int, rng: np.random.Generator) -> dict:
        points, label, _ = self._items[index]
        normals = points[:, 3:] / np.maximum(np.linalg.norm(points[:, 3:], axis=1, keepdims=True), 1e-9)
        cloud = surface_discs(points[:, :3], normals, np.full((len(points), 3), GREY))
        return dict(uid=f'{self.path.stem}/{self.part}/{index:04d}', gaussians=cloud, label=label,
                    category=self.classes[label])


@DATASETS.register_module()
class PublishedFolds(GaussianDataset):
    """One part of all published folds of a setting, with the labels of the 40 classes.

    Frozen features of both parts and :func:`published_episodes` give the published tasks. One fold at a time is in
    memory, so objects are read fastest in order.

    Args:
        root, ways, shots, part: See :class:`PublishedFold`.
        folds: Number of folds to read, from fold 0.
        class_names: Names of all classes in their order.
        pipeline, seed, test_mode: See :class:`GaussianDataset`.

    Raises:
        FileNotFoundError: A fold is absent.
        ValueError: A file is damaged or of another layout, or could run code.
    """

    def __init__(self, root: str | Path, ways: int, shots: int, part: str, folds: int = FOLDS,
                 class_names: Sequence[str] = MODELNET40, pipeline: Sequence[dict | Callable] = (), seed: int = 0,
                 test_mode: bool = True) -> None:
        super().__init__(pipeline, seed, test_mode)
        self.classes = list(class_names)
        self.per_fold = ways * (shots if part == 'train' else QUERIES)
        self.folds = folds
        self._options = dict(root=root, ways=ways, shots=shots, part=part, class_names=self.classes)
        for fold in range(folds):
            fold_file(root, ways, shots, fold)
        self._number, self._fold = 0, self._read(0)

    def _read(self, number: int) -> PublishedFold:
        found = PublishedFold(fold=number, **self._options)
        if len(found) != self.per_fold:
            raise ValueError(f'{found.path}: {len(found)} objects to {self._options["part"]}, expected '
                             f'{self.per_fold}; download the folds of Point-BERT again')
        return found

    def __len__(self) -> int:
        return self.folds * self.per_fold

    def load(self, index: int, rng: np.random.Generator) -> dict:
        number, row = divmod(index, self.per_fold)
        if number != self._number:
            self._number, self._fold = number, self._read(number)
        item = self._fold.load(row, rng)
        return {**item, 'label': self._fold.numbers[item['label']]}


def published_episodes(support: Labelled, query: Labelled) -> list[Episode]:
    """Return the published tasks, one for each fold, from the uids of both parts of :class:`PublishedFolds`.

    Raises:
        ValueError: The parts have other folds, or a fold has other classes in them.
    """
    parts = []
    for objects in (support, query):
        folds: dict[int, dict[str, list[str]]] = {}
        for uid, label in zip(objects.uids, objects.labels):
            groups = folds.setdefault(int(uid.partition('/')[0]), {})
            groups.setdefault(objects.classes[int(label)], []).append(uid)
        parts.append(folds)
    learned, asked = parts
    wrong = next((fold for fold in sorted(learned.keys() | asked.keys())
                  if learned.get(fold, {}).keys() != asked.get(fold, {}).keys()), None)
    if wrong is not None:
        raise ValueError(f'fold {wrong} has other classes to learn than to classify; compute the features of both '
                         'parts from the same folds')
    return [Episode(tuple(learned[fold]), tuple(map(tuple, learned[fold].values())),
                    tuple(tuple(asked[fold][name]) for name in learned[fold])) for fold in sorted(learned)]


def _item(entry: tuple) -> tuple[ndarray, int, int]:
    """Check an entry of a fold: points with normals, label of the task, number of the class."""
    points, label, original = entry
    points = np.asarray(points, np.float32)
    if points.ndim != 2 or points.shape[1] != 6 or not (np.abs(points) < 1e18).all():  # NaN is not below either
        raise ValueError(f'points of shape {points.shape}, expected (N, 6) numbers below 1e18')
    return points, int(label), int(original)
