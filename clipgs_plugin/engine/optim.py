"""Optimiser wrapper and its constructor."""
from __future__ import annotations

import re
from contextlib import contextmanager

import torch
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from torch import nn

from clipgs_plugin.models.gs_encoder import parts_in
from clipgs_plugin.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS

# Parameters of any shape without weight decay, by the last part of their name.
NO_DECAY = ('bias', 'token', 'pos', 'query', 'logit_scale')
# Blocks in a row; those of ReCon++ alternate between self-attention of patches (local) and queries (global).
_BLOCK = re.compile(r'(?:^|\.)(?:(?:local_|global_|res)?blocks|layers)\.(\d+)\.')
# Parts that no published model has learn at the full rate, although they lie before the blocks.
_NEW = re.compile(r'(?:^|\.)(?:tokenizer\.refinement\.|prompt_tokens$)')
_AHEAD = ('patch_encoder', 'position')


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Optimiser wrapper for mixed precision in bfloat16 on any device; AmpOptimWrapper of mmengine refuses the CPU.

    bfloat16 has the range of float32 and needs no loss scaling, so the wrapper only adds autocast to the forward pass.

    Args:
        dtype: ``'bfloat16'``; float16 needs the loss scaling of AmpOptimWrapper.
        kwargs: Arguments of mmengine's OptimWrapper.
    """

    def __init__(self, dtype: str = 'bfloat16', **kwargs):
        super().__init__(**kwargs)
        if dtype != 'bfloat16':
            raise ValueError(f'dtype={dtype!r}: AutocastOptimWrapper computes in bfloat16; for float16 on a GPU use '
                             'type=\'AmpOptimWrapper\', dtype=\'float16\'')

    @contextmanager
    def optim_context(self, model: nn.Module):
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class CLIPGSOptimWrapperConstructor:
    """Constructor of parameter groups for a transformer with pretrained weights.

    Weight decay leaves out parameters of at most one dimension (biases, norms), tokens (class, prompts), queries,
    learned positions and the logit scale. Frozen parameters are in no group.

    Args:
        optim_wrapper_cfg: Config of the wrapper with its ``optimizer``.
        paramwise_cfg: Optional dict with ``layer_decay`` and ``custom_keys``. ``layer_decay``, 1 by default, is a
            factor in (0, 1] on the learning rate for every step down from the output (Clark et al., "ELECTRA",
            2020). Layers after the blocks have its power 0, the last block power 1, each block below it one more,
            frozen blocks included, and patch encoder and positions one more again. The refinement branch and
            prompts, which no pretrained model has, learn at the full rate; low-rank updates learn at the rate of
            their block. ``custom_keys`` maps a part of a parameter's name to ``dict(lr_mult=..., decay_mult=...)``,
            as in mmengine; the longest key that matches counts.

    Raises:
        ValueError: An option is unknown, or a key of ``custom_keys`` matches no parameter.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        paramwise_cfg = dict(paramwise_cfg or {})
        self.layer_decay = paramwise_cfg.pop('layer_decay', 1.0)
        self.custom_keys = paramwise_cfg.pop('custom_keys', {})
        if paramwise_cfg:
            raise ValueError(f'paramwise_cfg has {sorted(paramwise_cfg)}, expected layer_decay and custom_keys only')
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f'layer_decay={self.layer_decay}: expected a factor in (0, 1]')
        self.wrapper_cfg = {'type': 'OptimWrapper', **optim_wrapper_cfg}
        self.optimizer_cfg = dict(self.wrapper_cfg.pop('optimizer'))

    def __call__(self, model: nn.Module) -> OptimWrapper:
        optimizer = OPTIMIZERS.build({**self.optimizer_cfg, 'params': self.groups(model)})
        optimizer.register_load_state_dict_post_hook(_expand_scalar_moments)
        return OPTIM_WRAPPERS.build(self.wrapper_cfg, default_args={'optimizer': optimizer})

    def groups(self, model: nn.Module) -> list[dict]:
        """Make parameter groups, one for each learning rate and decay, in descending order."""
        model = model.module if is_model_wrapper(model) else model
        trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        unused = [key for key in self.custom_keys if not any(key in name for name in trainable)]
        if unused:
            raise ValueError(f'paramwise_cfg.custom_keys has {unused}, which matches no trainable parameter; '
                             f'names look like {list(trainable)[:3]}')
        depth, num_blocks = _depths(model)
        lr, decay = self.optimizer_cfg['lr'], self.optimizer_cfg.get('weight_decay', 0.0)
        groups: dict[tuple[float, float], dict] = {}
        for name, parameter in trainable.items():
            custom = max((key for key in self.custom_keys if key in name), key=len, default=None)
            mult = self.custom_keys.get(custom, {})
            lr_mult = mult.get('lr_mult', 1.0) * self.layer_decay ** (num_blocks + 1 - depth[name])
            leaf = name.rsplit('.', 1)[-1]
            decayed = parameter.ndim > 1 and not any(part in leaf for part in NO_DECAY)
            decay_mult = mult.get('decay_mult', 1.0 if decayed else 0.0)
            key = (lr_mult, decay_mult)
            group = groups.setdefault(key, {'params': [], 'lr': lr * lr_mult, 'weight_decay': decay * decay_mult})
            group['params'].append(parameter)
        return [groups[key] for key in sorted(groups, reverse=True)]


def _expand_scalar_moments(optimizer: torch.optim.Optimizer) -> None:
    """Reshape moments () to (1,): older checkpoints were written when ``logit_scale`` was a scalar."""
    for parameter, state in optimizer.state.items():
        state.update({name: value.view(1) for name, value in state.items()
                      if name != 'step' and isinstance(value, torch.Tensor) and value.ndim < parameter.ndim == 1})


def _depths(model: nn.Module) -> tuple[dict[str, int], int]:
    """Return the depth of each parameter and the number of blocks: 0 before the blocks, i + 1 in block i, else after.

    In a GSEncoder, patch encoder and positions lie before the blocks. In other models it is what is registered before
    them, except parameters of the model itself, such as a logit scale.
    """
    names, parts = [name for name, _ in model.named_parameters()], parts_in(model)
    blocks = {name: int(match[1]) for name in names if (match := _BLOCK.search(name)) and 'tokenizer' not in name}
    num_blocks = max(blocks.values(), default=-1) + 1
    first = min((names.index(name) for name in blocks), default=0)
    ahead = {name for i, name in enumerate(names)
             if (parts[name] in _AHEAD if name in parts else i < first and '.' in name and not _NEW.search(name))}
    return {name: blocks[name] + 1 if name in blocks else 0 if name in ahead else num_blocks + 1
            for name in names}, num_blocks
