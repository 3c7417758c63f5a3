"""Inspection of a whole dataset, which continues after a problem."""
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from clipgs_plugin.triplets.codecs import caption_id, decode_gaussians, decode_view
from clipgs_plugin.triplets.index import scan_shard
from clipgs_plugin.triplets.inspection.check_features import check_features, load_teachers
from clipgs_plugin.triplets.inspection.check_index import compare_row, compare_uids, load_index
from clipgs_plugin.triplets.inspection.check_samples import Expected, check_sample
from clipgs_plugin.triplets.inspection.check_settings import check_cameras, check_counts, load_settings
from clipgs_plugin.triplets.inspection.check_shards import check_members, find_shards, hash_file, read_bytes
from clipgs_plugin.triplets.inspection.result import Inspection, ShardSummary, describe
from clipgs_plugin.triplets.inspection.statistics import Statistics, count_failures
from clipgs_plugin.triplets.inspection.strips import Strip, draw_strip
from clipgs_plugin.triplets.layout import INDEX, shard_path


def inspect(root: str | Path, worst: int = 8, random: int = 8, seed: int = 0, views: int = 3,
            report: Callable[[int, int | None], None] = lambda done, total: None) -> Inspection:
    """Check a triplet dataset for damage and summarise its contents.

    The checks are: every shard is a complete tar file; the index and the counts of ``dataset.json`` agree with the
    shards; every object decodes and is finite; every view decodes and has the dataset's size; every record agrees with
    its object and has captions; Gaussians and views have the sha256 of the record; cached features belong to these
    objects and captions; and the folder has no other files: files that are not shards, tar members of no object, and
    leftovers of unfinished runs.

    The peak memory is that of the index, a few numbers per object, one object, and the features of one shard.

    Args:
        root: Folder of the dataset.
        worst: Number of objects of lowest quality to show.
        random: Number of other objects to show.
        seed: Random seed of the other objects.
        views: Number of views to show of each object.
        report: Progress callback, called after each object with the number of inspected objects and the number of all,
            None if it is unknown.

    Raises:
        FileNotFoundError: The folder has no ``dataset.json``.
        ValueError: ``dataset.json`` is not JSON or has another format, or a number is out of range.
    """
    if worst < 0 or random < 0 or views < 1:
        raise ValueError(f'worst={worst}, random={random}, views={views}: expected at least 0, 0 and 1')
    return _Run(Path(root), Statistics(worst, random, seed), report).inspect(views)


class _Run:
    """State of an inspection."""

    def __init__(self, root: Path, statistics: Statistics, report: Callable[[int, int | None], None]) -> None:
        self.root, self.statistics, self.report = root, statistics, report
        settings, problems = load_settings(root)
        self.found = Inspection(root, settings, categories=statistics.categories, splits=statistics.splits)
        self.found.add_problems(problems)
        self.expected = Expected.from_settings(settings)
        self.uids: set[str] = set()
        self.index = None                 # Arrow table
        self.widths: dict[str, int] = {}  # width of the features by teacher

    def inspect(self, views: int) -> Inspection:
        """Run all checks, then draw the objects to show."""
        found = self.found
        shards, problems = find_shards(self.root)
        found.add_problems(problems)
        self.index, problems = load_index(self.root)
        found.add_problems(problems)
        if not shards:
            found.add_problems(['no shards'])
        if self.index is not None:
            for shard in sorted(set(self.index['shard'].to_pylist()) - set(shards)):
                found.add_problems([f'{INDEX} lists it, but the file is missing'], shard)
        self.widths, problems = load_teachers(self.root, shards)
        found.add_problems(problems)
        found.features.update(dict.fromkeys(self.widths, 0))
        for shard in shards:
            self.check_shard(shard)
        found.columns = self.statistics.columns()
        self.check_totals()
        found.worst, found.random = ([self.draw(row, views) for row in rows] for rows in self.statistics.chosen())
        return found

    def check_shard(self, shard: int) -> None:
        """Check a shard, its objects and their features; the index locates the objects of a damaged shard."""
        path = shard_path(self.root, shard)
        try:
            file = path.open('rb')
        except OSError as error:
            self.found.add_problems([describe(error)], shard)
            return
        with file:
            rows = self.locate(shard, path)
            digest = hash_file(file)
            captions = [self.check_object(file, shard, row) for row in rows]
        self.found.shards.append(ShardSummary(shard, len(rows), path.stat().st_size, digest))
        for teacher in self.widths:
            self.check_features(teacher, shard, [row['uid'] for row in rows], captions)

    def locate(self, shard: int, path: Path) -> list[dict]:
        """Return the rows of a shard's objects, compared with the index."""
        indexed = None if self.index is None else self.index.take(
            np.flatnonzero(self.index['shard'].to_numpy() == shard)).to_pylist()
        try:
            rows = scan_shard(path)
        except Exception as error:  # a damaged tar file or record raises arbitrary errors
            self.found.add_problems([describe(error)], shard)
            return indexed or []
        self.found.add_problems(check_members(path), shard)
        if indexed is not None:
            self.found.add_problems(compare_uids(rows, indexed), shard)
            by_uid = {row['uid']: row for row in indexed}
            for row in rows:
                self.found.add_problems(compare_row(row, by_uid.get(row['uid'], {})), shard, row['uid'])
        return rows

    def check_object(self, file, shard: int, row: dict) -> list[int] | None:
        """Check and count an object; return the ids of its captions, None if its record is unusable."""
        record, problems = check_sample(file, row, self.expected)
        if row['uid'] in self.uids:
            problems.insert(0, 'the uid occurs more than once in the dataset')
        self.uids.add(row['uid'])
        self.found.add_problems(problems, shard, row['uid'])
        self.statistics.add(row, record, sound=not problems)
        self.report(self.statistics.objects, None if self.index is None else len(self.index))
        return record and [caption_id(caption['text']) for caption in record['captions']]

    def check_features(self, teacher: str, shard: int, uids: list[str], captions: list[list[int] | None]) -> None:
        """Check a teacher's features of one shard, and count them if they are valid."""
        shape = len(uids), self.expected.num_views, self.widths[teacher]
        problems = list(check_features(self.root, teacher, shard, shape, uids, captions))
        for uid, reason in problems:
            self.found.add_problems([f'features of {teacher}: {reason}'], shard, uid)
        self.found.features[teacher] += not problems

    def check_totals(self) -> None:
        """Check cameras and counts of ``dataset.json`` against all objects, and count the failures."""
        num_views = self.expected.num_views
        if num_views is not None:
            self.found.add_problems(check_cameras(self.found.settings['render'], num_views))
        self.found.add_problems(check_counts(self.found, num_views or 0))
        self.found.failed, problems = count_failures(self.root)
        self.found.add_problems(problems)

    def draw(self, row: dict, views: int) -> Strip:
        """Read a sound object and draw its strip, without Gaussians if its cameras are invalid."""
        count = len(row['view_offsets'])
        numbers = tuple(sorted({(2 * i + 1) * count // (2 * views) for i in range(views)}))
        with shard_path(self.root, row['shard']).open('rb') as file:
            record = json.loads(read_bytes(file, row['record_offset'], row['record_size']))
            cloud = decode_gaussians(read_bytes(file, row['gaussians_offset'], row['gaussians_size']))
            stored = np.stack([decode_view(read_bytes(file, row['view_offsets'][i], row['view_sizes'][i]))
                               for i in numbers])
        try:
            return draw_strip(record, cloud, numbers, stored, self.found.settings['render'])
        except Exception as error:  # arbitrary settings raise arbitrary errors
            self.found.add_problems([f'cannot be drawn from its cameras ({describe(error)})'], row['shard'], row['uid'])
            return Strip(row['uid'], record, numbers, stored)
