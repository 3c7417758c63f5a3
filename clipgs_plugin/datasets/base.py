"""Base class of the datasets of Gaussians."""
from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.logging import print_log
from torch.utils.data import Dataset, get_worker_info

from clipgs_plugin.datasets.transforms import build_pipeline

TRANSFORMS_STREAM, CHOICES_STREAM = 0, 1


def item_rng(seed: int, epoch: int, index: int, stream: int = TRANSFORMS_STREAM) -> np.random.Generator:
    """Return the random generator of one object in one epoch; the streams of an object are independent."""
    return np.random.default_rng((seed, epoch, index, stream))


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread, as in a loader worker.

    An object is too small for several threads: its transforms take 0.4 ms on one thread, and up to 50 ms if they wait
    for other threads on a busy machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class GaussianDataset(Dataset):
    """Dataset of objects that are loaded and passed through a pipeline.

    The index of an item is an int, or a pair ``(epoch, index)`` as :class:`EpochSampler` yields it. An item is a
    function of (seed, epoch, index) only, so neither the number of loader workers nor a restart changes it. Subclasses
    define ``__len__``, ``classes`` (names in the order of the labels) and :meth:`load`. Clouds of :meth:`load` are
    validated, because one NaN makes the whole embedding NaN.

    Args:
        pipeline: Transforms or their configs.
        seed: Random seed, at least 0.
        test_mode: Use epoch 0 in every epoch, for evaluation.
    """

    classes: list[str]

    def __init__(self, pipeline: Sequence[dict | Callable] = (), seed: int = 0, test_mode: bool = False) -> None:
        if seed < 0:
            raise ValueError(f'seed={seed}: expected at least 0; choose another seed')
        self.pipeline = build_pipeline(pipeline)
        self.seed = seed
        self.test_mode = test_mode
        self._floaters_reported = False

    @property
    def metainfo(self) -> dict:
        """Metadata that mmengine passes to metrics and stores in checkpoints."""
        return dict(dataset=type(self).__name__, classes=list(self.classes))

    @abstractmethod
    def load(self, index: int, rng: np.random.Generator) -> dict:
        """Return the input of the pipeline, with at least the key ``uid``.

        Args:
            index: Index from 0 to ``len(self) - 1``.
            rng: Random generator for the choice of views and caption; the transforms have another one.
        """

    def __getitem__(self, index: int | tuple[int, int]) -> dict:
        epoch, index = index if isinstance(index, tuple) else (0, index)
        if not 0 <= index < len(self):
            raise IndexError(f'index {index}: expected 0 to {len(self) - 1}')
        epoch, index = 0 if self.test_mode else int(epoch), int(index)
        results = dict(rng=item_rng(self.seed, epoch, index), index=index, epoch=epoch)
        with one_thread():
            results.update(self.load(index, item_rng(self.seed, epoch, index, CHOICES_STREAM)))
            if 'gaussians' in results:
                results['gaussians'].validate(f'object {results["uid"]!r}')
            item = self.pipeline(results)
        self._report_floaters(results)
        return item

    def _report_floaters(self, results: dict) -> None:
        """Log the first floaters that the pipeline drops; the log of a loader's first worker speaks for the others."""
        worker = get_worker_info()
        if results.get('floaters') and not self._floaters_reported and (worker is None or worker.id == 0):
            self._floaters_reported = True
            print_log(f'{type(self).__name__}: DropFloaters leaves out {results["floaters"]} Gaussians of object '
                      f'{results["uid"]!r}, and others of later objects', logger='current')


def label_names(categories: Sequence[str | None], classes: Sequence[str] | None, source: str) -> list[str]:
    """Return ``classes``, or by default all categories, sorted.

    Raises:
        ValueError: ``classes`` is empty, or has a name that repeats or is not a category.
    """
    available = sorted({name for name in categories if name is not None})
    if classes is None:
        return available
    classes = list(classes)
    unknown = [name for name in classes if name not in set(available)]
    if unknown or len(set(classes)) != len(classes) or not classes:
        examples = ', '.join(map(repr, available[:20])) + (', ...' if len(available) > 20 else '')
        problem = f'{unknown} are unknown' if unknown else 'expected at least one name and no duplicates'
        raise ValueError(f'classes={classes[:20]}: {problem}; {source} has {len(available)} classes: {examples}')
    return classes
