"""Point clouds: discs on the surface that the points sample, and views of the discs."""
from __future__ import annotations

from clipgs_plugin.generation.builders.base import Built, Clock, frame, render_views, to_pixels
from clipgs_plugin.generation.objects import Points
from clipgs_plugin.generation.rendering.surfaces import normalised
from clipgs_plugin.generation.settings import GenerationSettings
from clipgs_plugin.generation.sources.points import surfels


def from_points(points: Points, settings: GenerationSettings, seed: int, clock: Clock) -> Built:
    """Turn points with y up into discs, and render these."""
    points, centre, radius = normalised(points)
    surface, details = surfels(points, settings.fit.num_gaussians, seed)
    cloud = surface.discs().with_sh_degree(settings.fit.sh_degree)
    clock.lap('initialise')
    views = render_views(cloud, settings.views.train_cameras(), settings)
    clock.lap('views')
    return Built(cloud, to_pixels(views.images, settings.views),
                 dict(kind='points', made='oriented discs, no fit; views are pictures of the discs',
                      points=len(points.positions), **details, **frame(centre, radius)))
