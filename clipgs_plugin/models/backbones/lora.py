"""Low-rank adaptation: small trainable updates beside the linear layers of a backbone's blocks."""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TARGETS = ('attn', 'mlp')
PREFIX = 'lora_'  # of the names of the parameters that adaptation adds
_EVERYWHERE = {'blocks': ('',)}


class LoRALinear(nn.Linear):
    r"""A linear layer with a low-rank update (LoRA, Hu et al., ICLR 2022, Sec. 4.1).

    .. math:: y = W x + b + \frac{\alpha}{r} B A x

    ``weight`` and ``bias`` are the parameters of the layer it takes the place of, under their names, so weights of
    published models fit as before. B is zero at the start, when the layer gives what it gave.

    Args:
        linear: The layer whose parameters it takes.
        rank: r, rows of A and columns of B.
        alpha: The update is scaled by alpha / rank, so that learning rates carry over between ranks.

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
        nn.init.kaiming_uniform_(self.lora_a, a=5 ** 0.5)  # as a Linear begins
        self.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.scaling * F.linear(F.linear(x, self.lora_a), self.lora_b)

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, rank={len(self.lora_a)}, scaling={self.scaling:g}'

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """A plain layer that does the same."""
        linear = nn.Linear(self.in_features, self.out_features, self.bias is not None, device='meta')
        weight = self.weight + self.scaling * (self.lora_b @ self.lora_a)
        linear.weight, linear.bias = nn.Parameter(weight, self.weight.requires_grad), self.bias
        return linear.train(self.training)


def add_lora(module: nn.Module, rank: int = 8, alpha: float = 16, targets: Sequence[str] = TARGETS) -> list[str]:
    """Put a :class:`LoRALinear` in the place of linear layers, which changes nothing until it is trained.

    Args:
        module: A backbone, of which the blocks are adapted (what its ``parts`` call ``'blocks'``), or any module.
        rank: Of each update.
        alpha: Each update is scaled by alpha / rank.
        targets: Which layers of the blocks: ``'attn'``, those of attention, and ``'mlp'``, all others.

    Returns:
        Names of the adapted layers in the module.

    Raises:
        ValueError: The rank or a target is unknown, there is no such layer, one is adapted already or is of an
            attention that reads weights past its layers, or the module is a backbone of Gaussians.
    """
    targets = (targets,) if isinstance(targets, str) else tuple(targets)
    if not targets or not set(targets) <= set(TARGETS):
        raise ValueError(f'targets={targets}: expected one or more of {TARGETS}')
    if rank < 1:
        raise ValueError(f'rank={rank}: expected 1 or more')
    if getattr(module, 'input', 'tokens') == 'gaussians':  # whose layers are read past their forward
        raise ValueError(f'{type(module).__name__} takes Gaussians, and low-rank updates are for the blocks of a '
                         'transformer; leave lora out')
    blocks = tuple(getattr(module, 'parts', _EVERYWHERE).get('blocks', ()))
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear)
              and f'{name}.weight'.startswith(blocks) and _target(module, name) in targets}
    if not layers:
        raise ValueError(f'{type(module).__name__} has no linear layers of {targets} in its blocks to adapt')
    for name, layer in layers.items():
        if type(layer) is not nn.Linear:  # an adapted one, or the output of torch's own multi-head attention
            raise ValueError(f'{name} is a {type(layer).__name__}: only a plain Linear can be adapted, and once; '
                             f'choose other targets than {targets}')
    for name, layer in layers.items():
        _replace(module, name, LoRALinear(layer, rank, alpha))
    return list(layers)


def merge_lora(module: nn.Module) -> nn.Module:
    """The module with every update folded into the weight beside it: plain layers again, and the same function.

    Layers are replaced in place; an optimiser that was built before knows nothing of the new ones.
    """
    for name, layer in list(module.named_modules()):
        if isinstance(layer, LoRALinear):
            _replace(module, name, layer.merged())
    return module


def _target(module: nn.Module, name: str) -> str:
    """Whether a layer is of attention, by the names on the way to it or the types that it lies in."""
    steps = name.split('.')
    owners = (module.get_submodule('.'.join(steps[:i])) for i in range(1, len(steps)))
    attends = any('attn' in step.lower() or 'attention' in step.lower() for step in steps)
    return 'attn' if attends or any(type(owner).__name__.endswith('Attention') for owner in owners) else 'mlp'


def _replace(module: nn.Module, name: str, layer: nn.Linear) -> None:
    owner, _, leaf = name.rpartition('.')
    owner = module.get_submodule(owner)
    setattr(owner, leaf, layer)
    if hasattr(owner, 'qkv_bias_separate'):  # timm's attentions otherwise use the weight of qkv past its forward
        owner.qkv_bias_separate = isinstance(layer, LoRALinear)
