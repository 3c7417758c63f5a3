"""Base class of the published sets: labelled objects that lie as their publishers put them."""
from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log

from clipgs_plugin.datasets.base import GaussianDataset, label_names
from clipgs_plugin.datasets.prompts import fill, load_templates
from clipgs_plugin.datasets.public.splits import split_of_uid
from clipgs_plugin.io.archives import visible_files
from clipgs_plugin.structures import GaussianCloud
from clipgs_plugin.triplets import caption_id

UNFINISHED = ('.part', '.partial', '.incomplete', '.crdownload', '.download', '.aria2', '.tmp')  # of downloads


@dataclass(frozen=True)
class Entry:
    """One object of a set."""

    uid: str
    place: Any                      # what ``read`` of the set understands: a file, a member of an archive, a row
    category: str | None = None
    captions: tuple[str, ...] = ()  # the set's own; empty takes the class name in templates


@dataclass
class Listing:
    """The objects of a split, the names of all classes of the set, and the uids that lists name but no file has."""

    entries: list[Entry]
    classes: Sequence[str] = ()
    absent: list[str] = field(default_factory=list)


class PublicSet(GaussianDataset):
    """Published set of labelled objects, read where it lies.

    A subclass says how its files lie (:meth:`list_entries`), how an object is read (:meth:`read`), which axis of the
    files is up, and which ``quirks`` of its files are mended. Objects are turned to y up and mended before the
    pipeline, so that one pipeline serves all sets. The keys of an item are those of
    :class:`~clipgs_plugin.datasets.GaussianFolder`. Objects without a category have ``''`` and label -1.

    Objects that a published list names and that are not on the disk are counted and reported once, in ``absent``.

    Args:
        root: Folder of the set, as it was downloaded, with its archives packed or not.
        split: Name of a split, of ``splits``. Sets whose publishers have no ``val`` divide ``train`` into ``fit`` and
            ``val``, a tenth by :func:`~clipgs_plugin.datasets.public.splits.split_of_uid`; elsewhere ``fit`` is
            ``train``.
        pipeline: Transforms or their configs; the cloud is loaded before.
        classes: Classes to use, labelled in this order; None uses all, in the order of the set.
        up: Up axis of the files; None takes that of the set.
        templates: Templates of the captions, see :func:`~clipgs_plugin.datasets.prompts.load_templates`.
        test_mode: Use epoch 0 in every epoch, for evaluation.
        seed: Random seed of captions and transforms.
    """

    splits: tuple[str, ...] = ('train', 'test')
    up: str = 'y'
    quirks: tuple[dict, ...] = ()

    def __init__(self, root: str | Path, split: str = 'test', pipeline: Sequence[dict | Callable] = (),
                 classes: Sequence[str] | None = None, up: str | None = None,
                 templates: str | Path | Sequence[str] = 'plain', test_mode: bool = False, seed: int = 0) -> None:
        own = [dict(type='ChangeUp', source=up or self.up, target='y'), *self.quirks]
        super().__init__([*own, *pipeline], seed, test_mode)
        self.root, self.split = Path(root).expanduser(), split
        divided = 'val' not in self.splits and split in ('fit', 'val')
        self.published = 'train' if split == 'fit' or divided else split  # the publisher's split that is listed
        self.templates = load_templates(templates)
        if self.published not in self.splits:
            names = dict.fromkeys((*self.splits, 'fit', 'val'))
            raise ValueError(f'split={split!r}: {type(self).__name__} has the splits {", ".join(names)}')
        if not self.root.exists():
            raise FileNotFoundError(f'{root} does not exist; name the folder of {type(self).__name__}, see '
                                    'docs/datasets.md')
        listing = self.list_entries()
        if divided:
            listing.entries = [entry for entry in listing.entries
                               if (split_of_uid(self.shape_of(entry.uid)) == 'val') == (split == 'val')]
        self.absent = listing.absent
        known = list(dict.fromkeys(listing.classes))
        if classes is not None:
            known = label_names(known, classes, str(root))
        self.classes = known
        self._labels = {name: label for label, name in enumerate(known)}
        self.entries = [entry for entry in listing.entries if classes is None or entry.category in self._labels]
        if self.absent:
            print_log(f'{type(self).__name__}: {len(self.absent)} of {len(self.absent) + len(listing.entries)} listed '
                      f'objects are not in {root}, the first is {self.absent[0]}', logger='current')
        if not self.entries:
            absent = f' ({len(self.absent)} are listed and absent)' if self.absent else ''
            reason = '' if self.absent else obstacle(self.root)
            raise ValueError(f'{root}: no object of split={split!r} was found{absent}; '
                             + (reason or f'docs/datasets.md shows how {type(self).__name__} lies on disk'))

    @abstractmethod
    def list_entries(self) -> Listing:
        """List the objects of the split ``self.published`` below ``self.root``, in a fixed order."""

    @abstractmethod
    def read(self, entry: Entry) -> GaussianCloud:
        """Read an object in the frame of its file."""

    def read_captioned(self, entry: Entry) -> tuple[GaussianCloud, Sequence[str]]:
        """Read an object and its own captions, for sets whose captions lie with the object."""
        return self.read(entry), entry.captions

    def shape_of(self, uid: str) -> str:
        """Return the name of the shape of an object, the same for copies that belong in one part of ``train``."""
        return uid

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        return (f'{type(self).__name__}({str(self.root)!r}, split={self.split!r}: {len(self)} objects, '
                f'{len(self.classes)} classes, {len(self.absent)} absent)')

    def load(self, index: int, rng: np.random.Generator) -> dict:
        entry = self.entries[index]
        try:
            cloud, captions = self.read_captioned(entry)
        except ValueError as error:
            if str(self.root) in str(error):
                raise
            raise ValueError(f'{self.root}: {error}') from error  # names of files are those below root
        captions = list(captions)
        if not captions and entry.category is not None:
            captions = [fill(template, entry.category) for template in self.templates]
        captions = captions or ['an object']
        chosen = 0 if self.test_mode else int(rng.integers(len(captions)))
        # Every caption of an object describes it, and class names all objects of the class, so the first one marks it.
        results = dict(uid=entry.uid, gaussians=cloud, captions=captions, caption=captions[chosen],
                       caption_id=caption_id(captions[0]))
        if self.classes:
            results.update(category=entry.category or '', label=self._labels.get(entry.category, -1))
        return results


def obstacle(root: Path) -> str:
    """Return why the files of a folder cannot be read as they are, or ``''``."""
    names = [path.relative_to(root).as_posix() for path in visible_files(root)] if root.is_dir() else []
    packed = next((name for name in names if name.endswith(('.tar.gz', '.tgz'))), None)
    unfinished = next((name for name in names if name.endswith(UNFINISHED)), None)
    if unfinished:
        return f'{unfinished} is an unfinished download; continue it'
    return '' if packed is None else (f'{packed} and other .tar.gz archives cannot be read at random; unpack them, or '
                                      'gunzip them to .tar')


def require(path: Path, what: str) -> Path:
    """Return the path of a file of a set that is there.

    Raises:
        FileNotFoundError: It is not; the message says what it is.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist, {what}; download it, docs/datasets.md shows how the set lies '
                                'on disk')
    return path


def readable(name: str) -> str:
    """Return a class name as a prompt has it: ``'night_stand'`` as ``'night stand'``."""
    return name.replace('_', ' ')


def match_all(pattern: str) -> Callable[[str], re.Match | None]:
    """Return the search of a pattern that ends where a name ends and starts at a folder."""
    return re.compile(rf'(?:^|/){pattern}$').search
