"""What all datasets of Gaussians share."""
from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.data import Dataset

from clipgs_plugin.datasets.transforms import build_pipeline

TRANSFORMS_STREAM, CHOICES_STREAM = 0, 1


def item_rng(seed: int, epoch: int, index: int, stream: int = TRANSFORMS_STREAM) -> np.random.Generator:
    """The randomness of one object in one epoch; streams of the same object are independent."""
    return np.random.default_rng((seed, epoch, index, stream))


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread, as in a loader's worker.

    An object is too small to share out: its transforms take 0.4 ms on one thread, and 50 ms when they wait for others
    on a busy machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class GaussianDataset(Dataset):
    """Objects by index, or by ``(epoch, index)`` as :class:`EpochSampler` yields them, through a pipeline.

    What an object looks like is a function of (seed, epoch, index) and of nothing else, so neither the number of
    loader workers nor a restart changes it. Subclasses have ``__len__``, ``classes`` (names in the order of labels) and
    :meth:`load`.

    Args:
        pipeline: Transforms, or configs of them.
        seed: Not negative.
        test_mode: Evaluation: every epoch is epoch 0.
    """

    classes: list[str]

    def __init__(self, pipeline: Sequence[dict | Callable] = (), seed: int = 0, test_mode: bool = False) -> None:
        if seed < 0:
            raise ValueError(f'seed={seed}: expected at least 0')
        self.pipeline = build_pipeline(pipeline)
        self.seed = seed
        self.test_mode = test_mode

    @property
    def metainfo(self) -> dict:
        """What mmengine hands to metrics and keeps in checkpoints."""
        return dict(dataset=type(self).__name__, classes=list(self.classes))

    @abstractmethod
    def load(self, index: int, rng: np.random.Generator) -> dict:
        """What the pipeline starts with, ``uid`` at least.

        Args:
            index: 0 to ``len(self) - 1``.
            rng: For the choices of the dataset itself (which views, which caption), apart from the transforms'.
        """

    def __getitem__(self, index: int | tuple[int, int]) -> dict:
        epoch, index = index if isinstance(index, tuple) else (0, index)
        if not 0 <= index < len(self):
            raise IndexError(f'index {index} is not in 0..{len(self) - 1}')
        epoch, index = 0 if self.test_mode else int(epoch), int(index)
        results = dict(rng=item_rng(self.seed, epoch, index), index=index, epoch=epoch)
        with one_thread():
            results.update(self.load(index, item_rng(self.seed, epoch, index, CHOICES_STREAM)))
            return self.pipeline(results)


def label_names(found: Sequence[str | None], classes: Sequence[str] | None, where: str) -> list[str]:
    """The class names of a dataset: those asked for, or all that it has, sorted.

    Raises:
        ValueError: A name is asked for twice, or is not there.
    """
    there = sorted({name for name in found if name is not None})
    if classes is None:
        return there
    classes = list(classes)
    unknown = [name for name in classes if name not in set(there)]
    if unknown or len(set(classes)) != len(classes) or not classes:
        examples = ', '.join(map(repr, there[:20])) + (', ...' if len(there) > 20 else '')
        problem = f'{unknown} are not there' if unknown else 'expected at least one name, and none twice'
        raise ValueError(f'classes={classes[:20]}: {problem}; {where} has {len(there)} classes: {examples}')
    return classes
