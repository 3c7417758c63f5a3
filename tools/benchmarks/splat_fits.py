"""Splats of meshes as several fitters would make them, kept in a folder between runs."""
from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from clipgs_plugin import GaussianCloud, read_gaussians, write_gaussians
from clipgs_plugin.triplets.codecs import to_json


@dataclass(frozen=True)
class FitSize:
    """Size of the fits: number of Gaussians, and number and side of the views in pixels."""

    gaussians: int = 4_000
    views: int = 24
    pixels: int = 80


def from_surface(mesh, size: FitSize, seed: int, share: float = 1.0, iterations: int = 200) -> GaussianCloud:
    """Fit Gaussians that start as samples of the surface, with the defaults of this library."""
    from clipgs_plugin.generation.fitting import FitSettings
    from clipgs_plugin.generation.rendering.surfaces import sample_surface
    settings = FitSettings(num_gaussians=max(1, int(share * size.gaussians)), iterations=iterations, check_every=0)
    return fit(mesh, sample_surface(mesh, settings.num_gaussians, seed).discs(), settings, size, seed)


def few_large(mesh, size: FitSize, seed: int) -> GaussianCloud:
    """Fit a quarter of the Gaussians for a third of the iterations."""
    return from_surface(mesh, size, seed, share=0.25, iterations=70)


def from_volume(mesh, size: FitSize, seed: int) -> GaussianCloud:
    """Fit Gaussians that start as random points in the bounding box, as 3DGS does without a sparse reconstruction.

    Neither opacity nor size has a weight in the loss, as in 3DGS, so Gaussians that no view sees stay where they began.
    Half of the Gaussians come from densification.
    """
    from clipgs_plugin.generation.fitting import FitSettings
    rng, half = np.random.default_rng((seed, 1)), size.gaussians // 2
    corners = np.concatenate([part.triangles.reshape(-1, 3) for part in mesh.parts]).astype(np.float64)
    low, high = corners.min(0), corners.max(0)
    spacing = float(np.prod(np.maximum(high - low, 0.02)) / half) ** (1 / 3)
    fields = dict(means=rng.uniform(low, high, (half, 3)), quats=np.tile([1.0, 0, 0, 0], (half, 1)),
                  log_scales=np.full((half, 3), np.log(0.5 * spacing)), opacity_logits=np.full(half, np.log(0.1 / 0.9)),
                  sh=rng.uniform(-1, 1, (half, 1, 3)))
    start = GaussianCloud(**{name: torch.from_numpy(value.astype(np.float32)) for name, value in fields.items()})
    settings = FitSettings(num_gaussians=half, max_gaussians=size.gaussians, iterations=400, grow_every=100,
                           opacity_weight=0, scale_weight=0, means_rate=4e-3, decay=0.1, check_every=0)
    return fit(mesh, start, settings, size, seed)


def saturated(cloud: GaussianCloud, seed: int) -> GaussianCloud:
    """Change a fit to the statistics of GaussianVerse: opacities of at least 0.999, discs a hundredth as thick, and
    quaternions of norm 1.8."""
    thinnest = torch.nn.functional.one_hot(cloud.log_scales.argmin(1), 3).bool()
    return cloud.replace(opacity_logits=cloud.opacity_logits.clamp_min(7.0), quats=1.8 * cloud.quats,
                         log_scales=torch.where(thinnest, cloud.log_scales - np.log(100), cloud.log_scales))


def with_strays(cloud: GaussianCloud, seed: int) -> GaussianCloud:
    """Add strays to a fit: 1.5 % copies of its Gaussians at random places within 1.5 radii, three times as large."""
    rng = np.random.default_rng((seed, 2))
    count = max(1, int(0.015 * len(cloud)))
    strays = cloud[torch.from_numpy(rng.choice(len(cloud), count, replace=False))]
    places = rng.normal(size=(count, 3))
    places *= 1.5 * rng.random((count, 1)) ** (1 / 3) / np.linalg.norm(places, axis=1, keepdims=True)
    strays = strays.replace(means=torch.from_numpy(places.astype(np.float32)),
                            log_scales=strays.log_scales + float(np.log(3)))
    return GaussianCloud(*(torch.cat([a, b]) for (_, a), (_, b) in zip(cloud.fields(), strays.fields())))


FITS = {'surface': from_surface, 'few': few_large, 'volume': from_volume}
CHANGES = {'saturated': ('surface', saturated), 'strays': ('volume', with_strays)}
FITTERS = (*FITS, *CHANGES)


def fit(mesh, start: GaussianCloud, settings, size: FitSize, seed: int, renderer: str = 'raycast') -> GaussianCloud:
    """Fit Gaussians to renders of a mesh."""
    from clipgs_plugin.generation import ViewRule
    from clipgs_plugin.generation.fitting import fit_many
    from clipgs_plugin.generation.objects import Views
    from clipgs_plugin.generation.rendering import render_mesh
    rule = ViewRule(num_views=size.views, num_test=2, size=size.pixels)
    train, test = (Views(render_mesh(mesh, cameras, rule.intrinsics(), rule.size, rule.size, renderer=renderer),
                         cameras, np.repeat(rule.intrinsics()[None], len(cameras), axis=0))
                   for cameras in (rule.train_cameras(), rule.test_cameras()))
    return fit_many([start], [train], [test], rule.background, settings, [seed])[0].cloud


def load_meshes(folder: str, up: str, first: int, count: int) -> dict[str, object]:
    """Load meshes of a folder in the unit sphere with y up, by name, in an order that a hash of the name shuffles.

    ``count`` 0 loads all from ``first`` on.
    """
    from clipgs_plugin.generation.rendering.surfaces import normalised, turned
    from clipgs_plugin.generation.sources import MeshSource
    source = MeshSource(up=up)
    listed = sorted(source.list(folder), key=lambda item: hashlib.sha256(item.uid.encode()).digest())
    chosen = listed[first:first + count] if count else listed[first:]
    if len(chosen) < count:
        raise ValueError(f'{folder}: holds {len(listed)} meshes, expected at least {first + count}; lower --first or '
                         '--count')
    return {item.uid: normalised(turned(source.load(item), up))[0] for item in chosen}


def fitted(name: str, mesh, fitter: str, cache: Path, size: FitSize, seed: int) -> GaussianCloud:
    """Return the splat of a mesh by a fitter, from the folder if it is there."""
    if fitter in CHANGES:
        base, change = CHANGES[fitter]
        return change(fitted(name, mesh, base, cache, size, seed), seed)
    return read_gaussians(cached_fit(name, fitter, cache, size, seed, lambda: FITS[fitter](mesh, size, seed)))


def cached_fit(name: str, fitter: str, cache: Path, size: FitSize, seed: int,
               make: Callable[[], GaussianCloud]) -> Path:
    """Return the file of a fit, which ``make`` returns if the folder does not have it."""
    key = hashlib.sha256(to_json(dict(name=name, fitter=fitter, seed=seed, **asdict(size)))).hexdigest()[:12]
    path = cache / f'{name}-{fitter}-{key}.ply'
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_gaussians(make(), path)
    return path
