"""Gaussians that look like an object: discs on its surface, then optimised against its views.

The optimisation is that of 3DGS (Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", 2023)
for one object in the unit sphere: one view a step, L1 and SSIM, Adam with a rate for each kind of parameter. It starts
from samples of the surface in place of a sparse reconstruction, so it needs hundreds of iterations in place of
thousands, and growth only where the count shall follow the object (:mod:`~clipgs_plugin.generation.fitting.densify`).

Objects of one batch go through it side by side, one view of each in a step, and know nothing of one another.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from clipgs_plugin.generation.fitting.densify import grow, growth_schedule
from clipgs_plugin.generation.fitting.quality import Targets, draw, quality_against, quality_of, targets_of
from clipgs_plugin.generation.objects import Views
from clipgs_plugin.ops import psnr, render_batch, ssim
from clipgs_plugin.structures import GaussianCloud

__all__ = ['PRESETS', 'FitSettings', 'Fitted', 'fit', 'fit_many', 'quality_of']


@dataclass(frozen=True)
class FitSettings:
    """How Gaussians are fitted to views.

    Rates are those of Adam at the first iteration, for an object in the unit sphere; each falls exponentially to
    ``decay`` of itself at the last.

    Attributes:
        num_gaussians: Samples of the surface to begin with; :func:`fit` takes what it is given.
        max_gaussians: To grow to; None leaves their number as it is.
        target_psnr: An object whose held-out views have reached it, in dB, grows no more, so that the number follows
            what there is to show; None grows every object to the end.
        grow_every: Iterations after which there are twice as many, until there are ``max_gaussians``.
        grow_until: Share of the iterations after which nothing grows, so that the rest can settle. Early growth shows
            more in the end; late growth knows better which object needs it.
        iterations: At most; one view each.
        sh_degree: Of the colours, 0 to 3.
        ssim_weight: Share of (1 - SSIM) in the loss, the rest is L1; 3DGS has 0.2, which takes 1.4 times as long on a
            CPU.
        opacity_weight: Of the mean opacity in the loss, which thins out what views do not need.
        scale_weight: Of the mean standard deviation in the loss, which keeps Gaussians small.
        prune_opacity: Gaussians of less opacity are left out at the end; growth replaces them.
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
    max_gaussians: int | None = None
    target_psnr: float | None = None
    grow_every: int = 25
    grow_until: float = 0.3
    iterations: int = 500
    sh_degree: int = 0
    ssim_weight: float = 0.0
    opacity_weight: float = 1e-3
    scale_weight: float = 1e-2
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
        for name in ('num_gaussians', 'iterations', 'grow_every'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name}={getattr(self, name)}: expected at least 1')
        if self.sh_degree not in range(4):
            raise ValueError(f'sh_degree={self.sh_degree}: expected 0 to 3')
        if not 0 <= self.ssim_weight <= 1:
            raise ValueError(f'ssim_weight={self.ssim_weight}: expected 0 to 1')
        if not 0 <= self.prune_opacity < 1:
            raise ValueError(f'prune_opacity={self.prune_opacity}: expected 0 or more, below 1')
        for name in ('opacity_weight', 'scale_weight', 'check_every', 'means_rate', 'quats_rate', 'scales_rate',
                     'opacities_rate', 'colors_rate'):
            if getattr(self, name) < 0:
                raise ValueError(f'{name}={getattr(self, name)}: expected 0 or more')
        for name in ('decay', 'grow_until'):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f'{name}={getattr(self, name)}: expected more than 0, at most 1')
        if not 0 <= self.average < 1:
            raise ValueError(f'average={self.average}: expected 0 or more, under 1')
        self._check_growth()

    def _check_growth(self) -> None:
        if self.max_gaussians is None:
            if self.target_psnr is not None:
                raise ValueError(f'target_psnr={self.target_psnr} ends growth, and without max_gaussians nothing grows')
            return
        if self.max_gaussians < self.num_gaussians:
            raise ValueError(f'max_gaussians={self.max_gaussians}: expected at least num_gaussians='
                             f'{self.num_gaussians}, from which it grows')
        events = self.last_growth // self.grow_every
        if self.max_gaussians > self.num_gaussians * 2 ** events:
            raise ValueError(f'max_gaussians={self.max_gaussians}: {self.num_gaussians} Gaussians grow twofold at most '
                             f'every {self.grow_every} iterations until {self.last_growth}, to '
                             f'{self.num_gaussians * 2 ** events}; begin with more, or grow more often or longer')

    @property
    def last_growth(self) -> int:
        """The iteration after which nothing grows."""
        return int(self.grow_until * self.iterations)


PRESETS = {
    'draft': FitSettings(num_gaussians=2_000, means_rate=1.5e-3, decay=0.6),  # for views of 64 px
    'default': FitSettings(),  # 128 px
    # As long as CLIP-GS fits, with the loss of the code that it fits with.
    'paper': FitSettings(iterations=5_000, check_every=500, ssim_weight=0.2),
}


@dataclass(frozen=True, eq=False)
class Fitted:
    """What :func:`fit` found."""

    cloud: GaussianCloud
    quality: dict    # of held-out views, see quality_of
    iterations: int  # done; fewer than the settings allow when it stopped early


def fit(cloud: GaussianCloud, train: Views, test: Views, background: tuple[float, float, float],
        settings: FitSettings = PRESETS['default'], seed: int = 0) -> Fitted:
    """Optimise Gaussians until they look like the views.

    On a CPU the same arguments give the same bytes, on one machine with one number of threads. Nothing random is drawn
    but the order of the views.

    Args:
        cloud: To begin with, in about the unit sphere; it is not changed.
        train: Views to fit.
        test: Views held out, for the quality, the early stop and the end of growth.
        background: Behind the object, sRGB in [0, 1].
        settings: See :class:`FitSettings`.
        seed: Of the order of the views.

    Returns:
        A :class:`Fitted`, its cloud on the device of the one given.

    Raises:
        ValueError: Views of a wrong shape or size, or that never show the object.
    """
    return fit_many([cloud], [train], [test], background, settings, [seed])[0]


def fit_many(clouds: Sequence[GaussianCloud], trains: Sequence[Views], tests: Sequence[Views],
             background: tuple[float, float, float], settings: FitSettings, seeds: Sequence[int]) -> list[Fitted]:
    """:func:`fit` of several objects at once, which is what fills a GPU.

    On CUDA all objects with pictures of one size are drawn by one call a step. On a CPU they are drawn one after
    another, which saves nothing.

    Each has its own order of views, its own end and its own rates, so what becomes of it does not depend on the others.
    On a CPU the bytes are those of :func:`fit`; with SSIM in the loss they may differ in the last place.

    Args:
        clouds: B clouds to begin with; each is fitted on its own device.
        trains: Views to fit, of each.
        tests: Views held out, of each.
        background: Behind all of them, sRGB in [0, 1].
        settings: Of all of them.
        seeds: Of each.

    Returns:
        B :class:`Fitted`, in the order given.

    Raises:
        ValueError: As many clouds as views and seeds are expected; or views as :func:`fit` refuses, said of which.
    """
    counts = [len(x) for x in (clouds, trains, tests, seeds)]
    if len(set(counts)) > 1:
        raise ValueError('clouds, trains, tests and seeds have {}, {}, {} and {} entries: expected as many of each'
                         .format(*counts))
    names = [''] if len(clouds) == 1 else [f' of object {i}' for i in range(len(clouds))]
    objects = [
        _Object(cloud, targets_of(train, f'train{name}', background, cloud.device),
                targets_of(test, f'test{name}', background, cloud.device), settings, seed)
        for cloud, train, test, seed, name in zip(clouds, trains, tests, seeds, names)]
    for _, batch in groupby(sorted(objects, key=_alike), key=_alike):
        _optimise(list(batch), background, settings)
    return [Fitted(x.result, quality_against(x.result, x.test, background), x.end) for x in objects]


class _Object:
    """One object on its way: raw parameters as Adam sees them, their average over iterations, and a schedule."""

    def __init__(self, cloud: GaussianCloud, train: Targets, test: Targets, settings: FitSettings, seed: int) -> None:
        self.train, self.test, self.settings = train, test, settings
        self.live = {name: _leaf(value) for name, value in
                     _parameters(cloud.with_sh_degree(settings.sh_degree)).items()}
        self.mean = {name: value.detach().clone() for name, value in self.live.items()}
        self.order = _order(len(train.pictures), settings.iterations, seed).to(cloud.device)
        self.end, self.progress, self.psnr = settings.iterations, 0.0, -math.inf
        self.growth = growth_schedule(len(cloud), settings.max_gaussians or 0, settings.grow_every,
                                      settings.last_growth)
        self.pulls = torch.zeros(len(cloud), device=cloud.device)  # on each mean, summed since the last growth

    @property
    def cloud(self) -> GaussianCloud:
        """As it stands; gradients go back to the parameters."""
        return _cloud(self.live)

    @property
    def average(self) -> GaussianCloud:
        return _cloud(self.mean)

    @property
    def result(self) -> GaussianCloud:
        return self.average[self.average.opacities >= self.settings.prune_opacity]

    def advance(self, step: int) -> None:
        """Bring the progress to that of a step: 1 at the last, wherever that is by now."""
        self.progress += (1 - self.progress) / (self.end - step + 1)

    def settle(self, step: int, background: tuple[float, float, float], state: dict[Tensor, dict]) -> bool:
        """Look and grow where it is time for it; ``state`` is Adam's.

        Returns:
            Whether the parameters or the schedule are others now, or the object has come to its end.
        """
        if step == self.end:
            return True
        before = self.end
        every, target = self.settings.check_every, self.settings.target_psnr
        is_check = every > 0 and step % every == 0
        if is_check or (target is not None and step in self.growth):
            found = float(psnr(draw(self.average, self.test, background), self.test.pictures).mean())
            if target is not None and found >= target:
                self.growth = {}
            if is_check:
                if found < self.psnr + self.settings.min_gain and not self.growth:
                    self.end = min(self.end, step + every)
                self.psnr = found
        count = self.growth.pop(step, None)
        if count:
            self._grow(count, state)
        return count is not None or self.end != before

    def _grow(self, count: int, state: dict[Tensor, dict]) -> None:
        """Split Gaussians until there are ``count``; what Adam knows of those that stay is kept."""
        cloud, kept = grow(_cloud({name: value.detach() for name, value in self.live.items()}), self.pulls, count,
                           self.settings.prune_opacity)
        for name, value in _parameters(cloud).items():
            fresh, known = value[len(kept):], state.pop(self.live[name])
            for moment in ('exp_avg', 'exp_avg_sq'):
                known[moment] = torch.cat([known[moment][kept], torch.zeros_like(fresh)])
            self.live[name], self.mean[name] = _leaf(value), torch.cat([self.mean[name][kept], fresh])
            state[self.live[name]] = known
        self.pulls = self.pulls.new_zeros(count)


def _order(count: int, iterations: int, seed: int) -> Tensor:
    """Which of ``count`` views each iteration takes: all of them in random order, again and again."""
    rng = np.random.default_rng((seed, 0))
    rounds = [rng.permutation(count)[::-1] for _ in range(math.ceil(iterations / count))]
    return torch.from_numpy(np.concatenate(rounds)[:iterations])


def _parameters(cloud: GaussianCloud) -> dict[str, Tensor]:
    """Raw tensors that learn at different rates; SH of degree 0 and of the degrees above are two."""
    fields = {name: value.detach().float() for name, value in cloud.fields()}
    fields |= dict(sh=fields['sh'][:, :1], sh_above=fields['sh'][:, 1:])
    return {name: value for name, value in fields.items() if value.numel()}


def _cloud(parameters: dict[str, Tensor]) -> GaussianCloud:
    if 'sh_above' not in parameters:
        return GaussianCloud(**parameters)
    sh = torch.cat([parameters['sh'], parameters['sh_above']], 1)
    return GaussianCloud(**{name: value for name, value in parameters.items() if name != 'sh_above'} | dict(sh=sh))


def _leaf(value: Tensor) -> Tensor:
    return value.clone(memory_format=torch.contiguous_format).requires_grad_()


def _alike(x: _Object) -> tuple:
    """Objects of which this is the same are drawn together."""
    return str(x.train.pictures.device), *x.train.pictures.shape[1:3]


def _optimise(objects: list[_Object], background: tuple[float, float, float], settings: FitSettings) -> None:
    """Fit objects on one device, with pictures of one size, each until it has come to its end."""
    pictures, viewmats, intrinsics, _ = (torch.cat(values) for values in zip(*(x.train for x in objects)))
    height, width = pictures.shape[1:3]
    first = dict(zip(objects, np.cumsum([0] + [len(x.train.pictures) for x in objects]).tolist()))
    step, changed, state = 0, True, {}
    while objects:
        if changed:
            adam, order = _adam(objects, state, settings), torch.stack([x.order + first[x] for x in objects])
            state = adam.state
        views, clouds = order[:, step], [x.cloud for x in objects]
        step += 1
        drawn, _ = render_batch(clouds, viewmats[views, None], intrinsics[views, None], width, height, background)
        _loss(drawn[:, 0], pictures[views], clouds, settings).backward()
        _descend(adam, objects, step, settings)
        changed = any([x.settle(step, background, state) for x in objects])
        objects = [x for x in objects if step < x.end]


def _adam(objects: list[_Object], state: dict[Tensor, dict], settings: FitSettings) -> torch.optim.Adam:
    """Adam over the parameters of all objects, which goes on from ``state``; parameters of one rate are one group."""
    rates = dict(means=settings.means_rate, quats=settings.quats_rate, log_scales=settings.scales_rate,
                 opacity_logits=settings.opacities_rate, sh=settings.colors_rate, sh_above=settings.colors_rate / 20)
    groups = {}
    for x in objects:
        for name, value in x.live.items():
            # Objects that end at one step have been at one progress ever since the start.
            groups.setdefault((name, x.end), dict(params=[], rate=rates[name], of=x))['params'].append(value)
    adam = torch.optim.Adam(groups.values(), eps=1e-15, fused=True)
    adam.state.update((value, state[value]) for x in objects for value in x.live.values() if value in state)
    return adam


def _descend(adam: torch.optim.Adam, objects: list[_Object], step: int, settings: FitSettings) -> None:
    """A step down the gradients, which are used up, and the averages after it."""
    for x in objects:
        x.advance(step)
        if x.growth:
            x.pulls += x.live['means'].grad.norm(dim=1)
    for group in adam.param_groups:
        group['lr'] = group['rate'] * settings.decay ** group['of'].progress
    adam.step()
    adam.zero_grad()
    # The first iterations, which go far, are forgotten sooner.
    kept = min(settings.average, step / (step + 9))
    with torch.no_grad():
        torch._foreach_lerp_([x for o in objects for x in o.mean.values()],
                             [x for o in objects for x in o.live.values()], 1 - kept)


def _loss(drawn: Tensor, pictures: Tensor, clouds: list[GaussianCloud], settings: FitSettings) -> Tensor:
    """The sum of the losses of objects, of each of which there is one picture."""
    loss = (1 - settings.ssim_weight) * (drawn - pictures).abs().mean((1, 2, 3)).sum()
    if settings.ssim_weight:
        loss = loss + settings.ssim_weight * (1 - ssim(drawn, pictures)).sum()
    if settings.opacity_weight:
        loss = loss + settings.opacity_weight * sum(cloud.opacities.mean() for cloud in clouds)
    if settings.scale_weight:
        loss = loss + settings.scale_weight * sum(cloud.scales.mean() for cloud in clouds)
    return loss
