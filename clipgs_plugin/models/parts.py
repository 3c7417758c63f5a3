"""Parts of an encoder: the single mapping from tensor names to parts, for loading, freezing and logging."""
from __future__ import annotations

from torch import nn

# Parts of a published model, in order, and all parts of an encoder.
PUBLISHED_PARTS = ('patch_encoder', 'position', 'blocks', 'norm', 'projection')
PARTS = (*PUBLISHED_PARTS[:1], 'refinement', *PUBLISHED_PARTS[1:], 'prompts', 'lora')

_FIXED = {'tokenizer.patch_encoder.': 'patch_encoder', 'tokenizer.refinement.': 'refinement',
          'projection.': 'projection', 'backbone.prompt_tokens': 'prompts'}


def part_of(name: str, backbone: nn.Module) -> str:
    """Return the part of a parameter or buffer of an encoder.

    Args:
        name: Name in the encoder's state dict.
        backbone: Backbone of the encoder. Its ``parts`` maps each part to prefixes of names.

    Raises:
        ValueError: The name matches no part of the backbone.
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
