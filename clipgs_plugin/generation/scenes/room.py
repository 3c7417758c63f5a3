"""Rooms: a floor and walls with procedural textures."""
from __future__ import annotations

import colorsys

import numpy as np
from numpy import ndarray

from clipgs_plugin.generation.objects import Mesh, MeshPart

HALF = 0.85      # half of the side of the floor
HEIGHT = 0.75    # of the walls
CELLS = 40       # quads along the floor, fine enough for the edge of a shadow
TEXELS = 256     # side of a texture


def make_room(walls: int, rng: np.random.Generator) -> Mesh:
    """Make a square floor at y = 0 around the origin, and walls at its far sides.

    Args:
        walls: 0 to 2; the first wall stands at the least z, the second at the least x.
        rng: Random generator of the textures.
    """
    side = 2 * HALF
    planes = [((-HALF, 0, HALF), (side, 0, 0), (0, 0, -side)),       # corner and edges; edge x edge is the normal
              ((-HALF, 0, -HALF), (side, 0, 0), (0, HEIGHT, 0)),
              ((-HALF, 0, HALF), (0, 0, -side), (0, HEIGHT, 0))][:1 + walls]
    floor, wall = floor_texture(rng), wall_texture(rng)
    return Mesh(tuple(_plane(*map(np.array, plane), wall if i else floor) for i, plane in enumerate(planes)))


def _plane(corner: ndarray, right: ndarray, up: ndarray, texture: ndarray) -> MeshPart:
    """Cover a rectangle with quads of two triangles; the texture spans the longer edge once."""
    edges = np.linalg.norm(right), np.linalg.norm(up)
    counts = [max(1, round(CELLS * edge / max(edges))) for edge in edges]
    x, y = (np.arange(count + 1) / count for count in counts)
    grid = np.stack(np.meshgrid(x, y, indexing='ij'), -1)
    quads = np.stack([grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]], 2).reshape(-1, 4, 2)
    uv = quads[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3, 2)
    normal = np.cross(right, up)
    return MeshPart((corner + uv @ np.stack([right, up])).astype(np.float32),
                    np.broadcast_to(normal / np.linalg.norm(normal), (len(uv), 3, 3)).astype(np.float32),
                    np.ones(4, np.float32), uv=(uv * np.array(edges) / max(edges)).astype(np.float32), texture=texture)


def floor_texture(rng: np.random.Generator) -> ndarray:
    """Draw planks, tiles or a carpet, (TEXELS, TEXELS, 4) uint8."""
    return _colored((_planks, _tiles, _carpet)[rng.integers(3)](rng), rng, (0.25, 0.7))


def wall_texture(rng: np.random.Generator) -> ndarray:
    """Draw plaster or stripes, (TEXELS, TEXELS, 4) uint8."""
    return _colored((_plaster, _stripes)[rng.integers(2)](rng), rng, (0.55, 0.9))


def _colored(tone: ndarray, rng: np.random.Generator, brightness: tuple[float, float]) -> ndarray:
    """Colour a texture of tones around 0, (n, n): a muted colour, and its brightness changed by the tones."""
    base = np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.05, 0.4), rng.uniform(*brightness)))
    rgb = np.clip(base * (1 + tone[..., None]), 0, 1)
    return np.concatenate([np.rint(255 * rgb), np.full((*tone.shape, 1), 255)], -1).astype(np.uint8)


def noise(rng: np.random.Generator, rows: int, columns: int, octaves: int = 4) -> ndarray:
    """Add up smooth noise of several scales, from ``rows`` x ``columns`` cells on; standard deviation 1."""
    from PIL import Image
    total = np.zeros((TEXELS, TEXELS))
    for octave in range(octaves):
        cells = rng.normal(size=(min(rows << octave, TEXELS), min(columns << octave, TEXELS))).astype(np.float32)
        total += np.asarray(Image.fromarray(cells).resize((TEXELS, TEXELS), Image.Resampling.BICUBIC)) / 2 ** octave
    return total / total.std()


def _planks(rng: np.random.Generator) -> ndarray:
    count = int(rng.integers(7, 14))
    row = np.arange(TEXELS) * count // TEXELS
    gap = np.arange(TEXELS) * count / TEXELS % 1 < 0.06
    return (0.12 * rng.normal(size=count)[row] - 0.35 * gap)[:, None] + 0.07 * noise(rng, 48, 2)


def _tiles(rng: np.random.Generator) -> ndarray:
    count = int(rng.integers(4, 9))
    place = np.arange(TEXELS) * count / TEXELS
    cell, gap = place.astype(int), place % 1 < 0.07
    checks = rng.uniform(0, 0.25) * ((cell[:, None] + cell) % 2 - 0.5)
    tone = 0.06 * rng.normal(size=(count, count))[cell[:, None], cell] + checks + 0.04 * noise(rng, 6, 6)
    return np.where(gap[:, None] | gap, -0.3, tone)


def _carpet(rng: np.random.Generator) -> ndarray:
    angle, waves = rng.uniform(0, np.pi), rng.uniform(10, 24)
    y, x = np.mgrid[:TEXELS, :TEXELS] / TEXELS
    along = 2 * np.pi * waves * (x * np.cos(angle) + y * np.sin(angle))
    across = 2 * np.pi * waves * (y * np.cos(angle) - x * np.sin(angle))
    return 0.12 * np.sin(along) * np.sin(across) + 0.1 * noise(rng, 4, 4, 6)


def _plaster(rng: np.random.Generator) -> ndarray:
    return 0.06 * noise(rng, 3, 3, 6)


def _stripes(rng: np.random.Generator) -> ndarray:
    place = np.arange(TEXELS) * int(rng.integers(6, 16)) / TEXELS
    return rng.uniform(0.08, 0.2) * ((place % 1 < rng.uniform(0.2, 0.5)) - 0.3) + 0.03 * noise(rng, 4, 4, 5)
