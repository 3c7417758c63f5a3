"""From what a source lists to triplets on disk: one object, and a run over all of them.

An object is turned to y up, brought into the unit sphere, seen by the cameras of the dataset, fitted and described;
what is done depends on what its file holds. A run shares objects out over processes and writes them in the order of
the listing, so that the same seed gives the same bytes, with any number of processes and interrupted or not.
"""
from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray

from clipgs_plugin.io.files import write_whole
from clipgs_plugin.ops import render
from clipgs_plugin.registry import TASK_UTILS
from clipgs_plugin.structures import GaussianCloud
from clipgs_plugin.triplets.captions import Captioner, CaptionRules, captions_for, model_captions, unique_captions
from clipgs_plugin.triplets.encoding import caption_id, to_json
from clipgs_plugin.triplets.fitting import PRESETS, FitSettings, fit, initialise, quality_of
from clipgs_plugin.triplets.objects import Listed, Mesh, Points, PosedImages, Surface, Triplet, Views, composite
from clipgs_plugin.triplets.shards import ShardWriter, list_shards, read_settings, rebuild_index, shard_path
from clipgs_plugin.triplets.sources.base import Source
from clipgs_plugin.triplets.sources.points import surfels
from clipgs_plugin.triplets.surfaces import normalised, sample_surface, turned
from clipgs_plugin.triplets.views import ViewRule, render_mesh

VERSION = '1'  # raised whenever the same files and settings would give other bytes
OWN_TEST = 8       # of an object's own views every eighth is held out
MIN_POINTS = 1000  # of a reconstruction, under which the hull of the masks is the better beginning
FAILED, TIMINGS, PARTS = 'failed.jsonl', 'timings.jsonl', 'parts'


@dataclass(frozen=True)
class GenerationSettings:
    """How triplets are made.

    Attributes:
        views: Cameras, size and background of the pictures.
        fit: How Gaussians are fitted.
        captions: Which of the texts that come with an object, and what is made of its names.
        captioner: Config of a :class:`~clipgs_plugin.triplets.captions.Captioner` that adds captions of the views.
        samples: Rays of a pixel of a mesh, in each direction.
        light: Of a mesh, ``'none'`` or a name that :func:`~clipgs_plugin.triplets.views.render_mesh` knows.
        max_gaussians: Splats of more Gaussians keep so many, those that cover most; None keeps all.
        seed: Randomness is a function of the seed and an object's uid.
        dtype: Of stored Gaussians, ``'float16'`` or ``'float32'``.
        webp_quality: Of stored views, 0 to 100; None stores them without loss.
        objects_per_shard: Objects in a full shard.
    """

    views: ViewRule = field(default_factory=ViewRule)
    fit: FitSettings = PRESETS['default']
    captions: CaptionRules = field(default_factory=CaptionRules)
    captioner: Mapping | None = None
    samples: int = 3
    light: str = 'none'
    max_gaussians: int | None = None
    seed: int = 0
    dtype: str = 'float16'
    webp_quality: int | None = 90
    objects_per_shard: int = 128

    @classmethod
    def from_config(cls, config: Mapping) -> GenerationSettings:
        """Settings of the parts of a config's ``generation``.

        Args:
            config: ``views``, ``fit`` (fields of :class:`FitSettings` over those of its ``preset``), ``captions``
                (fields of :class:`CaptionRules`, and ``captioner``), ``mesh`` (``samples``, ``light``), ``splats``
                (``max_gaussians``), ``storage`` and ``seed``; each may be absent. ``source`` is left to the caller.

        Raises:
            ValueError: An unknown part or setting.
        """
        _check_names('generation', config, {'source', 'fit', 'seed', *_PARTS})
        given = {part: _plain(config.get(part, {})) for part in ('fit', *_PARTS)}
        for part, known in _PARTS.items():
            _check_names(part, given[part], known)
        preset = given['fit'].pop('preset', 'default')
        if preset not in PRESETS:
            raise ValueError(f'fit.preset={preset!r}: expected one of {", ".join(PRESETS)}')
        _check_names('fit', given['fit'], {f.name for f in fields(FitSettings)})
        return cls(views=ViewRule(**given['views']), fit=replace(PRESETS[preset], **given['fit']),
                   captioner=given['captions'].pop('captioner', None), captions=CaptionRules(**given['captions']),
                   **given['mesh'], **given['splats'], **given['storage'], seed=config.get('seed', 0))


_PARTS = dict(views={f.name for f in fields(ViewRule)}, captions={f.name for f in fields(CaptionRules)} | {'captioner'},
              mesh={'samples', 'light'}, splats={'max_gaussians'},
              storage={'dtype', 'webp_quality', 'objects_per_shard'})


def _check_names(part: str, given: Iterable[str], known: set[str]) -> None:
    unknown = sorted(set(given) - known)
    if unknown:
        raise ValueError(f'{part} has no setting {unknown[0]!r}; it takes {", ".join(sorted(known))}')


def _plain(value):
    """Dicts, lists and values of a config without their classes, fit to cross processes and be stored."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


# One object

def make_triplet(listed: Listed, source: Source, settings: GenerationSettings | None = None) -> Triplet:
    """Load an object and make its triplet, by what its file holds.

    - A mesh is rendered, and Gaussians that begin on its surface are fitted to the pictures.
    - Points become discs on the surface they sample, with no fit; views are pictures of the discs.
    - Splats stay what they are, at the SH degree of the dataset; views are pictures of them as they came.
    - Posed images are views already; Gaussians that begin at their points are fitted to them.

    Args:
        listed: What to make.
        source: Where it was listed.
        settings: Those of the dataset.

    Raises:
        ValueError, OSError: The file cannot be used; the message says why.
    """
    settings = settings or GenerationSettings()
    clock = _Clock()
    content = source.load(listed)
    clock.lap('load')
    for kind, make in _MAKERS.items():
        if isinstance(content, kind):
            made = make(turned(content, source.up), settings, _object_seed(settings.seed, listed.uid), clock)
            break
    else:
        raise TypeError(f'{listed.path}: {type(source).__name__} gave a {type(content).__name__}, expected one of '
                        f'{", ".join(kind.__name__ for kind in _MAKERS)}')
    captions = captions_for(listed, settings.captions)
    if settings.captioner is not None:
        captions = unique_captions([*captions, *model_captions(_captioner(to_json(settings.captioner)), made.views)])
    clock.lap('captions')
    return Triplet(listed, made.gaussians, made.views, captions, made.quality,
                   dict(file=listed.path.name, up=source.up, **made.source), made.viewmats, made.intrinsics,
                   clock.seconds)


@lru_cache(maxsize=1)
def _captioner(config: bytes) -> Captioner:
    """The captioner of this process, by its config as JSON."""
    return TASK_UTILS.build(json.loads(config))


@dataclass
class _Made:
    """What making an object gives besides what was listed of it; the fields of :class:`Triplet`."""

    gaussians: GaussianCloud
    views: ndarray
    quality: dict
    source: dict
    viewmats: ndarray | None = None
    intrinsics: ndarray | None = None


class _Clock:
    """Seconds of each step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step], self._last = round(now - self._last, 4), now


def _object_seed(seed: int, uid: str) -> int:
    return caption_id(f'{seed}/{uid}')


def _from_mesh(mesh: Mesh, settings: GenerationSettings, seed: int, clock: _Clock) -> _Made:
    rule = settings.views
    mesh, centre, radius = normalised(mesh)
    viewmats = np.concatenate([rule.train_cameras(), rule.test_cameras()])
    images = render_mesh(mesh, viewmats, rule.intrinsics(), rule.size, rule.size, samples=settings.samples,
                         light=settings.light)
    clock.lap('views')
    cloud = initialise(sample_surface(mesh, settings.fit.num_gaussians, seed))
    clock.lap('initialise')
    intrinsics = _repeated(rule.intrinsics(), len(images))
    train, test = (Views(images[part], viewmats[part], intrinsics[part])
                   for part in (slice(rule.num_views), slice(rule.num_views, None)))
    fitted = fit(cloud, train, test, rule.background, settings.fit, seed)
    clock.lap('fit')
    return _Made(fitted.cloud, _pixels(train.images, rule), fitted.quality,
                 dict(kind='mesh', made=f'views by ray casting, fitted in {fitted.iterations} iterations',
                      **_frame(centre, radius)))


def _from_points(points: Points, settings: GenerationSettings, seed: int, clock: _Clock) -> _Made:
    points, centre, radius = normalised(points)
    surface, told = surfels(points, settings.fit.num_gaussians, seed)
    cloud = initialise(surface).with_sh_degree(settings.fit.sh_degree)
    clock.lap('initialise')
    images = _pictures(cloud, settings.views.train_cameras(), settings.views)
    clock.lap('views')
    return _Made(cloud, _pixels(images, settings.views), {},
                 dict(kind='points', made='oriented discs, no fit; views are pictures of the discs',
                      points=len(points.positions), **told, **_frame(centre, radius)))


def _from_splats(cloud: GaussianCloud, settings: GenerationSettings, seed: int, clock: _Clock) -> _Made:
    rule = settings.views
    centre = cloud.means.double().mean(0)
    radius = (cloud.means.double() - centre).norm(dim=-1).max()
    cloud = cloud.normalise()
    stored = _reduced(cloud, settings.max_gaussians).with_sh_degree(settings.fit.sh_degree)
    images = _pictures(cloud, rule.train_cameras(), rule)
    clock.lap('views')
    quality, notes = {}, ['no fit; views are pictures of the splats as they came']
    if len(stored) < len(cloud):
        notes.append(f'{len(cloud)} Gaussians reduced to {len(stored)}')
    if stored.sh_degree < cloud.sh_degree:
        notes.append(f'SH degree {cloud.sh_degree} cut to {stored.sh_degree}')
    if len(notes) > 1:  # something was lost: against the splats as they came
        viewmats = rule.test_cameras()
        test = Views(_pictures(cloud, viewmats, rule), viewmats, _repeated(rule.intrinsics(), len(viewmats)))
        quality = quality_of(stored, test, rule.background)
        clock.lap('quality')
    return _Made(stored, _pixels(images, rule), quality,
                 dict(kind='splats', made='; '.join(notes), **_frame(centre.numpy(), float(radius))))


def _from_images(posed: PosedImages, settings: GenerationSettings, seed: int, clock: _Clock) -> _Made:
    rule = settings.views
    posed = _scaled(posed, rule.size)
    held_out = np.arange(len(posed.images)) % OWN_TEST == 0
    if len(posed.images) < 2:
        raise ValueError('one picture alone; expected at least one to fit and one to hold out')
    surface, begun = _begin(posed, posed._replace(images=posed.images[~held_out], viewmats=posed.viewmats[~held_out],
                                                  intrinsics=posed.intrinsics[~held_out]), settings, seed)
    points, centre, radius = normalised(Points(surface.positions))
    viewmats = posed.viewmats.astype(np.float64)
    viewmats[:, :3, 3] = (viewmats[:, :3, 3] + viewmats[:, :3, :3] @ centre) / radius
    views = Views(posed.images, viewmats.astype(np.float32), posed.intrinsics)
    train, test = (Views(views.images[part], views.viewmats[part], views.intrinsics[part])
                   for part in (~held_out, held_out))
    cloud = initialise(replace(surface, positions=points.positions))
    clock.lap('initialise')
    fitted = fit(cloud, train, test, rule.background, settings.fit, seed)
    clock.lap('fit')
    chosen = _spread(train.viewmats, rule.num_views)
    images, intrinsics = _squared(train.images[chosen], train.intrinsics[chosen], rule.size)
    return _Made(fitted.cloud, _pixels(images, rule), fitted.quality,
                 dict(kind='images', made=f'{begun}, fitted in {fitted.iterations} iterations',
                      pictures=len(posed.images), held_out=int(held_out.sum()), **_frame(centre, radius)),
                 train.viewmats[chosen], intrinsics)


def _begin(posed: PosedImages, train: PosedImages, settings: GenerationSettings, seed: int) -> tuple[Surface, str]:
    """Where Gaussians begin: at the points that came along, or on the hull of the masks where that is more."""
    from clipgs_plugin.triplets.sources.visual_hull import hull_points
    count = settings.fit.num_gaussians
    points = 0 if posed.points is None else len(posed.points.positions)
    masked = bool((posed.images[..., 3] < 0.5).any())
    if points >= MIN_POINTS or (points and not masked):
        return surfels(posed.points, count, seed)[0], f'begun at {points} points of the reconstruction'
    return hull_points(train, count, seed), 'begun on the hull of the masks'


def _scaled(posed: PosedImages, size: int) -> PosedImages:
    """Pictures whose longer side is ``size`` at most, and their cameras; colours count by their alpha."""
    height, width = posed.images.shape[1:3]
    factor = min(1.0, size / max(height, width))
    if factor == 1:
        return posed
    shape = max(1, round(height * factor)), max(1, round(width * factor))
    images = torch.from_numpy(posed.images).permute(0, 3, 1, 2)
    alphas = images[:, 3:]
    small = torch.cat([torch.nn.functional.interpolate(images[:, :3] * alphas, shape, mode='area'),
                       torch.nn.functional.interpolate(alphas, shape, mode='area')], dim=1)
    small[:, :3] = torch.where(small[:, 3:] > 0, small[:, :3] / small[:, 3:], 0.0)
    scale = np.array([shape[1] / width, shape[0] / height, 1.0], np.float32)
    return posed._replace(images=small.permute(0, 2, 3, 1).contiguous().numpy(),
                          intrinsics=posed.intrinsics * scale[:, None])


def _squared(images: ndarray, intrinsics: ndarray, size: int) -> tuple[ndarray, ndarray]:
    """Pictures in the middle of squares of nothing, (V, size, size, 4), and their cameras."""
    height, width = images.shape[1:3]
    top, left = (size - height) // 2, (size - width) // 2
    square = np.zeros((len(images), size, size, 4), np.float32)
    square[:, top:top + height, left:left + width] = images
    intrinsics = intrinsics.copy()
    intrinsics[:, :2, 2] += np.array([left, top], np.float32)
    return square, intrinsics


def _spread(viewmats: ndarray, count: int) -> ndarray:
    """Numbers of ``count`` views in directions far from one another, repeated where there are fewer, (count,).

    The first is the view of number 0, and each of the others the one farthest from those before.
    """
    towards = -np.einsum('vij,vi->vj', viewmats[:, :3, :3], viewmats[:, :3, 3])  # eyes
    towards /= np.maximum(np.linalg.norm(towards, axis=1, keepdims=True), 1e-12)
    chosen, distance = [0], np.full(len(viewmats), np.inf)
    while len(chosen) < min(count, len(viewmats)):
        distance = np.minimum(distance, np.linalg.norm(towards - towards[chosen[-1]], axis=1))
        distance[chosen] = -1.0
        chosen.append(int(distance.argmax()))
    return np.resize(chosen, count)


_MAKERS: dict[type, Callable[..., _Made]] = {Mesh: _from_mesh, Points: _from_points, PosedImages: _from_images,
                                             GaussianCloud: _from_splats}


def _frame(centre: ndarray, radius: float) -> dict:
    """How to go back: positions of the turned file are radius * position + centre."""
    return dict(centre=[float(x) for x in centre], radius=float(radius))


def _repeated(intrinsics: ndarray, count: int) -> ndarray:
    return np.repeat(np.asarray(intrinsics, np.float32)[None], count, axis=0)


def _pictures(cloud: GaussianCloud, viewmats: ndarray, rule: ViewRule) -> ndarray:
    """A cloud from cameras of the dataset, (V, H, W, 4) float32, not premultiplied."""
    colors, alphas = render(cloud, torch.as_tensor(viewmats), torch.from_numpy(_repeated(rule.intrinsics(),
                            len(viewmats))), rule.size, rule.size)
    alphas = alphas[..., None].numpy()
    return np.concatenate([np.divide(colors.numpy(), alphas, out=np.zeros(colors.shape, np.float32),
                                     where=alphas > 0), alphas], axis=-1)


def _pixels(images: ndarray, rule: ViewRule) -> ndarray:
    """Pictures (V, H, W, 4) on the background of the dataset, (V, H, W, 3) uint8."""
    return np.rint(composite(images, rule.background).clip(0, 1) * 255).astype(np.uint8)


def _reduced(cloud: GaussianCloud, count: int | None) -> GaussianCloud:
    """At most ``count`` Gaussians, those of the largest opacity times area, in their order."""
    if count is None or len(cloud) <= count:
        return cloud
    area = cloud.log_scales.double().topk(2, dim=-1).values.sum(-1).exp()
    order = (cloud.opacities.double() * area).argsort(descending=True, stable=True)
    return cloud[order[:count].sort().values]


# All objects

@dataclass
class Progress:
    """Counts of a run.

    Attributes:
        listed: Objects of this part of the source.
        there: Of them, made by an earlier run.
        skipped: Failed in an earlier run and not tried again.
        made: By this run.
        failed: In this run.
        reasons: Of the failures of this run, by type of error.
    """

    listed: int
    there: int = 0
    skipped: int = 0
    made: int = 0
    failed: int = 0
    reasons: Counter = field(default_factory=Counter)

    @property
    def left(self) -> int:
        return self.listed - self.there - self.skipped - self.made - self.failed


@dataclass(frozen=True)
class _Outcome:
    """What became of an object."""

    listed: Listed
    triplet: bytes | None = None   # a pickled Triplet: tensors that crossed by themselves would cost file descriptors
    failure: dict | None = None
    notes: tuple[str, ...] = ()    # warnings


def generate(source: Source | Mapping, root: str | Path, out: str | Path, settings: GenerationSettings | None = None,
             workers: int = 1, limit: int | None = None, retry_failed: bool = False, shard_index: int = 0,
             num_shards: int = 1, report: Callable[[Progress], None] = lambda progress: None) -> Progress:
    """Make triplets of everything that a source lists; run again after an interruption, it goes on.

    Objects are written in the order of the listing, without those that failed, so the same source and settings give
    the same shards, whatever ``workers`` is and however often the run was stopped. An object that fails is recorded in
    ``out/failed.jsonl`` with the reason and does not stop the run; later runs leave it out. ``out/timings.jsonl`` is a
    log of seconds by step.

    Memory is that of the listing, and of a few objects for each process.

    Args:
        source: A source, or its config.
        root: Folder or file that it lists.
        out: Folder of the dataset.
        settings: How triplets are made.
        workers: Processes, of one thread each; 0 works in this one.
        limit: Take the first objects of the listing only.
        retry_failed: Try objects that failed before once more.
        shard_index: This run's part of the listing, of ``num_shards`` that run apart.
        num_shards: With more than one, parts are written to ``out/parts/00000`` and so on, for :func:`join_parts`.
        report: Called with the counts at the start and after each object.

    Raises:
        ValueError: Nothing is listed or a uid twice, a number is out of range, or the folder holds a dataset of
            other settings.
        ImportError: A package that the source needs is not installed.
    """
    settings = settings or GenerationSettings()
    if workers < 0 or num_shards < 1 or not 0 <= shard_index < num_shards or (limit is not None and limit < 1):
        raise ValueError(f'workers={workers}, limit={limit}, shard_index={shard_index}, num_shards={num_shards}: '
                         'expected workers from 0, a limit from 1, and an index from 0 below the number of shards')
    if isinstance(source, Mapping):
        source = TASK_UTILS.build(dict(source))
    if settings.captioner is not None:
        _captioner(to_json(settings.captioner))  # what is missing is said before the first object
    root, out = Path(root), Path(out)
    listed = source.list(root)
    _check_uids(root, listed)
    if not len(listed):
        raise ValueError(f'{root} holds nothing for {type(source).__name__}'
                         + (f', which reads {", ".join(source.suffixes)}' if source.suffixes else ''))
    numbers = range(len(listed))[:limit][shard_index::num_shards]
    if num_shards > 1:
        out = out / PARTS / f'{shard_index:05d}'
    with ShardWriter(out, sh_degree=settings.fit.sh_degree, render=_render_card(settings.views),
                     generator=_generator_card(source, settings), dtype=settings.dtype,
                     webp_quality=settings.webp_quality, objects_per_shard=settings.objects_per_shard) as writer, \
            _Log(out / FAILED) as failed, _Log(out / TIMINGS) as timings:
        if retry_failed:
            failed.clear()
        known = {entry['uid'] for entry in failed.entries()}
        missing = [i for i in numbers if listed[i].uid not in writer]
        todo = [i for i in missing if listed[i].uid not in known]
        progress = Progress(len(numbers), there=len(numbers) - len(missing), skipped=len(missing) - len(todo))
        report(progress)
        make = partial(_make, source=source, settings=settings)
        for outcome in _outcomes(make, (listed[i] for i in todo), workers):
            failure = outcome.failure or _write(writer, outcome, root, timings)
            if failure:
                failed.add(failure)
                progress.failed += 1
                progress.reasons[failure['error']] += 1
            else:
                progress.made += 1
            report(progress)
    return progress


def _check_uids(root: Path, listed: Sequence[Listed]) -> None:
    seen = set()
    for item in listed:
        if item.uid in seen:
            raise ValueError(f'{root}: uid {item.uid!r} is listed twice, the second time for {item.path}; a source '
                             'gives every object a uid of its own')
        seen.add(item.uid)


def _write(writer: ShardWriter, outcome: _Outcome, root: Path, timings: _Log) -> dict | None:
    """Write an object; returns the failure if the format cannot hold it."""
    triplet: Triplet = pickle.loads(outcome.triplet)
    listed, source = outcome.listed, dict(triplet.source)
    path, root = listed.path.absolute(), root.absolute()
    if path != root and path.is_relative_to(root):
        source['file'] = path.relative_to(root).as_posix()
    if triplet.viewmats is not None:
        source['cameras'] = dict(axes=AXES, viewmats=triplet.viewmats.tolist(), intrinsics=triplet.intrinsics.tolist())
    try:
        writer.write(listed.uid, triplet.gaussians, triplet.views, captions=triplet.captions, category=listed.category,
                     split=listed.split, source=source, quality=triplet.quality, attributes=listed.attributes,
                     cameras='dataset' if triplet.viewmats is None else 'own')
    except ValueError as error:
        return _failure(listed, error)
    timings.add(dict(uid=listed.uid, seconds=triplet.seconds, notes=outcome.notes))
    return None


def _failure(listed: Listed, error: Exception) -> dict:
    return dict(uid=listed.uid, path=str(listed.path), error=type(error).__name__, message=str(error))


AXES = 'world to camera, OpenCV: x right, y down, z forward; pixels, the centre of the first at (0.5, 0.5)'


def _render_card(rule: ViewRule) -> dict:
    """The cameras of a dataset, by their rule and as matrices."""
    return dict(rule=_plain(rule.to_dict()), size=rule.size, background=list(rule.background), axes=AXES,
                viewmats=np.asarray(rule.train_cameras()).tolist(),
                test_viewmats=np.asarray(rule.test_cameras()).tolist(),
                intrinsics=np.asarray(rule.intrinsics()).tolist())


def _generator_card(source: Source, settings: GenerationSettings) -> dict:
    """What the bytes depend on besides the files."""
    return dict(name='clipgs_plugin.triplets.generation', version=VERSION, seed=settings.seed,
                source=_source_card(source), fit=asdict(settings.fit), captions=asdict(settings.captions),
                captioner=settings.captioner, samples=settings.samples, light=settings.light,
                max_gaussians=settings.max_gaussians)


def _source_card(source: Source) -> dict:
    """The type and the options of a source, as JSON."""
    card = dict(type=type(source).__name__)
    for name, value in vars(source).items():
        if hasattr(value, 'load'):
            card[name] = _source_card(value)
        elif not name.startswith('_'):
            card[name] = str(value) if isinstance(value, Path) else _plain(value)
    return card


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
        self._file.write(to_json(entry))

    def clear(self) -> None:
        self._file.truncate(0)


# Processes

def _make(listed: Listed, source: Source, settings: GenerationSettings) -> _Outcome:
    """The triplet of an object, or why there is none."""
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter('always', UserWarning)
        try:
            triplet = make_triplet(listed, source, settings)
        except ImportError:
            raise  # every other object would fail alike
        except Exception as error:  # readers of files of any origin raise anything, and one must not stop a run
            return _Outcome(listed, failure=_failure(listed, error))
    return _Outcome(listed, pickle.dumps(triplet), notes=tuple(str(note.message) for note in notes))


def _outcomes(make: Callable[[Listed], _Outcome], listed: Iterable[Listed], workers: int) -> Iterator[_Outcome]:
    """What ``make`` gives for each object, in their order; a few objects for each process are under way at a time.

    Where a process dies (a reader that crashes, or memory that ran out), every object that was under way is made again
    by itself, and the one whose process dies again has failed.
    """
    if workers == 0:
        yield from map(partial(_one_thread, make), listed)
        return
    listed, window, pool = iter(listed), deque(), None
    try:
        while True:
            pool = pool or _pool(make, workers)
            for item in islice(listed, 3 * workers - len(window)):
                window.append((item, _submit(pool, item)))
            if not window:
                return
            outcome = _result(window[0][1])
            if outcome is not None:
                window.popleft()
                yield outcome
                continue
            pool.shutdown()
            pool = None
            yield from _one_by_one(make, window)
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def _one_thread(make: Callable[[Listed], _Outcome], item: Listed) -> _Outcome:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return make(item)
    finally:
        torch.set_num_threads(threads)


def _pool(make: Callable[[Listed], _Outcome], workers: int) -> ProcessPoolExecutor:
    # Spawned, since a fork copies the locks of torch's threads without the threads.
    return ProcessPoolExecutor(workers, multiprocessing.get_context('spawn'), _start, (make,))


def _submit(pool: ProcessPoolExecutor, item: Listed) -> Future:
    try:
        return pool.submit(_call, item)
    except BrokenProcessPool as error:
        future = Future()
        future.set_exception(error)
        return future


def _result(future: Future) -> _Outcome | None:
    """What a process made, None where it died."""
    try:
        return future.result()
    except BrokenProcessPool:
        return None


def _one_by_one(make: Callable[[Listed], _Outcome], window: deque[tuple[Listed, Future]]) -> Iterator[_Outcome]:
    """The outcomes of a window that a death has stopped, with one object under way at a time."""
    pool = None
    try:
        while window:
            item, future = window.popleft()
            outcome = _result(future)
            if outcome is None:
                pool = pool or _pool(make, 1)
                outcome = _result(_submit(pool, item))
            if outcome is None:
                pool.shutdown()
                pool = None
                outcome = _Outcome(item, failure=dict(
                    uid=item.uid, path=str(item.path), error='ProcessDied',
                    message='the process that made it died, twice: memory ran out, or a library crashed on the file'))
            yield outcome
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


_job: Callable[[Listed], _Outcome] | None = None  # of this process, set as it starts


def _start(make: Callable[[Listed], _Outcome]) -> None:
    """Prepare a process: one thread, and no life after its parent."""
    global _job
    _job = make
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends the pool
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_with(parent) -> None:
    parent.join()
    os._exit(1)


def _call(item: Listed) -> _Outcome:
    return _job(item)


# Parts of a job array

def join_parts(out: str | Path) -> int:
    """Make one dataset of the parts that runs with ``num_shards`` have finished.

    Shards are moved, part by part, and the logs put together; killed and started again it goes on.

    Returns:
        The number of objects.

    Raises:
        FileNotFoundError: There are no parts, or one of them is not finished.
        ValueError: Parts have other settings than the first.
    """
    out = Path(out)
    parts = sorted((out / PARTS).glob('[0-9]*'))
    if not parts:
        raise FileNotFoundError(f'{out / PARTS} holds no parts; runs with num_shards write them')
    settings = {}
    for part in parts:
        if not (part / 'index.parquet').is_file():
            raise FileNotFoundError(f'{part} is not finished; run its shard_index again')
        found = {key: value for key, value in read_settings(part).items() if key != 'counts'}
        settings = settings or found
        if found != settings:
            raise ValueError(f'{part} was made with other settings than {parts[0]}; make it again')
    (out / 'shards').mkdir(exist_ok=True)
    write_whole(out / 'dataset.json', [to_json(settings, indent=2)])
    for part in parts:
        for shard in list_shards(part):
            os.replace(shard_path(part, shard), shard_path(out, max(list_shards(out), default=-1) + 1))
    count = rebuild_index(out)
    for name in (FAILED, TIMINGS):
        write_whole(out / name, [(part / name).read_bytes() for part in parts])
    shutil.rmtree(out / PARTS)
    return count
