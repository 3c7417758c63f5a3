"""Gaussians that look like an object: discs on its surface, then optimised against its views.

The optimisation is that of 3DGS (Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", 2023)
for one object in the unit sphere: one view a step, L1 and SSIM, Adam with a rate for each kind of parameter. It starts
from samples of the surface in place of a sparse reconstruction, so it needs hundreds of iterations in place of
thousands, and no growth.
"""
from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clipgs_plugin.ops import render
from clipgs_plugin.structures import SH_C0, GaussianCloud
from clipgs_plugin.triplets.objects import Surface, Views, composite

SPREAD = 0.6         # standard deviation of a disc, in RMS distances to its nearest neighbours
NEIGHBOURS = 3
THICKNESS = 0.1      # of a disc, in its standard deviations
ALONE = 0.05         # standard deviation of a disc without neighbours, in units of the frame
MIN_SIGMA = 1e-4
OPACITY = 0.9

WINDOW, WINDOW_SIGMA = 11, 1.5            # of SSIM, pixels
LUMINANCE, CONTRAST = 0.01 ** 2, 0.03 ** 2  # its constants, for values in [0, 1]
MIN_MSE = 1e-10      # of a PSNR, which is so at most 100 dB
FOREGROUND = 0.5     # alpha above which a pixel shows the object


@dataclass(frozen=True)
class FitSettings:
    """How Gaussians are fitted to views.

    Rates are those of Adam at the first iteration, for an object in the unit sphere; each falls exponentially to
    ``decay`` of itself at the last.

    Attributes:
        num_gaussians: Samples of the surface to begin with; :func:`fit` takes what it is given.
        iterations: At most; one view each.
        sh_degree: Of the colours, 0 to 3.
        ssim_weight: Share of (1 - SSIM) in the loss, the rest is L1; 3DGS has 0.2.
        opacity_weight: Of the mean opacity in the loss, which thins out what views do not need.
        scale_weight: Of the mean standard deviation in the loss, which keeps Gaussians small.
        prune_opacity: Gaussians of less opacity are left out at the end.
        check_every: Iterations between two looks at the held-out views, 0 for none.
        min_gain: When held-out PSNR has gained less since the last look, in dB, the rates fall to their last values
            over as many iterations as lie between two looks, and the fit ends.
        means_rate: Units of the frame.
        quats_rate: Quaternions.
        scales_rate: Natural logarithms.
        opacities_rate: Logits.
        colors_rate: SH coefficients of degree 0; those above have a twentieth, as in 3DGS.
        decay: Of all rates.
        average: Of the parameters over iterations, what each keeps of those before it; the average is the result, since
            a step for one view takes a little from the others. 0 gives the last parameters themselves.
    """

    num_gaussians: int = 10_000
    iterations: int = 500
    sh_degree: int = 0
    ssim_weight: float = 0.0
    opacity_weight: float = 0.0
    scale_weight: float = 0.0
    prune_opacity: float = 0.005
    check_every: int = 100
    min_gain: float = 0.02
    means_rate: float = 1e-3
    quats_rate: float = 1e-2
    scales_rate: float = 3e-2
    opacities_rate: float = 5e-2
    colors_rate: float = 3e-2
    decay: float = 0.3
    average: float = 0.98

    def __post_init__(self) -> None:
        for name in ('num_gaussians', 'iterations'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name}={getattr(self, name)}: expected at least 1')
        if self.sh_degree not in range(4):
            raise ValueError(f'sh_degree={self.sh_degree}: expected 0 to 3')
        for name in ('ssim_weight', 'prune_opacity'):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f'{name}={getattr(self, name)}: expected 0 to 1')
        for name in ('opacity_weight', 'scale_weight', 'check_every', 'means_rate', 'quats_rate', 'scales_rate',
                     'opacities_rate', 'colors_rate'):
            if getattr(self, name) < 0:
                raise ValueError(f'{name}={getattr(self, name)}: expected 0 or more')
        if not 0 < self.decay <= 1:
            raise ValueError(f'decay={self.decay}: expected more than 0, at most 1')
        if not 0 <= self.average < 1:
            raise ValueError(f'average={self.average}: expected 0 or more, under 1')


PRESETS = {
    'draft': FitSettings(num_gaussians=2_000, means_rate=1.5e-3, decay=0.6),  # for views of 64 px
    'default': FitSettings(),  # 128 px
    'paper': FitSettings(iterations=5_000, check_every=500),  # as long as CLIP-GS fits
}


@dataclass(frozen=True, eq=False)
class Fitted:
    """What :func:`fit` found."""

    cloud: GaussianCloud
    quality: dict    # of held-out views, see quality_of
    iterations: int  # done; fewer than the settings allow when it stopped early


# Before the first view

def initialise(surface: Surface) -> GaussianCloud:
    """Gaussians as thin discs on a surface; a function of the surface alone.

    The standard deviation of a disc is 0.6 times the RMS distance to its three nearest neighbours, so that discs close
    the surface between them; its third axis is the normal.

    Args:
        surface: N points with normals and colours.

    Returns:
        N Gaussians of SH degree 0, in the order of the points.

    Raises:
        ValueError: The surface is empty, or its arrays do not fit one another.
    """
    from scipy.spatial import cKDTree
    points, count = np.asarray(surface.positions, np.float64), len(surface.positions)
    for name in ('positions', 'normals', 'colors'):
        found = np.shape(getattr(surface, name))
        if found != (count, 3) or count == 0:
            raise ValueError(f'surface: {name} has shape {found}, expected (N, 3) with one N of at least 1 for '
                             f'positions, normals and colors; positions has {np.shape(surface.positions)}')
    distances, _ = cKDTree(points).query(points, k=min(NEIGHBOURS + 1, count))
    sigma = SPREAD * np.sqrt(np.mean(distances[:, 1:] ** 2, axis=1)) if count > 1 else np.full(1, ALONE)
    scales = np.maximum(sigma, MIN_SIGMA)[:, None] * np.array([1.0, 1.0, THICKNESS])
    fields = dict(means=points, quats=_turn_z_to(np.asarray(surface.normals, np.float64)), log_scales=np.log(scales),
                  opacity_logits=np.full(count, math.log(OPACITY / (1 - OPACITY))),
                  sh=((np.asarray(surface.colors, np.float64) - 0.5) / SH_C0)[:, None])
    return GaussianCloud(**{name: torch.from_numpy(value.astype(np.float32)) for name, value in fields.items()})


def _turn_z_to(normals: np.ndarray) -> np.ndarray:
    """Unit quaternions (N, 4) of the shortest turns that take z to unit normals (N, 3)."""
    x, y, z = normals.T
    quats = np.stack([1 + z, -y, x, np.zeros_like(z)], 1)
    quats[1 + z < 1e-6] = [0.0, 1.0, 0.0, 0.0]  # z to -z: half a turn about x
    return quats / np.linalg.norm(quats, axis=1, keepdims=True)


# Against the views

def fit(cloud: GaussianCloud, train: Views, test: Views, background: tuple[float, float, float],
        settings: FitSettings = PRESETS['default'], seed: int = 0) -> Fitted:
    """Optimise Gaussians until they look like the views.

    The same arguments give the same bytes on one machine with one number of threads. Nothing random is drawn but the
    order of the views.

    Args:
        cloud: To begin with, in about the unit sphere; it is not changed.
        train: Views to fit.
        test: Views held out, for the quality and the early stop.
        background: Behind the object, sRGB in [0, 1].
        settings: See :class:`FitSettings`.
        seed: Of the order of the views.

    Returns:
        A :class:`Fitted`, its cloud on the device of the one given.

    Raises:
        ValueError: Views of a wrong shape or size, or that never show the object.
    """
    pictures, viewmats, intrinsics = _targets(train, 'train', background, cloud.device)
    targets = held_out, *_ = _targets(test, 'test', background, cloud.device)
    order = np.random.default_rng((seed, 0))
    parameters = _Parameters(cloud.with_sh_degree(settings.sh_degree), settings)
    height, width = pictures.shape[1:3]
    views: list[int] = []
    step, end, progress, last = 0, settings.iterations, 0.0, -math.inf
    while step < end:
        step += 1
        progress += (1 - progress) / (end - step + 1)
        views = views or order.permutation(len(pictures)).tolist()
        view = views.pop()
        current = parameters.cloud()
        drawn, _ = render(current, viewmats[view:view + 1], intrinsics[view:view + 1], width, height, background)
        parameters.step(_loss(drawn, pictures[view:view + 1], current, settings), progress)
        if settings.check_every and step % settings.check_every == 0 and step < end:
            psnr = float(_psnr(_draw(parameters.average(), targets, background), held_out).mean())
            if psnr < last + settings.min_gain:
                end = min(end, step + settings.check_every)
            last = psnr
    done = parameters.average()
    done = done[done.opacities >= settings.prune_opacity]
    return Fitted(done, quality_of(done, test, background), step)


class _Parameters:
    """The raw parameters of a cloud as Adam sees them, and their average over iterations."""

    def __init__(self, cloud: GaussianCloud, settings: FitSettings) -> None:
        fields = {name: value.detach().float() for name, value in cloud.fields()}
        # Degree 0 and the degrees above learn at different rates.
        fields |= dict(sh=fields['sh'][:, :1], sh_above=fields['sh'][:, 1:])
        self.live = {name: value.clone(memory_format=torch.contiguous_format).requires_grad_()
                     for name, value in fields.items() if value.numel()}
        self.mean = {name: value.detach().clone() for name, value in self.live.items()}
        rates = dict(means=settings.means_rate, quats=settings.quats_rate, log_scales=settings.scales_rate,
                     opacity_logits=settings.opacities_rate, sh=settings.colors_rate,
                     sh_above=settings.colors_rate / 20)
        groups = [dict(params=[value], lr=rates[name], rate=rates[name]) for name, value in self.live.items()]
        self.adam = torch.optim.Adam(groups, eps=1e-15, fused=True)
        self.settings, self.steps = settings, 0

    def cloud(self) -> GaussianCloud:
        """The cloud as it stands; gradients go back to the parameters."""
        return _join(self.live)

    def average(self) -> GaussianCloud:
        return _join(self.mean)

    def step(self, loss: Tensor, progress: float) -> None:
        """Go down the loss, at the rates of ``progress`` from 0 to 1."""
        loss.backward()
        for group in self.adam.param_groups:
            group['lr'] = group['rate'] * self.settings.decay ** progress
        self.adam.step()
        self.adam.zero_grad()
        # The first iterations, which go far, are forgotten sooner.
        self.steps += 1
        kept = min(self.settings.average, self.steps / (self.steps + 9))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.mean.values()), list(self.live.values()), 1 - kept)


def _join(fields: dict[str, Tensor]) -> GaussianCloud:
    if 'sh_above' not in fields:
        return GaussianCloud(**fields)
    sh = torch.cat([fields['sh'], fields['sh_above']], 1)
    return GaussianCloud(**{name: value for name, value in fields.items() if name != 'sh_above'} | dict(sh=sh))


def _loss(drawn: Tensor, pictures: Tensor, cloud: GaussianCloud, settings: FitSettings) -> Tensor:
    loss = (1 - settings.ssim_weight) * (drawn - pictures).abs().mean()
    if settings.ssim_weight:
        loss = loss + settings.ssim_weight * (1 - _ssim(drawn, pictures).mean())
    if settings.opacity_weight:
        loss = loss + settings.opacity_weight * cloud.opacities.mean()
    if settings.scale_weight:
        loss = loss + settings.scale_weight * cloud.scales.mean()
    return loss


# Quality

def quality_of(cloud: GaussianCloud, views: Views, background: tuple[float, float, float]) -> dict[str, float]:
    """How alike a cloud and views of the object look.

    Args:
        cloud: N Gaussians.
        views: V views, of at least 11 x 11 pixels.
        background: Behind both, sRGB in [0, 1].

    Returns:
        Means over the views of ``psnr``, of whole pictures, in dB, at most 100; ``psnr_foreground``, of the pixels
        where the view's alpha is over 0.5, of the views that have any; and ``ssim`` (Wang et al., "Image quality
        assessment: from error visibility to structural similarity", 2004): 11 x 11 Gaussian window of sigma 1.5
        pixels wherever it lies whole in the picture, each of R, G, B by itself.

    Raises:
        ValueError: Views of a wrong shape or size, or that never show the object.
    """
    targets = pictures, *_ = _targets(views, 'views', background, cloud.device)
    shown = torch.from_numpy(views.images[..., 3] > FOREGROUND).to(cloud.device)
    drawn = _draw(cloud, targets, background)
    seen = shown.flatten(1).any(1)
    return dict(psnr=float(_psnr(drawn, pictures).mean()),
                psnr_foreground=float(_psnr(drawn, pictures, shown)[seen].mean()),
                ssim=float(_ssim(drawn, pictures).mean()))


def _targets(views: Views, name: str, background: tuple[float, float, float],
             device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures (V, H, W, 3) on the background, view matrices and intrinsics of views that have been checked."""
    images = views.images
    if images.ndim != 4 or images.shape[3] != 4 or len(images) == 0:
        raise ValueError(f'{name}: images has shape {images.shape}, expected (V, H, W, 4), at least one view')
    if min(images.shape[1:3]) < WINDOW:
        raise ValueError(f'{name}: pictures are {images.shape[2]} x {images.shape[1]} pixels, expected at least '
                         f'{WINDOW} x {WINDOW}, the window of SSIM')
    for field, shape in (('viewmats', (len(images), 4, 4)), ('intrinsics', (len(images), 3, 3))):
        found = np.shape(getattr(views, field))
        if found != shape:
            raise ValueError(f'{name}: {field} has shape {found}, expected {shape}, one for each picture')
    if not (images[..., 3] > FOREGROUND).any():
        raise ValueError(f'{name}: none of {len(images)} pictures shows the object (alpha is nowhere over '
                         f'{FOREGROUND}); it is empty, out of the cameras\' sight, or too thin for its pixels')
    return tuple(torch.as_tensor(np.asarray(x, np.float32)).to(device)
                 for x in (composite(images, background), views.viewmats, views.intrinsics))


@torch.no_grad()
def _draw(cloud: GaussianCloud, targets: tuple[Tensor, Tensor, Tensor],
          background: tuple[float, float, float]) -> Tensor:
    """Pictures of the cloud from the cameras of the targets, in [0, 1]."""
    pictures, viewmats, intrinsics = targets
    height, width = pictures.shape[1:3]
    return render(cloud, viewmats, intrinsics, width, height, background)[0].clamp(0, 1)


def _psnr(drawn: Tensor, pictures: Tensor, pixels: Tensor | None = None) -> Tensor:
    """PSNR in dB of pictures (V, H, W, 3) with values in [0, 1], of all pixels or some (V, H, W); (V,)."""
    errors = (drawn.double() - pictures.double()).square().mean(3).flatten(1)
    if pixels is None:
        mse = errors.mean(1)
    else:
        weights = pixels.flatten(1).double()
        mse = (errors * weights).sum(1) / weights.sum(1)
    return -10 * mse.clamp_min(MIN_MSE).log10()


def _ssim(drawn: Tensor, pictures: Tensor) -> Tensor:
    """SSIM of pictures (V, H, W, 3) with values in [0, 1], differentiable, (V,); see :func:`quality_of`."""
    height, width = pictures.shape[1:3]
    down, across = _window_means(height, drawn), _window_means(width, drawn)
    a, b = drawn.movedim(3, 1), pictures.movedim(3, 1)
    a, b, aa, bb, ab = down @ torch.stack([a, b, a * a, b * b, a * b]) @ across.T
    similar = (2 * a * b + LUMINANCE) * (2 * (ab - a * b) + CONTRAST)
    largest = (a * a + b * b + LUMINANCE) * (aa - a * a + bb - b * b + CONTRAST)
    return (similar / largest).mean((1, 2, 3))


def _window_means(size: int, like: Tensor) -> Tensor:
    """The matrix (size - 10, size) that takes a row of pixels to its weighted means in SSIM's window."""
    offset = torch.arange(size)[None] - torch.arange(size - WINDOW + 1)[:, None] - WINDOW // 2
    weights = torch.exp(-offset.double() ** 2 / (2 * WINDOW_SIGMA ** 2)) * (offset.abs() <= WINDOW // 2)
    return (weights / weights.sum(1, keepdim=True)).to(like)
