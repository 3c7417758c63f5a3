"""3D Gaussian rasterisation on the CPU: numba kernels that go Gaussian by Gaussian over its own pixels.

Three stages: projection of every Gaussian (in float64), a stable radix sort by depth, and compositing (in float32).
The backward pass walks the Gaussians front to back once more, with the light still to come in each pixel in place
of the light so far, then goes back through the projection.

Kernels release the interpreter's lock and work on a range of Gaussians or a set of rows, so a small pool of Python
threads runs them. Numba's own threading is not used: it does not survive a fork, and spins while it waits.

Pixels lie in blocks of 4 x 4 with the planes of a block next to each other. Innermost loops so have a constant
length and a known distance between what they read and write, which is what lets them compile to vector instructions.
"""
from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from numpy.polynomial import Chebyshev, Polynomial
from torch import Tensor

from clipgs_plugin.ops.kernels.jit import kernel
from clipgs_plugin.ops.kernels.raster_constants import MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE, VIEW_MARGIN
from clipgs_plugin.ops.spherical_harmonics import C0, C1, C2, C3

MAX_THREADS = 4  # every band visits every Gaussian: more of them cost more set-up than they save

F = np.float32
HALF, ONE, ZERO, CLIP, LIMIT = F(0.5), F(1), F(0), F(MAX_ALPHA), F(MIN_TRANSMITTANCE)
# exp(-s) for s in [0, ln 255] is this polynomial's eighth power, to 2e-6; math.exp would keep the loops scalar.
P0, P1, P2, P3, P4, P5 = (F(c) for c in Chebyshev.interpolate(
    lambda s: np.exp(-s / 8), 5, domain=[0, -math.log(MIN_ALPHA)]).convert(kind=Polynomial).coef)

SIDE = 4             # of a block, pixels
LANES = SIDE * SIDE  # pixels to a block
# Planes of a block: forward, then backward. Transmittance is 0 where a pixel is finished.
FORWARD_PLANES = 5   # transmittance, red, green, blue, alpha
BACKWARD_PLANES = 6  # transmittance, light still to come, gradients of red, green, blue, alpha

# A projected Gaussian is a row of float32 fields, one cache line, and a row of int32 box.
OFFSET_X, OFFSET_Y, CONIC_XX, CONIC_XY, CONIC_YY, OPACITY, REACH, RED, GREEN, BLUE, TALL, TILT = range(12)
NUM_FIELDS = 16
PIXEL_X, PIXEL_Y, FIRST_ROW, LAST_ROW = range(4)

# A camera is a row of float64: rows of [R | t], then fx, fy, cx, cy, then the position in the world.
FX, FY, CX, CY, EYE = 12, 13, 14, 15, 16

_kernel = kernel(error_model='numpy')
# Sums may be reordered and fused; NaN and infinity keep their meaning.
_pixel_kernel = kernel(error_model='numpy', fastmath={'reassoc', 'contract', 'nsz', 'arcp'})


# Projection

@_kernel
def _rotation(quat, matrix):
    w, x, y, z = float(quat[0]), float(quat[1]), float(quat[2]), float(quat[3])
    s = 2 / (w * w + x * x + y * y + z * z)
    matrix[0, 0], matrix[0, 1], matrix[0, 2] = 1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)
    matrix[1, 0], matrix[1, 1], matrix[1, 2] = s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)
    matrix[2, 0], matrix[2, 1], matrix[2, 2] = s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)


@_kernel
def _slope(ratio, focal, center, size):
    """Where the projection is linearised: x / z, but no farther out than a margin beyond the picture."""
    margin = VIEW_MARGIN * size
    return min(max(ratio, (-center - margin) / focal), (size - center + margin) / focal)


@_kernel
def _axes(quat, log_scale, camera, x, y, z, width, height, rotation, turned, axes):
    """Principal axes, times their standard deviations, as the linearised projection shows them in pixels."""
    _rotation(quat, rotation)
    slope_x, slope_y = _slope(x / z, camera[FX], camera[CX], width), _slope(y / z, camera[FY], camera[CY], height)
    for k in range(3):
        scale = math.exp(float(log_scale[k]))
        for i in range(3):
            turned[i, k] = (camera[4 * i] * rotation[0, k] + camera[4 * i + 1] * rotation[1, k]
                            + camera[4 * i + 2] * rotation[2, k])
        axes[0, k] = camera[FX] / z * (turned[0, k] - slope_x * turned[2, k]) * scale
        axes[1, k] = camera[FY] / z * (turned[1, k] - slope_y * turned[2, k]) * scale


@_kernel
def _sh_basis(x, y, z, count, basis):
    """The first ``count`` spherical harmonics of a unit direction."""
    basis[0] = C0
    if count > 1:
        basis[1], basis[2], basis[3] = -C1 * y, C1 * z, -C1 * x
    if count > 4:
        xx, yy, zz = x * x, y * y, z * z
        basis[4], basis[5], basis[6] = C2[0] * x * y, -C2[0] * y * z, C2[1] * (2 * zz - xx - yy)
        basis[7], basis[8] = -C2[0] * x * z, C2[2] * (xx - yy)
    if count > 9:
        basis[9], basis[10] = -C3[0] * y * (3 * xx - yy), C3[1] * x * y * z
        basis[11], basis[12] = -C3[2] * y * (4 * zz - xx - yy), C3[3] * z * (2 * zz - 3 * xx - 3 * yy)
        basis[13], basis[14] = -C3[2] * x * (4 * zz - xx - yy), C3[4] * z * (xx - yy)
        basis[15] = -C3[0] * x * (xx - 3 * yy)


@_kernel
def _sh_slopes(x, y, z, count, dx, dy, dz):
    """Partial derivatives of :func:`_sh_basis`, as polynomials of x, y and z."""
    dx[0] = dy[0] = dz[0] = 0.0
    if count > 1:
        dx[1], dy[1], dz[1] = 0.0, -C1, 0.0
        dx[2], dy[2], dz[2] = 0.0, 0.0, C1
        dx[3], dy[3], dz[3] = -C1, 0.0, 0.0
    if count > 4:
        dx[4], dy[4], dz[4] = C2[0] * y, C2[0] * x, 0.0
        dx[5], dy[5], dz[5] = 0.0, -C2[0] * z, -C2[0] * y
        dx[6], dy[6], dz[6] = -2 * C2[1] * x, -2 * C2[1] * y, 4 * C2[1] * z
        dx[7], dy[7], dz[7] = -C2[0] * z, 0.0, -C2[0] * x
        dx[8], dy[8], dz[8] = 2 * C2[2] * x, -2 * C2[2] * y, 0.0
    if count > 9:
        xx, yy, zz = x * x, y * y, z * z
        dx[9], dy[9], dz[9] = -6 * C3[0] * x * y, -3 * C3[0] * (xx - yy), 0.0
        dx[10], dy[10], dz[10] = C3[1] * y * z, C3[1] * x * z, C3[1] * x * y
        dx[11], dy[11], dz[11] = 2 * C3[2] * x * y, -C3[2] * (4 * zz - xx - 3 * yy), -8 * C3[2] * y * z
        dx[12], dy[12], dz[12] = -6 * C3[3] * x * z, -6 * C3[3] * y * z, C3[3] * (6 * zz - 3 * xx - 3 * yy)
        dx[13], dy[13], dz[13] = -C3[2] * (4 * zz - 3 * xx - yy), 2 * C3[2] * x * y, -8 * C3[2] * x * z
        dx[14], dy[14], dz[14] = 2 * C3[4] * x * z, -2 * C3[4] * y * z, C3[4] * (xx - yy)
        dx[15], dy[15], dz[15] = -3 * C3[0] * (xx - yy), 6 * C3[0] * x * y, 0.0


@_kernel
def _project(
    first, last,     # range of Gaussians
    means,           # (N, 3)
    quats,           # (N, 4)
    log_scales,      # (N, 3)
    opacity_logits,  # (N,)
    sh,              # (N, K, 3)
    camera,          # (19,)
    width, height, near, blur,
    fields,          # (N, NUM_FIELDS) out
    boxes,           # (N, 4) out
    depths,          # (N,) float32 out; 0 if the Gaussian is not drawn
):
    fx, fy, cx, cy = camera[FX], camera[FY], camera[CX], camera[CY]
    rotation, turned, axes, basis = np.empty((3, 3)), np.empty((3, 3)), np.empty((2, 3)), np.empty(16)
    for n in range(first, last):
        depths[n] = 0
        mx, my, mz = float(means[n, 0]), float(means[n, 1]), float(means[n, 2])
        x = camera[0] * mx + camera[1] * my + camera[2] * mz + camera[3]
        y = camera[4] * mx + camera[5] * my + camera[6] * mz + camera[7]
        z = camera[8] * mx + camera[9] * my + camera[10] * mz + camera[11]
        opacity = 1 / (1 + math.exp(-float(opacity_logits[n])))
        if not (z > near and opacity >= MIN_ALPHA):
            continue
        _axes(quats[n], log_scales[n], camera, x, y, z, width, height, rotation, turned, axes)
        xx = axes[0, 0] * axes[0, 0] + axes[0, 1] * axes[0, 1] + axes[0, 2] * axes[0, 2] + blur
        xy = axes[0, 0] * axes[1, 0] + axes[0, 1] * axes[1, 1] + axes[0, 2] * axes[1, 2]
        yy = axes[1, 0] * axes[1, 0] + axes[1, 1] * axes[1, 1] + axes[1, 2] * axes[1, 2] + blur
        det = xx * yy - xy * xy
        reach = math.log(opacity / MIN_ALPHA)
        center_x, center_y = fx * x / z + cx, fy * y / z + cy
        half_x, half_y = math.sqrt(2 * reach * xx), math.sqrt(2 * reach * yy)
        if not (0 < det < math.inf and -half_x < center_x < width + half_x and -half_y < center_y < height + half_y):
            continue
        depths[n] = z
        # Whole pixels and fractions apart: distances to pixels then keep their precision in float32.
        column, row = math.floor(center_x), math.floor(center_y)
        boxes[n, PIXEL_X], boxes[n, PIXEL_Y] = column, row
        boxes[n, FIRST_ROW] = max(0, math.ceil(center_y - half_y - 0.5))
        boxes[n, LAST_ROW] = min(height - 1, math.floor(center_y + half_y - 0.5))
        fields[n, OFFSET_X], fields[n, OFFSET_Y] = column + 0.5 - center_x, row + 0.5 - center_y
        fields[n, CONIC_XX], fields[n, CONIC_XY], fields[n, CONIC_YY] = yy / det, -xy / det, xx / det
        fields[n, OPACITY], fields[n, REACH] = opacity, reach
        # Height of the footprint's top and of its rightmost point over the centre.
        fields[n, TALL], fields[n, TILT] = half_y, xy / xx * half_x
        dx, dy, dz = mx - camera[EYE], my - camera[EYE + 1], mz - camera[EYE + 2]
        distance = math.sqrt(dx * dx + dy * dy + dz * dz)
        _sh_basis(dx / distance, dy / distance, dz / distance, sh.shape[1], basis)
        for c in range(3):
            value = 0.5
            for k in range(sh.shape[1]):
                value += basis[k] * sh[n, k, c]
            fields[n, RED + c] = max(value, 0.0)


@_kernel
def _sort(depths, order, scratch):
    """Indices of the drawn Gaussians, nearest first, ties in their own order; returns how many there are.

    ``order`` and ``scratch`` are (N,) int32. A radix sort of the bits, which order positive floats as the floats do.
    """
    keys = depths.view(np.uint32)
    counts = np.zeros((3, 2048), np.int32)
    total = 0
    for n in range(len(keys)):
        key = keys[n]
        if key != 0:
            order[total] = n
            total += 1
            for digit in range(3):
                counts[digit, (key >> np.uint32(11 * digit)) & np.uint32(2047)] += 1
    for digit in range(3):
        start = 0
        for value in range(2048):
            start, counts[digit, value] = start + counts[digit, value], start
        for i in range(total):
            n = order[i]
            value = (keys[n] >> np.uint32(11 * digit)) & np.uint32(2047)
            scratch[counts[digit, value]] = n
            counts[digit, value] += 1
        order, scratch = scratch, order
    return total


# Compositing

@_pixel_kernel
def _span(field, column, top, across):
    """Blocks first..last-1 that a footprint touches in a strip whose first row lies ``top`` below the centre."""
    xx, xy, reach, tall = field[CONIC_XX], field[CONIC_XY], field[REACH], field[TALL]
    low, high = max(top, -tall), min(top + F(SIDE - 1), tall)
    # sigma = xx dx^2 / 2 + xy dx dy + yy dy^2 / 2 <= reach, solved for dx where the ellipse is widest in the strip.
    curvature = xx * field[CONIC_YY] - xy * xy
    right, left = min(max(field[TILT], low), high), min(max(-field[TILT], low), high)
    right_most = (math.sqrt(max(F(2) * xx * reach - right * right * curvature, ZERO)) - xy * right) / xx
    left_most = (-math.sqrt(max(F(2) * xx * reach - left * left * curvature, ZERO)) - xy * left) / xx
    first = column + math.floor(left_most - field[OFFSET_X])
    last = column + math.ceil(right_most - field[OFFSET_X])
    return max(first, 0) // SIDE, min(max(last, -1) // SIDE + 1, across)


@_pixel_kernel
def _composite(
    band, bands,   # strips of SIDE rows with index % bands == band
    order,         # (M,) nearest first
    fields,        # (N, NUM_FIELDS)
    boxes,         # (N, 4)
    colors,        # (H, W, 3) out
    alphas,        # (H, W) out
):
    height, width = alphas.shape
    down, across = (height + SIDE - 1) // SIDE, (width + SIDE - 1) // SIDE
    size = FORWARD_PLANES * LANES
    blocks = np.zeros((down // bands + 1, across * size), np.float32)
    for strip in range(len(blocks)):
        for c in range(across):
            blocks[strip, c * size:c * size + LANES] = ONE

    for i in range(len(order)):
        field, box = fields[order[i]], boxes[order[i]]
        half_xx, xy, half_yy, reach = HALF * field[CONIC_XX], field[CONIC_XY], HALF * field[CONIC_YY], field[REACH]
        opacity, red, green, blue = field[OPACITY], field[RED], field[GREEN], field[BLUE]
        first_strip = box[FIRST_ROW] // SIDE
        for strip in range(first_strip + (band - first_strip) % bands, box[LAST_ROW] // SIDE + 1, bands):
            top = F(strip * SIDE - box[PIXEL_Y]) + field[OFFSET_Y]
            first, last = _span(field, box[PIXEL_X], top, across)
            row = blocks[strip // bands]
            for c in range(first, last):
                block = row[c * size:c * size + size]
                alive = ZERO
                for k in range(LANES):
                    alive += block[k]
                if alive == ZERO:
                    continue
                left = F(c * SIDE - box[PIXEL_X]) + field[OFFSET_X]
                for k in range(LANES):
                    dx, dy = left + F(k % SIDE), top + F(k // SIDE)
                    s = dx * (half_xx * dx + xy * dy) + half_yy * dy * dy
                    e = P0 + s * (P1 + s * (P2 + s * (P3 + s * (P4 + s * P5))))
                    e *= e
                    e *= e
                    e *= e
                    alpha = min(opacity * e, CLIP) if s <= reach else ZERO
                    before = block[k]
                    after = before * (ONE - alpha)
                    weight = alpha * before if after > LIMIT else ZERO
                    block[k] = after if after > LIMIT else ZERO
                    block[k + LANES] += weight * red
                    block[k + 2 * LANES] += weight * green
                    block[k + 3 * LANES] += weight * blue
                    block[k + 4 * LANES] += weight

    for strip in range(band, down, bands):
        for y in range(strip * SIDE, min(strip * SIDE + SIDE, height)):
            for x in range(width):
                at = x // SIDE * size + y % SIDE * SIDE + x % SIDE
                for c in range(3):
                    colors[y, x, c] = blocks[strip // bands, at + (1 + c) * LANES]
                alphas[y, x] = blocks[strip // bands, at + 4 * LANES]


# Backward


# The way there and back

@lru_cache(maxsize=1)
def _pool(pid: int, threads: int) -> ThreadPoolExecutor:
    """Threads that wait without spinning; those of a parent process are not there after a fork, hence ``pid``."""
    return ThreadPoolExecutor(threads, thread_name_prefix='clipgs-render')


def _run(work: Callable[[int, int], None]) -> None:
    """Call ``work(part, parts)`` for every part, as many at once as torch has threads (one in a loader's worker)."""
    parts = min(torch.get_num_threads(), MAX_THREADS)
    others = [_pool(os.getpid(), MAX_THREADS - 1).submit(work, part, parts) for part in range(1, parts)]
    work(0, parts)
    for other in others:
        other.result()


def _camera(viewmat: Tensor, intrinsic: Tensor) -> np.ndarray:
    viewmat, intrinsic = viewmat.detach().double().numpy(), intrinsic.detach().double().numpy()
    rotation, translation = viewmat[:3, :3], viewmat[:3, 3]
    focal_center = [intrinsic[0, 0], intrinsic[1, 1], intrinsic[0, 2], intrinsic[1, 2]]
    return np.concatenate([viewmat[:3].ravel(), focal_center, -rotation.T @ translation])


def _forward(cloud, camera, color, alpha, near, blur) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw one view into ``color`` (H, W, 3) and ``alpha`` (H, W); returns fields, boxes and order."""
    count, (height, width) = len(cloud[0]), alpha.shape
    fields, boxes = np.empty((count, NUM_FIELDS), np.float32), np.empty((count, 4), np.int32)
    depths, order, scratch = np.empty(count, np.float32), np.empty(count, np.int32), np.empty(count, np.int32)
    _run(lambda part, parts: _project(count * part // parts, count * (part + 1) // parts, *cloud, camera, width, height,
                                      near, blur, fields, boxes, depths))
    order = scratch[:_sort(depths, order, scratch)]  # an odd number of passes ends in the scratch
    _run(lambda part, parts: _composite(part, parts, order, fields, boxes, color, alpha))
    return fields, boxes, order


class _Rasterise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, quats, log_scales, opacity_logits, sh, cameras, width, height, near, blur):
        cloud = [x.detach().contiguous().numpy() for x in (means, quats, log_scales, opacity_logits, sh)]
        colors, alphas = means.new_empty(len(cameras), height, width, 3), means.new_empty(len(cameras), height, width)
        for view, camera in enumerate(cameras):
            _forward(cloud, camera, colors[view].numpy(), alphas[view].numpy(), near, blur)
        return colors, alphas


def rasterise(
    means: Tensor,           # (N, 3) float32
    quats: Tensor,           # (N, 4) wxyz
    log_scales: Tensor,      # (N, 3)
    opacity_logits: Tensor,  # (N,)
    sh: Tensor,              # (N, K, 3)
    viewmats: Tensor,        # (V, 4, 4)
    intrinsics: Tensor,      # (V, 3, 3)
    width: int,
    height: int,
    near: float,
    blur: float,
) -> tuple[Tensor, Tensor]:
    """Colours on black (V, H, W, 3) and alpha (V, H, W); differentiable in the Gaussians' parameters."""
    dtype = means.dtype
    cloud = [x.float() for x in (means, quats, log_scales, opacity_logits, sh)]
    cameras = [_camera(viewmat, intrinsic) for viewmat, intrinsic in zip(viewmats, intrinsics)]
    colors, alphas = _Rasterise.apply(*cloud, cameras, width, height, near, blur)
    return colors.to(dtype), alphas.to(dtype)
