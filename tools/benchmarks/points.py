"""Points of splats beside points sampled from the meshes that the splats were fitted to."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clipgs_plugin import GaussianCloud
from clipgs_plugin.tools.benchmarks.splat_fits import FITTERS, FitSize, fitted, load_meshes

Colored = tuple[Tensor, Tensor]  # points (M, 3) and their colours (M, 3)
BASELINE = 'centres'


@dataclass
class PointErrors:
    """A row of a table: errors of points in units of those of a second sampling of the mesh, over meshes.

    ``left`` is the share of the loss of the centres, their chamfer ratio minus 1, that a way leaves.
    """

    fitter: str
    way: str
    chamfer: float
    chamfer_spread: float  # standard deviation over meshes
    normals: float
    colors: float
    count: int             # meshes
    left: float | None = None


def points(meshes: str = '', up: str = 'y', first: int = 8, count: int = 12, cache: str = 'work_dirs/splat_fits',
           gaussians: int = 4_000, num_points: int = 2_048, reference: int = 10_000, seeds: str = '0,1,2',
           fitters: str = ','.join(FITTERS)) -> list[PointErrors]:
    """Compare points made of splats with points sampled from their meshes, for splats of several fitters.

    Chamfer distance, normals and colours are measured against ``reference`` points on the mesh, and divided by the same
    errors of ``num_points`` independent samples of the mesh. The meshes are ``count`` of the folder from ``first`` on,
    in an order shuffled by their names; 0 to 7 of the scanned objects chose the settings. Fits are kept in ``cache``.
    """
    if not meshes:
        raise ValueError('name a folder of meshes: --meshes FOLDER')
    draws, size = [int(seed) for seed in seeds.split(',')], FitSize(gaussians=gaussians)
    ratios: dict[tuple[str, str], list[np.ndarray]] = {}
    for name, mesh in load_meshes(meshes, up, first, count).items():
        splats = {fitter: fitted(name, mesh, fitter, Path(cache), size, 0) for fitter in fitters.split(',')}
        for key, found in of_mesh(mesh, splats, num_points, reference, draws).items():
            ratios.setdefault(key, []).append(found)
    return beside_centers(ratios)


def of_mesh(mesh, splats: dict[str, GaussianCloud], num_points: int, reference: int,
            seeds: list[int]) -> dict[tuple[str, str], np.ndarray]:
    """Return the errors of each fitter and way, (3,), as ratios to those of a sampling of the mesh, over seeds."""
    from clipgs_plugin.ops.sampling import farthest_point_sample
    totals: dict[tuple[str, str], np.ndarray] = {}
    unit = np.zeros(3)
    for seed in seeds:
        *target, normals = sampled(mesh, reference, 2 * seed)
        *second, _ = sampled(mesh, num_points, 2 * seed + 1)
        *dense, _ = sampled(mesh, 4 * num_points, 2 * seed + 1)
        thinned = farthest_point_sample(dense[0][None], num_points, start='farthest')[0]
        unit += errors(second, target, normals)
        found = {('mesh', 'sampled, thinned'): errors([x[thinned] for x in dense], target, normals)}
        for fitter, cloud in splats.items():
            for way, make in WAYS.items():
                found[fitter, way] = errors(make(cloud, num_points, seed), target, normals)
        for key, value in found.items():
            totals[key] = totals.get(key, 0) + value
    unit[unit == 0] = 1e-3  # a mesh of one colour has no error of colours
    return {key: value / unit for key, value in totals.items()}


def sampled(mesh, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sample positions, colours and normals of a mesh, (count, 3) each."""
    from clipgs_plugin.generation.rendering.surfaces import sample_surface
    surface = sample_surface(mesh, count, seed)
    return tuple(torch.from_numpy(x) for x in (surface.positions, surface.colors, surface.normals))


def errors(found: Colored, target: Colored, normals: Tensor) -> np.ndarray:
    """Return chamfer distance, normal error in degrees, and colour error of points to samples of a mesh."""
    from clipgs_plugin.ops.point_metrics import chamfer_distance, color_error, normal_error
    return np.array([chamfer_distance(found[0], target[0]), normal_error(found[0], target[0], normals),
                     color_error(*found, *target)])


def beside_centers(ratios: dict[tuple[str, str], list[np.ndarray]]) -> list[PointErrors]:
    """Make the rows of all fitters, then of their mean."""
    means: dict[tuple[str, str], np.ndarray] = {key: np.stack(found) for key, found in ratios.items()}
    fitters = [fitter for fitter in dict.fromkeys(fitter for fitter, _ in means) if fitter != 'mesh']
    for way in WAYS:
        means['all', way] = np.mean([means[fitter, way] for fitter in fitters], axis=0)
    rows = []
    for (fitter, way), found in means.items():
        row = PointErrors(fitter, way, *(float(x) for x in (found[:, 0].mean(), found[:, 0].std(),
                                                            found[:, 1].mean(), found[:, 2].mean())), len(found))
        if (fitter, BASELINE) in means and way != BASELINE:
            row.left = float((row.chamfer - 1) / (means[fitter, BASELINE][:, 0].mean() - 1))
        rows.append(row)
    return rows


def table_of(rows: list[PointErrors]):
    """Lay out rows as a table of rich."""
    from rich.table import Table
    table = Table('fitter', 'way')
    for name in ('chamfer', 'normals', 'colours', 'loss left'):
        table.add_column(name, justify='right')
    for i, row in enumerate(rows):
        if row.fitter != rows[max(i - 1, 0)].fitter:
            table.add_section()
        table.add_row(row.fitter, row.way, f'{row.chamfer:.2f} ± {row.chamfer_spread:.2f}', f'{row.normals:.2f}',
                      f'{row.colors:.2f}', '' if row.left is None else f'{row.left:.0%}')
    return table


# Ways from a splat to points

def centers(method: str) -> Callable[[GaussianCloud, int, int], Colored]:
    """Return the way that picks centres of Gaussians by a method of SampleGaussians."""
    def make(cloud: GaussianCloud, count: int, seed: int) -> Colored:
        from clipgs_plugin.datasets.transforms import SampleGaussians
        cloud = SampleGaussians(count, method)(dict(gaussians=cleaned(cloud), rng=np.random.default_rng(seed)))
        return cloud['gaussians'].means, cloud['gaussians'].rgb
    return make


def on_discs(cloud: GaussianCloud, count: int, seed: int) -> Colored:
    """Draw points from the Gaussians, in the plane of their two largest axes, by opacity and area."""
    cloud, rng = cleaned(cloud), np.random.default_rng(seed)
    scales, order = cloud.scales.sort(dim=1, descending=True)
    share = (cloud.opacities * scales[:, 0] * scales[:, 1]).double().numpy()
    drawn = torch.from_numpy(rng.choice(len(cloud), count, p=share / share.sum()))
    offsets = torch.from_numpy(rng.normal(size=(count, 2)).astype(np.float32)) * scales[drawn, :2]
    axes = cloud.rotations[drawn].gather(2, order[drawn, None, :2].expand(-1, 3, -1))
    return cloud.means[drawn] + (axes @ offsets[..., None])[..., 0], cloud.rgb[drawn]


def splats_to_points(cloud: GaussianCloud, count: int, seed: int) -> Colored:
    """Apply SplatsToPoints, which does not depend on the seed."""
    from clipgs_plugin.datasets.transforms import SplatsToPoints
    made = SplatsToPoints(count)(dict(gaussians=cloud))['gaussians']
    return made.means, made.rgb


def cleaned(cloud: GaussianCloud) -> GaussianCloud:
    """Drop transparent Gaussians and floaters."""
    from clipgs_plugin.datasets.transforms import DropFloaters, FilterOpacity
    return DropFloaters()(FilterOpacity()(dict(gaussians=cloud)))['gaussians']


WAYS = {BASELINE: centers('random'), 'centres, thinned': centers('fps'), 'discs': on_discs,
        'SplatsToPoints': splats_to_points}
