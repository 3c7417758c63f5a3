"""Objects of different sizes, padded into one batch."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clipgs_plugin.structures.gaussian_cloud import FIELDS, SH_C0, GaussianCloud
from clipgs_plugin.structures.pointclouds import join_pointclouds, split_pointclouds

if TYPE_CHECKING:
    from pytorch3d.structures import Pointclouds


@dataclass(eq=False, repr=False)
class GaussianBatch:
    """B objects padded to the largest.

    Convention: entries at and beyond ``lengths`` are padding with value 0 (identity for quaternions). No result may
    depend on padding.
    """

    means: Tensor           # (B, N, 3)
    quats: Tensor           # (B, N, 4) wxyz
    log_scales: Tensor      # (B, N, 3)
    opacity_logits: Tensor  # (B, N)
    sh: Tensor              # (B, N, (degree + 1) ** 2, 3)
    lengths: Tensor         # (B,) int64, each 1..N

    def __post_init__(self) -> None:
        b, n = self.means.shape[:2]
        expected = {'means': (b, n, 3), 'quats': (b, n, 4), 'log_scales': (b, n, 3), 'opacity_logits': (b, n),
                    'sh': (b, n, self.sh.shape[2], 3), 'lengths': (b,)}
        for field, shape in expected.items():
            found = tuple(getattr(self, field).shape)
            if found != shape:
                raise ValueError(f'{field} has shape {found}, expected {shape} for {b} objects of up to {n} Gaussians')

    @classmethod
    def from_clouds(cls, clouds: Sequence[GaussianCloud]) -> GaussianBatch:
        """Pad clouds into a batch; lower SH degrees are padded with zero bands.

        Raises:
            ValueError: There is no cloud, a cloud is empty, or clouds have different dtypes.
        """
        if not clouds:
            raise ValueError('a GaussianBatch needs at least one GaussianCloud, got an empty list')
        for name in FIELDS:
            dtypes = sorted({str(getattr(cloud, name).dtype) for cloud in clouds})
            if len(dtypes) > 1:
                raise ValueError(f'{name} of the objects are of {", ".join(dtypes)}; a batch has one dtype, so convert '
                                 'the clouds, for instance with cloud.to(dtype=torch.float32)')
        degree = max(cloud.sh_degree for cloud in clouds)
        clouds = [cloud.with_sh_degree(degree) for cloud in clouds]
        lengths = torch.tensor([len(cloud) for cloud in clouds], device=clouds[0].device)
        if int(lengths.min()) == 0:
            raise ValueError(f'object {int(lengths.argmin())} of the batch has no Gaussians')
        padded = {name: torch.nn.utils.rnn.pad_sequence([getattr(c, name) for c in clouds], batch_first=True)
                  for name in FIELDS}
        batch = cls(**padded, lengths=lengths)
        batch.quats[~batch.mask] = batch.quats.new_tensor([1.0, 0.0, 0.0, 0.0])
        return batch

    def __len__(self) -> int:
        return self.means.shape[0]

    def __repr__(self) -> str:
        return (f'{type(self).__name__}({len(self)} objects of {int(self.lengths.min())} to '
                f'{int(self.lengths.max())} Gaussians, {self.means.device})')

    @property
    def device(self) -> torch.device:
        return self.means.device

    @property
    def mask(self) -> Tensor:
        """Mask of Gaussians, False at padding, (B, N) bool."""
        return torch.arange(self.means.shape[1], device=self.device) < self.lengths[:, None]

    @property
    def rgb(self) -> Tensor:
        """View-independent sRGB colours clamped to [0, 1], (B, N, 3)."""
        return (0.5 + SH_C0 * self.sh[:, :, 0]).clamp(0, 1)

    def fields(self) -> Iterator[tuple[str, Tensor]]:
        """Iterate over name and padded tensor of each Gaussian field, in the order of ``FIELDS``."""
        return ((name, getattr(self, name)) for name in FIELDS)

    def apply(self, fn: Callable[[Tensor], Tensor]) -> GaussianBatch:
        """Return a batch with ``fn`` applied to every tensor, ``lengths`` included."""
        return type(self)(**{name: fn(value) for name, value in self.fields()}, lengths=fn(self.lengths))

    def to(self, device=None, non_blocking: bool = False) -> GaussianBatch:
        return self.apply(lambda x: x.to(device=device, non_blocking=non_blocking))

    def pin_memory(self) -> GaussianBatch:
        return self.apply(Tensor.pin_memory)

    def __getitem__(self, index: int) -> GaussianCloud:
        n = int(self.lengths[index])
        return GaussianCloud(**{name: value[index, :n] for name, value in self.fields()})

    def to_clouds(self) -> list[GaussianCloud]:
        """Return the objects without padding."""
        return [self[i] for i in range(len(self))]

    def to_pointclouds(self, normals: bool = False) -> Pointclouds:
        """Return the objects as a ``pytorch3d.structures.Pointclouds``, whose features are the raw parameters.

        The columns of the features are the quaternion 4, log scales 3, opacity logit 1, and SH coefficients 3 K. Values
        are kept bit for bit, and gradients flow through.

        Args:
            normals: Add the shortest principal axes as normals, see :attr:`GaussianCloud.normals`.

        Raises:
            ModuleNotFoundError: pytorch3d is not installed.
            ValueError: Fields of an object have different dtypes.
        """
        return join_pointclouds(self.to_clouds(), normals)

    @classmethod
    def from_pointclouds(cls, pointclouds: Pointclouds) -> GaussianBatch:
        """Return the objects of a ``Pointclouds``, the inverse of :meth:`to_pointclouds`.

        Raises:
            ValueError: The features are not those of Gaussians, or a cloud is empty.
        """
        return cls.from_clouds([GaussianCloud(**fields) for fields in split_pointclouds(pointclouds)])
