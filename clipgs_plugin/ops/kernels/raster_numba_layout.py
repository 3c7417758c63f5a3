"""Layout of a projected Gaussian, shared by the numba kernels of the rasteriser.

Numba's cache on disk does not notice a change of these constants: delete ``*.nbi`` and ``*.nbc`` after one.
"""
from clipgs_plugin.ops.kernels.jit import kernel

# Fields of a projected Gaussian, float64. Its footprint is where sigma <= REACH. The footprint rises TALL above the
# centre, and TILT above it at its rightmost point.
CENTER_X, CENTER_Y, CONIC_XX, CONIC_XY, CONIC_YY, OPACITY, REACH, TALL, TILT, RED, GREEN, BLUE = range(12)
NUM_FIELDS = 12
NUM_GRADIENTS = 9  # sums over the pixels of a projected Gaussian, see composite_backward

raster_kernel = kernel(error_model='numpy')
