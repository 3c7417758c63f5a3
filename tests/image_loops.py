"""Image metrics from their definitions, by plain loops."""
import math

import numpy as np


def psnr_by_formula(a: np.ndarray, b: np.ndarray) -> float:
    """Compute the PSNR of images in [0, 1] in dB."""
    return 10 * math.log10(1 / np.mean((a - b) ** 2))


def ssim_by_loops(a: np.ndarray, b: np.ndarray) -> float:
    """Average SSIM over windows and channels, each from its definition, in float64."""
    offsets = np.arange(11) - 5
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5 ** 2))
    weights /= weights.sum()
    values = []
    for y in range(a.shape[0] - 10):
        for x in range(a.shape[1] - 10):
            for c in range(3):
                p, q = a[y:y + 11, x:x + 11, c], b[y:y + 11, x:x + 11, c]
                mean_p, mean_q = (weights * p).sum(), (weights * q).sum()
                var_p, var_q = (weights * (p - mean_p) ** 2).sum(), (weights * (q - mean_q) ** 2).sum()
                covariance = (weights * (p - mean_p) * (q - mean_q)).sum()
                values.append((2 * mean_p * mean_q + 1e-4) * (2 * covariance + 9e-4)
                              / ((mean_p ** 2 + mean_q ** 2 + 1e-4) * (var_p + var_q + 9e-4)))
    return float(np.mean(values))
