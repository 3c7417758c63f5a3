"""Coloured points in the files of OpenShape, one ``UID.npy`` an object: Objaverse-LVIS and Amazon Berkeley Objects."""
from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy import ndarray

from clipgs_plugin.datasets.public.abo import read_abo_types
from clipgs_plugin.datasets.public.base import Entry, Listing, match_all, obstacle
from clipgs_plugin.datasets.public.lvis import Rows, read_lvis_list
from clipgs_plugin.datasets.public.point_sets import PointSet
from clipgs_plugin.datasets.public.splits import split_of_uid
from clipgs_plugin.io.archives import list_places
from clipgs_plugin.io.arrays import parse_npy
from clipgs_plugin.io.pickles import read_pickle
from clipgs_plugin.registry import DATASETS


class OpenShapePoints(PointSet):
    """Set of 10,000 coloured points an object, ``UID.npy`` in folders, zips or tars, and a table of the objects.

    ``train``, ``val`` and ``test`` are the rule of :mod:`~clipgs_plugin.datasets.public.splits`. OpenShape's
    ``.tar.gz`` must be unpacked, since they cannot be read at random.
    """

    splits = ('train', 'val', 'test', 'all')

    def __init__(self, root: str | Path, split: str = 'all', **options) -> None:
        super().__init__(root, split, **options)

    def join(self, rows: Rows) -> Listing:
        """Find the points of the objects of a table, in its order."""
        match = match_all(r'(?P<stem>[^/]+)\.npy')
        found = {match(place.name)['stem']: place for place in list_places(self.root, match)}
        places = {uid: found.get(Path(file).stem if file else uid) or found.get(uid) for uid, _, file in rows}
        if not any(places.values()):
            raise ValueError(f'{self.root}: {self._why_none(sorted(found), rows)}')
        chosen = [(uid, category) for uid, category, _ in rows if self.published in ('all', split_of_uid(uid))]
        return Listing([Entry(uid, places[uid], category) for uid, category in chosen if places[uid]],
                       sorted({category for _, category, _ in rows}), [uid for uid, _ in chosen if not places[uid]])

    def _why_none(self, stems: list[str], rows: Rows) -> str:
        """Return why no object of the table has points."""
        if reason := obstacle(self.root):
            return reason
        named = f', such as {rows[0][0]}.npy' if rows else ''
        if not stems:
            return f'holds no points, expected files UID.npy{named}; docs/datasets.md shows how the set lies on disk'
        return (f'holds {len(stems)} .npy files such as {stems[0]}.npy, none of them of the {len(rows)} listed '
                f'objects{named}; they are of another set, or the list is')

    def read_points(self, entry: Entry) -> tuple[ndarray, ndarray | None, None]:
        data, name = entry.place.read(), entry.place.name
        is_object = b"'|O'" in data[:128]
        content = read_pickle(data, name) if is_object else parse_npy(data, name)
        if is_object:
            content = content.item() if content.size == 1 else None
            if not isinstance(content, dict):
                raise ValueError(f'{name}: expected a dict with xyz and rgb; it is no object of OpenShape')
            parts = [content.get('xyz'), content.get('rgb')]
        elif content.ndim == 2:
            parts = [content[:, :3], content[:, 3:6] if content.shape[1] >= 6 else None]
        else:
            raise ValueError(f'{name}: an array of shape {content.shape}, expected a table of 3 or 6 columns; it is '
                             'damaged or of another set')
        positions, colors = _numbers(name, parts[0]), None if parts[1] is None else _numbers(name, parts[1])
        if colors is not None and (len(colors) != len(positions) or not np.isfinite(colors).all()):
            raise ValueError(f'{name}: rgb has {len(colors)} rows, expected {len(positions)} finite ones as xyz has; '
                             'it is damaged, download it again')
        return positions, None if colors is None else _unit_colors(colors), None


@DATASETS.register_module()
class ObjaverseLVIS(OpenShapePoints):
    """Objaverse-LVIS as points, by the list of a publisher.

    The lists of OpenShape, Uni3D and ULIP-2 name different objects; the published zero-shot protocol is
    ``split='all'``.

    Args:
        root: Folder of the points.
        labels: List of the objects, see :func:`~clipgs_plugin.datasets.public.lvis.read_lvis_list`.
        split: ``'all'``, ``'train'``, ``'val'`` or ``'test'``.
        **options: Those of :class:`~clipgs_plugin.datasets.public.PointSet`.
    """

    def __init__(self, root: str | Path, labels: str | Path | None = None, split: str = 'all', **options) -> None:
        if labels is None:
            raise ValueError("ObjaverseLVIS needs labels=, the list of its objects: OpenShape's lvis.json, Uni3D's "
                             "lvis_testset.txt, or ULIP-2's objaverse_lvis_metadata.json")
        self.labels = labels
        super().__init__(root, split, **options)

    def list_entries(self) -> Listing:
        return self.join(read_lvis_list(self.labels))


@DATASETS.register_module()
class ABOPoints(OpenShapePoints):
    """Amazon Berkeley Objects as points, classed by the product types of their listings.

    Source: Collins et al., "ABO", CVPR 2022; points by Liu et al., "OpenShape", NeurIPS 2023.

    Args:
        root: Folder of the points, ``UID.npy`` with the ``3dmodel_id`` for a name.
        split: ``'all'``, ``'train'``, ``'val'`` or ``'test'``.
        listings: ``abo-listings.tar``, or a folder with ``listings_{0..9,a..f}.json.gz``; None looks below root.
        **options: Those of :class:`~clipgs_plugin.datasets.public.PointSet`.
    """

    def __init__(self, root: str | Path, split: str = 'all', listings: str | Path | None = None, **options) -> None:
        self.listings = listings
        super().__init__(root, split, **options)

    def list_entries(self) -> Listing:
        types = read_abo_types(self.root if self.listings is None else Path(self.listings).expanduser())
        return self.join([(uid, types[uid], '') for uid in sorted(types)])


def _numbers(name: str, values: ndarray | None) -> ndarray:
    if not isinstance(values, ndarray) or values.ndim != 2 or values.shape[1] != 3 or values.dtype.kind not in 'iuf':
        raise ValueError(f'{name}: expected xyz and rgb as tables of 3 columns; it is damaged or of another set')
    return values.astype(np.float32)


def _unit_colors(colors: ndarray) -> ndarray:
    """Return colours in [0, 1]; those of 0 to 255 have one above 1."""
    return np.clip(colors / 255 if colors.max(initial=0) > 1 else colors, 0, 1)
