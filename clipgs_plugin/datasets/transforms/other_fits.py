"""Transform that draws one of several fits of an object."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clipgs_plugin.datasets.transforms.base import BaseTransform
from clipgs_plugin.io import read_gaussians
from clipgs_plugin.registry import TRANSFORMS


@TRANSFORMS.register_module()
class DrawFit(BaseTransform):
    """Random choice between the fits of an object by several recipes, so that models do not rely on one.

    It is the first step of a pipeline, before LoadGaussians. A folder holds files CATEGORY/UID.ply and need not have
    all objects; `tools/benchmark.py refits` writes such folders.

    Args:
        roots: Folders of other fits.
        probability: Probability of another fit for an object that has one, in [0, 1]; the fits of an object are
            equally likely.
    """

    def __init__(self, roots: str | Sequence[str], probability: float = 0.5) -> None:
        if not 0 <= probability <= 1:
            raise ValueError(f'probability={probability}: expected a number in [0, 1]')
        self.roots = tuple(map(Path, (roots,) if isinstance(roots, str) else roots))
        for root in self.roots:
            if not root.is_dir():
                raise FileNotFoundError(f'roots: {root} is no folder; expected one of files CATEGORY/UID.ply, as '
                                        '`tools/benchmark.py refits` writes them')
        self.probability = probability

    def transform(self, results: dict) -> dict:
        name = Path(results['category'], f'{results["uid"]}.ply')
        fits = [root / name for root in self.roots if (root / name).is_file()]
        if results['rng'].random() < self.probability and fits:
            results['gaussians'] = read_gaussians(fits[results['rng'].integers(len(fits))])
        return results
