"""Settings of fits, and their presets."""
from __future__ import annotations

from dataclasses import dataclass

from clipgs_plugin.generation.fields import check_fields


@dataclass(frozen=True)
class FitSettings:
    """Settings of a fit of Gaussians to views.

    The rates are Adam's learning rates at the first iteration, for an object in the unit sphere. Each falls
    exponentially to ``decay`` times its value at the last iteration.

    Attributes:
        num_gaussians: Number of initial Gaussians, sampled from the surface.
        max_gaussians: Number of Gaussians after densification; None disables densification.
        target_psnr: PSNR of the held-out views, in dB, at which densification of an object ends; None densifies every
            object to ``max_gaussians``.
        grow_every: Iterations between two densification steps, each of which doubles the Gaussians.
        grow_until: Share of the iterations after which densification ends. Early densification gives a higher final
            PSNR; late densification knows better which object needs it.
        iterations: Maximum number of iterations, of one view each.
        sh_degree: SH degree of the colours, 0 to 3.
        ssim_weight: Weight of (1 - SSIM) in the loss; the weight of L1 is the rest. 3DGS has 0.2, which takes 1.4 times
            as long on a CPU.
        opacity_weight: Weight of the mean opacity in the loss, which thins out superfluous Gaussians.
        scale_weight: Weight of the mean standard deviation in the loss, which keeps Gaussians small.
        prune_opacity: Opacity below which Gaussians are removed at the end; densification replaces them.
        check_every: Iterations between two checks of the held-out views; 0 disables checks.
        min_gain: Minimum gain of held-out PSNR between two checks, in dB. After a smaller gain the learning rates fall
            to their last values over the next ``check_every`` iterations, and the fit ends.
        means_rate: Learning rate of the means, in units of the unit sphere.
        quats_rate: Learning rate of the quaternions.
        scales_rate: Learning rate of the log scales.
        opacities_rate: Learning rate of the opacity logits.
        colors_rate: Learning rate of the SH coefficients of degree 0; higher degrees have a twentieth, as in 3DGS.
        decay: Ratio of the last learning rates to the first.
        average: Decay of the exponential moving average of the parameters, which is the result: a step for one view
            harms the others a little. 0 returns the last parameters.

    Raises:
        ValueError: A value is out of range.
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
        check_fields(self)
        for names, valid, expected in (
                (('num_gaussians', 'iterations', 'grow_every'), lambda x: x >= 1, 'at least 1'),
                (('sh_degree',), range(4).__contains__, '0 to 3'),
                (('ssim_weight',), lambda x: 0 <= x <= 1, '0 to 1'),
                (('prune_opacity', 'average'), lambda x: 0 <= x < 1, 'at least 0 and less than 1'),
                (('decay', 'grow_until'), lambda x: 0 < x <= 1, 'more than 0 and at most 1'),
                (('opacity_weight', 'scale_weight', 'check_every', 'means_rate', 'quats_rate', 'scales_rate',
                  'opacities_rate', 'colors_rate'), lambda x: x >= 0, 'at least 0')):
            for name in names:
                if not valid(getattr(self, name)):
                    raise ValueError(f'{name}={getattr(self, name)}: expected {expected}')
        self._check_growth()

    def _check_growth(self) -> None:
        if self.max_gaussians is None:
            if self.target_psnr is not None:
                raise ValueError(f'target_psnr={self.target_psnr} ends densification, which max_gaussians=None '
                                 'disables; set max_gaussians')
            return
        if self.max_gaussians < self.num_gaussians:
            raise ValueError(f'max_gaussians={self.max_gaussians}: expected at least num_gaussians='
                             f'{self.num_gaussians}')
        largest = self.num_gaussians * 2 ** (self.last_growth // self.grow_every)
        if self.max_gaussians > largest:
            raise ValueError(f'max_gaussians={self.max_gaussians}: {self.num_gaussians} Gaussians that double every '
                             f'{self.grow_every} iterations until iteration {self.last_growth} reach {largest}; start '
                             'with more, or densify more often or longer')

    @property
    def last_growth(self) -> int:
        """Iteration after which densification ends."""
        return int(self.grow_until * self.iterations)


PRESETS = {
    'draft': FitSettings(num_gaussians=2_000, means_rate=1.5e-3, decay=0.6),  # for views of 64 px
    'default': FitSettings(),  # for views of 128 px
    # As many iterations as CLIP-GS, with the loss of the 3DGS code that it uses.
    'paper': FitSettings(iterations=5_000, check_every=500, ssim_weight=0.2),
}
