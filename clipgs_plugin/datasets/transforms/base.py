"""What a transform is, and lists of them."""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from mmengine.dataset import Compose

from clipgs_plugin.registry import SCOPE, TRANSFORMS


class BaseTransform(ABC):
    """One step of a pipeline: takes the dict of an object and returns it.

    ``results['gaussians']`` is a :class:`~clipgs_plugin.GaussianCloud`, ``results['rng']`` a
    ``numpy.random.Generator``, the only source of randomness a transform may use. Clouds are replaced, never changed
    in place. The interface is that of mmcv, which need not be installed.
    """

    def __call__(self, results: dict) -> dict:
        return self.transform(results)

    @abstractmethod
    def transform(self, results: dict) -> dict:
        ...

    def __repr__(self) -> str:
        settings = ', '.join(f'{name}={value!r}' for name, value in vars(self).items() if not name.startswith('_'))
        return f'{type(self).__name__}({settings})'


def build_pipeline(transforms: Sequence[dict | Callable]) -> Compose:
    """Transforms, or configs of them, as one callable.

    Names are looked up here first, whatever mmengine's default scope is, so that a dataset can be used from another
    library's config; ``'mmdet3d.X'`` names that library's transform.
    """
    return Compose([TRANSFORMS.build({'_scope_': SCOPE, **transform}) if isinstance(transform, dict) else transform
                    for transform in transforms])
