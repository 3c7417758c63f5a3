"""Splats: kept at the size and SH degree of the dataset, and rendered as they came."""
from __future__ import annotations

from clipgs_plugin.generation.builders.base import Built, Clock, frame, render_views, to_pixels
from clipgs_plugin.generation.fitting.quality import quality_of
from clipgs_plugin.generation.settings import GenerationSettings
from clipgs_plugin.structures import GaussianCloud


def from_splats(cloud: GaussianCloud, settings: GenerationSettings, seed: int, clock: Clock) -> Built:
    """Render splats with y up, and reduce them to what the dataset stores.

    The quality is measured only if something was cut. It compares the stored Gaussians with renders of the originals.
    """
    rule = settings.views
    centre, radius = cloud.bounding_sphere()
    cloud = cloud.normalise()
    stored = _largest(cloud, settings.max_gaussians).with_sh_degree(settings.fit.sh_degree)
    views = render_views(cloud, rule.stored_cameras(), settings)
    clock.lap('views')
    quality, notes = {}, ['no fit; views are pictures of the splats as they came']
    if len(stored) < len(cloud):
        notes.append(f'{len(cloud)} Gaussians reduced to {len(stored)}')
    if stored.sh_degree < cloud.sh_degree:
        notes.append(f'SH degree {cloud.sh_degree} cut to {stored.sh_degree}')
    if len(notes) > 1:
        quality = quality_of(stored, render_views(cloud, rule.test_cameras(), settings), rule.background)
        clock.lap('quality')
    return Built(stored, to_pixels(views.images, rule),
                 dict(kind='splats', made='; '.join(notes), **frame(centre.numpy(), radius)), quality)


def _largest(cloud: GaussianCloud, count: int | None) -> GaussianCloud:
    """Return at most ``count`` Gaussians, those of the largest opacity times area, in their order."""
    if count is None or len(cloud) <= count:
        return cloud
    area = cloud.log_scales.double().topk(2, dim=-1).values.sum(-1).exp()
    order = (cloud.opacities.double() * area).argsort(descending=True, stable=True)
    return cloud[order[:count].sort().values]
