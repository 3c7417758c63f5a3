"""Constants of the rasteriser for all backends, as in gsplat 1.5."""

MIN_ALPHA = 1 / 255        # lower contributions are skipped
MAX_ALPHA = 0.999          # upper limit of alpha (INRIA: 0.99); clipped alpha receives no gradient
MIN_TRANSMITTANCE = 1e-4   # a pixel skips Gaussians that would reduce its transmittance below this
VIEW_MARGIN = 0.15         # margin around the image, in image sizes, up to which the projection is linearised
