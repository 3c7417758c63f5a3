"""Whether a folder of triplets is whole, and what it holds: every shard read, and a page to look at.

Nothing stops at the first problem. What no check can see is a changed byte that still decodes: the sha256 of the
shards tells two copies apart.
"""
from __future__ import annotations

import hashlib
import heapq
import html
import json
import math
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray

from clipgs_plugin.io.files import write_whole
from clipgs_plugin.ops import render
from clipgs_plugin.structures import GaussianCloud
from clipgs_plugin.triplets.encoding import caption_id, decode_gaussians, decode_view
from clipgs_plugin.triplets.features import feature_folder
from clipgs_plugin.triplets.generation import FAILED
from clipgs_plugin.triplets.shards import list_shards, read_settings, scan_shard, shard_path

BLOCK = 512             # of a tar
AMPLIFIED = 4           # by how much differences are shown larger than they are
SHOWN = 200             # problems and shards on the page; the JSON has all
# Columns of numbers, one value an object: a name to read, and the sign of what is worst (-1: the least).
COLUMNS = dict(psnr=('PSNR (dB)', -1), psnr_foreground=('PSNR of the foreground (dB)', -1), ssim=('SSIM', -1),
               bytes=('bytes', 1), gaussians=('Gaussians', 1), captions=('captions', -1))
MEASURED = ('psnr', 'psnr_foreground', 'ssim')


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be; ``shard`` or ``uid`` None where it is not of one alone."""

    shard: int | None
    uid: str | None
    reason: str

    def __str__(self) -> str:
        where = [] if self.shard is None else [f'shard {self.shard:05d}']
        where += [] if self.uid is None else [self.uid]
        return ': '.join([', '.join(where), self.reason] if where else [self.reason])


@dataclass(frozen=True)
class Shard:
    """A file of the set."""

    shard: int
    objects: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Strip:
    """An object to look at: stored views beside pictures of its stored Gaussians from the same cameras."""

    uid: str
    record: dict
    numbers: tuple[int, ...]        # of the views
    views: ndarray                  # (K, H, W, 3) uint8
    splats: ndarray | None = None   # (K, H, W, 3) uint8, None where the set does not say its cameras

    def psnr(self) -> list[float]:
        """Of each splat view against the stored one, dB, at most 100, K."""
        errors = (self.views.astype(np.float64) - self.splats) / 255
        return [-10 * math.log10(max(float(mse), 1e-10)) for mse in (errors ** 2).mean((1, 2, 3))]

    def difference(self) -> ndarray:
        """``AMPLIFIED`` times the absolute difference, cut at white, (K, H, W, 3) uint8."""
        difference = np.abs(self.views.astype(np.int64) - self.splats)
        return (AMPLIFIED * difference).clip(0, 255).astype(np.uint8)


@dataclass
class Inspection:
    """What was found.

    Attributes:
        root: The folder.
        settings: ``dataset.json``.
        shards: Every shard that could be read.
        problems: In the order they were found.
        columns: One value an object by name, in the order of the shards, NaN where it was not measured, (n,) float64.
        categories: Objects of each.
        splits: Objects of each.
        failed: Objects that generation could not make, by type of error and reason, where FILE is theirs.
        features: Shards whose features are there and whole, by teacher.
        worst: Objects of least foreground PSNR, the worst first.
        random: Others.
    """

    root: Path
    settings: dict
    shards: list[Shard] = field(default_factory=list)
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
        return sum(shard.objects for shard in self.shards)

    @property
    def sha256(self) -> str:
        """Of all shards: what ``cd OUT/shards && sha256sum *.tar | sha256sum`` prints."""
        lines = ''.join(f'{shard.sha256}  {shard.shard:05d}.tar\n' for shard in self.shards)
        return hashlib.sha256(lines.encode()).hexdigest()

    def statistics(self) -> dict[str, dict[str, float]]:
        """Number measured, median and worst of each column that has any value; worst is the least quality and
        the fewest captions, and the most bytes and Gaussians."""
        found = {}
        for name, values in self.columns.items():
            values = values[~np.isnan(values)]
            if len(values):
                worst = values.min() if COLUMNS[name][1] < 0 else values.max()
                found[name] = dict(measured=len(values), median=float(np.median(values)), worst=float(worst))
        return found

    def to_dict(self) -> dict:
        """All but the pictures, as JSON."""
        return dict(
            root=str(self.root), objects=self.objects, sha256=self.sha256, statistics=self.statistics(),
            splits=dict(self.splits), categories={str(name): count for name, count in self.categories.items()},
            features=dict(self.features), problems=[asdict(problem) for problem in self.problems],
            failed=[dict(error=error, message=message, objects=count)
                    for (error, message), count in self.failed.most_common()],
            worst=[strip.uid for strip in self.worst], random=[strip.uid for strip in self.random],
            shards=[asdict(shard) for shard in self.shards])


def inspect(root: str | Path, worst: int = 8, random: int = 8, seed: int = 0, views: int = 3,
            report: Callable[[int, int | None], None] = lambda done, total: None) -> Inspection:
    """Read a whole set of triplets and say what is wrong with it.

    Checked are: every shard as a tar; the index and the counts of ``dataset.json`` against the shards; that every
    cloud decodes and is finite, every picture decodes and has the set's size, every record agrees with its object and
    has captions; and that features, where there are any, are of these objects and captions.

    Memory is that of the index, a few numbers of each object, and one object; of features one shard.

    Args:
        root: Folder of the dataset.
        worst: Strips of objects of least quality.
        random: Strips of others.
        seed: Of which others.
        views: Of each strip.
        report: Called after each object with their number so far, and of all where it is known.

    Raises:
        FileNotFoundError: The folder has no ``dataset.json``.
        ValueError: ``dataset.json`` is of another format, or a number is out of range.
    """
    if worst < 0 or random < 0 or views < 1:
        raise ValueError(f'worst={worst}, random={random}, views={views}: expected at least 0, 0 and 1')
    return _Run(Path(root), worst, random, seed, views, report).inspect()


class _Smallest:
    """The few items with the smallest keys of many."""

    def __init__(self, count: int) -> None:
        self.count, self._heap, self._seen = count, [], 0

    def add(self, key: float, item) -> None:
        self._seen += 1
        heapq.heappush(self._heap, (-key, -self._seen, item))  # of equal keys the first comes first
        if len(self._heap) > self.count:
            heapq.heappop(self._heap)

    def items(self) -> list:
        return [item for *_, item in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]


class _Run:
    """An inspection under way."""

    def __init__(self, root: Path, worst: int, random: int, seed: int, views: int,
                 report: Callable[[int, int | None], None]) -> None:
        self.root, self.views, self.report, self.num_random = root, views, report, random
        self.found = Inspection(root, read_settings(root))
        size = self.found.settings['render'].get('size')
        self.size = (size, size) if isinstance(size, int) else None  # height, width
        self.num_views: int | None = None
        self.columns = {name: array('d') for name in COLUMNS}
        self.worst, self.random = _Smallest(worst), _Smallest(worst + random)
        self.rng = np.random.default_rng(seed)
        self.uids: set[str] = set()
        self.done, self.total = 0, self.found.settings.get('counts', {}).get('objects')

    def problem(self, reason: str, shard: int | None = None, uid: str | None = None) -> None:
        self.found.problems.append(Problem(shard, uid, reason))

    def inspect(self) -> Inspection:
        found, shards = self.found, list_shards(self.root)
        index = self.index()
        if not shards:
            self.problem('no shards')
        if index is not None:
            self.total = len(index)
            for shard in sorted(set(index['shard'].to_numpy().tolist()) - set(shards)):
                self.problem('index.parquet names it, but there is no such file', shard)
        teachers = self.teachers(shards)
        for shard in shards:
            self.shard(shard, index, teachers)
        found.columns = {name: np.array(values) for name, values in self.columns.items()}
        self.counts()
        self.failures()
        rows = self.worst.items()
        found.worst = self.strips(rows)
        shown = {row['uid'] for row in rows}
        others = [row for row in self.random.items() if row['uid'] not in shown]
        found.random = self.strips(others[:self.num_random])
        return found

    def index(self):
        """The index as an Arrow table, None where it cannot be read."""
        import pyarrow as pa
        import pyarrow.parquet as pq
        path = self.root / 'index.parquet'
        try:
            table = pq.read_table(path)
            table.select(['shard', 'uid'])
        except FileNotFoundError:
            self.problem('index.parquet is missing: the run that writes the set has not ended; resume it, or use '
                         'clipgs_plugin.triplets.rebuild_index')
        except (pa.ArrowException, OSError, KeyError) as error:
            self.problem(f'index.parquet cannot be read ({error}); clipgs_plugin.triplets.rebuild_index makes it anew')
        else:
            return table
        return None

    # One shard

    def shard(self, shard: int, index, teachers: dict[str, dict]) -> None:
        """All of one shard; where it is damaged, what the index says lies in it."""
        path = shard_path(self.root, shard)
        indexed = None if index is None else index.take(
            np.flatnonzero(index['shard'].to_numpy() == shard)).to_pylist()
        try:
            rows = scan_shard(path)
        except Exception as error:  # a damaged tar or record raises anything, and must not hide the rest
            self.problem(_said(error), shard)
            rows = indexed or []
        else:
            self.tail(path, shard, rows)
            if indexed is not None:
                self.agree(shard, rows, indexed)
        captions = []
        with path.open('rb') as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            for row in rows:
                captions.append(self.object(file, shard, row))
        self.found.shards.append(Shard(shard, len(rows), path.stat().st_size, digest.hexdigest()))
        for teacher, card in teachers.items():
            self.features(teacher, card, shard, [row['uid'] for row in rows], captions)

    def tail(self, path: Path, shard: int, rows: list[dict]) -> None:
        """After the last member there are zeros only; else a header is damaged, at which readers of tar just stop."""
        ends = [row[f'{part}_offset'] + row[f'{part}_size'] for row in rows for part in ('gaussians', 'record')]
        ends += [sum(member) for row in rows for member in zip(row['view_offsets'], row['view_sizes'])]
        end = -(-max(ends, default=0) // BLOCK) * BLOCK
        with path.open('rb') as file:
            file.seek(end)
            while block := file.read(1 << 20):
                if block.strip(b'\0'):
                    self.problem(f'{path.name} goes on after byte {end} with no readable tar header: it is damaged '
                                 'there, and readers lose what follows; download it again', shard)
                    return

    def agree(self, shard: int, rows: list[dict], indexed: list[dict]) -> None:
        """The index says of the shard what the shard says."""
        there = {row['uid']: row for row in rows}
        told = {row['uid']: row for row in indexed}
        for uids, reason in ((told.keys() - there.keys(), 'index.parquet has {} that the shard does not hold'),
                             (there.keys() - told.keys(), 'index.parquet lacks {} of the shard')):
            if uids:
                objects = f'{len(uids)} object{"s" * (len(uids) != 1)}'
                self.problem(f'{reason.format(objects)}, the first {min(uids)}; is it of another set? '
                             'clipgs_plugin.triplets.rebuild_index makes it anew', shard)
        both = [uid for uid in there if uid in told]
        if both != [uid for uid in told if uid in there]:
            self.problem('index.parquet has the objects in another order than the shard', shard)
        for uid in both:
            other = sorted(key for key, value in there[uid].items() if told[uid].get(key) != value)
            if other:
                key = other[0]
                self.problem(f'index.parquet has {key} {told[uid].get(key)!r}, the shard {there[uid][key]!r}'
                             + (f' ({len(other)} columns differ)' if len(other) > 1 else ''), shard, uid)

    # One object

    def object(self, file, shard: int, row: dict) -> list[int] | None:
        """Check an object and count it; returns the ids of its captions, None where they cannot be read."""
        uid, before = row['uid'], len(self.found.problems)
        say = lambda reason: self.problem(reason, shard, uid)  # noqa: E731
        if uid in self.uids:
            say('the uid is in the set more than once')
        self.uids.add(uid)
        record, cloud = self.record(file, row, say), None
        try:
            cloud = decode_gaussians(_read(file, row['gaussians_offset'], row['gaussians_size'])).validate('Gaussians')
        except Exception as error:  # bytes of any content raise anything
            say(f'Gaussians: {_said(error)}')
        self.pictures(file, row, say)
        if record is not None:
            self.consistent(record, row, cloud, say)
        self.count(row, record or {}, shown=len(self.found.problems) == before)
        self.done += 1
        self.report(self.done, self.total)
        return record and [caption_id(caption['text']) for caption in record['captions']]

    def record(self, file, row: dict, say: Callable[[str], None]) -> dict | None:
        """The record of an object, None where it cannot be read or lacks captions."""
        try:
            record = json.loads(_read(file, row['record_offset'], row['record_size']))
            texts = [caption['text'].strip() for caption in record['captions']]
            missing = {'uid', 'category', 'split', 'source', 'quality', 'cameras', 'num_gaussians'} - record.keys()
        except Exception as error:  # bytes of any content raise anything
            say(f'record: {_said(error)}')
            return None
        if missing:
            say(f'record: lacks {", ".join(sorted(missing))}')
            return None
        if not isinstance(record['source'], dict) or not isinstance(record['quality'], dict) or not all(
                isinstance(record['quality'].get(name, 0.0), int | float) for name in MEASURED):
            say(f'record: source {record["source"]!r} and quality {record["quality"]!r}, expected objects and numbers')
            return None
        if not texts or not all(texts):
            say('record: no captions' if not texts else f'record: caption {texts.index("")} is empty')
        return record

    def pictures(self, file, row: dict, say: Callable[[str], None]) -> None:
        count = len(row['view_offsets'])
        if self.num_views is None:
            self.num_views = count
        if count != self.num_views:
            say(f'{count} views, the first object has {self.num_views}')
        for i, member in enumerate(zip(row['view_offsets'], row['view_sizes'])):
            try:
                shape = decode_view(_read(file, *member)).shape[:2]
            except Exception as error:  # bytes of any content raise anything
                say(f'view {i}: cannot be decoded ({_said(error)})')
                continue
            self.size = self.size or shape
            if shape != self.size:
                say(f'view {i}: {shape[1]} x {shape[0]} pixels, expected {self.size[1]} x {self.size[0]}')

    def consistent(self, record: dict, row: dict, cloud: GaussianCloud | None, say: Callable[[str], None]) -> None:
        """The record says of an object what the shard holds of it."""
        pairs = [('uid', record['uid'], row['uid']),
                 ('num_views', record.get('num_views'), len(row['view_offsets']))]
        if cloud is not None:
            pairs += [('num_gaussians', record['num_gaussians'], len(cloud)),
                      ("sh_degree of dataset.json", self.found.settings['sh_degree'], cloud.sh_degree)]
        for name, told, there in pairs:
            if told != there:
                say(f'{name} is {told!r}, the shard holds {there!r}')
        bad = [name for name, value in record['quality'].items()
               if isinstance(value, float) and not math.isfinite(value)]
        if bad:
            say(f'record: quality {bad[0]} is {record["quality"][bad[0]]}')
        try:
            cameras = _cameras(record, self.found.settings['render'], len(row['view_offsets']))
        except ValueError as error:
            say(f'cameras: {error}')
        else:
            if cameras is None and record['cameras'] == 'dataset' and 'viewmats' in self.found.settings['render']:
                say('cameras: dataset.json has viewmats but no intrinsics')

    def count(self, row: dict, record: dict, shown: bool) -> None:
        """Add an object to the numbers, and, if it is sound, to those that may be shown."""
        self.found.categories[row['category']] += 1
        self.found.splits[row['split']] += 1
        quality = record.get('quality', {})
        values = {name: quality.get(name) for name in MEASURED}
        values.update(bytes=row['gaussians_size'] + row['record_size'] + sum(row['view_sizes']),
                      gaussians=row['num_gaussians'], captions=row['num_captions'])
        for name, value in values.items():
            self.columns[name].append(math.nan if value is None else value)
        key = self.rng.random()
        if not shown or not row['view_sizes']:
            return
        self.random.add(key, row)
        measured = [values[name] for name in ('psnr_foreground', 'psnr') if values[name] is not None]
        if measured:
            self.worst.add(measured[0], row)

    # Beside the shards

    def counts(self) -> None:
        """The counts of dataset.json, against the objects that were seen."""
        told = self.found.settings.get('counts')
        if told is None:
            self.problem('dataset.json has no counts: the run that writes the set has not ended')
            return
        columns = self.found.columns
        there = dict(objects=self.found.objects, shards=len(self.found.shards), views_per_object=self.num_views or 0,
                     gaussians=int(columns['gaussians'].sum()), captions=int(columns['captions'].sum()),
                     splits=dict(self.found.splits), categories=len(self.found.categories.keys() - {None}))
        for name, value in there.items():
            if told.get(name) != value:
                self.problem(f'dataset.json counts {name} {told.get(name)!r}, the shards hold {value!r}')

    def teachers(self, shards: list[int]) -> dict[str, dict]:
        """``teacher.json`` of every teacher that has features."""
        cards = {}
        for folder in sorted(path for path in (self.root / 'features').glob('*') if path.is_dir()):
            try:
                card = json.loads((folder / 'teacher.json').read_text(encoding='utf-8'))
                cards[folder.name] = dict(name=card['name'], width=card['width'])
            except (OSError, ValueError, KeyError, TypeError) as error:
                self.problem(f'features of {folder.name}: teacher.json cannot be read ({_said(error)})')
                continue
            self.found.features[folder.name] = 0
            if card['name'] != folder.name:
                self.problem(f'features of {folder.name}: teacher.json names {card["name"]!r}')
            strays = {path.stem for path in folder.glob('*.safetensors')} - {f'{shard:05d}' for shard in shards}
            for stray in sorted(strays):
                self.problem(f'features of {folder.name}: {stray}.safetensors is of no shard')
        return cards

    def features(self, teacher: str, card: dict, shard: int, uids: list[str],
                 captions: list[list[int] | None]) -> None:
        """A teacher's features of one shard are of its objects and captions."""
        import safetensors
        path = feature_folder(self.root, teacher) / f'{shard:05d}.safetensors'
        say = lambda reason, uid=None: self.problem(f'features of {teacher}: {reason}', shard, uid)  # noqa: E731
        if not path.is_file():
            say(f'missing; run tools/cache_features.py {self.root} --teacher {teacher}')
            return
        before = len(self.found.problems)
        try:
            with safetensors.safe_open(path, 'numpy') as file:
                told = json.loads(file.metadata()['uids'])
                image, text, counts, ids = (file.get_tensor(name)
                                            for name in ('image', 'text', 'text_counts', 'caption_ids'))
        except Exception as error:  # bytes of any content raise anything
            say(f'cannot be read ({_said(error)})')
            return
        if told != uids:
            say('of other objects than the shard')
            return
        wanted = (len(uids), self.num_views, card['width'])
        if image.shape != wanted or text.shape[::2] != wanted[::2]:
            say(f'image has shape {image.shape} and text {text.shape}, expected {wanted} and {wanted[::2]} around '
                'the captions')
            return
        for i, (uid, numbers) in enumerate(zip(uids, captions)):
            if not (np.isfinite(image[i]).all() and np.isfinite(text[i]).all()):
                say('NaN or infinite', uid)
            if numbers is not None and ids[i, :counts[i]].tolist() != numbers:
                say('of other captions than those of the record', uid)
        self.found.features[teacher] += before == len(self.found.problems)

    def failures(self) -> None:
        """Lines of failed.jsonl by type of error and reason; one that a kill cut off is left out."""
        path = self.root / FAILED
        if not path.is_file():
            return
        with path.open('rb') as file:
            for i, line in enumerate(file, 1):
                if not line.endswith(b'\n'):
                    return
                try:
                    entry = json.loads(line)
                    # Without the object's own path, equal reasons are equal.
                    self.found.failed[entry['error'], entry['message'].replace(entry['path'], 'FILE')] += 1
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    self.problem(f'{path.name}: line {i} cannot be read ({_said(error)})')

    # To look at

    def strips(self, rows: Sequence[dict]) -> list[Strip]:
        return [self.strip(row) for row in rows]

    def strip(self, row: dict) -> Strip:
        """A sound object."""
        count = len(row['view_offsets'])
        numbers = tuple(sorted({(2 * i + 1) * count // (2 * self.views) for i in range(self.views)}))
        with shard_path(self.root, row['shard']).open('rb') as file:
            record = json.loads(_read(file, row['record_offset'], row['record_size']))
            cloud = decode_gaussians(_read(file, row['gaussians_offset'], row['gaussians_size']))
            views = np.stack([decode_view(_read(file, row['view_offsets'][i], row['view_sizes'][i])) for i in numbers])
        settings = self.found.settings['render']
        cameras = _cameras(record, settings, count)
        if cameras is None:
            return Strip(row['uid'], record, numbers, views)
        viewmats, intrinsics = (torch.from_numpy(matrices[list(numbers)]) for matrices in cameras)
        with torch.no_grad():
            drawn, _ = render(cloud, viewmats, intrinsics, views.shape[2], views.shape[1],
                              tuple(settings.get('background', (1.0, 1.0, 1.0))))
        splats = np.rint(drawn.clamp(0, 1).numpy() * 255).astype(np.uint8)
        return Strip(row['uid'], record, numbers, views, splats)


def _read(file, offset: int, size: int) -> bytes:
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise ValueError(f'the file is truncated: bytes {offset} to {offset + size} were expected')
    return data


def _said(error: Exception) -> str:
    """An error in words; some say only a key or nothing."""
    return str(error) if isinstance(error, ValueError | OSError) and str(error) else f'{type(error).__name__}: {error}'


def _cameras(record: dict, settings: dict, count: int) -> tuple[ndarray, ndarray] | None:
    """Of every view, (V, 4, 4) and (V, 3, 3) float32; None where the set does not hold them as matrices.

    Raises:
        ValueError: Matrices that are no cameras of V views.
    """
    cameras = settings if record['cameras'] == 'dataset' else record['source'].get('cameras', {})
    if 'viewmats' not in cameras or 'intrinsics' not in cameras:
        return None
    viewmats, intrinsics = (np.array(cameras[name], np.float32) for name in ('viewmats', 'intrinsics'))
    if intrinsics.shape == (3, 3):
        intrinsics = np.repeat(intrinsics[None], count, axis=0)
    if viewmats.shape != (count, 4, 4) or intrinsics.shape != (count, 3, 3):
        raise ValueError(f'viewmats have shape {viewmats.shape} and intrinsics {intrinsics.shape}, expected '
                         f'{(count, 4, 4)} and {(count, 3, 3)}')
    if not (np.isfinite(viewmats).all() and np.isfinite(intrinsics).all()):
        raise ValueError('NaN or infinite')
    return viewmats, intrinsics


# The page

STYLE = """
body { max-width: 1280px } .strip { flex: 1; min-width: 0; width: auto }
.strip img { width: 100%; border: 1px solid #ddd }
.query { width: 250px; font-size: 13px } .query b { font-size: 14px } .query ul { margin: .3em 0; padding-left: 1.2em }
td.text { text-align: left; overflow-wrap: anywhere } .bad { color: #b02020 } .good { color: #2a7a3a }
code { font-size: 12px }
"""


def write_page(inspection: Inspection, path: str | Path) -> None:
    """Write what was found as one HTML file that needs no other."""
    write_whole(Path(path), [render_page(inspection).encode()])


def render_page(inspection: Inspection) -> str:
    """The page of an inspection."""
    from clipgs_plugin.visualization import report
    found = inspection
    title = f'Triplets in {found.root.resolve().name}'
    parts = [f'<h1>{html.escape(title)}</h1>', _verdict(found), *_facts(found, report)]
    parts += _problems(found)
    measured = [name for name in (*MEASURED, 'bytes') if name in found.statistics()]
    if measured:
        parts += ['<h2>Distributions</h2>', report.image_tag(report.figure_png(_draw_histograms(found, measured)),
                                                         'histograms')]
    for heading, strips, none in (
            ('Worst objects', found.worst, 'No object that can be shown has a quality that was measured.'),
            ('Random objects', found.random, 'No other object can be shown.')):
        parts += [f'<h2>{heading}</h2>', *([_strip(strip, report) for strip in strips] or [f'<p>{none}</p>'])]
        if strips and heading.startswith('Worst'):
            parts.insert(-len(strips), '<p class="note">By PSNR of the foreground on held-out views. ' + _LEGEND)
        elif strips:
            parts.insert(-len(strips), f'<p class="note">{_LEGEND}')
    if found.failed:
        rows = [(error, str(count), message) for (error, message), count in found.failed.most_common(SHOWN)]
        parts += [f'<h2>Objects that could not be made: {sum(found.failed.values()):,}</h2>',
                  _text_table(('Error', 'Objects', 'Reason'), rows)]
    rows = [(f'{shard.shard:05d}.tar', f'{shard.objects:,}', f'{shard.bytes:,}', shard.sha256)
            for shard in found.shards[:SHOWN]]
    parts += ['<h2>Shards</h2>', f'<p class="note">sha256 of all of them (sha256sum *.tar | sha256sum): '
              f'<code>{found.sha256}</code></p>', report.table_tag(('File', 'Objects', 'Bytes', 'sha256'), rows)]
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
            f'<style>{report.STYLE}{STYLE}</style></head><body>{"".join(parts)}</body></html>')


_LEGEND = ('Each triple: the stored view, the stored Gaussians from its camera, and their absolute difference '
           f'times {AMPLIFIED}.</p>')


def _verdict(found: Inspection) -> str:
    if found.problems:
        return f'<p class="bad"><b>{len(found.problems):,} problems were found.</b></p>'
    return '<p class="good"><b>No problem was found.</b></p>'


def _facts(found: Inspection, report) -> list[str]:
    """What the set holds, in sentences and a table."""
    settings = found.settings
    generator = settings.get('generator', {})
    lines = [f'Objects: {found.objects:,}. Shards: {len(found.shards):,}, '
             f'{sum(shard.bytes for shard in found.shards) / 1e6:,.1f} MB, made by '
             f'{generator.get("name", "an unnamed generator")}.',
             f'Splits: {_counted(found.splits)}.']
    categories = Counter({name: count for name, count in found.categories.items() if name is not None})
    if categories:
        lines.append(f'{len(categories):,} categories: {_counted(categories)}.')
    lines.append(f'Gaussians: {settings["dtype"]}, SH degree {settings["sh_degree"]}; {settings["frame"]}.')
    lines += [f'Features of {teacher}: {count:,} of {len(found.shards):,} shards.'
              for teacher, count in found.features.items()]
    rows = [(COLUMNS[name][0], f'{row["measured"]:,}', number(row['median']), number(row['worst']))
            for name, row in found.statistics().items()]
    return [*(f'<p>{html.escape(line)}</p>' for line in lines),
            report.table_tag(('An object', 'Measured', 'Median', 'Worst'), rows)]


def number(value: float) -> str:
    """A number in few digits."""
    return f'{value:,.0f}' if value >= 1000 or value == int(value) else f'{value:.4g}'


def _counted(counter: Counter, most: int = 12) -> str:
    words = [f'{name} {count:,}' for name, count in counter.most_common(most)]
    return ', '.join(words) + (f' and {len(counter) - most:,} more' if len(counter) > most else '')


def _problems(found: Inspection) -> list[str]:
    if not found.problems:
        return []
    rows = [('' if problem.shard is None else f'{problem.shard:05d}', problem.uid or '', problem.reason)
            for problem in found.problems[:SHOWN]]
    note = [f'<p class="note">The first {SHOWN} of {len(found.problems):,}.</p>'] * (len(found.problems) > SHOWN)
    return ['<h2>Problems</h2>', *note, _text_table(('Shard', 'Object', 'Reason'), rows)]


def _text_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = ''.join(f'<th>{html.escape(column)}</th>' for column in columns)
    body = ''.join('<tr>' + ''.join(f'<td class="text">{html.escape(cell)}</td>' for cell in row) + '</tr>'
                   for row in rows)
    return f'<table><tr>{head}</tr>{body}</table>'


def _strip(strip: Strip, report) -> str:
    """An object's words beside its pictures."""
    record = strip.record
    quality = ', '.join(f'{name} {record["quality"][name]:.4g}' for name in MEASURED if name in record['quality'])
    source = record['source']
    facts = [record['category'] or 'no category', record['split'], f'{record["num_gaussians"]:,} Gaussians', quality,
             str(source.get('file', '')), str(source.get('made', ''))]
    captions = ''.join(f'<li>{html.escape(caption["text"])} <span class="note">'
                       f'({html.escape(str(caption.get("source") or "source not said"))})</span></li>'
                       for caption in record['captions'])
    words = '<br>'.join(html.escape(fact) for fact in facts if fact)
    figures = []
    for i, view in enumerate(strip.numbers):
        pictures, caption = [strip.views[i]], f'view {view}'
        if strip.splats is not None:
            pictures += [strip.splats[i], strip.difference()[i]]
            caption += f': {strip.psnr()[i]:.1f} dB'
        picture = report.image_tag(report.array_png(np.concatenate(pictures, 1)), caption)
        figures.append(f'<figure class="strip">{picture}<figcaption>{caption}</figcaption></figure>')
    note = '' if strip.splats is not None else '<p class="note">The set does not hold its cameras as matrices.</p>'
    return (f'<div class="row"><div class="query"><b>{html.escape(strip.uid)}</b><br>{words}<ul>{captions}</ul>{note}'
            f'</div>{"".join(figures)}</div>')


def _draw_histograms(found: Inspection, names: Sequence[str]):
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
    figure = Figure(figsize=(2.9 * len(names), 2.4), layout='constrained')
    for i, name in enumerate(names, 1):
        values = found.columns[name]
        values = values[np.isfinite(values)] / (1000 if name == 'bytes' else 1)
        axes = figure.add_subplot(1, len(names), i)
        axes.hist(values, bins=30)
        axes.set_title('kB' if name == 'bytes' else COLUMNS[name][0], fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    figure.supylabel('objects', fontsize=8)
    return figure
