"""Low-rank adaptation (LoRA): small trainable updates of the linear layers in a backbone's blocks.

Written by hand rather than with peft: it needs no dependency, and the adapted layers keep their parameter names, so
checkpoints of published models still fit.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TARGETS = ('attn', 'mlp')
PREFIX = 'lora_'  # of the names of the new parameters
_EVERYWHERE = {'blocks': ('',)}


class LoRALinear(nn.Linear):
    r"""Linear layer with a low-rank update (LoRA, Hu et al., ICLR 2022, Sec. 4.1).

    .. math:: y = W x + b + \frac{\alpha}{r} B A x

    ``weight`` and ``bias`` are the parameters of the replaced layer. B is zero at the start, so the output does not
    change until training.

    Args:
        linear: Layer to replace.
        rank: r, number of rows of A and of columns of B.
        alpha: Scale of the update, divided by ``rank`` so that learning rates carry over between ranks.

    Shapes:
        - input: (..., in_features)
        - output: (..., out_features)
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device='meta')
        self.weight, self.bias = linear.weight, linear.bias
        self.scaling = alpha / rank
        self.lora_a = nn.Parameter(linear.weight.new_empty(rank, linear.in_features))
        self.lora_b = nn.Parameter(linear.weight.new_zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=5 ** 0.5)  # the initialisation of nn.Linear
        self.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.scaling * F.linear(F.linear(x, self.lora_a), self.lora_b)

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, rank={len(self.lora_a)}, scaling={self.scaling:g}'

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return an ``nn.Linear`` with the update folded into its weight."""
        linear = nn.Linear(self.in_features, self.out_features, self.bias is not None, device='meta')
        weight = self.weight + self.scaling * (self.lora_b @ self.lora_a)
        linear.weight, linear.bias = nn.Parameter(weight, self.weight.requires_grad), self.bias
        return linear.train(self.training)


def add_lora(module: nn.Module, rank: int = 8, alpha: float = 16, targets: Sequence[str] = TARGETS) -> list[str]:
    """Replace linear layers by :class:`LoRALinear`; outputs do not change until training.

    Args:
        module: Backbone, adapted in its blocks (the part ``'blocks'`` of its ``parts``), or any module. A backbone over
            Gaussians needs attention in its blocks: the convolutions of PointNet++ and of graph networks are a few
            narrow layers, and some read their weights without calling the layer, which would lose the update.
        rank: Rank of each update.
        alpha: Scale of each update, divided by ``rank``.
        targets: Layers of the blocks to adapt: ``'attn'`` for attention layers, ``'mlp'`` for all others.

    Returns:
        Names of the adapted layers in the module.

    Raises:
        ValueError: The rank is below 1, a target is unknown, no layer matches, a layer is already adapted, an
            attention reads the weight of a layer without calling it, or the module is a backbone over Gaussians
            without attention.
    """
    targets = (targets,) if isinstance(targets, str) else tuple(targets)
    if not targets or not set(targets) <= set(TARGETS):
        raise ValueError(f'targets={targets}: expected one or more of {TARGETS}')
    if rank < 1:
        raise ValueError(f'rank={rank}: expected 1 or more')
    blocks = tuple(getattr(module, 'parts', _EVERYWHERE).get('blocks', ()))
    found = {name: _target(module, name) for name, layer in module.named_modules()
             if isinstance(layer, nn.Linear) and f'{name}.weight'.startswith(blocks)}
    if getattr(module, 'input', 'tokens') == 'gaussians' and 'attn' not in found.values():
        raise ValueError(f'{type(module).__name__} has no attention, and low-rank updates need the blocks of a '
                         'transformer; set lora=None, and choose what is trained with frozen')
    layers = {name: module.get_submodule(name) for name, target in found.items() if target in targets}
    if not layers:
        raise ValueError(f'{type(module).__name__} has no linear layers for targets={targets} in its blocks')
    for name, layer in layers.items():
        if type(layer) is not nn.Linear:  # already adapted, or part of nn.MultiheadAttention
            raise ValueError(f'{name} is a {type(layer).__name__}: only an nn.Linear can be adapted, and only once; '
                             f'choose other targets than {targets}')
    for name, layer in layers.items():
        _replace(module, name, LoRALinear(layer, rank, alpha))
    return list(layers)


def merge_lora(module: nn.Module) -> nn.Module:
    """Fold every update into its weight in place and return the module.

    The layers are ``nn.Linear`` again and compute the same. Build optimisers afterwards: the parameters are new.
    """
    for name, layer in list(module.named_modules()):
        if isinstance(layer, LoRALinear):
            _replace(module, name, layer.merged())
    return module


def _target(module: nn.Module, name: str) -> str:
    """Classify a layer as ``'attn'`` or ``'mlp'`` by its name and by the types of its ancestors."""
    steps = name.split('.')
    ancestors = (module.get_submodule('.'.join(steps[:i])) for i in range(1, len(steps)))
    by_name = any('attn' in step.lower() or 'attention' in step.lower() for step in steps)
    return 'attn' if by_name or any(type(ancestor).__name__.endswith('Attention') for ancestor in ancestors) else 'mlp'


def _replace(module: nn.Module, name: str, layer: nn.Linear) -> None:
    owner, _, leaf = name.rpartition('.')
    owner = module.get_submodule(owner)
    setattr(owner, leaf, layer)
    if hasattr(owner, 'qkv_bias_separate'):  # else timm's attentions read the weight of qkv without calling it
        owner.qkv_bias_separate = isinstance(layer, LoRALinear)
