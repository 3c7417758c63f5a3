"""A run over all that a source lists.

Objects are shared out over processes and written in the order of the listing, so that the same seed gives the same
bytes, with any number of processes, here or on a cluster, and interrupted or not.
"""
from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from clipgs_plugin.generation.builders import build_model
from clipgs_plugin.generation.executors import connected, make_here, make_on_processes, make_on_ray
from clipgs_plugin.generation.objects import Listed
from clipgs_plugin.generation.rendering import ViewRule, choose_renderer
from clipgs_plugin.generation.settings import GenerationSettings, plain
from clipgs_plugin.generation.sources.base import Source
from clipgs_plugin.generation.worker import CAMERA_AXES, legible, make_chunk
from clipgs_plugin.io.files import write_whole
from clipgs_plugin.registry import TASK_UTILS
from clipgs_plugin.triplets.codecs import to_json
from clipgs_plugin.triplets.layout import FAILED, JOINED, PARTS, TIMINGS, list_shards, part_path, shard_path
from clipgs_plugin.triplets.shards import ShardWriter, differing, read_settings, rebuild_index, scan_shard

VERSION = '2'  # raised whenever the same files and settings would give other bytes
BATCH_SIZES = dict(cpu=1, cuda=32)
ENGINES = 'local', 'ray'
TIME_LIMIT = 600.0  # seconds


@dataclass
class Progress:
    """Counts of a run.

    Attributes:
        listed: Objects of this part of the source.
        there: Of them, made by an earlier run.
        skipped: Failed in an earlier run and not tried again.
        made: By this run.
        noted: Of these, with warnings in ``timings.jsonl``.
        failed: In this run.
        reasons: Of the failures of this run, by type of error.
        unfitted: What was made by this run without a fit, by what it is instead.
    """

    listed: int
    there: int = 0
    skipped: int = 0
    made: int = 0
    noted: int = 0
    failed: int = 0
    reasons: Counter = field(default_factory=Counter)
    unfitted: Counter = field(default_factory=Counter)

    @property
    def left(self) -> int:
        return self.listed - self.there - self.skipped - self.made - self.failed


def generate(source: Source | Mapping, root: str | Path, out: str | Path, settings: GenerationSettings | None = None,
             workers: int = 1, limit: int | None = None, retry_failed: bool = False, shard_index: int = 0,
             num_shards: int = 1, report: Callable[[Progress], None] = lambda progress: None, *, engine: str = 'local',
             ray_address: str | None = None, batch_size: int | None = None,
             time_limit: float | None = TIME_LIMIT) -> Progress:
    """Make triplets of everything that a source lists; run again after an interruption, it goes on.

    Objects are written in the order of the listing, without those that failed, so the same source and settings give
    the same shards, whatever ``workers``, ``engine`` and (on the CPU) ``batch_size`` are and however often the run was
    stopped. An object that fails is recorded in ``out/failed.jsonl`` with the reason and does not stop the run; later
    runs leave it out. ``out/timings.jsonl`` is a log of seconds by step.

    Memory is that of the listing, and of a few objects for each process.

    Args:
        source: A source, or its config.
        root: Folder or file that it lists.
        out: Folder of the dataset.
        settings: How triplets are made.
        workers: Processes of engine ``'local'``, of one thread each; 0 works in this one.
        limit: Take the first objects of the listing only.
        retry_failed: Try objects that failed before once more.
        shard_index: This run's part of the listing, of ``num_shards`` that run apart.
        num_shards: With more than one, parts are written to ``out/parts/00000-of-00002`` and so on, datasets
            themselves, for :func:`join_parts`.
        report: Called with the counts at the start and after each object.
        engine: ``'local'``, or ``'ray'`` for all CPUs of a Ray cluster, whose nodes see the files under the same paths;
            those in the settings, as of models, are absolute then, since nodes have other working directories.
        ray_address: Of the cluster, see :func:`~clipgs_plugin.generation.executors.connected`.
        batch_size: Objects that a process takes at once, and on CUDA fits together; by default 1 on the CPU, 32 on
            CUDA.
        time_limit: Seconds that an object may take to be loaded and seen, to be fitted (a batch: for each of its
            objects), or to be encoded; one over it has failed. None, and ``workers=0``, set no limit.

    Raises:
        ValueError: Nothing is listed or a uid twice, a number is out of range, the folder holds a dataset of other
            settings, or this machine lacks the device, the renderer or the cluster.
        ImportError: A package that the source or the engine needs is not installed.
        RuntimeError: A process or node lacks the renderer, or its GPU has failed.
    """
    settings = settings or GenerationSettings()
    if workers < 0 or num_shards < 1 or not 0 <= shard_index < num_shards or (limit is not None and limit < 1):
        raise ValueError(f'workers={workers}, limit={limit}, shard_index={shard_index}, num_shards={num_shards}: '
                         'expected workers from 0, a limit from 1, and an index from 0 below the number of shards')
    if engine not in ENGINES or (batch_size is not None and batch_size < 1) or (time_limit or 1) <= 0:
        raise ValueError(f'engine={engine!r}, batch_size={batch_size}, time_limit={time_limit}: expected one of '
                         f'{", ".join(ENGINES)}, a batch from 1, and a limit above 0 s')
    gpu = settings.device_type == 'cuda'
    if gpu and engine == 'local' and not torch.cuda.is_available():
        raise ValueError(f'device={settings.device!r}: torch sees no GPU here')
    if isinstance(source, Mapping):
        source = build_source(source)
    root, out = Path(root).absolute(), Path(out)  # nodes of a cluster have other working directories
    if num_shards > 1:
        out = part_path(out, shard_index, num_shards)
    settings = replace(settings, renderer=_renderer(settings.renderer, out))
    for model in (settings.captioner, settings.ranker):
        if model is not None:
            build_model(model)  # what is missing is said before the first object
    listed = _list(source, root)
    numbers = range(len(listed))[:limit][shard_index::num_shards]
    cluster = connected(ray_address, gpu) if engine == 'ray' else nullcontext()
    with cluster, ShardWriter(out, sh_degree=settings.fit.sh_degree, render=_render_card(settings.views),
                              generator=_generator_card(source, settings), dtype=settings.dtype,
                              webp_quality=settings.webp_quality,
                              objects_per_shard=settings.objects_per_shard) as writer, \
            _Log(out / FAILED) as failed, _Log(out / TIMINGS) as timings:
        if retry_failed:
            failed.clear()
        known = {entry['uid'] for entry in failed.entries()}
        missing = [i for i in numbers if listed[i].uid not in writer]
        todo = [i for i in missing if listed[i].uid not in known]
        progress = Progress(len(numbers), there=len(numbers) - len(missing), skipped=len(missing) - len(todo))
        report(progress)
        make = partial(make_chunk, source=source, settings=settings, root=root if root.is_dir() else root.parent)
        objects = (listed[i] for i in todo)
        chunks = iter(lambda: tuple(islice(objects, batch_size or BATCH_SIZES[settings.device_type])), ())
        if engine == 'ray':
            outcomes = make_on_ray(make, chunks, gpu, time_limit)
        elif workers:
            outcomes = make_on_processes(make, chunks, workers, time_limit)
        else:
            outcomes = make_here(make, chunks)
        with closing(outcomes):
            for outcome in outcomes:
                if outcome.failure:
                    failed.add(outcome.failure)
                    progress.failed += 1
                    progress.reasons[outcome.failure['error']] += 1
                else:
                    writer.add(outcome.sample)
                    timings.add(outcome.timing)
                    progress.noted += bool(outcome.timing['notes'])
                    progress.made += 1
                    if outcome.unfitted:
                        progress.unfitted[outcome.unfitted] += 1
                report(progress)
    return progress


def build_source(config: Mapping) -> Source:
    """The source of a config.

    Raises:
        ValueError: An option that it has not, or a value that it does not take.
    """
    try:
        return TASK_UTILS.build(dict(config))
    except TypeError as error:
        raise ValueError(f'source={dict(config)}: {error}') from error


def _renderer(name: str, out: Path) -> str:
    """The renderer that a name stands for; ``'auto'`` is the one with which a folder was begun, else this machine's."""
    begun = name == 'auto' and (out / 'dataset.json').is_file()
    if begun:
        name = read_settings(out)['generator'].get('renderer', name)
    try:
        return choose_renderer(name)
    except ImportError:  # for a mesh to say, if there is any
        return 'raycast' if name == 'auto' else name
    except RuntimeError as error:
        raise ValueError(f'{f"{out} was begun with " if begun else ""}renderer={name!r}: {error}') from error


def _list(source: Source, root: Path) -> Sequence[Listed]:
    """What a source lists: something, and no uid twice."""
    listed = source.list(root)
    if not len(listed):
        raise ValueError(f'{root} holds nothing for {type(source).__name__}'
                         + (f', which reads {", ".join(source.suffixes)}' if source.suffixes else ''))
    seen = set()
    for item in listed:
        if item.uid in seen:
            raise ValueError(f'{root}: uid {item.uid!r} is listed twice, the second time for {item.path}; a source '
                             'gives every object a uid of its own')
        seen.add(item.uid)
    return listed


def _render_card(rule: ViewRule) -> dict:
    """The cameras of a dataset, by their rule and as matrices."""
    return dict(rule=plain(rule.to_dict()), size=rule.size, background=list(rule.background), axes=CAMERA_AXES,
                viewmats=np.asarray(rule.train_cameras()).tolist(),
                test_viewmats=np.asarray(rule.test_cameras()).tolist(),
                intrinsics=np.asarray(rule.intrinsics()).tolist())


def _generator_card(source: Source, settings: GenerationSettings) -> dict:
    """What the bytes depend on besides the files."""
    return dict(name='clipgs_plugin.generation.run', version=VERSION, seed=settings.seed,
                source=_source_card(source), fit=asdict(settings.fit), captions=asdict(settings.captions),
                captioner=settings.captioner, ranker=settings.ranker, renderer=settings.renderer,
                samples=settings.samples, light=settings.light, max_gaussians=settings.max_gaussians,
                device=settings.device_type)


def _source_card(source: Source) -> dict:
    """The type and the options of a source, as JSON."""
    card = dict(type=type(source).__name__)
    for name, value in vars(source).items():
        if hasattr(value, 'load'):
            card[name] = _source_card(value)
        elif not name.startswith('_'):
            card[name] = str(value) if isinstance(value, Path) else plain(value)
    return legible(card)


class _Log:
    """A file of one JSON object a line, which a run adds to; a line that a kill cut off is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> _Log:
        self._file = self.path.open('a+b', buffering=0)
        self._file.truncate(self._last_end())
        return self

    def _last_end(self) -> int:
        """Where the last whole line ends."""
        end = self._file.seek(0, os.SEEK_END)
        while end:
            self._file.seek(end - 1)
            if self._file.read(1) == b'\n':
                break
            end -= 1
        return end

    def entries(self) -> Iterator[dict]:
        with self.path.open('rb') as file:
            yield from map(json.loads, file)

    def __exit__(self, *exc_info) -> None:
        self._file.close()

    def add(self, entry: dict) -> None:
        self._file.write(to_json(legible(entry)))

    def clear(self) -> None:
        self._file.truncate(0)


# Parts of a job array

def join_parts(out: str | Path) -> int:
    """Make one dataset of the parts that runs with ``num_shards`` have finished, and of what the folder holds already.

    Shards are moved, part by part, and the logs put together; killed and started again it goes on. A dataset without
    parts is one that was joined.

    Returns:
        The number of objects.

    Raises:
        FileNotFoundError: There are no parts and no dataset, or a part is not there or not finished.
        ValueError: Parts are of another number, or they or the dataset have other settings than the first, or an
            object is there twice. Nothing has been moved.
    """
    out = Path(out)
    if (out / JOINED).exists():  # by a join that was killed as it ended
        shutil.rmtree(out / JOINED)
    names = sorted(path.name for path in (out / PARTS).glob('[0-9]*-of-[0-9]*'))
    if not names:
        if (out / 'index.parquet').is_file():
            return read_settings(out)['counts']['objects']
        raise FileNotFoundError(f'{out / PARTS} holds no parts; runs with num_shards (--num-shards) write them')
    jobs = int(names[0].partition('-of-')[2])
    parts = [part_path(out, i, jobs) for i in range(jobs)]
    strange = sorted(set(names) - {part.name for part in parts})
    if strange:
        raise ValueError(f'{out / PARTS} holds {names[0]} and {strange[0]}, parts of different arrays; delete '
                         'those of one')
    settings = _check_parts(out, parts)

    (out / 'index.parquet').unlink(missing_ok=True)  # until the join ends the folder must not read as whole
    (out / 'shards').mkdir(exist_ok=True)
    write_whole(out / 'dataset.json', [to_json(settings, indent=2)])
    number = max(list_shards(out), default=-1)
    for part in parts:
        for shard in list_shards(part):
            number += 1
            os.replace(shard_path(part, shard), shard_path(out, number))
    count = rebuild_index(out)
    for name in (FAILED, TIMINGS):  # a line that is there twice comes from a join that was killed after this
        write_whole(out / name, dict.fromkeys(line for folder in (out, *parts) for line in _lines(folder / name)))
    os.replace(out / PARTS, out / JOINED)
    shutil.rmtree(out / JOINED)
    return count


def _check_parts(out: Path, parts: Sequence[Path]) -> dict:
    """The settings of parts that are finished and may be joined with what the folder holds."""
    for part in parts:
        if not (part / 'index.parquet').is_file():
            raise FileNotFoundError(f'{part} is not finished; run its shard_index '
                                    f'(--shard-index {int(part.name[:5])}) again')
    apart = f'move {out / PARTS} into another folder and join it there'
    ways_out = dict.fromkeys(parts, 'make it again')
    if (out / 'dataset.json').is_file() or list_shards(out):
        ways_out[out] = apart
    wanted, seen = _settings(parts[0]), {}
    for folder, way_out in ways_out.items():
        found = _settings(folder)
        if found != wanted:
            raise ValueError(f'{folder} was made with other settings than {parts[0]}, where they are wanted as there: '
                             f'{differing(found, wanted)}; {way_out}')
        for uid in _uids(folder):
            if uid in seen:
                raise ValueError(f'{uid!r} is in {seen[uid]} and in {folder}; {way_out}')
            seen[uid] = folder
    return wanted


def _settings(folder: Path) -> dict:
    return {key: value for key, value in read_settings(folder).items() if key != 'counts'}


def _uids(folder: Path) -> list[str]:
    """The objects in the shards of a folder, from which a join that was killed may have moved some."""
    import pyarrow.parquet as pq
    shards = set(list_shards(folder))
    if (folder / 'index.parquet').is_file():
        columns = pq.read_table(folder / 'index.parquet', columns=['uid', 'shard']).to_pydict()
        return [uid for uid, shard in zip(columns['uid'], columns['shard']) if shard in shards]
    return [row['uid'] for shard in shards for row in scan_shard(shard_path(folder, shard))]


def _lines(path: Path) -> list[bytes]:
    """The whole lines of a log."""
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    return [line for line in lines if line.endswith(b'\n')]
