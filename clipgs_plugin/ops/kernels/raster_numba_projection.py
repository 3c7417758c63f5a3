"""Projection of Gaussians to a view in numba, and its gradients.

Geometry is float64, so that a footprint ends at the same pixel as in the reference.
"""
from __future__ import annotations

import math

import numpy as np

from clipgs_plugin.ops.kernels.raster_constants import MIN_ALPHA, VIEW_MARGIN
from clipgs_plugin.ops.kernels.raster_numba_layout import (
    CENTER_X,
    CENTER_Y,
    CONIC_XX,
    CONIC_XY,
    CONIC_YY,
    NUM_GRADIENTS,
    OPACITY,
    REACH,
    RED,
    TALL,
    TILT,
    raster_kernel,
)
from clipgs_plugin.ops.spherical_harmonics import C0, C1, C2, C3

D = np.float64  # in a kernel, float() of a float32 stays a float32

# A camera is a row of 19 float64: rows of [R | t], then fx, fy, cx, cy, then its position in the world.
FX, FY, CX, CY, EYE = 12, 13, 14, 15, 16


@raster_kernel
def _rotation(quat, matrix):
    w, x, y, z = D(quat[0]), D(quat[1]), D(quat[2]), D(quat[3])
    s = 2 / (w * w + x * x + y * y + z * z)
    matrix[0, 0], matrix[0, 1], matrix[0, 2] = 1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)
    matrix[1, 0], matrix[1, 1], matrix[1, 2] = s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)
    matrix[2, 0], matrix[2, 1], matrix[2, 2] = s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)


@raster_kernel
def _slope(ratio, focal, center, size):
    """Limit x / z, where the projection is linearised, to a margin around the image."""
    margin = VIEW_MARGIN * size
    return min(max(ratio, (-center - margin) / focal), (size - center + margin) / focal)


@raster_kernel
def _axes(quat, log_scale, camera, x, y, z, width, height, rotation, turned, scales, axes):
    """Project the principal axes, times their standard deviations, to pixels by the linearised projection."""
    _rotation(quat, rotation)
    slope_x, slope_y = _slope(x / z, camera[FX], camera[CX], width), _slope(y / z, camera[FY], camera[CY], height)
    for k in range(3):
        scales[k] = math.exp(D(log_scale[k]))
        for i in range(3):
            turned[i, k] = (camera[4 * i] * rotation[0, k] + camera[4 * i + 1] * rotation[1, k]
                            + camera[4 * i + 2] * rotation[2, k])
        axes[0, k] = camera[FX] / z * (turned[0, k] - slope_x * turned[2, k]) * scales[k]
        axes[1, k] = camera[FY] / z * (turned[1, k] - slope_y * turned[2, k]) * scales[k]


@raster_kernel
def _sh_basis(x, y, z, count, basis):
    """Evaluate the first ``count`` spherical harmonics of a unit direction."""
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


@raster_kernel
def _sh_slopes(x, y, z, count, dx, dy, dz):
    """Evaluate the partial derivatives of :func:`_sh_basis`, as polynomials of x, y and z."""
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


@raster_kernel
def project(
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
    """Project a range of Gaussians to one view."""
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
        xx = axes[0, 0] * axes[0, 0] + axes[0, 1] * axes[0, 1] + axes[0, 2] * axes[0, 2]
        xy = axes[0, 0] * axes[1, 0] + axes[0, 1] * axes[1, 1] + axes[0, 2] * axes[1, 2]
        yy = axes[1, 0] * axes[1, 0] + axes[1, 1] * axes[1, 1] + axes[1, 2] * axes[1, 2]
        # A sum of squares: in xx yy - xy^2, the width of a long needle would be lost in rounding.
        det = blur * (xx + yy) + blur * blur
        for k in range(3):
            minor = axes[0, k - 1] * axes[1, k] - axes[0, k] * axes[1, k - 1]
            det += minor * minor
        xx, yy = xx + blur, yy + blur
        reach = math.log(opacity / MIN_ALPHA)
        center_x, center_y = fx * x / z + cx, fy * y / z + cy
        half_x, half_y = math.sqrt(2 * reach * xx), math.sqrt(2 * reach * yy)
        if not (0 < det < math.inf and -half_x < center_x < width + half_x and -half_y < center_y < height + half_y):
            continue
        depths[n] = z
        # Limited before the conversion to int, which a long needle overflows.
        rows[n, 0] = math.ceil(max(center_y - half_y - 0.5, 0.0))
        rows[n, 1] = math.floor(min(center_y + half_y - 0.5, height - 1.0))
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


@raster_kernel
def project_backward(
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
    grad_means,      # (N, 3) in and out: gradients are added; likewise below
    grad_quats,
    grad_log_scales,
    grad_opacity_logits,
    grad_sh,
):
    """Add the gradients of a range of Gaussians, given those of its projection."""
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

        # Colour: coefficients and viewing direction.
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

        # alpha = opacity exp(-sigma), so the sum of sigma's gradients also determines the opacity's gradient.
        grad_opacity_logits[n] -= g[3] * (1 - fields[n, OPACITY])

        # sigma = (xx dx^2 + yy dy^2) / 2 + xy dx dy, where (dx, dy) point from the centre to the pixel
        xx, xy, yy = fields[n, CONIC_XX], fields[n, CONIC_XY], fields[n, CONIC_YY]
        grad_center_x, grad_center_y = -(xx * g[4] + xy * g[5]), -(xy * g[4] + yy * g[5])
        # The conic is the inverse of the covariance: d cov = -conic (d conic) conic, with d conic = 1/2 of the moments.
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

        # Mean in the camera's frame, through the centre, the depth, and the slopes unless clamped.
        grad_x, grad_y = grad_center_x * fx / z, grad_center_y * fy / z
        grad_x += grad_slope_x / z if slope_x == x / z else 0.0
        grad_y += grad_slope_y / z if slope_y == y / z else 0.0
        grad_z -= (grad_x * x + grad_y * y) / z
        for j in range(3):
            grad_means[n, j] += camera[j] * grad_x + camera[4 + j] * grad_y + camera[8 + j] * grad_z

        # Rotation and quaternion, through R(quat) of the normalised quaternion.
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
