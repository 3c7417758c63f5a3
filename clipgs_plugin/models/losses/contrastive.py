"""Symmetric contrastive loss, and the terms it shares with the image voting loss."""
from __future__ import annotations

from functools import reduce

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clipgs_plugin.registry import MODELS

KINDS = ('softmax', 'sigmoid')
COLLISIONS = ('keep', 'mask', 'positive')
INITIAL_BIAS = -10.0  # of SigLIP: with as many negatives as in a large batch, a pair is unlikely to match


def contrastive_terms(
    a: Tensor,                  # (N, E) unit rows
    b: Tensor,                  # (N, K, E) unit rows; b[i, k] belongs to a[i]
    all_a: Tensor,              # (M, E) unit rows, the candidates for b; a is all_a[first:first + N]
    all_b: Tensor,              # (M, K, E) unit rows, the candidates for a
    logit_scale: Tensor | float,  # scalar or (1,)
    first: int = 0,
    pool_slots: bool = False,
    ids: Tensor | None = None,  # (M,) int64
    collisions: str = 'keep',
) -> Tensor:
    """Return the cross entropy of every pair (a_i, b_ik), averaged over both directions, (N, K).

    The candidates of ``a_i`` are those of slot k, or of all slots with ``pool_slots``. The candidates of ``b_ik`` are
    all objects. See :class:`ContrastiveLoss` for ``ids`` and ``collisions``.
    """
    local = torch.arange(len(a), device=a.device)
    own = local + first
    to_b = logit_scale * torch.einsum('ie,jke->ijk', a, all_b)  # (N, M, K)
    to_a = logit_scale * torch.einsum('ike,je->ijk', b, all_a)
    if collisions == 'positive':
        same = (ids[own, None] == ids)[..., None]               # (N, M, 1)
        target = (to_b + to_a).masked_fill(~same, 0).sum(1) / same.sum(1)
    else:
        target = to_b[local, own] + to_a[local, own]            # (N, K)
    if collisions == 'mask':
        twins = ids[own, None] == ids
        twins[local, own] = False
        to_b, to_a = (x.masked_fill(twins[..., None], -torch.inf) for x in (to_b, to_a))
    log_partition = to_b.logsumexp((1, 2) if pool_slots else 1)
    return (log_partition.view(len(a), -1) + to_a.logsumexp(1) - target) / 2


def sigmoid_terms(
    a: Tensor,                  # (N, E) unit rows
    all_b: Tensor,              # (M, E) unit rows, the candidates for a; b[i] of a[i] is all_b[first + i]
    logit_scale: Tensor | float,  # scalar or (1,)
    logit_bias: Tensor,         # (1,)
    first: int = 0,
    ids: Tensor | None = None,  # (M,) int64
    collisions: str = 'keep',
) -> Tensor:
    """Return the sum of -log sigmoid(z (scale a_i b_j + bias)) over all candidates j of each a_i, (N,).

    z is 1 for pairs and -1 for others. See :class:`ContrastiveLoss` for ``ids`` and ``collisions``.
    """
    own = torch.arange(len(a), device=a.device) + first
    logits = logit_scale * a @ all_b.T + logit_bias                        # (N, M)
    pairs = own[:, None] == torch.arange(len(all_b), device=a.device)
    same = pairs if ids is None else ids[own, None] == ids
    terms = F.softplus(torch.where(same if collisions == 'positive' else pairs, -logits, logits))
    return (terms.masked_fill(same & ~pairs, 0) if collisions == 'mask' else terms).sum(1)


def unit_rows(*tensors: Tensor) -> list[Tensor]:
    """Normalise tensors along the last dimension, in their common precision and at least float32."""
    dtype = reduce(torch.promote_types, (x.dtype for x in tensors), torch.float32)
    return [F.normalize(x.to(dtype), dim=-1) for x in tensors]


class _AllGather(torch.autograd.Function):
    """Gather rows of all processes in the order of ranks; the gradient of a row is summed over the processes.

    ``torch.distributed.nn.functional.all_gather`` computes the same, but newer releases of torch deprecate it in
    favour of a private module.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        ctx.own = slice(dist.get_rank() * len(x), (dist.get_rank() + 1) * len(x))
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad[ctx.own]


def _check_equal_sizes(x: Tensor) -> None:
    """Check that all processes hold the same number of rows; a gather of unequal ones ends the connection.

    Raises:
        ValueError: They do not, in every process.
    """
    sizes = [torch.empty(1, dtype=torch.int64, device=x.device) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor([len(x)], device=x.device))
    counts = torch.cat(sizes).tolist()
    if len(set(counts)) > 1:
        raise ValueError(f'the processes hold {", ".join(map(str, counts))} objects, but the loss over all processes '
                         'needs equally many in each; set drop_last=True in train_dataloader, or gather=False in the '
                         'loss')


class GatheredLoss(nn.Module):
    """Base class of losses over the objects of all processes.

    With ``gather``, the objects of all processes are candidates for each other, and gradients flow back through the
    exchange. Averaged over processes, as DistributedDataParallel does, they equal those of one process with the whole
    batch. All processes must hold the same number of objects.

    Args:
        gather: Exchange objects between processes; otherwise each process uses only its own. No effect in a single
            process.
        local_loss: Compute only the terms of the process's own objects (the option of this name in open_clip): the
            same gradients with less memory, but the value covers only these objects. Otherwise every process has the
            value over all objects.
        loss_weight: Factor of the result.
    """

    def __init__(self, gather: bool = True, local_loss: bool = False, loss_weight: float = 1.0):
        super().__init__()
        self.gather = gather
        self.local_loss = local_loss
        self.loss_weight = loss_weight

    def exchange(self, *tensors: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], int]:
        """Return the tensors to compute terms for, their candidates, and the offset of the former in the latter."""
        if not (self.gather and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return tensors, tensors, 0
        _check_equal_sizes(tensors[0])
        gathered = tuple(_AllGather.apply(x) for x in tensors)
        if self.local_loss:
            return tensors, gathered, dist.get_rank() * len(tensors[0])
        return gathered, gathered, 0


@MODELS.register_module()
class ContrastiveLoss(GatheredLoss):
    """Symmetric contrastive (InfoNCE) loss of CLIP; L_text of CLIP-GS (arXiv 2412.19142).

    .. math:: L = -\\frac{1}{2N} \\sum_i \\log\\frac{e^{s\\,a_i b_i}}{\\sum_j e^{s\\,a_i b_j}}
                                       + \\log\\frac{e^{s\\,a_i b_i}}{\\sum_j e^{s\\,a_j b_i}}

    The kind ``'sigmoid'`` is the loss of SigLIP (Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV
    2023), for its teachers and their successors. Every pair is a decision of its own, with z = 1 for i = j and -1
    otherwise, and a learned bias b, :attr:`logit_bias`:

    .. math:: L = -\\frac{1}{N} \\sum_{ij} \\log \\sigma\\left(z_{ij} (s\\,a_i b_j + b)\\right)

    SigLIP starts with s = 10, which is ``init_logit_scale=math.log(10)`` of :class:`~clipgs_plugin.models.CLIPGS`.

    Args:
        kind: ``'softmax'`` or ``'sigmoid'``.
        collisions: Treatment of other objects with the same id (two objects with one caption). ``'keep'`` leaves
            them among the negatives, as in the formulas. ``'mask'`` removes them from the candidates. ``'positive'``
            spreads the target evenly over all objects of the id; with ``'sigmoid'``, z is 1 for them.
        chunk_size: Number of objects whose terms of ``'sigmoid'`` are in memory at a time. Larger batches are computed
            a second time for the gradient, so that no N x N matrix is held.
        gather, local_loss, loss_weight: See :class:`GatheredLoss`.

    Shapes:
        - a, b: (N, E), normalised inside
        - logit_scale: scalar or (1,), the inverse temperature, not its logarithm
        - ids: (N,) int64, required unless ``collisions='keep'``
        - output: scalar, at least float32
    """

    def __init__(self, collisions: str = 'keep', gather: bool = True, local_loss: bool = False,
                 loss_weight: float = 1.0, kind: str = 'softmax', chunk_size: int = 1024):
        super().__init__(gather, local_loss, loss_weight)
        for name, value, allowed in (('collisions', collisions, COLLISIONS), ('kind', kind, KINDS)):
            if value not in allowed:
                raise ValueError(f'{name}={value!r}: expected one of {allowed}')
        if chunk_size < 1:
            raise ValueError(f'chunk_size={chunk_size}: expected 1 or more')
        self.collisions = collisions
        self.kind = kind
        self.chunk_size = chunk_size
        if kind == 'sigmoid':
            self.logit_bias = nn.Parameter(torch.tensor([INITIAL_BIAS]))  # (1,): FSDP2 refuses scalars

    def forward(self, a: Tensor, b: Tensor, logit_scale: Tensor | float, ids: Tensor | None = None) -> Tensor:
        if a.ndim != 2 or a.shape != b.shape:
            raise ValueError(f'ContrastiveLoss needs two tensors of one shape (N, E), got {tuple(a.shape)} and '
                             f'{tuple(b.shape)}')
        if self.collisions == 'keep':
            ids = None
        elif ids is None or ids.shape != a.shape[:1]:
            raise ValueError(f'collisions={self.collisions!r} needs ids of shape ({len(a)},), got '
                             f'{None if ids is None else tuple(ids.shape)}')
        with torch.autocast(a.device.type, enabled=False):
            a, b = unit_rows(a, b)
            (a, b), (all_a, all_b), first = self.exchange(a, b[:, None])
            if ids is not None:
                ids = self.exchange(ids)[1][0]
            if self.kind == 'sigmoid':
                terms = self._sigmoid(a, all_b[:, 0], logit_scale, first, ids)
            else:
                terms = contrastive_terms(a, b, all_a, all_b, logit_scale, first, ids=ids, collisions=self.collisions)
            return self.loss_weight * terms.mean()

    def _sigmoid(self, a: Tensor, all_b: Tensor, logit_scale: Tensor | float, first: int, ids: Tensor | None) -> Tensor:
        bias, starts = self.logit_bias.to(a), range(0, len(a), self.chunk_size)
        if len(starts) == 1:
            return sigmoid_terms(a, all_b, logit_scale, bias, first, ids, self.collisions)
        return torch.cat([checkpoint(sigmoid_terms, a[start:start + self.chunk_size], all_b, logit_scale, bias,
                                     first + start, ids, self.collisions, use_reentrant=False) for start in starts])

    def extra_repr(self) -> str:
        return f'kind={self.kind!r}, collisions={self.collisions!r}, gather={self.gather}, local_loss={self.local_loss}'
