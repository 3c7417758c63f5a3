"""Cameras that view objects.

Convention of the whole library: a view matrix (4, 4) maps world points, as column vectors, to the camera's frame in
OpenCV axes (x right, y down, z forward). Intrinsics (3, 3) are in pixels; the centre of the first pixel is (0.5, 0.5).
"""
from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from clipgs_plugin.ops.rotations import AXES, axis_vector


def up_vector(up: str | Sequence[float] | Tensor) -> Tensor:
    """Return the unit vector, (3,) float32, of an axis name or of three numbers.

    Args:
        up: One of ``'x'``, ``'y'``, ``'z'``, ``'-x'``, ``'-y'``, ``'-z'``, or a vector (3,).

    Raises:
        ValueError: Unknown axis, or a vector of length 0.
    """
    if isinstance(up, str):
        if up not in AXES:
            raise ValueError(f'up={up!r}: expected one of {AXES}, or three numbers')
        return axis_vector(up).float()
    vector = torch.as_tensor(up, dtype=torch.float32)
    if vector.shape != (3,) or not float(vector.norm()) > 0:
        raise ValueError(f'up={up!r}: expected three numbers, not all zero')
    return vector / vector.norm()


def look_at(
    eye: Tensor | Sequence[float],                       # (..., 3)
    target: Tensor | Sequence[float] = (0.0, 0.0, 0.0),  # (..., 3)
    up: str | Tensor | Sequence[float] = 'y',
) -> Tensor:
    """Return view matrices of cameras at ``eye`` with ``target`` in the centre of the image.

    Args:
        eye: Camera positions, (..., 3), world.
        target: Points in the image centre, broadcast against ``eye``.
        up: Up direction of the image, an axis name or a vector (3,). A camera that looks along it uses another axis
            instead.

    Returns:
        World to camera, OpenCV axes, (..., 4, 4).

    Raises:
        ValueError: A camera is at its target.
    """
    eye = torch.as_tensor(eye)
    eye = eye if eye.is_floating_point() else eye.float()
    target = torch.as_tensor(target).to(eye)
    eye, target = torch.broadcast_tensors(eye, target)
    forward = target - eye
    if not bool((forward.norm(dim=-1) > 0).all()):
        raise ValueError('a camera is at its target, so its direction is undefined; move the eye')
    forward = torch.nn.functional.normalize(forward, dim=-1)
    up = up_vector(up).to(eye)
    # A camera that looks along `up` needs another direction, to keep its matrix a rotation.
    parallel = torch.linalg.cross(forward, up.expand_as(forward)).norm(dim=-1, keepdim=True) < 1e-4
    up = torch.where(parallel, _across(up), up)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=-1)
    down = torch.linalg.cross(forward, right)
    rotation = torch.stack([right, down, forward], dim=-2)
    viewmats = torch.zeros(*eye.shape[:-1], 4, 4, dtype=eye.dtype, device=eye.device)
    viewmats[..., :3, :3] = rotation
    viewmats[..., :3, 3] = -(rotation @ eye[..., None]).squeeze(-1)
    viewmats[..., 3, 3] = 1
    return viewmats


def intrinsics(fov_degrees: float, width: int, height: int) -> Tensor:
    """Return pinhole intrinsics with square pixels and the principal point in the image centre.

    Args:
        fov_degrees: Field of view across the shorter side of the image, in (0, 180).
        width: Width of the image in pixels.
        height: Height of the image in pixels.

    Returns:
        (3, 3) float32, pixels.

    Raises:
        ValueError: The field of view is out of range.
    """
    if not 0 < fov_degrees < 180:
        raise ValueError(f'fov_degrees={fov_degrees}: expected an angle between 0 and 180 degrees')
    focal = 0.5 * min(width, height) / math.tan(math.radians(fov_degrees) / 2)
    return torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])


def sphere_cameras(
    num_views: int,
    distance: float = 3.2,
    elevation: float | Sequence[float] | None = None,
    up: str | Sequence[float] | Tensor = 'y',
) -> Tensor:
    """Return cameras on a sphere around the origin that look at the origin.

    Args:
        num_views: Number of cameras V.
        distance: Radius of the sphere, world units.
        elevation: ``None`` spreads the views evenly over the whole sphere, on a Fibonacci spiral from the top down.
            One number in degrees places them evenly around a ring of that elevation. Several numbers alternate
            between rings.
        up: Axis of the rings and up direction of the images.

    Returns:
        World to camera, OpenCV axes, (V, 4, 4) float32.

    Raises:
        ValueError: A number is out of range, or the axis is unknown.
    """
    if not distance > 0:
        raise ValueError(f'distance={distance}: expected more than 0')
    return look_at(distance * sphere_directions(num_views, elevation, up), up=up_vector(up)).float()


def sphere_directions(
    num_views: int,
    elevation: float | Sequence[float] | None = None,
    up: str | Sequence[float] | Tensor = 'y',
    turn: float = 0.0,
) -> Tensor:
    """Return the directions from the origin to the cameras of :func:`sphere_cameras`.

    Args:
        num_views: Number of directions V.
        elevation: Layout of the directions, as in :func:`sphere_cameras`.
        up: Axis of the layout.
        turn: Rotation of all directions about the axis, in radians.

    Returns:
        Unit vectors, (V, 3) float64.
    """
    if num_views < 1:
        raise ValueError(f'num_views={num_views}: expected at least 1')
    index = torch.arange(num_views, dtype=torch.float64)
    if elevation is None:
        height = 1 - (2 * index + 1) / num_views
        azimuth = index * math.pi * (3 - math.sqrt(5))  # the golden angle
    else:
        rings = torch.as_tensor(elevation, dtype=torch.float64).reshape(-1)
        height = torch.sin(torch.deg2rad(rings))[torch.arange(num_views) % len(rings)]
        azimuth = 2 * math.pi * index / num_views
    azimuth = azimuth + turn
    axis = up_vector(up).double()
    # Azimuth 0 is z for y up, x for z up, y for x up.
    front = _across(axis)
    side = torch.linalg.cross(axis, front)
    ring = (1 - height ** 2).clamp_min(0).sqrt()
    return (ring * azimuth.cos())[:, None] * front + (ring * azimuth.sin())[:, None] * side + height[:, None] * axis


def _across(axis: Tensor) -> Tensor:
    """Return a unit vector perpendicular to a unit vector, both (3,); for a coordinate axis the next axis."""
    if int((axis != 0).sum()) == 1:
        return axis.abs().roll(1)
    other = torch.eye(3, dtype=axis.dtype, device=axis.device)[axis.abs().argmin()]
    return torch.nn.functional.normalize(torch.linalg.cross(axis, other), dim=-1)


def flip_camera_axes(viewmats: Tensor) -> Tensor:
    """Convert view matrices (..., 4, 4) from OpenCV axes to OpenGL axes (x right, y up, z backward), or back."""
    return viewmats.new_tensor([1.0, -1.0, -1.0, 1.0])[:, None] * viewmats
