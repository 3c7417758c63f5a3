"""What the tensors of an encoder belong to: the one place that tells, for loading, freezing and the log."""
from __future__ import annotations

from torch import nn

# Parts that a published model has, in their order; and those that only an encoder here has.
PUBLISHED_PARTS = ('patch_encoder', 'position', 'blocks', 'norm', 'projection')
PARTS = (*PUBLISHED_PARTS[:1], 'refinement', *PUBLISHED_PARTS[1:], 'prompts', 'lora')

_FIXED = {'tokenizer.patch_encoder.': 'patch_encoder', 'tokenizer.refinement.': 'refinement',
          'projection.': 'projection', 'backbone.prompt_tokens': 'prompts'}


def part_of(name: str, backbone: nn.Module) -> str:
    """The part that a parameter or buffer of an encoder belongs to.

    Args:
        name: As the encoder's state dict has it.
        backbone: Its backbone, whose ``parts`` tells the beginnings of names by part.

    Raises:
        ValueError: The backbone claims no part for it.
    """
    if 'lora_' in name:
        return 'lora'
    for start, part in _FIXED.items():
        if name.startswith(start):
            return part
    inner = name.removeprefix('backbone.')
    for part, starts in backbone.parts.items():
        if inner.startswith(starts):
            return part
    raise ValueError(f'{name} belongs to no part of {type(backbone).__name__}, whose parts are {backbone.parts}')
