"""Optimisation of Gaussians until they reproduce the views of an object.

The optimisation is that of 3DGS (Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", 2023)
for an object in the unit sphere: one view an iteration, L1 and SSIM, Adam with a learning rate for each kind of
parameter. It starts from samples of the surface instead of a sparse reconstruction. So it needs hundreds of iterations
instead of thousands, and densification (:mod:`~clipgs_plugin.generation.fitting.densify`) only where the number of
Gaussians should follow the object.

The objects of a batch are optimised side by side, one view of each in an iteration, and independently.
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
from clipgs_plugin.generation.fitting.quality import Targets, make_targets, measure, render_targets
from clipgs_plugin.generation.fitting.settings import PRESETS, FitSettings
from clipgs_plugin.generation.objects import Views
from clipgs_plugin.ops import psnr, render_batch, ssim
from clipgs_plugin.structures import GaussianCloud


@dataclass(frozen=True, eq=False)
class Fitted:
    """Result of :func:`fit`."""

    cloud: GaussianCloud
    quality: dict    # of the held-out views, see quality_of
    iterations: int  # fewer than the settings allow after an early stop


def fit(cloud: GaussianCloud, train: Views, test: Views, background: tuple[float, float, float],
        settings: FitSettings = PRESETS['default'], seed: int = 0) -> Fitted:
    """Optimise Gaussians until they reproduce the views.

    On a CPU the same arguments give the same bytes, on one machine with one number of threads. Only the view order is
    random.

    Args:
        cloud: Initial Gaussians in about the unit sphere; they are not changed.
        train: Views to fit.
        test: Held-out views, for the quality, the early stop and the end of densification.
        background: Background behind the object, sRGB in [0, 1].
        settings: Settings of the fit.
        seed: Seed of the view order.

    Returns:
        The result, on the device of ``cloud``.

    Raises:
        ValueError: The views have a wrong shape or size, or never show the object.
    """
    return fit_many([cloud], [train], [test], background, settings, [seed])[0]


def fit_many(clouds: Sequence[GaussianCloud], trains: Sequence[Views], tests: Sequence[Views],
             background: tuple[float, float, float], settings: FitSettings, seeds: Sequence[int]) -> list[Fitted]:
    """Fit several objects at once, with the arguments of :func:`fit` for each object.

    On CUDA one call renders all objects with images of one size. On a CPU this saves nothing. Each object has its own
    view order, last iteration and learning rates, so its result does not depend on the others. On a CPU the bytes are
    those of :func:`fit`; with SSIM in the loss the last digit may differ.

    Returns:
        The results in the given order.

    Raises:
        ValueError: The numbers of clouds, views and seeds differ; or the views of an object have a wrong shape or size,
            or never show it.
    """
    counts = [len(x) for x in (clouds, trains, tests, seeds)]
    if len(set(counts)) > 1:
        raise ValueError('clouds, trains, tests and seeds have {}, {}, {} and {} entries: expected one of each for '
                         'every object'.format(*counts))
    names = [''] if len(clouds) == 1 else [f' of object {i}' for i in range(len(clouds))]
    objects = [
        _Object(cloud, make_targets(train, f'train{name}', background, cloud.device),
                make_targets(test, f'test{name}', background, cloud.device), settings, seed)
        for cloud, train, test, seed, name in zip(clouds, trains, tests, seeds, names)]
    for _, batch in groupby(sorted(objects, key=_batch_key), key=_batch_key):
        _optimise(list(batch), background, settings)
    return [Fitted(x.result, measure(x.result, x.test, background), x.end) for x in objects]


class _Object:
    """State of the fit of one object: raw parameters, their moving average, and schedules."""

    def __init__(self, cloud: GaussianCloud, train: Targets, test: Targets, settings: FitSettings, seed: int) -> None:
        self.train, self.test, self.settings = train, test, settings
        self.live = {name: _leaf(value) for name, value in
                     _to_parameters(cloud.with_sh_degree(settings.sh_degree)).items()}
        self.mean = {name: value.detach().clone() for name, value in self.live.items()}
        self.order = _view_order(len(train.images), settings.iterations, seed).to(cloud.device)
        self.end, self.progress, self.psnr = settings.iterations, 0.0, -math.inf
        self.growth = growth_schedule(len(cloud), settings.max_gaussians or 0, settings.grow_every,
                                      settings.last_growth)
        self.gradients = torch.zeros(len(cloud), device=cloud.device)  # norms, of the means, since the last growth

    @property
    def cloud(self) -> GaussianCloud:
        """The current Gaussians, differentiable."""
        return _to_cloud(self.live)

    @property
    def result(self) -> GaussianCloud:
        average = _to_cloud(self.mean)
        return average[average.opacities >= self.settings.prune_opacity]

    def advance(self, step: int) -> None:
        """Update the progress, which reaches 1 at the last iteration even if that has been moved."""
        self.progress += (1 - self.progress) / (self.end - step + 1)

    def check_and_grow(self, step: int, background: tuple[float, float, float], state: dict[Tensor, dict]) -> bool:
        """Run the check and the densification that are due; ``state`` is Adam's.

        Returns:
            True if the parameters or the schedule have changed, or the object is finished.
        """
        if step == self.end:
            return True
        before = self.end
        every, target = self.settings.check_every, self.settings.target_psnr
        is_check = every > 0 and step % every == 0
        if is_check or (target is not None and step in self.growth):
            images = render_targets(_to_cloud(self.mean), self.test, background)
            found = float(psnr(images, self.test.images).mean())
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
        """Split Gaussians until ``count`` are reached; unchanged ones keep their moments in Adam."""
        cloud, kept = grow(_to_cloud({name: value.detach() for name, value in self.live.items()}), self.gradients,
                           count, self.settings.prune_opacity)
        for name, value in _to_parameters(cloud).items():
            new, moments = value[len(kept):], state.pop(self.live[name])
            for moment in ('exp_avg', 'exp_avg_sq'):
                moments[moment] = torch.cat([moments[moment][kept], torch.zeros_like(new)])
            self.live[name], self.mean[name] = _leaf(value), torch.cat([self.mean[name][kept], new])
            state[self.live[name]] = moments
        self.gradients = self.gradients.new_zeros(count)


def _batch_key(x: _Object) -> tuple:
    """Device and image size; objects of equal ones are optimised together."""
    return str(x.train.images.device), *x.train.images.shape[1:3]


def _view_order(count: int, iterations: int, seed: int) -> Tensor:
    """Return the view of each iteration: all ``count`` views in random order, again and again."""
    rng = np.random.default_rng((seed, 0))
    rounds = [rng.permutation(count)[::-1] for _ in range(math.ceil(iterations / count))]
    return torch.from_numpy(np.concatenate(rounds)[:iterations])


def _to_parameters(cloud: GaussianCloud) -> dict[str, Tensor]:
    """Return the raw tensors by name; SH of degree 0 and of higher degrees are separate."""
    fields = {name: value.detach().float() for name, value in cloud.fields()}
    fields |= dict(sh=fields['sh'][:, :1], sh_above=fields['sh'][:, 1:])
    return {name: value for name, value in fields.items() if value.numel()}


def _to_cloud(parameters: dict[str, Tensor]) -> GaussianCloud:
    fields = dict(parameters)
    if 'sh_above' in fields:
        fields['sh'] = torch.cat([fields['sh'], fields.pop('sh_above')], 1)
    return GaussianCloud(**fields)


def _leaf(value: Tensor) -> Tensor:
    return value.clone(memory_format=torch.contiguous_format).requires_grad_()


def _optimise(objects: list[_Object], background: tuple[float, float, float], settings: FitSettings) -> None:
    """Fit objects with images of one size on one device, each until its last iteration."""
    images, viewmats, intrinsics, _ = (torch.cat(values) for values in zip(*(x.train for x in objects)))
    height, width = images.shape[1:3]
    first = dict(zip(objects, np.cumsum([0] + [len(x.train.images) for x in objects]).tolist()))
    step, changed, state = 0, True, {}
    while objects:
        if changed:
            adam, order = _adam(objects, state, settings), torch.stack([x.order + first[x] for x in objects])
            state = adam.state
        views, clouds = order[:, step], [x.cloud for x in objects]
        step += 1
        rendered, _ = render_batch(clouds, viewmats[views, None], intrinsics[views, None], width, height, background)
        _loss(rendered[:, 0], images[views], clouds, settings).backward()
        _update(adam, objects, step, settings)
        changed = any([x.check_and_grow(step, background, state) for x in objects])
        objects = [x for x in objects if step < x.end]


def _adam(objects: list[_Object], state: dict[Tensor, dict], settings: FitSettings) -> torch.optim.Adam:
    """Return Adam for the parameters of all objects, with ``state``; parameters of one learning rate share a group."""
    rates = dict(means=settings.means_rate, quats=settings.quats_rate, log_scales=settings.scales_rate,
                 opacity_logits=settings.opacities_rate, sh=settings.colors_rate, sh_above=settings.colors_rate / 20)
    groups = {}
    for x in objects:
        for name, value in x.live.items():
            # Objects with the same last iteration have had the same progress throughout.
            groups.setdefault((name, x.end), dict(params=[], rate=rates[name], of=x))['params'].append(value)
    adam = torch.optim.Adam(groups.values(), eps=1e-15, fused=True)
    adam.state.update((value, state[value]) for x in objects for value in x.live.values() if value in state)
    return adam


def _update(adam: torch.optim.Adam, objects: list[_Object], step: int, settings: FitSettings) -> None:
    """Take a step of Adam, clear the gradients, and update the averages."""
    for x in objects:
        x.advance(step)
        if x.growth:
            x.gradients += x.live['means'].grad.norm(dim=1)
    for group in adam.param_groups:
        group['lr'] = group['rate'] * settings.decay ** group['of'].progress
    adam.step()
    adam.zero_grad()
    # The first iterations change the parameters most and are forgotten sooner.
    kept = min(settings.average, step / (step + 9))
    with torch.no_grad():
        torch._foreach_lerp_([x for o in objects for x in o.mean.values()],
                             [x for o in objects for x in o.live.values()], 1 - kept)


def _loss(rendered: Tensor, images: Tensor, clouds: list[GaussianCloud], settings: FitSettings) -> Tensor:
    """Return the sum of the losses of objects with one image each."""
    loss = (1 - settings.ssim_weight) * (rendered - images).abs().mean((1, 2, 3)).sum()
    if settings.ssim_weight:
        loss = loss + settings.ssim_weight * (1 - ssim(rendered, images)).sum()
    if settings.opacity_weight:
        loss = loss + settings.opacity_weight * sum(cloud.opacities.mean() for cloud in clouds)
    if settings.scale_weight:
        loss = loss + settings.scale_weight * sum(cloud.scales.mean() for cloud in clouds)
    return loss
