"""Cameras of other libraries.

Here a camera is a view matrix ``V = [R t; 0 1]``, which maps world points as column vectors to OpenCV axes (x right,
y down, z forward), and intrinsics ``K`` in pixels, with the centre of the first pixel at (0.5, 0.5). With
``F = diag(1, -1, -1)`` and ``S = diag(-1, -1, 1)``:

========== ==================================================== ========================================================
OpenCV     ``R``, ``t``                                         ``K``, but the centre of the first pixel is (0, 0), so
                                                                cx and cy are smaller by 0.5
COLMAP     quaternion wxyz of ``R``, and ``t``                  fx, fy, cx, cy of ``K``
OpenGL     ``[F R, F t; 0 1]``, x right, y up, z backward       a projection matrix
NeRF       the inverse of OpenGL's, camera to world: rotation   fl_x, fl_y, cx, cy of ``K``
           ``R^T F``, position ``-R^T t``
pytorch3d  ``R^T S`` and ``S t``, for row vectors ``x R + T``;  screen space: ``K``. NDC: with ``s = min(W, H) / 2``,
           x left, y up, z forward                              f / s and ``((W / 2 - cx) / s, (H / 2 - cy) / s)``
========== ==================================================== ========================================================

:func:`clipgs_plugin.ops.flip_camera_axes` converts to and from OpenGL. All functions work on any device and dtype, and
gradients flow through them.
"""
from __future__ import annotations

import torch
from torch import Tensor

from clipgs_plugin.ops.cameras import flip_camera_axes
from clipgs_plugin.ops.rotations import matrix_to_quaternion, quaternion_to_matrix

_PIXEL_CENTER = 0.5  # of the first pixel; OpenCV has 0


def cameras_to_opencv(
    viewmats: Tensor,    # (..., 4, 4)
    intrinsics: Tensor,  # (..., 3, 3)
) -> tuple[Tensor, Tensor, Tensor]:
    """Convert cameras to rotations, translations and camera matrices of OpenCV.

    Returns:
        Rotations (..., 3, 3), which ``cv2.Rodrigues`` turns into vectors, translations (..., 3), and camera matrices
        (..., 3, 3), whose principal points are smaller by half a pixel.
    """
    rotations, translations = _split(viewmats)
    return rotations, translations, _move_center(intrinsics, -_PIXEL_CENTER)


def cameras_from_opencv(
    rotations: Tensor,      # (..., 3, 3)
    translations: Tensor,   # (..., 3)
    camera_matrix: Tensor,  # (..., 3, 3)
) -> tuple[Tensor, Tensor]:
    """Convert rotations, translations and camera matrices of OpenCV to view matrices and intrinsics."""
    return _join(rotations, translations), _move_center(camera_matrix, _PIXEL_CENTER)


def viewmats_to_colmap(viewmats: Tensor) -> tuple[Tensor, Tensor]:
    """Convert view matrices (..., 4, 4) to unit quaternions wxyz, (..., 4), and translations, (..., 3), of COLMAP."""
    rotations, translations = _split(viewmats)
    return matrix_to_quaternion(rotations), translations


def viewmats_from_colmap(
    quats: Tensor,         # (..., 4) wxyz, of any non-zero norm
    translations: Tensor,  # (..., 3)
) -> Tensor:
    """Convert quaternions and translations of COLMAP's images to view matrices, (..., 4, 4)."""
    return _join(quaternion_to_matrix(quats), translations)


def viewmats_to_nerf(viewmats: Tensor) -> Tensor:
    """Convert view matrices to ``transform_matrix`` of NeRF, instant-ngp and nerfstudio, both (..., 4, 4).

    World axes stay: nerfstudio has z up.
    """
    _check_matrix('viewmats', viewmats, 4)
    return _invert(flip_camera_axes(viewmats))


def viewmats_from_nerf(camera_to_world: Tensor) -> Tensor:
    """Convert ``transform_matrix`` of NeRF, (..., 4, 4) or (..., 3, 4), to view matrices (..., 4, 4).

    The axes of a scaled camera are brought to unit length, since it sees the same image.

    Raises:
        ValueError: The shape is wrong.
    """
    if camera_to_world.shape[-2:] not in ((4, 4), (3, 4)):
        raise ValueError(f'camera_to_world has shape {tuple(camera_to_world.shape)}, expected (..., 4, 4) or '
                         '(..., 3, 4)')
    axes = torch.nn.functional.normalize(camera_to_world[..., :3, :3], dim=-2)
    return flip_camera_axes(_invert(_join(axes, camera_to_world[..., :3, 3])))


def cameras_to_pytorch3d(
    viewmats: Tensor,    # (V, 4, 4)
    intrinsics: Tensor,  # (V, 3, 3) or (3, 3)
    width: int,
    height: int,
    in_ndc: bool = True,
) -> dict[str, Tensor | bool]:
    """Convert cameras to the arguments of ``pytorch3d.renderer.PerspectiveCameras``.

    Args:
        viewmats: World to camera, OpenCV axes, (V, 4, 4).
        intrinsics: Pixels, (V, 3, 3), or (3, 3) for all cameras.
        width: Width of the images in pixels.
        height: Height of the images in pixels.
        in_ndc: Focal lengths and principal points in normalised device coordinates, in which the shorter side of the
            image is [-1, 1]; ``False`` is pixels. Both describe the same cameras.

    Returns:
        ``R`` (V, 3, 3), ``T`` (V, 3), ``focal_length`` and ``principal_point`` (V, 2), ``image_size`` (V, 2) as height
        and width, and ``in_ndc``. PerspectiveCameras moves them to its own argument ``device``, the CPU by default.

    Raises:
        ValueError: A shape is wrong, or the intrinsics have skew, which these arguments cannot express.
    """
    if viewmats.ndim != 3:
        raise ValueError(f'viewmats have shape {tuple(viewmats.shape)}, expected (V, 4, 4); pytorch3d takes a batch')
    rotations, translations = _split(viewmats)
    _check_matrix('intrinsics', intrinsics, 3)
    if bool((intrinsics[..., 0, 1] != 0).any()):
        raise ValueError('intrinsics have skew at [0, 1], which focal_length and principal_point cannot express; pass '
                         'a matrix K to PerspectiveCameras')
    intrinsics = intrinsics.to(viewmats).expand(len(viewmats), 3, 3)
    focal, center = intrinsics.diagonal(dim1=-2, dim2=-1)[:, :2], intrinsics[:, :2, 2]
    image_size = viewmats.new_tensor([height, width]).expand(len(viewmats), 2)
    if in_ndc:
        middle, unit = _ndc_frame(image_size)
        focal, center = focal / unit, (middle - center) / unit
    flip = _left_up(viewmats)
    return dict(R=rotations.mT * flip, T=translations * flip, focal_length=focal, principal_point=center,
                image_size=image_size, in_ndc=in_ndc)


def cameras_from_pytorch3d(
    R: Tensor,                # (V, 3, 3)
    T: Tensor,                # (V, 3)
    focal_length: Tensor,     # (V, 2), (V, 1) or (V,)
    principal_point: Tensor,  # (V, 2)
    image_size: Tensor,       # (V, 2) height, width
    in_ndc: bool = True,
) -> tuple[Tensor, Tensor]:
    """Convert the attributes of a ``pytorch3d.renderer.PerspectiveCameras`` to view matrices and intrinsics.

    Args:
        R: Rotations of row vectors to pytorch3d's axes, (V, 3, 3).
        T: Translations after the rotation, (V, 3).
        focal_length: Focal lengths along x and y, (V, 2), or one for both, (V, 1) or (V,).
        principal_point: Principal points, (V, 2).
        image_size: Height and width of the images in pixels, (V, 2).
        in_ndc: Unit of focal lengths and principal points, as in :func:`cameras_to_pytorch3d`; the value of
            ``cameras.in_ndc()``.

    Returns:
        View matrices (V, 4, 4) and intrinsics (V, 3, 3).
    """
    focal = focal_length.reshape(len(focal_length), -1).expand(-1, 2)
    center = principal_point
    if in_ndc:
        middle, unit = _ndc_frame(image_size.to(focal))
        focal, center = focal * unit, middle - center * unit
    scaling = torch.nn.functional.pad(torch.diag_embed(focal), (0, 0, 0, 1))         # (V, 3, 2)
    offset = torch.nn.functional.pad(center.expand_as(focal), (0, 1), value=1)       # (V, 3)
    intrinsics = torch.cat([scaling, offset[..., None]], dim=-1)
    flip = _left_up(R)
    return _join((R * flip).mT, T * flip), intrinsics


def _left_up(like: Tensor) -> Tensor:
    """Return the signs that exchange OpenCV's right and down for left and up, (3,)."""
    return like.new_tensor([-1.0, -1.0, 1.0])


def _ndc_frame(image_size: Tensor) -> tuple[Tensor, Tensor]:
    """Return the image centre, (V, 2) as x and y, and pixels a unit of pytorch3d's NDC, (V, 1)."""
    return image_size.flip(-1) / 2, image_size.amin(-1, keepdim=True) / 2


def _move_center(intrinsics: Tensor, offset: float) -> Tensor:
    """Add ``offset`` to both coordinates of principal points, (..., 3, 3)."""
    _check_matrix('intrinsics', intrinsics, 3)
    return intrinsics + offset * intrinsics.new_tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])


def _split(viewmats: Tensor) -> tuple[Tensor, Tensor]:
    """Return rotations (..., 3, 3) and translations (..., 3)."""
    _check_matrix('viewmats', viewmats, 4)
    return viewmats[..., :3, :3], viewmats[..., :3, 3]


def _join(rotations: Tensor, translations: Tensor) -> Tensor:
    """Return matrices (..., 4, 4) of rotations (..., 3, 3) and translations (..., 3)."""
    top = torch.cat([rotations, translations[..., None]], dim=-1)
    last = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*top.shape[:-2], 1, 4)
    return torch.cat([top, last], dim=-2)


def _invert(matrices: Tensor) -> Tensor:
    """Invert rigid motions (..., 4, 4)."""
    rotations, translations = _split(matrices)
    return _join(rotations.mT, -(rotations.mT @ translations[..., None]).squeeze(-1))


def _check_matrix(name: str, matrices: Tensor, size: int) -> None:
    if matrices.shape[-2:] != (size, size):
        raise ValueError(f'{name} have shape {tuple(matrices.shape)}, expected (..., {size}, {size})')
