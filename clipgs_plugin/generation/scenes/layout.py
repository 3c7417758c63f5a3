"""Layout of a scene: objects of plausible sizes, upright on the floor of a room, each at a place of its own."""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from clipgs_plugin.generation.objects import Listed, Mesh
from clipgs_plugin.generation.scenes.room import HALF
from clipgs_plugin.ops.rotations import y_rotation

MEDIAN_SIDE = 0.18         # largest side of a scanned object, in metres, that gets MEDIAN_SIZE
MEDIAN_SIZE = 0.4          # largest side in the scene
SIZES = 0.26, 0.55         # least and greatest largest side in the scene
REACH = HALF - 0.1         # of the boxes from the middle of the room along x and z
GAP = 0.015                # between boxes
TRIES = 400                # places of an object before all objects shrink
SHRINK = 0.93


class Placed(NamedTuple):
    """An object at its place in the scene."""

    listed: Listed
    mesh: Mesh               # in the frame of the scene
    yaw: float               # radians about y
    scale: float             # sizes in the scene over sizes in the file
    low: ndarray             # (3,) least corner of the box
    high: ndarray            # (3,) greatest corner


def place(listed: Sequence[Listed], meshes: Sequence[Mesh], rng: np.random.Generator) -> list[Placed]:
    """Scale, turn and place objects on the floor y = 0 so that their boxes along the axes are disjoint.

    Real sizes differ tenfold, and the square root of their ratio stays: the least objects would otherwise be a few
    Gaussians. If the objects do not fit, all shrink by a few percent until they do.

    Args:
        listed: What the objects are.
        meshes: Their meshes with y up, in metres.
        rng: Random generator of turns and places.
    """
    yaws = rng.uniform(0, 2 * np.pi, len(meshes))
    corners = [np.concatenate([part.triangles.reshape(-1, 3) for part in mesh.parts]) @ y_rotation(yaw).numpy().T
               for mesh, yaw in zip(meshes, yaws)]
    sides = [float(np.ptp(points, axis=0).max()) for points in corners]
    scales = np.array([np.clip(MEDIAN_SIZE * (side / MEDIAN_SIDE) ** 0.5, *SIZES) / side for side in sides])
    while True:
        boxes = [np.stack([points.min(0), points.max(0)]) * scale for points, scale in zip(corners, scales)]
        offsets = _offsets([box[:, [0, 2]] for box in boxes], rng)
        if offsets is not None:
            break
        scales *= SHRINK
    placed = []
    for item, mesh, yaw, scale, box, offset in zip(listed, meshes, yaws, scales, boxes, offsets):
        move = np.array([offset[0], -box[0, 1], offset[1]])
        placed.append(Placed(item, _moved(mesh, float(yaw), float(scale), move), float(yaw), float(scale),
                             box[0] + move, box[1] + move))
    return placed


def _offsets(boxes: Sequence[ndarray], rng: np.random.Generator) -> list[ndarray] | None:
    """Find places of rectangles (2, 2), ends by axes, that keep them apart; None if one finds no place."""
    order = np.argsort([-np.prod(box[1] - box[0]) for box in boxes])  # large ones first
    offsets: dict[int, ndarray] = {}
    for i in order:
        low, high = -REACH - boxes[i][0], REACH - boxes[i][1]
        if (low > high).any():
            return None
        for offset in rng.uniform(low, high, (TRIES, 2)):
            box = boxes[i] + offset
            if all((box[0] > other[1] + GAP).any() or (box[1] < other[0] - GAP).any()
                   for other in (boxes[j] + offsets[j] for j in offsets)):
                offsets[int(i)] = offset
                break
        else:
            return None
    return [offsets[i] for i in range(len(boxes))]


def _moved(mesh: Mesh, yaw: float, scale: float, move: ndarray) -> Mesh:
    turn = y_rotation(yaw).numpy().astype(np.float64)
    return Mesh(tuple(part._replace(triangles=(scale * part.triangles @ turn.T + move).astype(np.float32),
                                    normals=(part.normals @ turn.T).astype(np.float32)) for part in mesh.parts))
