"""Objects of a triplet dataset as other fitters would have made them."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from clipgs_plugin import GaussianCloud, read_gaussians, write_gaussians
from clipgs_plugin.tools.benchmarks.figures import Figure, figure
from clipgs_plugin.tools.benchmarks.robustness import pruned, rewritten
from clipgs_plugin.tools.benchmarks.splat_fits import saturated

NUM_VIEWS, PIXELS, FIELD_OF_VIEW = 24, 64, 40
BACKGROUND = (0.93, 0.93, 0.93)
PARTS = 4    # Gaussians in place of one
LARGE = 256  # Gaussians of an object of few


def refits(world: str = 'work_dirs/toy_world', out: str = 'work_dirs/refits', split: str = 'test', limit: int = 0,
           kinds: str = '', model: str = '', checkpoint: str = '', points: int = 0, seed: int = 0) -> list[Figure]:
    """Write the objects of a triplet dataset as other fitters would have made them, and describe their attributes.

    Each kind is a folder OUT/KIND of files CLASS/UID.ply, which GaussianFolder reads. Files that exist are kept. With
    --model a figure is its zero-shot top-1; --points N turns each object into N points by SplatsToPoints first.
    """
    rows, chosen = [], kinds.split(',') if kinds else [*REFITS]
    if unknown := set(chosen) - {*REFITS}:
        raise ValueError(f'--kinds {",".join(sorted(unknown))}: expected some of {",".join(REFITS)}')
    for kind in chosen:
        categories, made = [], []
        for i, (uid, category, cloud) in enumerate(objects(world, split, limit)):
            categories.append(category)
            made.append(refitted(Path(out) / kind / category / f'{uid}.ply', cloud, kind, (seed, i)))
        rows += [figure(kind, name, [float(measure(cloud)) for cloud in made]) for name, measure in MEASURES.items()]
        if model:
            rows.append(figure(kind, 'zero-shot top-1', recognised(made, categories, model, checkpoint, points)))
    return rows


def recognised(clouds: list[GaussianCloud], categories: list[str], model: str, checkpoint: str,
               points: int) -> list[bool]:
    """Return whether a model names the category of each object; the classes are the categories that occur."""
    from clipgs_plugin import CLIPGSInferencer
    from clipgs_plugin.datasets.transforms import SplatsToPoints
    clipgs = CLIPGSInferencer(model, checkpoint or None)
    if points:
        clouds = [SplatsToPoints(points)({'gaussians': cloud})['gaussians'] for cloud in clouds]
    answers = clipgs.classify(clouds, sorted(set(categories)), 'toy')
    return [found[0][0] == category for found, category in zip(answers, categories)]


def objects(world: str, split: str, limit: int) -> Iterator[tuple[str, str, GaussianCloud]]:
    """Yield name, category and Gaussians of the objects of a split."""
    from clipgs_plugin.datasets import TripletDataset
    dataset = TripletDataset(world, split, pipeline=[lambda results: results], test_mode=True)
    for i in range(min(limit, len(dataset)) if limit else len(dataset)):
        item = dataset[i]
        yield item['uid'], item['category'], item['gaussians']


def refitted(path: Path, cloud: GaussianCloud, kind: str, seed: tuple[int, int]) -> GaussianCloud:
    """Return an object as another fitter would have made it, from its file if there is one."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_gaussians(REFITS[kind](cloud, np.random.default_rng(seed)), path)
    return read_gaussians(path)


# Fits to views of the object

def fit(cloud: GaussianCloud, start: GaussianCloud, settings, rng: np.random.Generator) -> GaussianCloud:
    """Fit Gaussians to views of an object."""
    from clipgs_plugin.generation.fitting import fit_many
    from clipgs_plugin.generation.objects import Views
    from clipgs_plugin.ops import intrinsics, render, sphere_cameras
    cameras = sphere_cameras(NUM_VIEWS + 2)
    lens = intrinsics(FIELD_OF_VIEW, PIXELS, PIXELS).expand(len(cameras), 3, 3)
    colors, alpha = render(cloud, cameras, lens, PIXELS, PIXELS)
    images = torch.cat([colors / alpha[..., None].clamp_min(1e-6), alpha[..., None]], -1).clamp(0, 1).numpy()
    train, test = (Views(images[pick], cameras[pick].numpy(), lens[pick].numpy())
                   for pick in (slice(NUM_VIEWS), slice(NUM_VIEWS, None)))
    return fit_many([start], [train], [test], BACKGROUND, settings, [int(rng.integers(2 ** 31))])[0].cloud


def from_surface(cloud: GaussianCloud, rng: np.random.Generator, iterations: int = 200,
                 sh_degree: int = 0) -> GaussianCloud:
    """Fit grey balls that start at the centres of the Gaussians."""
    from clipgs_plugin.generation.fitting import FitSettings
    settings = FitSettings(num_gaussians=len(cloud), iterations=iterations, sh_degree=sh_degree, check_every=0)
    return fit(cloud, isotropic(cloud, rng).replace(sh=torch.zeros_like(cloud.sh)), settings, rng)


def from_volume(cloud: GaussianCloud, rng: np.random.Generator, iterations: int = 300) -> GaussianCloud:
    """Fit Gaussians that start as random points in the bounding box, as 3DGS does without a sparse reconstruction.

    Neither opacity nor size has a weight in the loss. Half of the Gaussians come from densification.
    """
    from clipgs_plugin.generation.fitting import FitSettings
    half = len(cloud) // 2
    low, high = (end(cloud.means, 0).double().numpy() for end in (torch.amin, torch.amax))
    spacing = float(np.prod(np.maximum(high - low, 0.02)) / half) ** (1 / 3)
    fields = dict(means=rng.uniform(low, high, (half, 3)), quats=np.tile([1.0, 0, 0, 0], (half, 1)),
                  log_scales=np.full((half, 3), np.log(0.5 * spacing)), opacity_logits=np.full(half, np.log(0.1 / 0.9)),
                  sh=rng.uniform(-1, 1, (half, 1, 3)))
    start = GaussianCloud(**{name: torch.from_numpy(value.astype(np.float32)) for name, value in fields.items()})
    settings = FitSettings(num_gaussians=half, max_gaussians=2 * half, iterations=iterations, grow_every=60,
                           opacity_weight=0, scale_weight=0, means_rate=4e-3, decay=0.1, check_every=0)
    return fit(cloud, start, settings, rng)


# Changes of the attributes

def isotropic(cloud: GaussianCloud, rng: np.random.Generator) -> GaussianCloud:
    """Replace Gaussians by balls of the volume of their two largest axes."""
    sizes = cloud.log_scales.sort(1).values[:, 1:].mean(1, keepdim=True).expand(-1, 3)
    return cloud.replace(log_scales=sizes.contiguous(), quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(len(cloud), 1))


def tiny(cloud: GaussianCloud, rng: np.random.Generator) -> GaussianCloud:
    """Replace each Gaussian by four of half its size, drawn from it."""
    parts = cloud[torch.arange(len(cloud)).repeat_interleave(PARTS)]
    offsets = torch.from_numpy(rng.normal(size=(len(parts), 3)).astype(np.float32)) * parts.scales
    return parts.replace(means=parts.means + (parts.rotations @ offsets[..., None])[..., 0],
                         log_scales=parts.log_scales - 0.5 * float(np.log(PARTS)))


def large(cloud: GaussianCloud, rng: np.random.Generator) -> GaussianCloud:
    """Keep 256 evenly spread Gaussians, larger by as much as they are fewer."""
    from clipgs_plugin.datasets.transforms import SampleGaussians
    kept = SampleGaussians(LARGE, 'fps')(dict(gaussians=cloud, rng=rng))['gaussians']
    return kept.replace(log_scales=kept.log_scales + 0.5 * float(np.log(len(cloud) / len(kept))))


def of_suffix(suffix: str) -> Callable[[GaussianCloud, np.random.Generator], GaussianCloud]:
    """Return the change of a quantised format."""
    return lambda cloud, rng: rewritten(cloud, suffix)


REFITS: dict[str, Callable[[GaussianCloud, np.random.Generator], GaussianCloud]] = {
    'own': lambda cloud, rng: cloud,
    'surface': from_surface,
    'short': partial(from_surface, iterations=40),
    'sh3': partial(from_surface, sh_degree=3),
    'volume': from_volume,
    'saturated': lambda cloud, rng: saturated(cloud, 0),
    'isotropic': isotropic,
    'tiny': tiny,
    'large': large,
    'pruned': pruned,
    'splat': of_suffix('.splat'),
    'spz': of_suffix('.spz')}

MEASURES: dict[str, Callable[[GaussianCloud], torch.Tensor]] = {
    'Gaussians': len,
    'median opacity': lambda cloud: cloud.opacities.median(),
    'median log scale, largest axis': lambda cloud: cloud.log_scales.amax(1).median(),
    'median log scale, smallest axis': lambda cloud: cloud.log_scales.amin(1).median()}
