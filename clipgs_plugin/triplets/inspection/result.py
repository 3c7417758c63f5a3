"""Result of an inspection."""
from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy import ndarray

from clipgs_plugin.triplets.inspection.strips import Strip

# Label of each per-object column, and the sign of its worst end: -1 is the minimum, 1 the maximum.
COLUMNS = dict(psnr=('PSNR (dB)', -1), psnr_foreground=('PSNR of the foreground (dB)', -1), ssim=('SSIM', -1),
               bytes=('bytes', 1), gaussians=('Gaussians', 1), captions=('captions', -1))


@dataclass(frozen=True)
class Problem:
    """Damage or inconsistency; ``shard`` and ``uid`` are None if it concerns more than one."""

    shard: int | None
    uid: str | None
    reason: str

    def __str__(self) -> str:
        where = [] if self.shard is None else [f'shard {self.shard:05d}']
        where += [] if self.uid is None else [self.uid]
        return ': '.join([', '.join(where), self.reason] if where else [self.reason])


@dataclass(frozen=True)
class ShardSummary:
    """Size and hash of a shard."""

    shard: int
    objects: int
    bytes: int
    sha256: str


@dataclass
class Inspection:
    """Problems, statistics and sample objects of a dataset.

    Attributes:
        root: Folder of the dataset.
        settings: Contents of ``dataset.json``; missing entries have defaults.
        shards: Every readable shard.
        problems: All problems, in the order of the checks.
        columns: Value of each object by name of the column, in the order of the shards, NaN if not measured, (n,)
            float64.
        categories: Number of objects by category.
        splits: Number of objects by split.
        failed: Number of objects that could not be generated, by type of error and message; FILE stands for their path.
        features: Number of shards with valid features, by teacher.
        worst: Objects of lowest foreground PSNR, the worst first.
        random: Other objects, chosen at random.
    """

    root: Path
    settings: dict
    shards: list[ShardSummary] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    columns: dict[str, ndarray] = field(default_factory=dict)
    categories: Counter = field(default_factory=Counter)
    splits: Counter = field(default_factory=Counter)
    failed: Counter = field(default_factory=Counter)
    features: Counter = field(default_factory=Counter)
    worst: list[Strip] = field(default_factory=list)
    random: list[Strip] = field(default_factory=list)

    @property
    def objects(self) -> int:
        """Number of objects."""
        return sum(shard.objects for shard in self.shards)

    @property
    def sha256(self) -> str:
        """Hash of all shards, as printed by ``cd OUT/shards && sha256sum *.tar | sha256sum``."""
        lines = ''.join(f'{shard.sha256}  {shard.shard:05d}.tar\n' for shard in self.shards)
        return hashlib.sha256(lines.encode()).hexdigest()

    def add_problems(self, reasons: Iterable[str], shard: int | None = None, uid: str | None = None) -> None:
        """Record problems of the dataset, of a shard or of an object."""
        self.problems += [Problem(shard, uid, reason) for reason in reasons]

    def statistics(self) -> dict[str, dict[str, float]]:
        """Summarise each column that has values: number measured, median and worst.

        The worst value is the lowest quality, the fewest captions, and the most bytes and Gaussians.
        """
        summary = {}
        for name, values in self.columns.items():
            values = values[~np.isnan(values)]
            if len(values):
                worst = values.min() if COLUMNS[name][1] < 0 else values.max()
                summary[name] = dict(measured=len(values), median=float(np.median(values)), worst=float(worst))
        return summary

    def to_dict(self) -> dict:
        """Convert everything but the images to JSON values."""
        return dict(
            root=str(self.root), objects=self.objects, sha256=self.sha256, statistics=self.statistics(),
            splits=dict(self.splits), categories={str(name): count for name, count in self.categories.items()},
            features=dict(self.features), problems=[asdict(problem) for problem in self.problems],
            failed=[dict(error=error, message=message, objects=count)
                    for (error, message), count in self.failed.most_common()],
            worst=[strip.uid for strip in self.worst], random=[strip.uid for strip in self.random],
            shards=[asdict(shard) for shard in self.shards])


def describe(error: Exception) -> str:
    """Describe an error in words; the message of some errors is only a key, or empty."""
    return str(error) if isinstance(error, ValueError | OSError) and str(error) else f'{type(error).__name__}: {error}'
