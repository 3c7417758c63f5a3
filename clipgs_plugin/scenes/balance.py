"""Colours of the objects of a scene without its light."""
from __future__ import annotations

import torch
from torch import Tensor

from clipgs_plugin.ops.cameras import sphere_directions
from clipgs_plugin.scenes.objects import SceneObjects
from clipgs_plugin.structures import SH_C0, GaussianCloud

GAMMA = 2.2          # of sRGB
_LUMINANCE = (0.2126, 0.7152, 0.0722)
_DARKEST = 0.03      # sRGB luminance, below which noise outweighs the light
_SAMPLE = 5000       # Gaussians of an object that the light is estimated from
_SPREAD = 2.5        # largest difference of a logarithm to the median of its object
_RIDGE = 0.1         # for each object, beside 1 for its Gaussians
_DIRECTIONS = 200    # among which the brightest is searched


def balance_colors(cloud: GaussianCloud, objects: SceneObjects) -> GaussianCloud:
    """Divide the colours of objects by the light that their surfaces get, which is estimated from the objects alone.

    Light from a lamp, a window and everywhere is a smooth function of the normal, a polynomial of second degree
    (Ramamoorthi and Hanrahan, "An efficient representation for irradiance environment maps", 2001). The colours of
    objects do not depend on the normal on average. The logarithm of the luminance, less its mean over the object, is
    therefore fitted as such a polynomial, one for all objects of a scene. The brightest direction keeps its colours;
    the others become as bright. Shadows and the colour of the light stay.

    Args:
        cloud: Scene of N Gaussians.
        objects: Its objects.

    Returns:
        The scene with other colours of the objects, at most white.
    """
    if not len(objects):
        return cloud
    normals = [cloud[members].normals for members in objects.members]
    weights = light_of([cloud.rgb[members] for members in objects.members], normals)
    brightest = float((_polynomial(_directions(cloud.means)) @ weights).max())
    sh = cloud.sh.clone()
    for members, normal in zip(objects.members, normals):
        gain = ((brightest - _polynomial(normal) @ weights).clamp_min(0) / GAMMA).exp()[:, None]
        rgb = cloud.rgb[members]
        gain = torch.minimum(gain, (1 / rgb.amax(1, keepdim=True).clamp_min(1e-6)).clamp_min(1))
        sh[members] = cloud.sh[members] * gain[:, None]
        sh[members, 0] += (gain - 1) * 0.5 / SH_C0  # a colour is 0.5 above its harmonics
    return cloud.replace(sh=sh)


def light_of(
    colors: list[Tensor],   # M of (n, 3) sRGB
    normals: list[Tensor],  # M of (n, 3) unit, outward
) -> Tensor:                # (8,) of the polynomial
    """Estimate the logarithm of the light by the normal, up to a constant."""
    inputs, outputs = [], []
    for rgb, normal in zip(colors, normals):
        step = -(-len(rgb) // _SAMPLE)
        rgb, normal = rgb[::step], normal[::step]
        values = GAMMA * (rgb @ rgb.new_tensor(_LUMINANCE)).clamp_min(_DARKEST).log()
        values = (values - values.median()).clamp(-_SPREAD, _SPREAD)
        terms, weight = _polynomial(normal), len(rgb) ** -0.5  # every object weighs the same
        inputs.append((terms - terms.mean(0)) * weight)
        outputs.append((values - values.mean()) * weight)
    x, y = torch.cat(inputs), torch.cat(outputs)
    return torch.linalg.solve(x.T @ x + _RIDGE * len(colors) * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)


def _polynomial(normals: Tensor) -> Tensor:
    """Return the terms of first and second degree of unit vectors (n, 3) without their constant, (n, 8)."""
    x, y, z = normals.unbind(-1)
    return torch.stack([x, y, z, x * y, y * z, x * z, 3 * y * y - 1, x * x - z * z], -1)


def _directions(like: Tensor) -> Tensor:
    return sphere_directions(_DIRECTIONS).to(like)
