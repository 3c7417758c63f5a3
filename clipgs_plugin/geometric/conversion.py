"""Objects as one list of nodes with a batch vector, and as a padded batch."""
from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Batch
from torch_geometric.utils import to_dense_batch

from clipgs_plugin.geometric.data import NODE_FIELDS, GaussianData
from clipgs_plugin.structures import GaussianBatch, GaussianCloud
from clipgs_plugin.structures.attributes import NUM_RAW, RAW_SLICES, SH_C0, pack

NUM_CHANNELS = NUM_RAW - 3  # of node_channels


def to_gaussian_batch(data: GaussianData) -> GaussianBatch:
    """Pad the objects of a :class:`GaussianData`, or of a PyG batch of them, into one GaussianBatch.

    Values are kept bit for bit, and gradients flow through.

    Raises:
        ValueError: The batch vector is not sorted, or an object has no Gaussians.
    """
    batch = data.batch if 'batch' in data else None
    return _pad({field: data[name] for name, field in NODE_FIELDS.items()}, batch,
                data.num_graphs if batch is not None else 1)


def from_gaussian_batch(batch: GaussianBatch) -> Batch:
    """Return the objects of a padded batch as a PyG batch of :class:`GaussianData`, without padding."""
    return Batch.from_data_list([GaussianData.from_cloud(cloud) for cloud in batch.to_clouds()])


def node_channels(gaussians: GaussianData | GaussianCloud) -> Tensor:
    """Return what describes a Gaussian besides its position, (N, 11).

    The raw channels of CLIP-GS in the order of the paper: sRGB 3, opacity logit 1, log scale 3, quaternion wxyz 4.
    """
    if isinstance(gaussians, GaussianData):
        gaussians = GaussianCloud(**{field: gaussians[name] for name, field in NODE_FIELDS.items()})
    return pack(gaussians)[:, RAW_SLICES['xyz'].stop:]


def channels_to_batch(
    x: Tensor,                      # (N, 11) see node_channels
    pos: Tensor,                    # (N, 3)
    batch: Tensor | None = None,    # (N,) int64, sorted; None is one object
) -> GaussianBatch:
    """Pad nodes into a GaussianBatch of SH degree 0.

    Raises:
        ValueError: A shape does not fit, the batch vector is not sorted, or an object has no Gaussians.
    """
    if x.ndim != 2 or x.shape[1] != NUM_CHANNELS or pos.shape != (len(x), 3):
        raise ValueError(f'x has shape {tuple(x.shape)} and pos {tuple(pos.shape)}, expected (N, {NUM_CHANNELS}) and '
                         '(N, 3); node_channels(data) makes x')
    raw = torch.cat([pos, x], dim=1)
    channel = {name: raw[:, columns] for name, columns in RAW_SLICES.items()}
    fields = dict(means=channel['xyz'], quats=channel['quat'], log_scales=channel['scale'],
                  opacity_logits=channel['opacity'][:, 0], sh=((channel['rgb'] - 0.5) / SH_C0)[:, None])
    return _pad(fields, batch, None)


def _pad(fields: dict[str, Tensor], batch: Tensor | None, num_graphs: int | None) -> GaussianBatch:
    """Pad the fields of a GaussianCloud, concatenated over objects, to (B, N, ...)."""
    count = len(fields['means'])
    if batch is None:
        batch = fields['means'].new_zeros(count, dtype=torch.long)
    if bool((batch[1:] < batch[:-1]).any()):
        raise ValueError('the batch vector is not sorted; expected the nodes object after object, as '
                         'torch_geometric.data.Batch has them')
    lengths = torch.bincount(batch, minlength=num_graphs or 0)
    if count == 0 or int(lengths.min()) == 0:
        raise ValueError(f'object {int(lengths.argmin()) if count else 0} of the batch has no Gaussians')
    padded = {name: to_dense_batch(value, batch)[0] for name, value in fields.items()}
    mask = torch.arange(padded['means'].shape[1], device=batch.device) < lengths[:, None]
    identity = padded['quats'].new_tensor([1.0, 0.0, 0.0, 0.0])
    padded['quats'] = torch.where(mask[..., None], padded['quats'], identity)
    return GaussianBatch(**padded, lengths=lengths)
