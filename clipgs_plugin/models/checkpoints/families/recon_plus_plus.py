"""ReCon++ (Qi et al., "ShapeLLM", ECCV 2024), called ReConV2 in its code, as trained on OpenShape's data."""
from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from clipgs_plugin.models.checkpoints.families.family import (
    PATCH_ENCODER,
    Architecture,
    Family,
    Rule,
    count_blocks,
    mini_pointnet,
    shape,
    size_of_width,
)


def recon_plus_plus_architecture(tensors: Mapping[str, Tensor]) -> Architecture:
    """Read the sizes of a ReCon++ from its width."""
    if 'backbone.encoder.sos' in tensors or PATCH_ENCODER + 'first_conv.6.weight' in tensors:
        raise ValueError('is a causal ReCon++ (start token, sine positions, re-ordered patches), trained on the hybrid '
                         "or 1k data; only the 'openshape' form is supported")
    from clipgs_plugin.models.backbones.recon_plus_plus import SIZES

    _, queries, width = shape(tensors, 'backbone.global_query')
    size, projection = size_of_width(SIZES, width, 'ReCon++'), None
    if any(name.startswith('projection.') for name in tensors):
        projection = dict(type='QueryProjection', out_features=shape(tensors, 'projection.image.weight')[0])
    return Architecture(mini_pointnet(tensors), dict(
        type='ReConPlusPlus', size=size, num_queries=queries,
        depth=count_blocks(tensors, 'backbone.encoder.blocks.local_blocks.')), projection)


RECON_PLUS_PLUS = Family(
    name='recon_plus_plus',
    backbone='ReConPlusPlus',
    prefixes=('model.', ''),
    signature=('global_query', 'embed.first_conv.0.weight'),
    architecture=recon_plus_plus_architecture,
    rules=(
        Rule('embed.', PATCH_ENCODER),
        Rule('pos_embed.', 'backbone.pos_embed.'),
        Rule('global_query', 'backbone.global_query'),
        Rule('encoder.', 'backbone.encoder.'),
    ),
    projection_bias=True,
    outside=(Rule('img_proj.', 'projection.image.'), Rule('text_proj.', 'projection.text.')),
    unused={
        'norm.': 'never used in the forward pass',
        'mask_token': 'used only in pre-training',
        'decoder': 'decoder of pre-training',
    },
)
