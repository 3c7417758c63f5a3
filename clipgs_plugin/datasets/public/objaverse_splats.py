"""Splats of Objaverse: Objaverse_Splats of ShapeSplat, and GaussianVerse."""
from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

from clipgs_plugin.datasets.public.base import Entry, Listing, require
from clipgs_plugin.datasets.public.lvis import read_lvis_list
from clipgs_plugin.datasets.public.splat_sets import SplatSet
from clipgs_plugin.datasets.public.splits import split_of_uid
from clipgs_plugin.io.archives import Place, list_places, read_from_tar_gz
from clipgs_plugin.io.checked_json import read_json
from clipgs_plugin.io.files import read_text
from clipgs_plugin.registry import DATASETS

RULE_SPLITS = ('train', 'val', 'test', 'all')


@DATASETS.register_module()
class ObjaverseSplats(SplatSet):
    """Objaverse_Splats of ShapeSplat: ``CHUNK.zip`` with ``CHUNK/UID/ckpts/point_cloud_15000.ply``, packed or not.

    The captions and the quality of the fits are in ``completed_3dgs_metadata.csv``. The splits are the rule of
    :mod:`~clipgs_plugin.datasets.public.splits`. Source: https://huggingface.co/datasets/ShapeSplats/Objaverse_Splats

    Args:
        root: Folder of the zips.
        split: ``'train'``, ``'val'``, ``'test'`` or ``'all'``.
        labels: A list of Objaverse-LVIS (:func:`~clipgs_plugin.datasets.public.lvis.read_lvis_list`). Its objects alone
            are used, labelled by its sorted categories. None uses all objects, with their captions and no class.
        min_psnr: Minimum PSNR of the fit in dB; None uses all.
        max_lpips: Maximum LPIPS of the fit; None uses all.
        min_gaussians: Minimum number of Gaussians.
        **options: Those of :class:`~clipgs_plugin.datasets.public.PublicSet`.
    """

    splits = RULE_SPLITS
    up = 'z'

    def __init__(self, root: str | Path, split: str = 'test', labels: str | Path | None = None,
                 min_psnr: float | None = None, max_lpips: float | None = None, min_gaussians: int = 0,
                 **options) -> None:
        self.labels, self.min_psnr, self.max_lpips, self.min_gaussians = labels, min_psnr, max_lpips, min_gaussians
        super().__init__(root, split, **options)

    def list_entries(self) -> Listing:
        found = {groups['uid']: place for place, groups in self.find(
            r'\d{3}-\d{3}/(?P<uid>[0-9a-zA-Z]+)/ckpts/point_cloud_\d+\.ply')}
        rows = self._metadata()
        filtered = self.min_psnr is not None or self.max_lpips is not None or self.min_gaussians > 0
        if filtered and not rows:
            raise FileNotFoundError(f'{self.root}: lacks completed_3dgs_metadata.csv with the quality of the fits; '
                                    'download it beside the zips, or drop min_psnr, max_lpips and min_gaussians')
        categories = {} if self.labels is None else {uid: name for uid, name, _ in read_lvis_list(self.labels)}
        names = list(categories) if categories else list(rows or found)
        names = [uid for uid in names if self._is_of_split(uid) and (
            not filtered or (uid in rows and self._is_good(rows[uid])))]
        entries = [Entry(uid, found[uid], categories.get(uid), _caption(rows.get(uid)) if not categories else ())
                   for uid in names if uid in found]
        return Listing(entries, sorted(set(categories.values())), [uid for uid in names if uid not in found])

    def _is_of_split(self, uid: str) -> bool:
        return self.published in ('all', split_of_uid(uid))

    def _is_good(self, row: dict[str, str]) -> bool:
        try:
            psnr, lpips, count = float(row['psnr']), float(row['lpips']), int(row['num_GS'])
        except (ValueError, TypeError):  # a fit that was not measured, or a short row
            return False
        return ((self.min_psnr is None or psnr >= self.min_psnr) and (self.max_lpips is None or lpips <= self.max_lpips)
                and count >= self.min_gaussians)

    def _metadata(self) -> dict[str, dict[str, str]]:
        """Return the rows of the published table by uid; empty without the table."""
        path = (self.root if self.root.is_dir() else self.root.parent) / 'completed_3dgs_metadata.csv'
        if not path.is_file():
            return {}
        with io.StringIO(read_text(path), newline='') as file:
            reader = csv.DictReader(file)
            missing = {'object_name', 'psnr', 'lpips', 'num_GS', 'caption'} - set(reader.fieldnames or ())
            if missing:
                raise ValueError(f'{path}: lacks the columns {", ".join(sorted(missing))}; download it again')
            return {row['object_name']: row for row in reader}


def _caption(row: dict[str, str] | None) -> tuple[str, ...]:
    return (row['caption'].strip(),) if row and row['caption'] and row['caption'].strip() else ()


@dataclass(frozen=True)
class _Packed:
    """Object of GaussianVerse in its own small archive."""

    name: str
    path: Path

    def read(self) -> bytes:
        return read_from_tar_gz(self.path, 'point_cloud.ply')


@DATASETS.register_module()
class GaussianVerse(SplatSet):
    """GaussianVerse: ``DIR/ID/point_cloud.ply`` or ``DIR/ID.tar.gz``, named by lists ``*_list.json`` at the root.

    The lists map Objaverse's uids to ``DIR/ID.tar.gz``, and the splits are the rule of
    :mod:`~clipgs_plugin.datasets.public.splits` on these uids. Source: 3DGen-Playground, arXiv 2503.15877.

    Args:
        root: Folder of the numbered folders and the lists.
        split: ``'train'``, ``'val'``, ``'test'`` or ``'all'``.
        lists: Names of the lists at the root.
        labels: ``object_to_class.json`` of the repository, a number by ``DIR/ID``; ``cluster_summary.txt`` beside it
            has the names. Objects of class -1 (noise) are left out. None uses all objects, without classes.
        captions: JSON file of captions by ``DIR/ID``; None uses the class names.
        **options: Those of :class:`~clipgs_plugin.datasets.public.PublicSet`.
    """

    splits = RULE_SPLITS
    up = 'z'  # the cameras of its samples circle about z

    def __init__(self, root: str | Path, split: str = 'test', lists: tuple[str, ...] = ('aesthetic_list.json',),
                 labels: str | Path | None = None, captions: str | Path | None = None, **options) -> None:
        self.lists, self.labels, self.captions = tuple(lists), labels, captions
        super().__init__(root, split, **options)

    def list_entries(self) -> Listing:
        found = self._places()
        captions = {} if self.captions is None else read_json(Path(self.captions), schema=dict)
        classes, numbers = ([], None) if self.labels is None else _read_clusters(Path(self.labels))
        entries, absent = [], []
        for name in self.lists:
            listed = require(self.root / name, 'a list of its objects')
            for uid, packed in read_json(listed, schema=dict).items():
                key = str(packed).removesuffix('.tar.gz')
                is_noise = numbers is not None and numbers.get(key, -1) < 0
                if is_noise or self.published not in ('all', split_of_uid(uid)):
                    continue
                if key not in found:
                    absent.append(uid)
                    continue
                caption = captions.get(key)
                entries.append(Entry(uid, found[key], None if numbers is None else classes[numbers[key]],
                                     (caption,) if isinstance(caption, str) else ()))
        return Listing(entries, classes, absent)

    def _places(self) -> dict[str, Place | _Packed]:
        """Return the objects that are here by ``DIR/ID``; an unpacked one goes before its archive."""
        match = re.compile(r'(?:^|/)(\d+/\w+)(/point_cloud\.ply|\.tar\.gz)$').search
        found: dict[str, Place | _Packed] = {}
        for place in list_places(self.root, match):
            key, ending = match(place.name).groups()
            if ending == '.tar.gz':
                found.setdefault(key, _Packed(place.name, Path(place.file)))
            else:
                found[key] = place
        return found


def _read_clusters(path: Path) -> tuple[list[str], dict[str, int]]:
    """Return the class names, and the class of each object, -1 for noise."""
    numbers = read_json(path, schema=dict)
    if not all(type(number) is int for number in numbers.values()):
        raise ValueError(f'{path}: holds classes that are not numbers; download it again')
    names = {number: f'class {number}' for number in range(max(numbers.values(), default=-1) + 1)}
    summary = path.with_name('cluster_summary.txt')
    if summary.is_file():
        names.update((int(number), name.strip().lower()) for number, name in re.findall(
            r'^Cluster +(\d+) +\([\d,]+ objects\) (.+)$', read_text(summary), re.MULTILINE)
            if int(number) in names)
    return [names[number] for number in sorted(names)], numbers
