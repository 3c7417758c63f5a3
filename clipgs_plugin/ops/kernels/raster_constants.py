"""Numbers of the rasteriser that every backend shares; those of gsplat 1.5."""

MIN_ALPHA = 1 / 255        # contributions below it are skipped
MAX_ALPHA = 0.999          # alpha is clipped here (INRIA: 0.99), and gets no gradient where it is
MIN_TRANSMITTANCE = 1e-4   # a pixel takes no Gaussian that would leave less than this
VIEW_MARGIN = 0.15         # of the picture's size: how far outside the projection is linearised
