"""Generation run over all objects of a source.

Objects are distributed over workers and written in the order of the listing. The same seed therefore gives the same
bytes with any number of workers, on one machine or a cluster, interrupted or not.
"""
from __future__ import annotations

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
from clipgs_plugin.generation.executors import execute
from clipgs_plugin.generation.objects import Listed
from clipgs_plugin.generation.rendering import choose_renderer
from clipgs_plugin.generation.settings import BATCH_SIZES, Execution, GenerationSettings, to_builtin
from clipgs_plugin.generation.sources.base import Source
from clipgs_plugin.generation.worker import CAMERA_AXES, Outcome, escape_surrogates, make_chunk
from clipgs_plugin.io.json_lines import JsonLines
from clipgs_plugin.parallel.cluster import connected
from clipgs_plugin.registry import TASK_UTILS
from clipgs_plugin.triplets.codecs import to_json
from clipgs_plugin.triplets.layout import FAILED, SETTINGS, TIMINGS, part_path
from clipgs_plugin.triplets.settings import read_settings
from clipgs_plugin.triplets.writer import ShardWriter

VERSION = '3'  # raised when the same files and settings begin to give other bytes


@dataclass
class Progress:
    """Counts of objects in a run.

    Attributes:
        listed: Objects in this part of the listing.
        there: Objects made by an earlier run.
        skipped: Objects that failed in an earlier run and are not retried.
        made: Objects made by this run.
        noted: Objects made by this run with warnings in ``timings.jsonl``.
        failed: Objects that failed in this run.
        reasons: Failures of this run by type of error.
        unfitted: Objects made by this run without a fit, by description.
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
        """Number of objects that remain to be made."""
        return self.listed - self.there - self.skipped - self.made - self.failed

    def count(self, outcome: Outcome) -> None:
        """Count the outcome of an object."""
        if outcome.failure:
            self.failed += 1
            self.reasons[outcome.failure['error']] += 1
            return
        self.made += 1
        self.noted += bool(outcome.timing['notes'])
        if outcome.unfitted:
            self.unfitted[outcome.unfitted] += 1


def generate(source: Source | Mapping, root: str | Path, out: str | Path, settings: GenerationSettings | None = None,
             execution: Execution | None = None, limit: int | None = None, retry_failed: bool = False,
             report: Callable[[Progress], None] = lambda progress: None) -> Progress:
    """Make triplets of all objects of a source; after an interruption, the same call continues the run.

    Samples are stored in the order of the listing, without failed objects. The same source and settings therefore
    give the same shards, whatever ``execution`` is (on CUDA, ``batch_size`` matters) and however often the run was
    interrupted. An object that fails is recorded in ``out/failed.jsonl`` with the reason and does not stop the run;
    later runs skip it. ``out/timings.jsonl`` logs the seconds of each step. Memory holds the listing and few objects.

    Args:
        source: Source of objects, or its config.
        root: Folder or file that the source lists.
        out: Folder of the dataset.
        settings: Settings of the triplets.
        execution: Workers, time limit, and part of the listing; the default is one worker process.
        limit: Number of objects to take from the start of the listing; None takes all.
        retry_failed: True retries objects that failed in an earlier run.
        report: Function called with the counts at the start and after each object.

    Raises:
        ValueError: The listing is empty or repeats a uid, ``limit`` is below 1, the folder holds a dataset with other
            settings, or this machine lacks the device, the renderer or the cluster.
        FolderInUse: Another run writes the dataset.
        ImportError: A package that the source or the executor needs is not installed.
        RuntimeError: A worker or node lacks the renderer, or its GPU has failed.
    """
    settings, execution = settings or GenerationSettings(), execution or Execution()
    if limit is not None and limit < 1:
        raise ValueError(f'limit={limit}: expected at least 1, or None for all objects')
    if isinstance(source, Mapping):
        source = build_source(source)
    root, out = Path(root).absolute(), Path(out)  # nodes of a cluster have other working directories
    if execution.num_shards > 1:
        out = part_path(out, execution.shard_index, execution.num_shards)
    settings, gpu = _checked(settings, execution, out), settings.device_type == 'cuda'
    listed = _list(source, root)
    numbers = range(len(listed))[:limit][execution.shard_index::execution.num_shards]
    cluster = connected(execution.ray_address, gpu) if execution.executor == 'ray' else nullcontext()
    with cluster, _writer(out, source, settings) as writer, \
            JsonLines(out / FAILED) as failed, JsonLines(out / TIMINGS) as timings:
        if retry_failed:
            failed.clear()
        known = {entry['uid'] for entry in failed.entries()}
        missing = [i for i in numbers if listed[i].uid not in writer]
        todo = [i for i in missing if listed[i].uid not in known]
        progress = Progress(len(numbers), there=len(numbers) - len(missing), skipped=len(missing) - len(todo))
        report(progress)
        make = partial(make_chunk, source=source, settings=settings, root=root if root.is_dir() else root.parent)
        chunks = _chunks((listed[i] for i in todo), execution.batch_size or BATCH_SIZES[settings.device_type])
        with closing(execute(make, chunks, execution, gpu)) as outcomes:
            for outcome in outcomes:
                if outcome.failure:
                    failed.add(to_json(escape_surrogates(outcome.failure)))
                else:
                    writer.add(outcome.sample)
                    timings.add(to_json(escape_surrogates(outcome.timing)))
                progress.count(outcome)
                report(progress)
    return progress


def build_source(config: Mapping) -> Source:
    """Build a source from its config.

    Raises:
        ValueError: The source does not take an option or its value.
    """
    try:
        return TASK_UTILS.build(dict(config))
    except TypeError as error:
        raise ValueError(f'source={dict(config)}: {error}') from error


def _checked(settings: GenerationSettings, execution: Execution, out: Path) -> GenerationSettings:
    """Check that device and models are available, and choose the renderer."""
    if settings.device_type == 'cuda' and execution.executor == 'local' and not torch.cuda.is_available():
        raise ValueError(f'device={settings.device!r}: torch sees no GPU here')
    for config in (settings.captioner, settings.ranker):
        if config is not None:
            build_model(config)
    return replace(settings, renderer=_renderer(settings.renderer, out))


def _renderer(name: str, out: Path) -> str:
    """Resolve ``'auto'`` to the renderer that began the dataset, or else to the best one of this machine."""
    resumed = name == 'auto' and (out / SETTINGS).is_file()
    if resumed:
        name = read_settings(out)['generator'].get('renderer', name)
    try:
        return choose_renderer(name)
    except ImportError:  # matters only if there is a mesh, which then raises it
        return 'raycast' if name == 'auto' else name
    except RuntimeError as error:
        raise ValueError(f'{f"{out} was begun with " if resumed else ""}renderer={name!r}: {error}') from error


def _list(source: Source, root: Path) -> Sequence[Listed]:
    """List the objects of a source, at least one and each uid once."""
    listed = source.list(root)
    if not len(listed):
        raise ValueError(f'{root} holds nothing for {type(source).__name__}'
                         + (f', which reads {", ".join(source.suffixes)}' if source.suffixes else ''))
    seen = set()
    for item in listed:
        if item.uid in seen:
            raise ValueError(f'{root}: uid {item.uid!r} is listed twice, the second time for {item.path}; a source '
                             'must give every object its own uid')
        seen.add(item.uid)
    return listed


def _chunks(objects: Iterator[Listed], size: int) -> Iterator[tuple[Listed, ...]]:
    return iter(lambda: tuple(islice(objects, size)), ())


def _writer(out: Path, source: Source, settings: GenerationSettings) -> ShardWriter:
    """Open a dataset whose metadata records everything that its bytes depend on besides the files."""
    rule = settings.views
    render = dict(rule=to_builtin(rule.to_dict()), size=rule.size, background=list(rule.background), axes=CAMERA_AXES,
                  viewmats=np.asarray(rule.stored_cameras()).tolist(),
                  test_viewmats=np.asarray(rule.test_cameras()).tolist(),
                  intrinsics=np.asarray(rule.intrinsics()).tolist())
    generator = dict(name='clipgs_plugin.generation.run', version=VERSION, seed=settings.seed,
                     source=_describe(source), fit=asdict(settings.fit), captions=asdict(settings.captions),
                     captioner=settings.captioner, ranker=settings.ranker, renderer=settings.renderer,
                     samples=settings.samples, light=settings.light, max_gaussians=settings.max_gaussians,
                     device=settings.device_type)
    return ShardWriter(out, sh_degree=settings.fit.sh_degree, render=render, generator=generator, dtype=settings.dtype,
                       webp_quality=settings.webp_quality, objects_per_shard=settings.objects_per_shard)


def _describe(source: Source) -> dict:
    """Describe a source by its type and its options, as JSON."""
    card = dict(type=type(source).__name__)
    for name, value in vars(source).items():
        if hasattr(value, 'load'):
            card[name] = _describe(value)
        elif not name.startswith('_'):
            card[name] = str(value) if isinstance(value, Path) else to_builtin(value)
    return escape_surrogates(card)
