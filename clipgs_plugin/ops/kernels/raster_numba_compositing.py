"""Depth order and compositing of projected Gaussians in numba, and its gradients.

Kernels go Gaussian by Gaussian over its own pixels. Pixels lie in blocks of 4 x 4 with the planes of a block next to
each other, so that innermost loops have a constant length and a known distance between reads and writes. This lets
them compile to vector instructions. Coordinates and exponents are float64, colours and light float32.
"""
from __future__ import annotations

import math

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

from clipgs_plugin.ops.kernels.jit import kernel
from clipgs_plugin.ops.kernels.raster_constants import MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE
from clipgs_plugin.ops.kernels.raster_numba_layout import (
    BLUE,
    CENTER_X,
    CENTER_Y,
    CONIC_XX,
    CONIC_XY,
    CONIC_YY,
    GREEN,
    NUM_GRADIENTS,
    OPACITY,
    REACH,
    RED,
    TALL,
    TILT,
    raster_kernel,
)

F = np.float32
ONE, ZERO, CLIP, LIMIT = F(1), F(0), F(MAX_ALPHA), F(MIN_TRANSMITTANCE)
# exp(-s) for s in [0, ln 255] is this polynomial's eighth power, to 2e-6; math.exp would keep the loops scalar.
P0, P1, P2, P3, P4, P5 = (F(c) for c in Chebyshev.interpolate(
    lambda s: np.exp(-s / 8), 5, domain=[0, -math.log(MIN_ALPHA)]).convert(kind=Polynomial).coef)

SIDE = 4             # of a block, pixels
LANES = SIDE * SIDE  # pixels of a block
# Planes of a block. Transmittance is 0 where a pixel is finished.
FORWARD_PLANES = 5   # transmittance, red, green, blue, alpha
BACKWARD_PLANES = 6  # transmittance, light still to come, gradients of red, green, blue, alpha

# Sums may be reordered and fused; NaN and infinity keep their meaning.
pixel_kernel = kernel(error_model='numpy', fastmath={'reassoc', 'contract', 'nsz', 'arcp'})


@raster_kernel
def sort_by_depth(depths, order, scratch):
    """Sort the indices of drawn Gaussians, nearest first and stable, and return their number.

    ``order`` and ``scratch`` are (N,) int32; ``scratch`` holds the result. A radix sort uses the bits of the depths,
    which have the order of the depths because these are positive.
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


@pixel_kernel
def _span(field, top, across):
    """Return the range of blocks that a footprint touches in a strip whose first row is ``top`` below the centre."""
    xx, xy, reach, tall = field[CONIC_XX], field[CONIC_XY], field[REACH], field[TALL]
    low, high = max(top, -tall), min(top + SIDE - 1, tall)
    # sigma = xx dx^2 / 2 + xy dx dy + yy dy^2 / 2 <= reach, solved for dx where the ellipse is widest in the strip.
    # With xx yy - xy^2 = 2 xx reach / tall^2, which is free of cancellation.
    right, left = min(max(field[TILT], low), high), min(max(-field[TILT], low), high)
    widest, unit = math.sqrt(2 * xx * reach), 1 / tall if tall > 0 else 0.0
    right_most = (widest * math.sqrt(max(1 - (right * unit) ** 2, 0.0)) - xy * right) / xx
    left_most = (-widest * math.sqrt(max(1 - (left * unit) ** 2, 0.0)) - xy * left) / xx
    # Limited before the conversion to int, which a long needle overflows.
    first, last = max(field[CENTER_X] + left_most - 0.5, 0.0), max(field[CENTER_X] + right_most - 0.5, -1.0)
    width = SIDE * across
    return math.floor(min(first, width)) // SIDE, math.ceil(min(last, width - 1)) // SIDE + 1


@pixel_kernel
def _is_finished(block):
    """Return True if all pixels of a block are finished; its first plane is the transmittance."""
    alive = ZERO
    for k in range(LANES):
        alive += block[k]
    return alive == ZERO


@pixel_kernel
def _falloff(sigma):
    """Return exp(-sigma) for sigma in [0, ln 255], float32."""
    s = F(sigma)
    e = P0 + s * (P1 + s * (P2 + s * (P3 + s * (P4 + s * P5))))
    e *= e
    e *= e
    return e * e


@pixel_kernel
def composite(
    band, bands,   # strips of SIDE rows with index % bands == band
    order,         # (M,) nearest first
    fields,        # (N, NUM_FIELDS)
    rows,          # (N, 2)
    colors,        # (H, W, 3) out
    alphas,        # (H, W) out
):
    """Blend Gaussians front to back in every ``bands``-th strip."""
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


@pixel_kernel
def composite_backward(
    band, bands,    # strips of SIDE rows with index % bands == band
    order,          # (M,) nearest first
    fields,         # (N, NUM_FIELDS)
    rows,           # (N, 2)
    colors,         # (H, W, 3) as drawn
    alphas,         # (H, W)
    color_grads,    # (H, W, 3)
    alpha_grads,    # (H, W)
    gradients,      # (N, NUM_GRADIENTS) out, sums over this band; only rows of drawn Gaussians are written
):
    """Sum the gradients of projected Gaussians over the pixels of a band.

    The columns are the gradients of red, green and blue, then the gradient of sigma times 1, dx, dy, dx^2, dx dy, dy^2.
    """
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

    # Sums are kept lane by lane until a Gaussian is done.
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
