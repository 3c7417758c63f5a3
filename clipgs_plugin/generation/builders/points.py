"""Point clouds: discs on the surface that the points sample, and views of the discs."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy import ndarray

from clipgs_plugin.generation.builders.base import Built, Clock, frame, render_views, to_pixels
from clipgs_plugin.generation.objects import Points, Surface
from clipgs_plugin.generation.rendering.lights import LIGHTS
from clipgs_plugin.generation.rendering.surfaces import normalised
from clipgs_plugin.generation.settings import GenerationSettings
from clipgs_plugin.generation.sources.points import surfels


def from_points(points: Points, settings: GenerationSettings, seed: int, clock: Clock) -> Built:
    """Turn points with y up into discs, and render these."""
    points, centre, radius = normalised(points)
    surface, details = surfels(points, settings.fit.num_gaussians, seed)
    cloud = surface.discs().with_sh_degree(settings.fit.sh_degree)
    clock.lap('initialise')
    cameras, made = settings.views.stored_cameras(), 'oriented discs, no fit; views are pictures of the discs'
    if points.colors is None:  # evenly grey views would be silhouettes
        views, made = np.concatenate([_shaded_view(surface, camera, settings) for camera in cameras]), f'{made}, shaded'
    else:
        views = render_views(cloud, cameras, settings).images
    clock.lap('views')
    return Built(cloud, to_pixels(views, settings.views),
                 dict(kind='points', made=made,
                      points=len(points.positions), **details, **frame(centre, radius)))


def _shaded_view(surface: Surface, viewmat: ndarray, settings: GenerationSettings) -> ndarray:
    """Render discs in the soft light that moves with the camera (4, 4), to an image (1, H, W, 4)."""
    light = LIGHTS['soft']
    rotation = viewmat[:3, :3]
    eye = -rotation.T @ viewmat[:3, 3]
    normals = surface.normals * np.sign(((eye - surface.positions) * surface.normals).sum(1, keepdims=True))
    lit = np.maximum(0, normals @ (rotation.T @ light.towards).astype(np.float32))
    brightness = light.ambient + (1 - light.ambient) * lit
    shaded = replace(surface, colors=(surface.colors * brightness[:, None]).astype(np.float32))
    return render_views(shaded.discs(), viewmat[None], settings).images
