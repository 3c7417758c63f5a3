"""Base class of the transforms, and pipelines of them."""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from mmengine.dataset import Compose

from clipgs_plugin.registry import SCOPE, TRANSFORMS


class BaseTransform(ABC):
    """One step of a pipeline, which takes and returns the dict of an object.

    ``results['gaussians']`` is a :class:`~clipgs_plugin.GaussianCloud`. ``results['rng']`` is a
    ``numpy.random.Generator``, the only source of randomness a transform may use. A transform replaces the cloud and
    never changes it in place. The interface equals that of mmcv, which is not required.
    """

    def __call__(self, results: dict) -> dict:
        return self.transform(results)

    @abstractmethod
    def transform(self, results: dict) -> dict:
        """Return the transformed dict of an object."""

    def __repr__(self) -> str:
        settings = ', '.join(f'{name}={value!r}' for name, value in vars(self).items() if not name.startswith('_'))
        return f'{type(self).__name__}({settings})'


def build_pipeline(transforms: Sequence[dict | Callable]) -> Compose:
    """Compose transforms or their configs into one callable.

    Names are looked up in this library first, in any default scope of mmengine, so that the config of another library
    can use a dataset. ``'mmdet3d.X'`` names a transform of another library.
    """
    return Compose([TRANSFORMS.build({'_scope_': SCOPE, **transform}) if isinstance(transform, dict) else transform
                    for transform in transforms])
