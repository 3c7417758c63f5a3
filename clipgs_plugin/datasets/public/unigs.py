"""Objects of UniGS: one pickle an object, with its splat, label and captions."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from clipgs_plugin.datasets.public.base import Entry, Listing, PublicSet, match_all, readable, require
from clipgs_plugin.datasets.public.lvis import read_lvis_list
from clipgs_plugin.io.archives import list_places
from clipgs_plugin.io.checked_json import read_json
from clipgs_plugin.io.files import cloud_from_arrays
from clipgs_plugin.io.pickles import read_pickle
from clipgs_plugin.registry import DATASETS
from clipgs_plugin.structures import GaussianCloud

CHANNELS = 14  # position 3, SH constant band 3, opacity 1, log scale 3, quaternion 4, before activation


class UniGSSet(PublicSet):
    """Set of files ``UID.pkl`` that ``torch.save`` wrote; no code in them runs.

    ``train``, ``val`` and ``test`` are the lists of ``file_paths.json``, whose paths are those of the authors' machine
    and are compared by their file names. ``all`` needs no list.
    """

    splits = ('train', 'val', 'test', 'all')
    up = 'z'
    quirks = (dict(type='TameGaussians'),)

    def listed(self) -> tuple[dict[str, Entry], list[str]]:
        """Return the objects that are here by uid, with the name of their folder, and the uids of the split."""
        match = match_all(r'(?:(?P<folder>[^/]+)/)?(?P<uid>[^/]+)\.pkl')
        found = {}
        for place in list_places(self.root, match):
            groups = match(place.name).groupdict()
            found.setdefault(groups['uid'], Entry(groups['uid'], place, groups['folder']))
        if self.published == 'all':
            return found, list(found)
        file = require(self.root / 'file_paths.json', 'the lists of the splits')
        lists = read_json(file, schema={'original': {self.published: [str]}})
        return found, [path.replace('\\', '/').rpartition('/')[2].removesuffix('.pkl')
                       for path in lists['original'][self.published]]

    def read(self, entry: Entry) -> GaussianCloud:
        return self.read_captioned(entry)[0]

    def read_captioned(self, entry: Entry) -> tuple[GaussianCloud, list[str]]:
        content = read_pickle(entry.place.read(), entry.place.name)
        table = content.get('3dgs') if isinstance(content, dict) else None
        if not isinstance(table, np.ndarray) or table.ndim != 2 or table.shape[1] != CHANNELS or not len(table) or (
                table.dtype.kind != 'f'):
            raise ValueError(f'{entry.place.name}: expected a dict whose 3dgs is a table of {CHANNELS} columns; it is '
                             'no object of UniGS, or damaged, download it again')
        cloud = cloud_from_arrays(table[:, :3], table[:, 10:14], table[:, 7:10], table[:, 6], table[:, None, 3:6])
        return cloud, [] if entry.category is not None else _captions(content)


@DATASETS.register_module()
class UniGSObjaverse(UniGSSet):
    """Objects of Objaverse as UniGS fits them: ``objects/UID.pkl`` and ``file_paths.json``.

    Source: Li et al., "UniGS", ICLR 2025; https://huggingface.co/datasets/lihy285/UniGS

    Args:
        root: Folder of ``objects`` and ``file_paths.json``.
        split: ``'train'``, ``'val'``, ``'test'`` or ``'all'``.
        labels: A list of Objaverse-LVIS, whose objects alone are used, labelled by its sorted categories. None uses all
            objects, with the captions in their files and no class.
        **options: Those of :class:`~clipgs_plugin.datasets.public.PublicSet`.
    """

    def __init__(self, root: str | Path, split: str = 'test', labels: str | Path | None = None, **options) -> None:
        self.labels = labels
        super().__init__(root, split, **options)

    def list_entries(self) -> Listing:
        found, names = self.listed()
        categories = None if self.labels is None else {uid: name for uid, name, _ in read_lvis_list(self.labels)}
        names = [uid for uid in names if categories is None or uid in categories]
        entries = [Entry(uid, found[uid].place, categories and categories[uid]) for uid in names if uid in found]
        return Listing(entries, sorted(set((categories or {}).values())), [uid for uid in names if uid not in found])


@DATASETS.register_module()
class UniGSABO(UniGSSet):
    """Amazon Berkeley Objects as UniGS fits them: ``CLASS/ID.pkl`` and ``file_paths.json``."""

    def list_entries(self) -> Listing:
        found, names = self.listed()
        classes = sorted({readable(entry.category) for entry in found.values() if entry.category})
        entries = [Entry(uid, found[uid].place, readable(found[uid].category or '')) for uid in names if uid in found]
        return Listing(entries, classes, [uid for uid in names if uid not in found])


def _captions(content: dict) -> list[str]:
    """Return the captions of people, or else those of models."""
    for key in ('human_prompt', 'machine_prompt'):
        texts = content.get(key, [])
        texts = [texts] if isinstance(texts, str) else texts
        found = [text.strip() for text in texts if isinstance(text, str) and text.strip()]
        if found:
            return found
    return []
