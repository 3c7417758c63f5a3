"""Dataset of triplets: Gaussians, views and a caption."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import print_log

from clipgs_plugin.datasets.base import GaussianDataset, label_names
from clipgs_plugin.datasets.folds import splits_digest, splits_of_fold
from clipgs_plugin.registry import DATASETS
from clipgs_plugin.triplets import ShardFeatures, ShardReader, caption_id


@DATASETS.register_module()
class TripletDataset(GaussianDataset):
    """Objects of a triplet dataset, each with one caption and some of its views.

    In training, each epoch draws a caption and ``num_views`` views of every object; views repeat only if an object has
    fewer. In test mode, an object has its first caption and all its views, in order.

    Besides ``gaussians``, the pipeline receives ``uid``, ``split``, ``captions``, ``caption`` and ``caption_id``;
    ``category`` and ``label`` if any object of the dataset has a category (``''`` and -1 for an object without one);
    ``text`` (E,) and ``views`` (K, E) if ``features`` is set; ``view_pixels`` (K, 3, H, W) uint8 if ``load_views`` is
    set.

    Args:
        root: Folder that ``tools/make_triplets.py`` or ``tools/make_toy_world.py`` wrote.
        split: Name of the split; None uses all objects.
        pipeline: Transforms or their configs.
        features: Name of the teacher whose cached features are loaded; None loads none.
        num_views: Number of views K per object in training.
        load_views: Decode the views, for a teacher that runs during training.
        views: Indices of the views to draw from; None uses all.
        classes: Categories to use, labelled in this order. None uses all objects, labelled by the sorted categories of
            the whole dataset, equal in every split.
        hold_out: Share of the training objects, at least one, that replaces each missing split of val and test. The
            choice depends on the uids. With 0, a missing split is an error.
        fold: Number of a fold of a cross-validation and the number of folds, such as ``(0, 5)``. The fold is the
            split test and all other objects are the split train, whatever splits the dataset has; see
            :func:`~clipgs_plugin.datasets.folds.assign_folds`.
        min_quality: Minimum held-out PSNR of the objects in dB, which excludes unmeasured objects; None uses all.
        test_mode: Use the first caption, all views and epoch 0, for evaluation.
        seed: Random seed of captions, views and transforms.
    """

    def __init__(self, root: str | Path, split: str | None = 'train', pipeline: Sequence[dict | Callable] = (),
                 features: str | None = None, num_views: int = 5, load_views: bool = False,
                 views: Sequence[int] | None = None, classes: Sequence[str] | None = None,
                 hold_out: float = 0.0, fold: Sequence[int] | None = None, min_quality: float | None = None,
                 test_mode: bool = False, seed: int = 0) -> None:
        super().__init__(pipeline, seed, test_mode)
        if num_views < 1:
            raise ValueError(f'num_views={num_views}: expected at least 1 view')
        if not 0 <= hold_out < 0.5:
            raise ValueError(f'hold_out={hold_out}: expected a share of at least 0 and less than 0.5')
        if hold_out and fold is not None:
            raise ValueError(f'hold_out={hold_out} and fold={tuple(fold)}: a fold makes its own splits train and test; '
                             'set hold_out=0')
        self.reader = ShardReader(root)
        self.split = split
        self.num_views = num_views
        self.load_views = load_views
        self.features = ShardFeatures(self.reader, features) if features is not None else None
        self.view_choice = np.arange(self.reader.num_views) if views is None else np.asarray(views, np.int64)
        if features is not None or load_views:
            self._check_views()
        self.classes = label_names(self.reader.categories, classes, str(root))
        self._labels = {name: label for label, name in enumerate(self.classes)}
        self._splits = self._assign_splits(hold_out, fold)
        self.rows = self._select(split, classes is not None, hold_out, min_quality)

    def _check_views(self) -> None:
        count, choice = self.reader.num_views, self.view_choice
        if not len(choice) or choice.min() < 0 or choice.max() >= count:
            raise ValueError(f'views={choice.tolist()}: expected at least one index below {count}, the number of views '
                             f'of each object of {self.reader.root}')

    def _assign_splits(self, hold_out: float, fold: Sequence[int] | None) -> list[str]:
        """Return the split of each object of the reader."""
        reader = self.reader
        if fold is not None:
            splits = splits_of_fold(reader.uids, fold)
            print_log(f'{type(self).__name__}: fold {fold[0]} of {fold[1]} has {splits.count("test")} of {len(splits)} '
                      f'objects; SHA-256 {splits_digest(reader.uids, splits)}', logger='current')
            return splits
        return _fill_missing_splits(reader.splits, reader.uids, hold_out) if hold_out else reader.splits

    def _select(self, split: str | None, labelled_only: bool, hold_out: float,
                min_quality: float | None) -> np.ndarray:
        """Return the indices in the reader of the objects of this dataset."""
        reader, splits = self.reader, self._splits
        if split is not None and split not in splits:
            raise ValueError(f'split={split!r}: {reader.root} has the splits {sorted(set(splits))}'
                             + ('' if hold_out or split == 'train' else '; hold_out=0.1 uses a tenth of train instead'))
        keep = np.array([split is None or s == split for s in splits], bool)
        if labelled_only:
            keep &= np.array([category in self._labels for category in reader.categories], bool)
        if min_quality is not None:
            keep &= reader.psnr >= min_quality  # False for NaN
        if not keep.any():
            raise ValueError(f'no object of {reader.root} is in split={split!r}'
                             + (f' with one of the classes {self.classes}' if labelled_only else '')
                             + (f' and of min_quality={min_quality} dB' if min_quality is not None else '')
                             + '; relax these options')
        return np.flatnonzero(keep)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return (f'{type(self).__name__}({str(self.reader.root)!r}, split={self.split!r}: {len(self)} objects, '
                f'{len(self.classes)} classes)')

    def load(self, index: int, rng: np.random.Generator) -> dict:
        row = int(self.rows[index])
        record = self.reader.read_record(row)
        captions = [caption['text'] for caption in record['captions']]
        chosen = 0 if self.test_mode else int(rng.integers(len(captions)))
        results = dict(uid=record['uid'], split=self._splits[row], gaussians=self.reader.read_gaussians(row),
                       captions=captions, caption=captions[chosen], caption_id=caption_id(captions[chosen]))
        if self.classes:
            results.update(category=record['category'] or '', label=self._labels.get(record['category'], -1))
        if self.features is None and not self.load_views:
            return results
        views = self._draw_views(rng)
        if self.features is not None:
            results.update(self._features(row, chosen, results['caption_id'], views))
        if self.load_views:
            results['view_pixels'] = torch.from_numpy(self.reader.read_views(row, views)).permute(0, 3, 1, 2)
        return results

    def _draw_views(self, rng: np.random.Generator) -> np.ndarray:
        """Return the indices of the views of an item; in training they are drawn in random order."""
        if self.test_mode:
            return self.view_choice
        return rng.choice(self.view_choice, self.num_views, replace=len(self.view_choice) < self.num_views)

    def _features(self, row: int, chosen: int, expected_id: int, views: np.ndarray) -> dict:
        """Return the cached features of the chosen caption and views."""
        if self.features.caption_ids(row)[chosen] != expected_id:
            raise ValueError(f'{self.features.folder} holds features of other captions than {self.reader.root} (object '
                             f'{self.reader.uids[row]}); delete it and run tools/cache_features.py again')
        return dict(text=torch.from_numpy(self.features.text(row)[chosen].astype(np.float32)),
                    views=torch.from_numpy(self.features.image(row)[views].astype(np.float32)))


def _fill_missing_splits(splits: Sequence[str], uids: Sequence[str], share: float) -> list[str]:
    """Return the split of each object, after moving a share of train to each missing split of val and test."""
    splits = list(splits)
    train = sorted((i for i, split in enumerate(splits) if split == 'train'), key=lambda i: caption_id(uids[i]))
    count = max(1, round(share * len(train)))
    missing = [name for name in ('val', 'test') if name not in set(splits)]
    if missing and len(train) <= count * len(missing):
        raise ValueError(f'{len(train)} training objects are too few for the missing splits {" and ".join(missing)} '
                         f'(hold_out={share}; the dataset has the splits {sorted(set(splits))}); assign splits to the '
                         'objects, or set hold_out=0')
    for number, split in enumerate(missing):
        for i in train[number * count:(number + 1) * count]:
            splits[i] = split
    return splits
