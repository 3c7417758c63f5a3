"""Dataset of splat files with one folder per class."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from clipgs_plugin.datasets.base import GaussianDataset, label_names
from clipgs_plugin.datasets.prompts import fill, load_templates
from clipgs_plugin.io import SUFFIXES, find_splats
from clipgs_plugin.registry import DATASETS
from clipgs_plugin.triplets import caption_id


@DATASETS.register_module()
class GaussianFolder(GaussianDataset):
    """Labelled splat files ``root/CLASS/NAME.ply``, in any format that :func:`clipgs_plugin.read_gaussians` reads.

    Files in subfolders of a class folder belong to that class. Each object has ``uid`` (its path relative to root),
    ``path``, ``category`` and ``label``. Its ``captions`` are the templates filled with the class name; ``caption`` is
    one of them, drawn anew in each epoch, and the first in test mode. Objects of a class share the ``caption_id``,
    because every caption of one describes the others. The pipeline starts with ``LoadGaussians``.

    Args:
        root: Folder of the class folders.
        pipeline: Transforms or their configs.
        classes: Classes to use, labelled in this order; None uses all, sorted.
        suffixes: Suffixes of the files to use, in any case.
        test_mode: Use epoch 0 in every epoch, for evaluation.
        seed: Random seed of captions and transforms.
        templates: Templates of the captions, see :func:`~clipgs_plugin.datasets.prompts.load_templates`.
    """

    def __init__(self, root: str | Path, pipeline: Sequence[dict | Callable] = ({'type': 'LoadGaussians'},),
                 classes: Sequence[str] | None = None, suffixes: Sequence[str] = SUFFIXES, test_mode: bool = False,
                 seed: int = 0, templates: str | Path | Sequence[str] = 'plain') -> None:
        super().__init__(pipeline, seed, test_mode)
        self.root = Path(root)
        self.suffixes = tuple(suffixes)
        self.templates = load_templates(templates)
        if not self.root.is_dir():
            raise FileNotFoundError(f'{root} is not a folder; expected {root}/CLASS/NAME with suffixes '
                                    f'{", ".join(self.suffixes)}')
        folders = sorted(path.name for path in self.root.iterdir() if path.is_dir() and not path.name.startswith('.'))
        if not folders:
            raise ValueError(f'{root} holds no class folders (but {len(find_splats(root, suffixes))} splat files); '
                             f'expected {root}/CLASS/NAME with suffixes {", ".join(self.suffixes)}')
        self.classes = label_names(folders, classes, str(root))
        self._items: list[tuple[Path, int]] = []
        for label, name in enumerate(self.classes):
            files = find_splats(self.root / name, suffixes)
            if not files:
                raise ValueError(f'{self.root / name} holds no file with a suffix {", ".join(self.suffixes)}; '
                                 'remove the folder, or choose the classes with classes=[...]')
            self._items += [(path, label) for path in files]

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({str(self.root)!r}: {len(self)} objects, {len(self.classes)} classes)'

    def load(self, index: int, rng: np.random.Generator) -> dict:
        path, label = self._items[index]
        captions = [fill(template, self.classes[label]) for template in self.templates]
        chosen = 0 if self.test_mode else int(rng.integers(len(captions)))
        return dict(uid=path.relative_to(self.root).as_posix(), path=str(path), category=self.classes[label],
                    label=label, captions=captions, caption=captions[chosen], caption_id=caption_id(captions[0]))
