"""Triplets of objects: turned to y up, brought into the unit sphere, viewed, described and fitted.

The steps depend on the content of the file. The fit is a step of its own, because a GPU fits many objects at once.
"""
from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from clipgs_plugin.generation.builders.base import Built, Clock, ToFit
from clipgs_plugin.generation.builders.mesh import from_mesh
from clipgs_plugin.generation.builders.points import from_points
from clipgs_plugin.generation.builders.posed_images import from_images
from clipgs_plugin.generation.builders.splats import from_splats
from clipgs_plugin.generation.captions import captions_for, model_captions, unique_captions
from clipgs_plugin.generation.fitting import Fitted, fit_many
from clipgs_plugin.generation.objects import Listed, Mesh, Points, PosedImages, Triplet
from clipgs_plugin.generation.rendering.surfaces import turned
from clipgs_plugin.generation.settings import GenerationSettings
from clipgs_plugin.generation.sources.base import Source
from clipgs_plugin.registry import TASK_UTILS
from clipgs_plugin.structures import GaussianCloud
from clipgs_plugin.triplets.codecs import caption_id, to_json

BUILDERS: dict[type, Callable[..., Built]] = {Mesh: from_mesh, Points: from_points, PosedImages: from_images,
                                              GaussianCloud: from_splats}


def make_triplet(listed: Listed, source: Source, settings: GenerationSettings | None = None) -> Triplet:
    """Load an object and make its triplet.

    - A mesh is rendered. Gaussians start on its surface and are fitted to the renders.
    - Points become discs on the surface that they sample, without a fit. The views are renders of the discs.
    - Splats are kept at the SH degree of the dataset. The views are renders of the splats as they came.
    - Posed images are the views. Gaussians start at their points and are fitted to them.

    Args:
        listed: Object to make.
        source: Source that listed it.
        settings: Settings of the dataset.

    Raises:
        ValueError, OSError: The file cannot be used; the message says why.
    """
    settings = settings or GenerationSettings()
    triplet, views = prepare(listed, source, settings)
    return triplet if views is None else fit_together([triplet], [views], settings)[0]


def prepare(listed: Listed, source: Source, settings: GenerationSettings) -> tuple[Triplet, ToFit | None]:
    """Load an object and run all steps before its fit.

    Returns:
        The triplet with the initial Gaussians, and the views to fit; None if the triplet is finished.

    Raises:
        ValueError, OSError: The file cannot be used; the message says why.
        TypeError: The source returns an unknown type.
    """
    clock = Clock()
    content = source.load(listed)
    clock.lap('load')
    build = next((build for kind, build in BUILDERS.items() if isinstance(content, kind)), None)
    if build is None:
        raise TypeError(f'{listed.path}: {type(source).__name__} returned a {type(content).__name__}, expected one of '
                        f'{", ".join(kind.__name__ for kind in BUILDERS)}')
    built = build(turned(content, source.up), settings, object_seed(settings, listed), clock)
    captions = captions_for(listed, settings.captions)
    if settings.captioner is not None:
        captions = unique_captions([*captions, *model_captions(build_model(settings.captioner), built.views)])
    if settings.ranker is not None:
        captions = build_model(settings.ranker)(captions, built.views)
    clock.lap('captions')
    return Triplet(listed, built.gaussians, built.views, captions, built.quality,
                   dict(file=listed.path.name, up=source.up, **built.source), built.viewmats, built.intrinsics,
                   clock.seconds), built.to_fit


def fit_together(triplets: Sequence[Triplet], views: Sequence[ToFit], settings: GenerationSettings) -> list[Triplet]:
    """Fit the Gaussians of objects from :func:`prepare` and finish their triplets.

    Raises:
        ValueError: No view shows its object.
    """
    clock = Clock()
    fits = fit_many([triplet.gaussians.to(settings.device) for triplet in triplets], *zip(*views),
                    settings.views.background, settings.fit,
                    [object_seed(settings, triplet.listed) for triplet in triplets])
    clock.lap('fit', len(triplets))
    return [_finished(triplet, fitted, clock.seconds) for triplet, fitted in zip(triplets, fits)]


def _finished(triplet: Triplet, fitted: Fitted, seconds: dict) -> Triplet:
    made = f'{triplet.source["made"]}, fitted in {fitted.iterations} iterations'
    return replace(triplet, gaussians=fitted.cloud.to('cpu'), quality=fitted.quality,
                   source={**triplet.source, 'made': made}, seconds=triplet.seconds | seconds)


def object_seed(settings: GenerationSettings, listed: Listed) -> int:
    """Return the random seed of an object, which depends on the seed of the dataset and its uid."""
    return caption_id(f'{settings.seed}/{listed.uid}')


def build_model(config: Mapping):
    """Build a captioner or a ranker, once in a process."""
    return _build_model(to_json(config))


@lru_cache(maxsize=2)  # a captioner and a ranker
def _build_model(config: bytes):
    return TASK_UTILS.build(json.loads(config))
