"""Labels that a segmentation left: a property of the ``.ply``, an array, features with their classifier or clusters.

Layouts, as their programs write them:

- a scalar property such as ``object`` or ``label``;
- ``.npy`` of one number a Gaussian, in the order of the scene's file;
- gaussian-grouping (Ye et al., ECCV 2024): properties ``obj_dc_0`` to ``obj_dc_15`` and ``classifier.pth``, the state
  of a ``Conv2d(16, classes, 1)``, whose largest output is the id;
- OpenGaussian (Wu et al., NeurIPS 2024): properties ``ins_feat_r`` to ``ins_feat_b2`` and ``cluster_lang.npz``, whose
  ``leaf_ind`` has the cluster of each Gaussian and ``occu_count`` the number of views that showed a cluster.
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from clipgs_plugin.io.arrays import npz_keys, read_npy, read_npz
from clipgs_plugin.io.files import refuse_damage
from clipgs_plugin.io.formats import format_of_file
from clipgs_plugin.io.inria_ply import further_columns
from clipgs_plugin.io.safe_load import check_finite, load_file

PROPERTIES = ('object', 'object_id', 'obj_id', 'instance', 'instance_id', 'label', 'segment', 'segment_id', 'cluster')
CLASSIFIER, CLUSTERS = 'classifier.pth', 'cluster_lang.npz'
MAX_CLASSES = 4096  # of a classifier; DEVA gives 256
_FEATURES = [f'obj_dc_{i}' for i in range(16)]
_INSTANCE_FEATURES = [f'ins_feat_{name}' for name in ('r', 'g', 'b', 'r2', 'g2', 'b2')]
_BLOCK = 2 ** 22    # outputs of a classifier at a time
_MIN_VIEWS = 2      # of a cluster of OpenGaussian, as its own evaluation demands


@dataclass(frozen=True)
class LabelSource:
    """Place of labels: the file beside the scene, or None, and the property or array in it."""

    file: Path | None
    name: str

    def __str__(self) -> str:
        return f'{self.file}' if self.file else f'property {self.name}'


def find_labels(scene: Path) -> LabelSource | None:
    """Find the labels of a scene in its file or, for features of a segmentation, beside it; None if there are none.

    A property of ids goes first, then a classifier, then clusters. ``cluster_lang.npz`` lies in the folder of the
    model, two above that of its ``.ply``.

    Raises:
        ValueError: The scene is a damaged ``.ply``, or has features whose file of classes is absent.
    """
    columns = scene_columns(scene)
    found = next((name for name in PROPERTIES if name in columns), None)
    if found:
        return LabelSource(None, found)
    for names, file, folders in ((_FEATURES, CLASSIFIER, [scene.parent]),
                                 (_INSTANCE_FEATURES, CLUSTERS, [scene.parent, *scene.absolute().parents[1:3]])):
        if set(names) <= columns.keys():
            place = next((folder / file for folder in folders if (folder / file).is_file()), None)
            if place is None:
                raise ValueError(f'{scene}: has {names[0]} to {names[-1]}, but {folders[0] / file}, which tells the '
                                 'objects by them, is absent; copy it there, name it with --labels, or choose another '
                                 'way to split')
            return LabelSource(place, names[0])
    return None


def read_labels(scene: Path, source: LabelSource | str | Path, min_probability: float = 0.0) -> np.ndarray:
    """Read the labels of a scene.

    Args:
        scene: Splat file.
        source: What :func:`find_labels` found, the name of a property of the ``.ply``, or the path of an array, a
            classifier or clusters.
        min_probability: Least probability of a class of a classifier; other Gaussians get -1.

    Returns:
        Number of each Gaussian, (N,), as in the file; NaN and fractions are left to :func:`split_by_labels`.

    Raises:
        FileNotFoundError: The source is neither a file nor a property.
        ValueError: The file is damaged, or its layout is another.
    """
    file = source.file if isinstance(source, LabelSource) else Path(source)
    name = source.name if isinstance(source, LabelSource) else str(source)
    if file is None or not file.is_file():
        columns = scene_columns(scene)
        if name in columns:
            return np.asarray(columns[name])
        raise FileNotFoundError(f'{scene}: labels {name!r} are neither a file nor a property of the scene, which has '
                                f'{", ".join(sorted(columns))[:300] or "none beyond those of Gaussians"}; name a file '
                                'or a property')
    if file.suffix == '.npy':
        return read_npy(file)
    if file.suffix == '.npz':
        return _clusters(file)
    return _classified(scene, file, min_probability)


def scene_columns(scene: Path) -> dict[str, np.ndarray]:
    """Read the properties of a scene beyond those of Gaussians, (N,) by name; only a .ply has any."""
    return further_columns(scene) if scene.is_file() and format_of_file(scene).name == 'ply' else {}


def valid_rows(scene: Path) -> np.ndarray:
    """Return the mask of the Gaussians of a file, (N,) bool, that reading with ``clean=True`` keeps."""
    with refuse_damage(scene, 'splat file'), np.errstate(all='ignore'):
        return ~format_of_file(scene).read(scene).invalid().numpy()


def _clusters(file: Path) -> np.ndarray:
    """Return the cluster of each Gaussian plus 1, (N,) int64; 0 for none, and for clusters that one view showed."""
    keys = npz_keys(file)
    if 'leaf_ind' not in keys:
        raise ValueError(f'{file}: holds {", ".join(sorted(keys))[:200] or "nothing"}, expected leaf_ind as in the '
                         f'{CLUSTERS} of OpenGaussian; save other labels as .npy')
    arrays = read_npz(file, [key for key in ('leaf_ind', 'occu_count') if key in keys])
    labels = arrays['leaf_ind']
    if labels.ndim != 1 or labels.dtype.kind not in 'iu':
        raise ValueError(f'{file}: leaf_ind is {labels.dtype} of shape {labels.shape}, expected one integer a Gaussian')
    if 'occu_count' not in arrays:
        return labels.astype(np.int64) + 1
    views = arrays['occu_count']
    if views.ndim != 1 or views.dtype.kind not in 'iuf':
        raise ValueError(f'{file}: occu_count is {views.dtype} of shape {views.shape}, expected one number a cluster')
    if len(labels) and (labels.min() < -1 or labels.max() > len(views)):
        raise ValueError(f'{file}: leaf_ind is from {labels.min()} to {labels.max()} for {len(views)} clusters in '
                         f'occu_count, expected -1 to {len(views)}; it belongs to another file')
    seen = np.append(views >= _MIN_VIEWS, False)  # one beyond the last, and -1, are Gaussians without cluster
    return np.where(seen[labels], labels.astype(np.int64) + 1, 0)


def _classified(scene: Path, file: Path, min_probability: float) -> np.ndarray:
    """Return the most probable class of each Gaussian, (N,) int64."""
    columns = scene_columns(scene)
    missing = [name for name in _FEATURES if name not in columns]
    if missing:
        raise ValueError(f'{scene}: lacks {missing[0]}{" and others" * (len(missing) > 1)} of the features that the '
                         f'classifier {file} takes; name the .ply of gaussian-grouping, or labels as .npy')
    weight, bias = _classifier(file)
    count, size = len(columns[_FEATURES[0]]), max(1, _BLOCK // len(weight))
    labels = np.empty(count, np.int64)
    for start in range(0, count, size):
        block = slice(start, start + size)
        features = torch.from_numpy(np.stack([columns[name][block].astype(np.float32) for name in _FEATURES], axis=1))
        if not features.isfinite().all():
            bad = int((~features.isfinite()).any(1).int().argmax()) + start
            raise ValueError(f'{scene}: the features obj_dc are NaN or infinite at Gaussian {bad}; export it again')
        logits = features @ weight.T + bias
        if min_probability > 0:
            best, found = logits.softmax(-1).max(-1)
            found = torch.where(best >= min_probability, found, -1)
        else:
            found = logits.argmax(-1)
        labels[block] = found.numpy()
    return labels


def _classifier(file: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight (C, 16) and bias (C,) of the state of a ``Conv2d(16, C, 1)``."""
    state = load_file(file)
    state = state if isinstance(state, dict) else {}
    weight, bias = state.get('weight'), state.get('bias')
    plain = [isinstance(x, torch.Tensor) and x.layout == torch.strided and not x.is_quantized and not x.is_meta
             and x.is_floating_point() for x in (weight, bias)]
    shapes = [tuple(x.shape) if isinstance(x, torch.Tensor) else None for x in (weight, bias)]
    if not all(plain) or shapes[0] != (*shapes[1], 16, 1, 1) or not 1 <= shapes[0][0] <= MAX_CLASSES:
        raise ValueError(f'{file}: holds weight of shape {shapes[0]} and bias of shape {shapes[1]}, expected (C, 16, '
                         f'1, 1) and (C,) of at most {MAX_CLASSES} classes, the {CLASSIFIER} of gaussian-grouping')
    check_finite({'weight': weight, 'bias': bias}, file)
    return weight.detach().float().reshape(-1, 16), bias.detach().float()
