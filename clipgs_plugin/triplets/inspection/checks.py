"""Whether a folder of triplets is whole, and what it holds: every shard read, and some objects to look at.

Nothing stops at the first problem.
"""
from __future__ import annotations

import hashlib
import heapq
import json
import math
import re
import tarfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy import ndarray

from clipgs_plugin.structures import GaussianCloud
from clipgs_plugin.triplets.codecs import caption_id, decode_gaussians, decode_view
from clipgs_plugin.triplets.inspection.pictures import Strip, draw_strip, stored_cameras
from clipgs_plugin.triplets.layout import FAILED, FRAME, GAUSSIANS, PARTS, RECORD, feature_folder, shard_path
from clipgs_plugin.triplets.samples import content_hash
from clipgs_plugin.triplets.shards import read_settings, scan_shard

BLOCK = 512             # of a tar
_MEMBER = re.compile(rf'[A-Za-z0-9_-]+\.({re.escape(GAUSSIANS)}|{RECORD}|\d+\.webp)')
_INDEXED = ['uid', 'shard', 'category', 'split', 'num_gaussians', 'num_captions',
            *(f'{part}_{what}' for part in ('gaussians', 'record') for what in ('offset', 'size')),
            'view_offsets', 'view_sizes']
_KINDS = {dict: 'an object', str: 'words', int: 'a whole number'}
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


@dataclass
class Inspection:
    """What was found.

    Attributes:
        root: The folder.
        settings: ``dataset.json``, with what it lacks filled in.
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
    has captions; that Gaussians and views have the sha256 that the record tells; that features, where there are any,
    are of these objects and captions; and that nothing else lies there: files that are no shards, members of no object,
    and what runs leave that have not ended.

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
        ValueError: ``dataset.json`` is no JSON or of another format, or a number is out of range.
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
        self.found = Inspection(root, {})
        self.read_settings()
        size = self.found.settings['render'].get('size')
        self.size = (size, size) if isinstance(size, int) else None  # height, width
        self.num_views: int | None = None
        self.columns = {name: array('d') for name in COLUMNS}
        self.worst, self.random = _Smallest(worst), _Smallest(worst + random)
        self.rng = np.random.default_rng(seed)
        self.uids: set[str] = set()
        self.done, self.total = 0, None

    def problem(self, reason: str, shard: int | None = None, uid: str | None = None) -> None:
        self.found.problems.append(Problem(shard, uid, reason))

    def read_settings(self) -> None:
        """``dataset.json``, with what is needed of it filled in where it lacks or is of another kind."""
        try:
            told = read_settings(self.root)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f'{self.root / "dataset.json"} cannot be read ({error}); start the run that made the set '
                             'once more, which writes it anew, or copy that of a set of the same settings') from error
        for name, usual in dict(render={}, generator={}, frame=FRAME, dtype='of unknown dtype', sh_degree=0).items():
            if not isinstance(told.get(name), type(usual)):
                self.problem(f'dataset.json: {name} is {told.get(name)!r:.80}, expected {_KINDS[type(usual)]}')
                told[name] = usual
        self.found.settings = told

    def inspect(self) -> Inspection:
        found, shards = self.found, self.list_shards()
        index = self.read_index()
        if not shards:
            self.problem('no shards')
        if index is not None:
            self.total = len(index)
            for shard in sorted(set(index['shard'].to_numpy().tolist()) - set(shards)):
                self.problem('index.parquet names it, but there is no such file', shard)
        teachers = self.read_teachers(shards)
        for shard in shards:
            self.check_shard(shard, index, teachers)
        found.columns = {name: np.array(values) for name, values in self.columns.items()}
        self.compare_counts()
        self.read_failures()
        rows = self.worst.items()
        found.worst = self.draw_strips(rows)
        shown = {row['uid'] for row in rows}
        others = [row for row in self.random.items() if row['uid'] not in shown]
        found.random = self.draw_strips(others[:self.num_random])
        return found

    def list_shards(self) -> list[int]:
        """The numbers of the shards, ascending; other files are told."""
        shards = []
        for path in sorted((self.root / 'shards').glob('*')):
            if re.fullmatch(r'\d{5,}\.tar', path.name) and path.name == f'{int(path.stem):05d}.tar' and path.is_file():
                shards.append(int(path.stem))
            elif path.name.endswith('.tar.tmp'):
                self.problem(f'shards/{path.name}: the open shard of a run that has not ended; resume it')
            else:
                self.problem(f'shards/{path.name} is no shard, whose names are 00000.tar and so on; move it elsewhere')
        if (self.root / PARTS).is_dir():
            self.problem(f'{PARTS}/ holds parts of job arrays that are not in the shards; join them with '
                         'tools/make_triplets.py --join')
        return sorted(shards)

    def read_index(self):
        """The index as an Arrow table, None where it cannot be read."""
        import pyarrow as pa
        import pyarrow.parquet as pq
        path = self.root / 'index.parquet'
        try:
            table = pq.read_table(path)
            table.select(_INDEXED)
            if not pa.types.is_integer(table['shard'].type):
                raise pa.ArrowInvalid(f'shard is of type {table["shard"].type}')
        except FileNotFoundError:
            self.problem('index.parquet is missing: the run that writes the set has not ended; resume it, or use '
                         'clipgs_plugin.triplets.rebuild_index')
        except (pa.ArrowException, OSError, KeyError) as error:
            self.problem(f'index.parquet cannot be read ({error}); clipgs_plugin.triplets.rebuild_index makes it anew')
        else:
            return table
        return None

    # One shard

    def check_shard(self, shard: int, index, teachers: dict[str, dict]) -> None:
        """All of one shard; where it is damaged, what the index says lies in it."""
        path = shard_path(self.root, shard)
        try:
            file = path.open('rb')
        except OSError as error:
            self.problem(_said(error), shard)
            return
        indexed = None if index is None else index.take(
            np.flatnonzero(index['shard'].to_numpy() == shard)).to_pylist()
        try:
            rows = scan_shard(path)
        except Exception as error:  # a damaged tar or record raises anything, and must not hide the rest
            self.problem(_said(error), shard)
            rows = indexed or []
        else:
            self.check_members(path, shard)
            if indexed is not None:
                self.compare_index(shard, rows, indexed)
        with file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            captions = [self.check_object(file, shard, row) for row in rows]
        self.found.shards.append(Shard(shard, len(rows), path.stat().st_size, digest.hexdigest()))
        for teacher, card in teachers.items():
            self.check_features(teacher, card, shard, [row['uid'] for row in rows], captions)

    def check_members(self, path: Path, shard: int) -> None:
        """Every member is of an object, and zeros alone follow the last one.

        At a damaged header readers of tar just stop, as if the tar ended there.
        """
        end, others = 0, []
        with tarfile.open(path, 'r:') as tar:
            for info in tar:
                end = info.offset_data + -(-info.size // BLOCK) * BLOCK
                if not _MEMBER.fullmatch(info.name):
                    others.append(info.name)
        if others:
            self.problem(f'{path.name} holds {len(others)} file{"s" * (len(others) != 1)} of no object, the first '
                         f'{others[0]}', shard)
        with path.open('rb') as file:
            file.seek(end)
            while block := file.read(1 << 20):
                if block.strip(b'\0'):
                    self.problem(f'{path.name} goes on after byte {end} with no readable tar header: it is damaged '
                                 'there, and readers lose what follows; download it again', shard)
                    return

    def compare_index(self, shard: int, rows: list[dict], indexed: list[dict]) -> None:
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

    def check_object(self, file, shard: int, row: dict) -> list[int] | None:
        """Check an object and count it; returns the ids of its captions, None where they cannot be read."""
        uid, before = row['uid'], len(self.found.problems)
        say = lambda reason: self.problem(reason, shard, uid)  # noqa: E731
        if uid in self.uids:
            say('the uid is in the set more than once')
        self.uids.add(uid)
        record, cloud = self.read_record(file, row, say), None
        try:
            cloud = decode_gaussians(_read(file, row['gaussians_offset'], row['gaussians_size'])).validate('Gaussians')
        except Exception as error:  # bytes of any content raise anything
            say(f'Gaussians: {_said(error)}')
        self.check_views(file, row, say)
        if record is not None:
            self.compare_record(record, row, cloud, say)
            if len(self.found.problems) == before:
                self.compare_hash(file, record, row, say)
        self.tally(row, record or {}, shown=len(self.found.problems) == before)
        self.done += 1
        self.report(self.done, self.total)
        return record and [caption_id(caption['text']) for caption in record['captions']]

    def compare_hash(self, file, record: dict, row: dict, say: Callable[[str], None]) -> None:
        """Gaussians and views have the hash that the record tells, where it tells one."""
        places = [(row['gaussians_offset'], row['gaussians_size']), *zip(row['view_offsets'], row['view_sizes'])]
        found = content_hash(_read(file, *place) for place in places)
        if record.get('sha256', found) != found:
            say(f'sha256 of Gaussians and views is {found}, the record says {record["sha256"]}: bytes have changed; '
                'download the shard again')

    def read_record(self, file, row: dict, say: Callable[[str], None]) -> dict | None:
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
        kinds = dict(uid=str, category=str | None, split=str, num_gaussians=int)
        wrong = [name for name, kind in kinds.items() if not isinstance(record[name], kind)]
        if wrong:
            say(f'record: {wrong[0]} is {record[wrong[0]]!r:.80}')
            return None
        if not isinstance(record['source'], dict) or not isinstance(record['quality'], dict) or not all(
                isinstance(record['quality'].get(name, 0.0), int | float) for name in MEASURED):
            say(f'record: source {record["source"]!r} and quality {record["quality"]!r}, expected objects and numbers')
            return None
        if not texts or not all(texts):
            say('record: no captions' if not texts else f'record: caption {texts.index("")} is empty')
        return record

    def check_views(self, file, row: dict, say: Callable[[str], None]) -> None:
        count = len(row['view_offsets'])
        if self.num_views is None:
            self.num_views = count
            self.check_cameras(count)
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

    def check_cameras(self, count: int) -> None:
        """Those of dataset.json are cameras of ``count`` views."""
        settings = self.found.settings['render']
        try:
            if stored_cameras(dict(cameras='dataset'), settings, count) is None and 'viewmats' in settings:
                raise ValueError('viewmats but no intrinsics')
        except ValueError as error:
            self.problem(f'dataset.json: cameras: {error}')

    def compare_record(self, record: dict, row: dict, cloud: GaussianCloud | None, say: Callable[[str], None]) -> None:
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
            if record['cameras'] != 'dataset':
                stored_cameras(record, {}, len(row['view_offsets']))
        except ValueError as error:
            say(f'cameras: {error}')

    def tally(self, row: dict, record: dict, shown: bool) -> None:
        """Add an object to the numbers, and, if it is sound, to those that may be shown."""
        for counter, value in ((self.found.categories, row['category']), (self.found.splits, row['split'])):
            counter[value if isinstance(value, str | None) else repr(value)] += 1
        quality = record.get('quality', {})
        values = {name: quality.get(name) for name in MEASURED}
        values.update(bytes=row['gaussians_size'] + row['record_size'] + sum(row['view_sizes']),
                      gaussians=row['num_gaussians'], captions=row['num_captions'])
        for name, value in values.items():
            sound = isinstance(value, int | float) and math.isfinite(value)
            self.columns[name].append(value if sound else math.nan)
        key = self.rng.random()
        if not shown or not row['view_sizes']:
            return
        self.random.add(key, row)
        measured = [values[name] for name in ('psnr_foreground', 'psnr') if values[name] is not None]
        if measured:
            self.worst.add(measured[0], row)

    # Beside the shards

    def compare_counts(self) -> None:
        """The counts of dataset.json, against the objects that were seen."""
        told = self.found.settings.get('counts')
        if not isinstance(told, dict):
            self.problem('dataset.json has no counts: the run that writes the set has not ended')
            return
        columns = self.found.columns
        there = dict(objects=self.found.objects, shards=len(self.found.shards), views_per_object=self.num_views or 0,
                     gaussians=int(np.nansum(columns['gaussians'])), captions=int(np.nansum(columns['captions'])),
                     splits=dict(self.found.splits), categories=len(self.found.categories.keys() - {None}))
        for name, value in there.items():
            if told.get(name) != value:
                self.problem(f'dataset.json counts {name} {told.get(name)!r}, the shards hold {value!r}')

    def read_teachers(self, shards: list[int]) -> dict[str, dict]:
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

    def check_features(self, teacher: str, card: dict, shard: int, uids: list[str],
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
        if image.shape != wanted or text.ndim != 3 or text.shape[::2] != wanted[::2]:
            say(f'image has shape {image.shape} and text {text.shape}, expected {wanted} and {wanted[::2]} around '
                'the captions')
            return
        if ids.shape != text.shape[:2] or counts.shape != wanted[:1]:
            say(f'caption_ids have shape {ids.shape} and text_counts {counts.shape}, expected {text.shape[:2]} and '
                f'{wanted[:1]}')
            return
        for i, (uid, numbers) in enumerate(zip(uids, captions)):
            if not (np.isfinite(image[i]).all() and np.isfinite(text[i]).all()):
                say('NaN or infinite', uid)
            if numbers is not None and ids[i, :counts[i]].tolist() != numbers:
                say('of other captions than those of the record', uid)
        self.found.features[teacher] += before == len(self.found.problems)

    def read_failures(self) -> None:
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

    def draw_strips(self, rows: Iterable[dict]) -> list[Strip]:
        return [self.draw_strip(row) for row in rows]

    def draw_strip(self, row: dict) -> Strip:
        """A sound object."""
        count = len(row['view_offsets'])
        numbers = tuple(sorted({(2 * i + 1) * count // (2 * self.views) for i in range(self.views)}))
        with shard_path(self.root, row['shard']).open('rb') as file:
            record = json.loads(_read(file, row['record_offset'], row['record_size']))
            cloud = decode_gaussians(_read(file, row['gaussians_offset'], row['gaussians_size']))
            views = np.stack([decode_view(_read(file, row['view_offsets'][i], row['view_sizes'][i])) for i in numbers])
        try:
            return draw_strip(record, cloud, numbers, views, self.found.settings['render'])
        except Exception as error:  # settings of any content raise anything
            self.problem(f'cannot be drawn from its cameras ({_said(error)})', row['shard'], row['uid'])
            return Strip(row['uid'], record, numbers, views)


def _read(file, offset: int, size: int) -> bytes:
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise ValueError(f'the file is truncated: bytes {offset} to {offset + size} were expected')
    return data


def _said(error: Exception) -> str:
    """An error in words; some say only a key or nothing."""
    return str(error) if isinstance(error, ValueError | OSError) and str(error) else f'{type(error).__name__}: {error}'
