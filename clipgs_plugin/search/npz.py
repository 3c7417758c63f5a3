"""Indexes in one ``.npz`` of plain arrays."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clipgs_plugin.io.arrays import npz_keys, read_npz_of
from clipgs_plugin.io.files import write_npz
from clipgs_plugin.search.card import MAX_WIDTH

Ups = tuple[tuple[str, float], ...]
UpOpinions = tuple[tuple[tuple[str, float], ...], ...]

_ARRAYS = dict(embeddings=('f', 2), paths=('U', 1), model=('U', 0), checkpoint=('U', 0))
_UPS = dict(ups=('U', 1), up_confidences=('f', 1))  # absent from older indexes
_OPTIONS = dict(options=('U', 1))  # likewise
_OPINIONS = dict(up_opinions=('U', 2), up_opinion_confidences=('f', 2))  # of --up-cue model alone
_UNIT = 1e-3  # largest deviation of a length from 1


def check_rows(embeddings: Tensor, paths: Sequence[str], ups: Ups, up_opinions: UpOpinions) -> None:
    """Check that embeddings (n, E) are float32 unit vectors, one for each of the other values.

    Raises:
        ValueError: They are not.
    """
    if embeddings.ndim != 2 or len(embeddings) != len(paths) or not 1 <= embeddings.shape[1] <= MAX_WIDTH:
        raise ValueError(f'{len(paths)} paths for embeddings of shape {tuple(embeddings.shape)}, '
                         'expected one row a path')
    if ups and len(ups) != len(paths):
        raise ValueError(f'{len(ups)} up axes for {len(paths)} paths, expected one a path or none')
    if up_opinions and len(up_opinions) != len(paths):
        raise ValueError(f'{len(up_opinions)} opinions on up axes for {len(paths)} paths, expected one a path or none')
    if embeddings.dtype != torch.float32:
        raise ValueError(f'embeddings are {embeddings.dtype}, expected torch.float32')
    unit = (embeddings.norm(dim=1) - 1).abs() < _UNIT  # no row with NaN
    if not unit.all():
        raise ValueError(f'{int((~unit).sum())} of {len(unit)} embeddings are not unit vectors, the first is that '
                         f'of {paths[int(unit.int().argmin())]!r}')


def write_index(path: Path, embeddings: Tensor, paths: Sequence[str], model: str, checkpoint: str, ups: Ups,
                options: Sequence[str], up_opinions: UpOpinions) -> None:
    """Write an ``.npz`` of plain arrays."""
    arrays = dict(embeddings=embeddings.numpy(), paths=np.array(paths, dtype=np.str_),
                  model=np.array(model), checkpoint=np.array(checkpoint))
    if ups:
        axes, confidences = zip(*ups)
        arrays.update(ups=np.array(axes, dtype=np.str_), up_confidences=np.array(confidences, np.float64))
    if up_opinions:
        opinions = np.array(up_opinions, dtype=np.str_)  # (n, 2, 2) of axis and confidence
        arrays.update(up_opinions=opinions[..., 0], up_opinion_confidences=opinions[..., 1].astype(np.float64))
    if options:
        arrays.update(options=np.array(options, dtype=np.str_))
    write_npz(path, arrays)


def read_index(path: Path) -> tuple:
    """Read a file of :func:`write_index`; return the arguments of :class:`~clipgs_plugin.search.SearchIndex`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not an index.
    """
    named = path.suffix.lower() == '.npz'  # any other may be the name of a splat
    remedy = (f'make one with tools/embed.py FILES -o {path}' if named else
              'the name of an index ends in .npz, or is that of a folder')
    if not path.is_file():
        raise FileNotFoundError(f'index {path} does not exist; {remedy}')
    try:
        keys = npz_keys(path)
        content = read_npz_of(path, _ARRAYS | (_UPS if 'ups' in keys else {})
                              | (_OPTIONS if 'options' in keys else {})
                              | (_OPINIONS if 'up_opinions' in keys else {}))
        ups = tuple(zip(content['ups'].tolist(), content['up_confidences'].tolist(), strict=True)
                    ) if 'ups' in keys else ()
        options = tuple(content['options'].tolist()) if 'options' in keys else ()
        opinions = tuple(tuple(zip(*row, strict=True)) for row in zip(
            content['up_opinions'].tolist(), content['up_opinion_confidences'].tolist(), strict=True)
                         ) if 'up_opinions' in keys else ()
        found = (torch.from_numpy(content['embeddings']), tuple(content['paths'].tolist()), str(content['model']),
                 str(content['checkpoint']), ups, options, opinions)
        check_rows(found[0], found[1], ups, opinions)
        return found
    except (ValueError, TypeError) as error:
        raise ValueError(f'{path} is not an index of embeddings ({error}); {remedy}') from error
