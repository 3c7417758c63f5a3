"""3D Gaussian rasterisation on the CPU: numba kernels that go Gaussian by Gaussian over its own pixels.

Three stages: projection of every Gaussian, a stable radix sort by depth, and compositing. Geometry up to the exponent
of a pixel is float64, so that a footprint ends at the same pixel as the reference's; colours and light are float32.
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

F, D = np.float32, np.float64  # in a kernel, float() of a float32 stays one
ONE, ZERO, CLIP, LIMIT = F(1), F(0), F(MAX_ALPHA), F(MIN_TRANSMITTANCE)
# exp(-s) for s in [0, ln 255] is this polynomial's eighth power, to 2e-6; math.exp would keep the loops scalar.
P0, P1, P2, P3, P4, P5 = (F(c) for c in Chebyshev.interpolate(
    lambda s: np.exp(-s / 8), 5, domain=[0, -math.log(MIN_ALPHA)]).convert(kind=Polynomial).coef)

SIDE = 4             # of a block, pixels
LANES = SIDE * SIDE  # pixels to a block
# Planes of a block: forward, then backward. Transmittance is 0 where a pixel is finished.
FORWARD_PLANES = 5   # transmittance, red, green, blue, alpha
BACKWARD_PLANES = 6  # transmittance, light still to come, gradients of red, green, blue, alpha

# Fields of a projected Gaussian, float64: its footprint is where sigma <= REACH, and rises TALL above the centre, TILT
# above it at its rightmost point.
CENTER_X, CENTER_Y, CONIC_XX, CONIC_XY, CONIC_YY, OPACITY, REACH, TALL, TILT, RED, GREEN, BLUE = range(12)
NUM_FIELDS = 12
NUM_GRADIENTS = 9  # of a projected Gaussian: sums over its pixels, see _composite_backward

# A camera is a row of float64: rows of [R | t], then fx, fy, cx, cy, then the position in the world.
FX, FY, CX, CY, EYE = 12, 13, 14, 15, 16

_kernel = kernel(error_model='numpy')
# Sums may be reordered and fused; NaN and infinity keep their meaning.
_pixel_kernel = kernel(error_model='numpy', fastmath={'reassoc', 'contract', 'nsz', 'arcp'})


# Projection

@_kernel
def _rotation(quat, matrix):
    w, x, y, z = D(quat[0]), D(quat[1]), D(quat[2]), D(quat[3])
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
def _axes(quat, log_scale, camera, x, y, z, width, height, rotation, turned, scales, axes):
    """Principal axes, times their standard deviations, as the linearised projection shows them in pixels."""
    _rotation(quat, rotation)
    slope_x, slope_y = _slope(x / z, camera[FX], camera[CX], width), _slope(y / z, camera[FY], camera[CY], height)
    for k in range(3):
        scales[k] = math.exp(D(log_scale[k]))
        for i in range(3):
            turned[i, k] = (camera[4 * i] * rotation[0, k] + camera[4 * i + 1] * rotation[1, k]
                            + camera[4 * i + 2] * rotation[2, k])
        axes[0, k] = camera[FX] / z * (turned[0, k] - slope_x * turned[2, k]) * scales[k]
        axes[1, k] = camera[FY] / z * (turned[1, k] - slope_y * turned[2, k]) * scales[k]


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
    rows,            # (N, 2) int32 out; first and last row of the footprint
    depths,          # (N,) float32 out; 0 if the Gaussian is not drawn
):
    fx, fy, cx, cy = camera[FX], camera[FY], camera[CX], camera[CY]
    rotation, turned, scales, axes = np.empty((3, 3)), np.empty((3, 3)), np.empty(3), np.empty((2, 3))
    basis = np.empty(16)
    for n in range(first, last):
        depths[n] = 0
        mx, my, mz = D(means[n, 0]), D(means[n, 1]), D(means[n, 2])
        x = camera[0] * mx + camera[1] * my + camera[2] * mz + camera[3]
        y = camera[4] * mx + camera[5] * my + camera[6] * mz + camera[7]
        z = camera[8] * mx + camera[9] * my + camera[10] * mz + camera[11]
        opacity = 1 / (1 + math.exp(-D(opacity_logits[n])))
        if not (z > near and opacity >= MIN_ALPHA):
            continue
        _axes(quats[n], log_scales[n], camera, x, y, z, width, height, rotation, turned, scales, axes)
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
        rows[n, 0] = max(0, math.ceil(center_y - half_y - 0.5))
        rows[n, 1] = min(height - 1, math.floor(center_y + half_y - 0.5))
        fields[n, CENTER_X], fields[n, CENTER_Y] = center_x, center_y
        fields[n, CONIC_XX], fields[n, CONIC_XY], fields[n, CONIC_YY] = yy / det, -xy / det, xx / det
        fields[n, OPACITY], fields[n, REACH] = opacity, reach
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
def _span(field, top, across):
    """Blocks first..last-1 that a footprint touches in a strip whose first row lies ``top`` below the centre."""
    xx, xy, reach, tall = field[CONIC_XX], field[CONIC_XY], field[REACH], field[TALL]
    low, high = max(top, -tall), min(top + SIDE - 1, tall)
    # sigma = xx dx^2 / 2 + xy dx dy + yy dy^2 / 2 <= reach, solved for dx where the ellipse is widest in the strip.
    curvature = xx * field[CONIC_YY] - xy * xy
    right, left = min(max(field[TILT], low), high), min(max(-field[TILT], low), high)
    right_most = (math.sqrt(max(2 * xx * reach - right * right * curvature, 0.0)) - xy * right) / xx
    left_most = (-math.sqrt(max(2 * xx * reach - left * left * curvature, 0.0)) - xy * left) / xx
    first, last = math.floor(field[CENTER_X] + left_most - 0.5), math.ceil(field[CENTER_X] + right_most - 0.5)
    return max(first, 0) // SIDE, min(max(last, -1) // SIDE + 1, across)


@_pixel_kernel
def _is_finished(block):
    """Whether no pixel of a block takes more light; its first plane is the transmittance."""
    alive = ZERO
    for k in range(LANES):
        alive += block[k]
    return alive == ZERO


@_pixel_kernel
def _falloff(sigma):
    """exp(-sigma) for sigma in [0, ln 255], float32."""
    s = F(sigma)
    e = P0 + s * (P1 + s * (P2 + s * (P3 + s * (P4 + s * P5))))
    e *= e
    e *= e
    return e * e


@_pixel_kernel
def _composite(
    band, bands,   # strips of SIDE rows with index % bands == band
    order,         # (M,) nearest first
    fields,        # (N, NUM_FIELDS)
    rows,          # (N, 2)
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
        field = fields[order[i]]
        half_xx, xy, half_yy, reach = 0.5 * field[CONIC_XX], field[CONIC_XY], 0.5 * field[CONIC_YY], field[REACH]
        opacity, red, green, blue = F(field[OPACITY]), F(field[RED]), F(field[GREEN]), F(field[BLUE])
        first_strip, last_strip = rows[order[i], 0] // SIDE, rows[order[i], 1] // SIDE
        for strip in range(first_strip + (band - first_strip) % bands, last_strip + 1, bands):
            top = strip * SIDE + 0.5 - field[CENTER_Y]
            first, last = _span(field, top, across)
            row = blocks[strip // bands]
            for c in range(first, last):
                block = row[c * size:c * size + size]
                if _is_finished(block):
                    continue
                left = c * SIDE + 0.5 - field[CENTER_X]
                for k in range(LANES):
                    dx, dy = left + k % SIDE, top + k // SIDE
                    sigma = dx * (half_xx * dx + xy * dy) + half_yy * dy * dy
                    alpha = min(opacity * _falloff(sigma), CLIP) if sigma <= reach else ZERO
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

@_pixel_kernel
def _composite_backward(
    band, bands,    # strips of SIDE rows with index % bands == band
    order,          # (M,) nearest first
    fields,         # (N, NUM_FIELDS)
    rows,           # (N, 2)
    colors,         # (H, W, 3) as drawn
    alphas,         # (H, W)
    color_grads,    # (H, W, 3)
    alpha_grads,    # (H, W)
    gradients,      # (N, NUM_GRADIENTS) out, this band's share; only rows of drawn Gaussians are written
):
    height, width = alphas.shape
    down, across = (height + SIDE - 1) // SIDE, (width + SIDE - 1) // SIDE
    size = BACKWARD_PLANES * LANES
    blocks = np.zeros((down // bands + 1, across * size), np.float32)
    for strip in range(band, down, bands):
        for y in range(strip * SIDE, min(strip * SIDE + SIDE, height)):
            for x in range(width):
                at = x // SIDE * size + y % SIDE * SIDE + x % SIDE
                block = blocks[strip // bands]
                block[at] = ONE
                to_come = alphas[y, x] * alpha_grads[y, x]
                for c in range(3):
                    to_come += colors[y, x, c] * color_grads[y, x, c]
                    block[at + (2 + c) * LANES] = color_grads[y, x, c]
                block[at + LANES] = to_come
                block[at + 5 * LANES] = alpha_grads[y, x]

    # Sums over pixels of the gradients of red, green and blue, and of sigma's times 1, dx, dy, dx^2, dx dy, dy^2;
    # lane by lane until a Gaussian is done.
    sums = np.empty(NUM_GRADIENTS * LANES, np.float32)
    for i in range(len(order)):
        field = fields[order[i]]
        half_xx, xy, half_yy, reach = 0.5 * field[CONIC_XX], field[CONIC_XY], 0.5 * field[CONIC_YY], field[REACH]
        opacity, red, green, blue = F(field[OPACITY]), F(field[RED]), F(field[GREEN]), F(field[BLUE])
        for k in range(NUM_GRADIENTS * LANES):
            sums[k] = ZERO
        first_strip, last_strip = rows[order[i], 0] // SIDE, rows[order[i], 1] // SIDE
        for strip in range(first_strip + (band - first_strip) % bands, last_strip + 1, bands):
            top = strip * SIDE + 0.5 - field[CENTER_Y]
            first, last = _span(field, top, across)
            row = blocks[strip // bands]
            for c in range(first, last):
                block = row[c * size:c * size + size]
                if _is_finished(block):
                    continue
                left = c * SIDE + 0.5 - field[CENTER_X]
                for k in range(LANES):
                    dx, dy = left + k % SIDE, top + k // SIDE
                    sigma = dx * (half_xx * dx + xy * dy) + half_yy * dy * dy
                    full = opacity * _falloff(sigma)
                    alpha = min(full, CLIP) if sigma <= reach else ZERO
                    before = block[k]
                    after = before * (ONE - alpha)
                    weight = alpha * before if after > LIMIT else ZERO
                    block[k] = after if after > LIMIT else ZERO
                    grad_r, grad_g, grad_b = block[k + 2 * LANES], block[k + 3 * LANES], block[k + 4 * LANES]
                    light = red * grad_r + green * grad_g + blue * grad_b + block[k + 5 * LANES]
                    to_come = block[k + LANES] - weight * light
                    block[k + LANES] = to_come
                    # d loss / d alpha = before * light - to_come / (1 - alpha); d alpha / d sigma = -alpha
                    grad = alpha * to_come / (ONE - alpha) - weight * light
                    grad = grad if weight > ZERO and full <= CLIP else ZERO
                    dx, dy = F(dx), F(dy)
                    grad_x, grad_y = grad * dx, grad * dy
                    sums[k] += weight * grad_r
                    sums[k + LANES] += weight * grad_g
                    sums[k + 2 * LANES] += weight * grad_b
                    sums[k + 3 * LANES] += grad
                    sums[k + 4 * LANES] += grad_x
                    sums[k + 5 * LANES] += grad_y
                    sums[k + 6 * LANES] += grad_x * dx
                    sums[k + 7 * LANES] += grad_x * dy
                    sums[k + 8 * LANES] += grad_y * dy
        for j in range(NUM_GRADIENTS):
            total = ZERO
            for k in range(LANES):
                total += sums[j * LANES + k]
            gradients[order[i], j] = total


@_kernel
def _project_backward(
    first, last,     # range of Gaussians
    means,           # (N, 3)
    quats,           # (N, 4)
    log_scales,      # (N, 3)
    opacity_logits,  # (N,)
    sh,              # (N, K, 3)
    camera,          # (19,)
    width, height,
    fields,          # (N, NUM_FIELDS)
    depths,          # (N,) 0 where not drawn
    gradients,       # (bands, N, NUM_GRADIENTS)
    grad_means,      # (N, 3), and so on: added to
    grad_quats,
    grad_log_scales,
    grad_opacity_logits,
    grad_sh,
):
    fx, fy = camera[FX], camera[FY]
    rotation, turned, scales, axes = np.empty((3, 3)), np.empty((3, 3)), np.empty(3), np.empty((2, 3))
    basis, basis_x, basis_y, basis_z = np.empty(16), np.empty(16), np.empty(16), np.empty(16)
    g, grad_turned, r = np.empty(NUM_GRADIENTS), np.empty((3, 3)), np.empty((3, 3))
    count = sh.shape[1]
    for n in range(first, last):
        if depths[n] == 0:
            continue
        for j in range(NUM_GRADIENTS):
            g[j] = 0
            for band in range(len(gradients)):
                g[j] += gradients[band, n, j]
        mx, my, mz = D(means[n, 0]), D(means[n, 1]), D(means[n, 2])
        x = camera[0] * mx + camera[1] * my + camera[2] * mz + camera[3]
        y = camera[4] * mx + camera[5] * my + camera[6] * mz + camera[7]
        z = camera[8] * mx + camera[9] * my + camera[10] * mz + camera[11]

        # Colour: the coefficients, and the direction they are seen from.
        dx, dy, dz = mx - camera[EYE], my - camera[EYE + 1], mz - camera[EYE + 2]
        distance = math.sqrt(dx * dx + dy * dy + dz * dz)
        dx, dy, dz = dx / distance, dy / distance, dz / distance
        _sh_basis(dx, dy, dz, count, basis)
        for c in range(3):
            if fields[n, RED + c] <= 0:  # clamped
                g[c] = 0
            for k in range(count):
                grad_sh[n, k, c] += basis[k] * g[c]
        if count > 1:
            _sh_slopes(dx, dy, dz, count, basis_x, basis_y, basis_z)
            turn_x = turn_y = turn_z = 0.0
            for k in range(count):
                lit = sh[n, k, 0] * g[0] + sh[n, k, 1] * g[1] + sh[n, k, 2] * g[2]
                turn_x += basis_x[k] * lit
                turn_y += basis_y[k] * lit
                turn_z += basis_z[k] * lit
            along = turn_x * dx + turn_y * dy + turn_z * dz
            grad_means[n, 0] += (turn_x - along * dx) / distance
            grad_means[n, 1] += (turn_y - along * dy) / distance
            grad_means[n, 2] += (turn_z - along * dz) / distance

        # alpha = opacity exp(-sigma), so the sums over sigma's gradient give the opacity's too.
        grad_opacity_logits[n] -= g[3] * (1 - fields[n, OPACITY])

        # sigma = (xx dx^2 + yy dy^2) / 2 + xy dx dy, where (dx, dy) point from the centre to the pixel
        xx, xy, yy = fields[n, CONIC_XX], fields[n, CONIC_XY], fields[n, CONIC_YY]
        grad_center_x, grad_center_y = -(xx * g[4] + xy * g[5]), -(xy * g[4] + yy * g[5])
        # The conic is the covariance's inverse: d cov = -conic (d conic) conic, with d conic = 1/2 of the moments.
        p, q, t = xx * g[6] + xy * g[7], xx * g[7] + xy * g[8], xy * g[7] + yy * g[8]
        s = xy * g[6] + yy * g[7]
        cov_xx, cov_yy, cov_xy = -0.5 * (p * xx + q * xy), -0.5 * (s * xy + t * yy), -0.5 * (p * xy + q * yy)

        # Covariance = axes axes^T, axes = J R_camera R(quat) S.
        _axes(quats[n], log_scales[n], camera, x, y, z, width, height, rotation, turned, scales, axes)
        slope_x, slope_y = _slope(x / z, fx, camera[CX], width), _slope(y / z, fy, camera[CY], height)
        grad_slope_x = grad_slope_y = grad_z = 0.0
        for k in range(3):
            u, v = axes[0, k], axes[1, k]
            grad_u, grad_v = 2 * (cov_xx * u + cov_xy * v), 2 * (cov_yy * v + cov_xy * u)
            grad_log_scales[n, k] += grad_u * u + grad_v * v
            grad_z -= (grad_u * u + grad_v * v) / z
            grad_u, grad_v = grad_u * scales[k] * fx / z, grad_v * scales[k] * fy / z
            grad_turned[0, k], grad_turned[1, k] = grad_u, grad_v
            grad_turned[2, k] = -(slope_x * grad_u + slope_y * grad_v)
            grad_slope_x -= grad_u * turned[2, k]
            grad_slope_y -= grad_v * turned[2, k]

        # The mean in the camera's frame, through the centre, the depth and the slopes where they are not clamped.
        grad_x, grad_y = grad_center_x * fx / z, grad_center_y * fy / z
        grad_x += grad_slope_x / z if slope_x == x / z else 0.0
        grad_y += grad_slope_y / z if slope_y == y / z else 0.0
        grad_z -= (grad_x * x + grad_y * y) / z
        for j in range(3):
            grad_means[n, j] += camera[j] * grad_x + camera[4 + j] * grad_y + camera[8 + j] * grad_z

        # The rotation and its quaternion, through R(quat) of the normalised quaternion.
        for j in range(3):
            for k in range(3):
                r[j, k] = (camera[j] * grad_turned[0, k] + camera[4 + j] * grad_turned[1, k]
                           + camera[8 + j] * grad_turned[2, k])
        qw, qx, qy, qz = D(quats[n, 0]), D(quats[n, 1]), D(quats[n, 2]), D(quats[n, 3])
        norm = math.sqrt(qw * qw + qx * qx + qy * qy + qz * qz)
        qw, qx, qy, qz = qw / norm, qx / norm, qy / norm, qz / norm
        gw = 2 * (qx * (r[2, 1] - r[1, 2]) + qy * (r[0, 2] - r[2, 0]) + qz * (r[1, 0] - r[0, 1]))
        gx = 2 * (qw * (r[2, 1] - r[1, 2]) + qy * (r[0, 1] + r[1, 0]) + qz * (r[0, 2] + r[2, 0])
                  - 2 * qx * (r[1, 1] + r[2, 2]))
        gy = 2 * (qw * (r[0, 2] - r[2, 0]) + qx * (r[0, 1] + r[1, 0]) + qz * (r[1, 2] + r[2, 1])
                  - 2 * qy * (r[0, 0] + r[2, 2]))
        gz = 2 * (qw * (r[1, 0] - r[0, 1]) + qx * (r[0, 2] + r[2, 0]) + qy * (r[1, 2] + r[2, 1])
                  - 2 * qz * (r[0, 0] + r[1, 1]))
        along = gw * qw + gx * qx + gy * qy + gz * qz
        grad_quats[n, 0] += (gw - along * qw) / norm
        grad_quats[n, 1] += (gx - along * qx) / norm
        grad_quats[n, 2] += (gy - along * qy) / norm
        grad_quats[n, 3] += (gz - along * qz) / norm


# The way there and back

@lru_cache(maxsize=1)
def _pool(pid: int) -> ThreadPoolExecutor:
    """Threads that wait without spinning; those of a parent process are not there after a fork, hence ``pid``."""
    return ThreadPoolExecutor(MAX_THREADS - 1, thread_name_prefix='clipgs-render')


def _parts() -> int:
    """How many threads work at once: as many as torch would use, which is one in a data loader's worker."""
    return min(torch.get_num_threads(), MAX_THREADS)


def _run(parts: int, work: Callable[[int], None]) -> None:
    """Call ``work(part)`` for every part at once, the first of them in this thread."""
    others = [_pool(os.getpid()).submit(work, part) for part in range(1, parts)]
    work(0)
    for other in others:
        other.result()


def _ranges(count: int, parts: int) -> list[tuple[int, int]]:
    """``count`` Gaussians in equal shares."""
    return [(count * part // parts, count * (part + 1) // parts) for part in range(parts)]


def _camera(viewmat: Tensor, intrinsic: Tensor) -> np.ndarray:
    viewmat, intrinsic = viewmat.detach().double().numpy(), intrinsic.detach().double().numpy()
    rotation, translation = viewmat[:3, :3], viewmat[:3, 3]
    focal_center = [intrinsic[0, 0], intrinsic[1, 1], intrinsic[0, 2], intrinsic[1, 2]]
    return np.concatenate([viewmat[:3].ravel(), focal_center, -rotation.T @ translation])


class _View:
    """One view of a cloud: drawn into ``color`` (H, W, 3) and ``alpha`` (H, W), and kept for the way back."""

    def __init__(self, cloud: list[np.ndarray], camera: np.ndarray, near: float, blur: float, color: np.ndarray,
                 alpha: np.ndarray) -> None:
        (height, width), count, parts = alpha.shape, len(cloud[0]), _parts()
        self.cloud, self.camera, self.color, self.alpha = cloud, camera, color, alpha
        self.fields, self.rows = np.empty((count, NUM_FIELDS)), np.empty((count, 2), np.int32)
        self.depths = np.empty(count, np.float32)
        ranges = _ranges(count, parts)
        _run(parts, lambda part: _project(*ranges[part], *cloud, camera, width, height, near, blur, self.fields,
                                          self.rows, self.depths))
        order, scratch = np.empty(count, np.int32), np.empty(count, np.int32)
        self.order = scratch[:_sort(self.depths, order, scratch)]  # an odd number of passes ends in the scratch
        _run(parts, lambda part: _composite(part, parts, self.order, self.fields, self.rows, color, alpha))

    def backward(self, grad_color: np.ndarray, grad_alpha: np.ndarray, grad_cloud: list[np.ndarray]) -> None:
        """Add the gradients of the cloud's parameters to ``grad_cloud``."""
        (height, width), count, parts = self.alpha.shape, len(self.depths), _parts()
        gradients = np.empty((parts, count, NUM_GRADIENTS), np.float32)
        _run(parts, lambda part: _composite_backward(part, parts, self.order, self.fields, self.rows, self.color,
                                                     self.alpha, grad_color, grad_alpha, gradients[part]))
        ranges = _ranges(count, parts)
        _run(parts, lambda part: _project_backward(*ranges[part], *self.cloud, self.camera, width, height, self.fields,
                                                   self.depths, gradients, *grad_cloud))


class _Rasterise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, quats, log_scales, opacity_logits, sh, cameras, width, height, near, blur):
        tensors = means, quats, log_scales, opacity_logits, sh
        ctx.views = []
        cloud = [x.detach().contiguous().numpy() for x in tensors]
        colors, alphas = torch.empty(len(cameras), height, width, 3), torch.empty(len(cameras), height, width)
        for camera, color, alpha in zip(cameras, colors.numpy(), alphas.numpy()):
            view = _View(cloud, camera, near, blur, color, alpha)
            if any(ctx.needs_input_grad):
                ctx.views.append(view)
        ctx.save_for_backward(*tensors, colors, alphas)  # so that autograd notices when they are changed in place
        return colors, alphas

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_colors, grad_alphas):
        grads = [torch.zeros(x.shape) for x in ctx.saved_tensors[:-2]]
        arrays = [grad.numpy() for grad in grads]
        grad_colors, grad_alphas = grad_colors.contiguous().numpy(), grad_alphas.contiguous().numpy()
        for view, grad_color, grad_alpha in zip(ctx.views, grad_colors, grad_alphas):
            view.backward(grad_color, grad_alpha, arrays)
        return *grads, None, None, None, None, None


def rasterise(
    means: Tensor, quats: Tensor, log_scales: Tensor, opacity_logits: Tensor, sh: Tensor, viewmats: Tensor,
    intrinsics: Tensor, width: int, height: int, near: float, blur: float,
) -> tuple[Tensor, Tensor]:
    """As :func:`clipgs_plugin.ops.kernels.raster_reference.rasterise` in float32; cameras get no gradients."""
    if viewmats.requires_grad or intrinsics.requires_grad:
        raise ValueError("backend='cpu' gives cameras no gradients; detach them, or use backend='reference'")
    dtype = means.dtype
    cloud = [x.float() for x in (means, quats, log_scales, opacity_logits, sh)]
    cameras = [_camera(viewmat, intrinsic) for viewmat, intrinsic in zip(viewmats, intrinsics)]
    colors, alphas = _Rasterise.apply(*cloud, cameras, width, height, near, blur)
    return colors.to(dtype), alphas.to(dtype)
