"""Stability of embeddings under changes that files undergo, before and after the mends."""
from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clipgs_plugin.structures import GaussianCloud
from clipgs_plugin.tools.benchmarks.figures import Figure, figure
from clipgs_plugin.tools.benchmarks.splat_fits import FITTERS, FitSize, fitted, load_meshes
from clipgs_plugin.tools.benchmarks.upright import mesh_splats

LEAST = 500        # Gaussians of an object; smaller files are fixtures
FLOATERS = 0.005   # share
TABLE = 0.4        # share of the Gaussians
MENDED_TURNS = 12

Change = Callable[[GaussianCloud, np.random.Generator], GaussianCloud]


def robustness(files: str = '', meshes: str = '', up: str = 'y', model: str = 'clipgs_toy', limit: int = 0,
               seed: int = 0) -> list[Figure]:
    """Measure the cosine of changed objects to the unchanged, and how often the nearest of the folder is still itself.

    Of files of one name in several formats the first is taken, and files of fewer than 500 Gaussians are left out. In
    place of files, --meshes names a folder of meshes, which are covered with 10,000 Gaussians each.
    """
    from clipgs_plugin import CLIPGSInferencer
    if bool(files) == bool(meshes):
        raise ValueError('name a folder of splat files or of meshes: --files FOLDER or --meshes FOLDER')
    if meshes:
        clouds = [cloud for _, cloud in itertools.islice(mesh_splats(Path(meshes), up, 10_000), limit or None)]
    else:
        clouds = load(Path(files), up, limit)
    clipgs = CLIPGSInferencer(model)
    galleries = {turns: clipgs.embed_gaussians(clouds, turns=turns) for turns in (1, MENDED_TURNS)}
    figures = []
    for name, (change, mend, turns) in changes().items():
        changed = []
        for i, cloud in enumerate(clouds):
            after = change(cloud, np.random.default_rng((seed, i)))
            changed.append(mend(after) if mend else after)
        figures += compare(name, galleries[turns], clipgs.embed_gaussians(changed, turns=turns))
    return figures


def fitters(meshes: str = '', up: str = 'y', model: str = 'clipgs_toy', first: int = 0, count: int = 24,
            cache: str = 'work_dirs/splat_fits', seed: int = 0) -> list[Figure]:
    """Measure the cosine of meshes fitted in other ways to those fitted from their surface, and the top-1 kept.

    Rows with SplatsToPoints turn every fit into points of its visible surface first. Fits are kept in --cache.
    """
    from clipgs_plugin import CLIPGSInferencer
    from clipgs_plugin.datasets.transforms import SplatsToPoints
    if not meshes:
        raise ValueError('name a folder of meshes: --meshes FOLDER')
    loaded, clipgs = load_meshes(meshes, up, first, count), CLIPGSInferencer(model)
    fits = {fitter: [fitted(name, mesh, fitter, Path(cache), FitSize(), seed) for name, mesh in loaded.items()]
            for fitter in FITTERS}
    as_points = SplatsToPoints(FitSize().gaussians)
    figures = []
    for way, prepare in {'': lambda cloud: cloud,
                         ', SplatsToPoints': lambda cloud: as_points({'gaussians': cloud})['gaussians']}.items():
        embedded = {fitter: clipgs.embed_gaussians([prepare(cloud) for cloud in clouds])
                    for fitter, clouds in fits.items()}
        for fitter in FITTERS[1:]:
            figures += compare(f'{fitter}{way}', embedded[FITTERS[0]], embedded[fitter])
    return figures


def load(folder: Path, up: str, limit: int) -> list[GaussianCloud]:
    """Read the objects of a folder, with y up."""
    from clipgs_plugin import read_gaussians
    from clipgs_plugin.io import find_splats
    from clipgs_plugin.ops import axis_change
    clouds: dict[str, GaussianCloud] = {}
    for path in find_splats(folder):
        name = path.name.partition('.')[0]
        cloud = read_gaussians(path) if name not in clouds else []
        if len(cloud) >= LEAST:
            clouds[name] = cloud.transform(axis_change(up, 'y'))
        if len(clouds) == limit > 0:
            break
    if len(clouds) < 2:
        raise ValueError(f'{folder} has {len(clouds)} files of at least {LEAST} Gaussians; expected at least 2')
    return list(clouds.values())


def compare(name: str, before: Tensor, after: Tensor) -> list[Figure]:
    """Return the cosine of pairs of rows, and the share of rows whose nearest is their own."""
    cosines = after @ before.T
    own = cosines.argmax(1) == torch.arange(len(before))
    return [figure(name, 'cosine', cosines.diagonal().tolist(), f'least {float(cosines.diagonal().min()):.3f}'),
            figure(name, 'top-1 kept', own.float().tolist())]


def changes() -> dict[str, tuple[Change, Callable[[GaussianCloud], GaussianCloud] | None, int]]:
    """Return the changes by name: the change, its mend or None, and the number of turns to embed with."""
    from clipgs_plugin.io import FORMATS
    found = {'80 % of the Gaussians, at random': (lambda cloud, rng: sampled(cloud, rng, 0.8), None, 1),
             'half of the Gaussians, at random': (lambda cloud, rng: sampled(cloud, rng, 0.5), None, 1),
             'half of the Gaussians, the most visible': (pruned, None, 1)}
    for format in FORMATS.values():
        if format.write and format.suffix.startswith('.'):
            found[f'written and read as {format.suffix}'] = (
                lambda cloud, rng, suffix=format.suffix: rewritten(cloud, suffix), None, 1)
    return found | {
        'any yaw': (yawed, None, 1), f'any yaw, --turns {MENDED_TURNS}': (yawed, None, MENDED_TURNS),
        'wrong up axis': (toppled, None, 1), 'wrong up axis, --up auto': (toppled, upright, 1),
        'right up axis, --up auto': (lambda cloud, rng: cloud, upright, 1),
        f'{FLOATERS:.1%} floaters': (with_floaters, None, 1),
        f'on a table of {TABLE:.0%}': (on_table, None, 1),
        f'on a table of {TABLE:.0%}, --remove-plane': (on_table, without_plane, 1),
        'no table, --remove-plane': (lambda cloud, rng: cloud, without_plane, 1)}


def sampled(cloud: GaussianCloud, rng: np.random.Generator, share: float) -> GaussianCloud:
    """Keep a random share of the Gaussians."""
    return cloud[torch.from_numpy(np.sort(rng.permutation(len(cloud))[:round(share * len(cloud))]))]


def pruned(cloud: GaussianCloud, rng: np.random.Generator) -> GaussianCloud:
    """Keep the half with the largest products of opacity and cross-section."""
    areas = cloud.log_scales.sort(-1).values[:, 1:].sum(-1)
    return cloud[(cloud.opacities.log() + areas).topk(len(cloud) // 2).indices.sort().values]


def rewritten(cloud: GaussianCloud, suffix: str) -> GaussianCloud:
    """Write an object to a file and read it."""
    from clipgs_plugin import read_gaussians, write_gaussians
    with tempfile.TemporaryDirectory() as folder:
        write_gaussians(cloud, Path(folder) / f'object{suffix}')
        return read_gaussians(Path(folder) / f'object{suffix}')


def yawed(cloud: GaussianCloud, rng: np.random.Generator) -> GaussianCloud:
    """Turn an object about y by any angle."""
    from clipgs_plugin.ops.rotations import y_rotation
    return cloud.transform(y_rotation(rng.uniform(0, 2 * math.pi)))


def toppled(cloud: GaussianCloud, rng: np.random.Generator) -> GaussianCloud:
    """Turn y to one of the other five axes."""
    from clipgs_plugin.ops import axis_change
    from clipgs_plugin.ops.rotations import AXES
    return cloud.transform(axis_change('y', [axis for axis in AXES if axis != 'y'][rng.integers(5)]))


def upright(cloud: GaussianCloud) -> GaussianCloud:
    """Turn the estimated up axis to y."""
    from clipgs_plugin.apis.upright import estimate_up
    from clipgs_plugin.ops import axis_change
    return cloud.transform(axis_change(estimate_up(cloud).axis, 'y'))


def without_plane(cloud: GaussianCloud) -> GaussianCloud:
    """Remove the plane an object stands on."""
    from clipgs_plugin.datasets.transforms import RemovePlane
    return RemovePlane()({'gaussians': cloud})['gaussians']


def with_floaters(cloud: GaussianCloud, rng: np.random.Generator) -> GaussianCloud:
    """Add copies of Gaussians at 3 to 30 radii."""
    count = max(1, round(FLOATERS * len(cloud)))
    centre, radius = cloud.bounding_sphere()
    directions = rng.normal(size=(count, 3))
    directions *= radius * 3 * 10 ** rng.random((count, 1)) / np.linalg.norm(directions, axis=1, keepdims=True)
    copies = cloud[torch.from_numpy(rng.integers(len(cloud), size=count))]
    return joined(cloud, copies.replace(means=(centre + torch.from_numpy(directions)).to(cloud.means)))


def on_table(cloud: GaussianCloud, rng: np.random.Generator) -> GaussianCloud:
    """Add a level square of grey Gaussians below an object, four radii wide."""
    count = round(len(cloud) * TABLE / (1 - TABLE))
    low, high = (torch.quantile(cloud.means[:100_000].double(), q, 0) for q in (0.005, 0.995))
    centre, radius = (low + high) / 2, float((high - low).norm()) / 2
    places = torch.from_numpy(rng.uniform(-1, 1, (count, 3)) * [2 * radius, 0.002 * radius, 2 * radius])
    places += torch.stack([centre[0], low[1], centre[2]])
    copies = cloud[torch.from_numpy(rng.integers(len(cloud), size=count))]
    spacing = math.log(4 * radius / count ** 0.5)
    return joined(cloud, copies.replace(
        means=places.to(cloud.means), log_scales=torch.tensor([spacing, spacing - 3, spacing]).repeat(count, 1),
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1), sh=torch.zeros_like(copies.sh),
        opacity_logits=torch.full((count,), 2.0)))


def joined(*clouds: GaussianCloud) -> GaussianCloud:
    """Join objects of one SH degree."""
    return GaussianCloud(**{name: torch.cat([getattr(cloud, name) for cloud in clouds])
                            for name, _ in clouds[0].fields()})
