"""One object: from what a source lists to a triplet.

An object is turned to y up, brought into the unit sphere, seen by the cameras of the dataset, described and fitted;
what is done depends on what its file holds. The fit comes last and apart, since many objects are fitted together.
"""
from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy import ndarray

from clipgs_plugin.generation.captions.rules import captions_for, model_captions, unique_captions
from clipgs_plugin.generation.fitting.optimise import Fitted, fit_many
from clipgs_plugin.generation.fitting.quality import quality_of
from clipgs_plugin.generation.objects import Listed, Mesh, Points, PosedImages, Surface, Triplet, Views, composite
from clipgs_plugin.generation.rendering import ViewRule, render_mesh
from clipgs_plugin.generation.rendering.surfaces import normalised, sample_surface, turned
from clipgs_plugin.generation.settings import GenerationSettings
from clipgs_plugin.generation.sources.base import Source
from clipgs_plugin.generation.sources.points import surfels
from clipgs_plugin.generation.sources.visual_hull import hull_points
from clipgs_plugin.ops import render
from clipgs_plugin.registry import TASK_UTILS
from clipgs_plugin.structures import GaussianCloud
from clipgs_plugin.triplets.codecs import caption_id, to_json

OWN_TEST = 8       # of an object's own views every eighth is held out
MIN_POINTS = 1000  # of a reconstruction, under which the hull of the masks is the better beginning

ToFit = tuple[Views, Views]  # views to fit and views held out


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
    triplet, views = prepare(listed, source, settings)
    return triplet if views is None else fit_together([triplet], [views], settings)[0]


def prepare(listed: Listed, source: Source, settings: GenerationSettings) -> tuple[Triplet, ToFit | None]:
    """Load an object and do all that comes before its fit.

    Returns:
        Its triplet with the Gaussians that the fit begins with, and what to fit; None where no fit is needed.

    Raises:
        As :func:`make_triplet`.
    """
    clock = _Clock()
    content = source.load(listed)
    clock.lap('load')
    for kind, make in _MAKERS.items():
        if isinstance(content, kind):
            made = make(turned(content, source.up), settings, object_seed(settings, listed), clock)
            break
    else:
        raise TypeError(f'{listed.path}: {type(source).__name__} gave a {type(content).__name__}, expected one of '
                        f'{", ".join(kind.__name__ for kind in _MAKERS)}')
    captions = captions_for(listed, settings.captions)
    if settings.captioner is not None:
        captions = unique_captions([*captions, *model_captions(built(settings.captioner), made.views)])
    if settings.ranker is not None:
        captions = built(settings.ranker)(captions, made.views)
    clock.lap('captions')
    return Triplet(listed, made.gaussians, made.views, captions, made.quality,
                   dict(file=listed.path.name, up=source.up, **made.source), made.viewmats, made.intrinsics,
                   clock.seconds), made.to_fit


def fit_together(triplets: Sequence[Triplet], views: Sequence[ToFit], settings: GenerationSettings) -> list[Triplet]:
    """Fit objects, given as :func:`prepare` gives them, and finish their triplets.

    Raises:
        ValueError: Views that never show their object.
    """
    clock = _Clock()
    found = fit_many([triplet.gaussians.to(settings.device) for triplet in triplets], *zip(*views),
                     settings.views.background, settings.fit,
                     [object_seed(settings, triplet.listed) for triplet in triplets])
    clock.lap('fit', len(triplets))
    return [_fitted(*pair, clock.seconds) for pair in zip(triplets, found)]


def _fitted(triplet: Triplet, found: Fitted, seconds: dict) -> Triplet:
    made = f'{triplet.source["made"]}, fitted in {found.iterations} iterations'
    return replace(triplet, gaussians=found.cloud.to('cpu'), quality=found.quality,
                   source={**triplet.source, 'made': made}, seconds=triplet.seconds | seconds)


def built(config: Mapping):
    """The model of a config, built once in a process."""
    return _build(to_json(config))


@lru_cache(maxsize=2)  # a captioner and a ranker
def _build(config: bytes):
    return TASK_UTILS.build(json.loads(config))


@dataclass
class _Made:
    """What making an object gives besides what was listed of it: fields of :class:`Triplet`, and what to fit."""

    gaussians: GaussianCloud
    views: ndarray
    quality: dict
    source: dict
    viewmats: ndarray | None = None
    intrinsics: ndarray | None = None
    to_fit: ToFit | None = None


class _Clock:
    """Seconds of each step of an object."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, step: str, objects: int = 1) -> None:
        """End a step, which was done for so many objects together."""
        now = time.perf_counter()
        self.seconds[step], self._last = round((now - self._last) / objects, 4), now


def object_seed(settings: GenerationSettings, listed: Listed) -> int:
    """What the randomness of an object depends on."""
    return caption_id(f'{settings.seed}/{listed.uid}')


def _from_mesh(mesh: Mesh, settings: GenerationSettings, seed: int, clock: _Clock) -> _Made:
    rule = settings.views
    mesh, centre, radius = normalised(mesh)
    viewmats = np.concatenate([rule.train_cameras(), rule.test_cameras()])
    images = render_mesh(mesh, viewmats, rule.intrinsics(), rule.size, rule.size, samples=settings.samples,
                         light=settings.light, renderer=settings.renderer)
    clock.lap('views')
    cloud = sample_surface(mesh, settings.fit.num_gaussians, seed).discs()
    clock.lap('initialise')
    intrinsics = _repeated(rule.intrinsics(), len(images))
    train, test = (Views(images[part], viewmats[part], intrinsics[part])
                   for part in (slice(rule.num_views), slice(rule.num_views, None)))
    return _Made(cloud, _pixels(train.images, rule), {}, dict(kind='mesh', made='rendered', **_frame(centre, radius)),
                 to_fit=(train, test))


def _from_points(points: Points, settings: GenerationSettings, seed: int, clock: _Clock) -> _Made:
    points, centre, radius = normalised(points)
    surface, told = surfels(points, settings.fit.num_gaussians, seed)
    cloud = surface.discs().with_sh_degree(settings.fit.sh_degree)
    clock.lap('initialise')
    images = _pictures(cloud, settings.views.train_cameras(), settings)
    clock.lap('views')
    return _Made(cloud, _pixels(images, settings.views), {},
                 dict(kind='points', made='oriented discs, no fit; views are pictures of the discs',
                      points=len(points.positions), **told, **_frame(centre, radius)))


def _from_splats(cloud: GaussianCloud, settings: GenerationSettings, seed: int, clock: _Clock) -> _Made:
    rule = settings.views
    centre, radius = cloud.bounding_sphere()
    cloud = cloud.normalise()
    stored = _reduced(cloud, settings.max_gaussians).with_sh_degree(settings.fit.sh_degree)
    images = _pictures(cloud, rule.train_cameras(), settings)
    clock.lap('views')
    quality, notes = {}, ['no fit; views are pictures of the splats as they came']
    if len(stored) < len(cloud):
        notes.append(f'{len(cloud)} Gaussians reduced to {len(stored)}')
    if stored.sh_degree < cloud.sh_degree:
        notes.append(f'SH degree {cloud.sh_degree} cut to {stored.sh_degree}')
    if len(notes) > 1:  # something was lost: against the splats as they came
        viewmats = rule.test_cameras()
        test = Views(_pictures(cloud, viewmats, settings), viewmats, _repeated(rule.intrinsics(), len(viewmats)))
        quality = quality_of(stored, test, rule.background)
        clock.lap('quality')
    return _Made(stored, _pixels(images, rule), quality,
                 dict(kind='splats', made='; '.join(notes), **_frame(centre.numpy(), radius)))


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
    cloud = replace(surface, positions=points.positions).discs()
    clock.lap('initialise')
    chosen = _spread(train.viewmats, rule.num_views)
    images, intrinsics = _squared(train.images[chosen], train.intrinsics[chosen], rule.size)
    return _Made(cloud, _pixels(images, rule), {},
                 dict(kind='images', made=begun, pictures=len(posed.images), held_out=int(held_out.sum()),
                      **_frame(centre, radius)),
                 train.viewmats[chosen], intrinsics, (train, test))


def _begin(posed: PosedImages, train: PosedImages, settings: GenerationSettings, seed: int) -> tuple[Surface, str]:
    """Where Gaussians begin: at the points that came along, or on the hull of the masks where that is more."""
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


def _pictures(cloud: GaussianCloud, viewmats: ndarray, settings: GenerationSettings) -> ndarray:
    """A cloud from cameras of the dataset, (V, H, W, 4) float32, not premultiplied."""
    rule, cloud = settings.views, cloud.to(settings.device)
    cameras = (torch.as_tensor(x, device=cloud.device) for x in (viewmats, _repeated(rule.intrinsics(), len(viewmats))))
    colors, alphas = (x.cpu().numpy() for x in render(cloud, *cameras, rule.size, rule.size))
    alphas = alphas[..., None]
    return np.concatenate([np.divide(colors, alphas, out=np.zeros(colors.shape, np.float32), where=alphas > 0), alphas],
                          axis=-1)


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
