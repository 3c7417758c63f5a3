"""Meshes: rendered views, and Gaussians on the surface to fit to them."""
from __future__ import annotations

import numpy as np

from clipgs_plugin.generation.builders.base import Built, Clock, frame, repeat_intrinsics, select, to_pixels
from clipgs_plugin.generation.objects import Mesh, Views
from clipgs_plugin.generation.rendering import render_mesh
from clipgs_plugin.generation.rendering.surfaces import normalised, sample_surface
from clipgs_plugin.generation.settings import GenerationSettings


def from_mesh(mesh: Mesh, settings: GenerationSettings, seed: int, clock: Clock) -> Built:
    """Render a mesh with y up and cover its surface with Gaussians, which are to be fitted."""
    rule = settings.views
    mesh, centre, radius = normalised(mesh)
    viewmats = np.concatenate([rule.train_cameras(), rule.test_cameras()])
    images = render_mesh(mesh, viewmats, rule.intrinsics(), rule.size, rule.size, samples=settings.samples,
                         light=settings.light, renderer=settings.renderer)
    views = Views(images, viewmats, repeat_intrinsics(rule, len(images)))
    train, test = select(views, slice(rule.num_views)), select(views, slice(rule.num_views, None))
    clock.lap('views')
    cloud = sample_surface(mesh, settings.fit.num_gaussians, seed).discs()
    clock.lap('initialise')
    stored = views.images[:len(rule.stored_cameras())]
    return Built(cloud, to_pixels(stored, rule), dict(kind='mesh', made='rendered', **frame(centre, radius)),
                 to_fit=(train, test))
