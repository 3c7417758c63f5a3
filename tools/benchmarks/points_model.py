"""Accuracy of a model of point clouds on points of splats, beside its accuracy on points sampled from meshes."""
from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipgs_plugin.structures import GaussianCloud
from clipgs_plugin.tools.benchmarks.points import BASELINE, WAYS, Colored, sampled
from clipgs_plugin.tools.benchmarks.splat_fits import FITTERS, FitSize, fitted, load_meshes

GALLERY_SEED, QUERY_SEED = 1, 2  # samplings of the meshes; those for training have 0
POOL = 8_192                   # points of a mesh that training draws from
BATCH = 36                     # objects of a step
GREY, DROP_COLOR = 0.4, 0.5    # colour in place of a missing one, and how often training drops the colours
TEMPERATURE = 0.07
MESH = 'mesh'
CEILING = 'sampled'

Key = tuple[str, str, str]  # input, fitter, way
Queries = dict[tuple[str, str], list[Colored]]  # points of each object, by fitter and way


@dataclass
class Answers:
    """A row of a table: how well a model finds objects in a gallery of mesh samples by points made in one way.

    Spreads are standard deviations over seeds. ``gain`` is the difference in top-1 to the centres for the same objects
    and models, with its standard error over objects. ``back`` is the gain divided by the loss of the centres, which is
    the difference in top-1 of samples of the mesh to the centres. It is None where the loss is within two standard
    errors of zero.
    """

    input: str
    fitter: str
    way: str
    top1: float
    top1_spread: float
    recall5: float
    recall5_spread: float
    cosine: float
    cosine_spread: float
    objects: int
    gain: float | None = None
    gain_error: float | None = None
    back: float | None = None


def points_model(meshes: str = '', up: str = 'y', first: int = 8, count: int = 32, cache: str = 'work_dirs/splat_fits',
                 gaussians: int = 4_000, num_points: int = 1_024, epochs: int = 50, draws: int = 4,
                 seeds: str = '0,1,2', fitters: str = ','.join(FITTERS)) -> list[Answers]:
    """Train an encoder on points sampled from meshes, and ask it for objects by points made of their splats.

    The folder's meshes are ordered by a hash of their names. The encoder learns to tell apart all but ``count`` from
    ``first`` on, whose splats are the queries. The gallery has one sampling of every mesh of the folder, also of those
    for training. Points are made once; a seed trains an encoder and turns each query ``draws`` times by a random yaw.
    'grey' are the answers without colours, by the same encoder. Fits are kept in ``cache``.
    """
    if not meshes:
        raise ValueError('name a folder of meshes: --meshes FOLDER')
    every, size = load_meshes(meshes, up, 0, 0), FitSize(gaussians=gaussians)
    held_out = dict([*every.items()][first:first + count])
    if len(held_out) < count or len(every) < count + 2:
        raise ValueError(f'{meshes}: holds {len(every)} meshes, expected {first + count} and at least 2 for training; '
                         'lower --first or --count')
    splats = {fitter: [fitted(name, mesh, fitter, Path(cache), size, 0) for name, mesh in held_out.items()]
              for fitter in fitters.split(',')}
    asked = queries([*held_out.values()], splats, num_points)
    gallery = [sampled(mesh, num_points, GALLERY_SEED)[:2] for mesh in every.values()]
    own = torch.tensor([i for i, name in enumerate(every) if name in held_out])
    pools = [sampled(mesh, POOL, 0)[:2] for name, mesh in every.items() if name not in held_out]
    found = [of_seed(int(seed), pools, gallery, own, asked, num_points, epochs, draws) for seed in seeds.split(',')]
    return beside_centers({key: np.stack([of[key] for of in found]) for key in found[0]})


def of_seed(seed: int, pools: list[Colored], gallery: list[Colored], own: Tensor, asked: Queries, num_points: int,
            epochs: int, draws: int) -> dict[Key, np.ndarray]:
    """Train an encoder and return its answers about held-out meshes: hits at 1 and at 5, and cosines, (3, H)."""
    encoder, rng = train(pools, num_points, epochs, seed), torch.Generator().manual_seed(seed)
    found: dict[Key, np.ndarray] = {}
    for name, colored in INPUTS.items():
        places = embed(encoder, gallery, colored, rng)
        for (fitter, way), points in asked.items():
            found[name, fitter, way] = np.mean([answers(embed(encoder, points, colored, rng), places, own)
                                                for _ in range(draws)], axis=0)
    return found


def queries(meshes: list, splats: dict[str, list[GaussianCloud]], count: int) -> Queries:
    """Return the points of all objects by fitter and way; first those of the meshes themselves."""
    from clipgs_plugin.ops.sampling import farthest_point_sample
    dense = [sampled(mesh, 4 * count, QUERY_SEED)[:2] for mesh in meshes]
    picked = [farthest_point_sample(points[None], count, start='farthest')[0] for points, _ in dense]
    made = {(MESH, CEILING): [sampled(mesh, count, QUERY_SEED)[:2] for mesh in meshes],
            (MESH, 'sampled, thinned'): [(x[0][i], x[1][i]) for x, i in zip(dense, picked)]}
    return made | {(fitter, way): [make(cloud, count, QUERY_SEED) for cloud in clouds]
                   for fitter, clouds in splats.items() for way, make in WAYS.items()}


def answers(found: Tensor, gallery: Tensor, own: Tensor) -> np.ndarray:
    """Return whether the own entry of each query is the nearest and among the nearest five, and its cosine, (3, H)."""
    cosines = found @ gallery.T
    cosine = cosines.gather(1, own[:, None])
    rank = (cosines > cosine).sum(1)
    return torch.stack([rank < 1, rank < 5, cosine[:, 0]]).double().numpy()


def beside_centers(found: dict[Key, np.ndarray]) -> list[Answers]:
    """Make the rows of all fitters, then of their mean, from hits at 1 and at 5 and cosines, (S, 3, H)."""
    found = dict(found)
    fitters = [name for name in dict.fromkeys(fitter for _, fitter, _ in found) if name != MESH]
    for name in INPUTS:
        for way in WAYS:
            found[name, 'all', way] = np.mean([found[name, fitter, way] for fitter in fitters], axis=0)
    rows = []
    for name, fitter, way in sorted(found, key=lambda key: [*INPUTS].index(key[0])):
        values = found[name, fitter, way]
        mean, spread = values.mean((0, 2)), values.mean(2).std(0, ddof=1 if len(values) > 1 else 0)
        row = Answers(name, fitter, way, *(float(x) for pair in zip(mean, spread) for x in pair), values.shape[2])
        if fitter != MESH and way != BASELINE:
            base = found[name, fitter, BASELINE][:, 0]
            row.gain, row.gain_error = mean_of_objects(values[:, 0] - base)
            loss, error = mean_of_objects(found[name, MESH, CEILING][:, 0] - base)
            row.back = row.gain / loss if loss > 2 * error else None
        rows.append(row)
    return rows


def mean_of_objects(values: np.ndarray) -> tuple[float, float]:
    """Return the mean of values (S, H) and its standard error over the H objects."""
    each = values.mean(0)
    return float(each.mean()), float(each.std(ddof=1) / math.sqrt(len(each)))


def table_of(rows: list[Answers]):
    """Lay out rows as a table of rich."""
    from rich.table import Table
    table = Table('input', 'fitter', 'way')
    for name in ('top-1', 'R@5', 'cosine', 'gain', 'given back'):
        table.add_column(name, justify='right')
    for i, row in enumerate(rows):
        if (row.input, row.fitter) != (rows[max(i - 1, 0)].input, rows[max(i - 1, 0)].fitter):
            table.add_section()
        table.add_row(row.input, row.fitter, row.way, f'{row.top1:.1%} ± {row.top1_spread:.1%}',
                      f'{row.recall5:.1%} ± {row.recall5_spread:.1%}', f'{row.cosine:.3f} ± {row.cosine_spread:.3f}',
                      '' if row.gain is None else f'{100 * row.gain:+.1f} ± {100 * row.gain_error:.1f}',
                      '' if row.back is None else f'{row.back:.0%}')
    return table


# The encoder, and its training

INPUTS = {'colour': True, 'grey': False}


class PointEncoder(nn.Module):
    """Small Point-BERT over coloured points, (B, N, 3) and (B, N, 3) to unit rows (B, E)."""

    def __init__(self, width: int = 96, depth: int = 2, embed_dim: int = 128) -> None:
        from clipgs_plugin.models.backbones import PointBERT
        from clipgs_plugin.models.tokenizers import PointTokenizer
        super().__init__()
        self.tokenizer = PointTokenizer(num_groups=64, group_size=16, channels=width, start='random', rule='exact',
                                        missing_color=GREY, patch_encoder=dict(widths=(32, 64, 64)))
        self.backbone = PointBERT(width, depth, num_heads=4, in_channels=width)
        self.projection = nn.Linear(2 * width, embed_dim)

    def forward(self, points: Tensor, colors: Tensor | None) -> Tensor:
        return F.normalize(self.projection(self.backbone(self.tokenizer(points, colors))), dim=-1)


def train(pools: list[Colored], num_points: int, epochs: int, seed: int, rate: float = 1e-3) -> PointEncoder:
    """Train an encoder to tell objects apart: two augmented draws of one object agree, those of others do not."""
    torch.manual_seed(seed)
    points, colors = (torch.stack([pool[i] for pool in pools]) for i in (0, 1))
    encoder = PointEncoder().train()
    batch = min(BATCH, len(pools))
    steps = epochs * (len(pools) // batch)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=max(steps, 2), pct_start=0.1)
    for step in range(steps):
        start = step % (len(pools) // batch) * batch
        if start == 0:
            order = torch.randperm(len(pools))
        chosen = order[start:start + batch]
        grey = torch.rand(batch, 1, 1) < DROP_COLOR
        first, second = (encoder(*augmented(points[chosen], colors[chosen], num_points, grey)) for _ in range(2))
        logits, own = first @ second.T / TEMPERATURE, torch.arange(batch)
        loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return encoder.eval()


def augmented(points: Tensor, colors: Tensor, count: int, grey: Tensor) -> Colored:
    """Draw ``count`` points of each pool (B, P, 3) with the usual augmentations; ``grey`` (B, 1, 1) drops colours.

    The object is turned by any yaw, scaled by 0.8 to 1.25 and shifted by up to 0.1. Points are jittered with a standard
    deviation of 0.01, clipped at 0.05, and colours scaled and shifted by up to 0.1.
    """
    b = len(points)
    picked = torch.rand(points.shape[:2]).topk(count).indices[..., None]  # (B, count, 1)
    points, colors = (torch.take_along_dim(x, picked, dim=1) for x in (points, colors))
    points = normalised(points) @ yaws(b, None)
    points = points * torch.empty(b, 1, 1).uniform_(0.8, 1.25) + torch.empty(b, 1, 3).uniform_(-0.1, 0.1)
    points = points + (0.01 * torch.randn_like(points)).clamp(-0.05, 0.05)
    colors = colors * torch.empty(b, 1, 3).uniform_(0.9, 1.1) + torch.empty(b, 1, 3).uniform_(-0.1, 0.1)
    return points, torch.where(grey, GREY, colors.clamp(0, 1))


def normalised(points: Tensor) -> Tensor:
    """Centre clouds (B, N, 3) on their mean and scale them into the unit sphere."""
    points = points - points.mean(1, keepdim=True)
    return points / points.norm(dim=2).amax(1)[:, None, None]


def yaws(count: int, generator: torch.Generator | None) -> Tensor:
    """Draw rotations about y, (count, 3, 3)."""
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    turns = torch.eye(3).repeat(count, 1, 1)
    turns[:, 0, 0] = turns[:, 2, 2] = angle.cos()
    turns[:, 0, 2], turns[:, 2, 0] = angle.sin(), -angle.sin()
    return turns


@torch.inference_mode()
def embed(encoder: PointEncoder, objects: list[Colored], colored: bool, rng: torch.Generator) -> Tensor:
    """Embed objects after random yaws, (H, E)."""
    found = []
    for points, colors in objects:
        turned = normalised(points[None].float()) @ yaws(1, rng)
        found.append(encoder(turned, colors[None].float() if colored else None))
    return torch.cat(found)
