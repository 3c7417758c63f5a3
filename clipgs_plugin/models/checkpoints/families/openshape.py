"""OpenShape (Liu et al., NeurIPS 2023) with its PointBERT, called ``ppat`` in its code.

A file stores the encoder as ``ppat.`` and the projection as ``proj.``, both under ``state_dict``. The older files for
ViT-L/14 and ViT-B/32 put ``pc_encoder.`` before these names. The file for ViT-B/32 has no projection.
"""
from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from clipgs_plugin.models.checkpoints.families.family import (
    PATCH_ENCODER,
    Architecture,
    Family,
    Rule,
    count_blocks,
    linear_projection,
    shape,
)
from clipgs_plugin.models.tokenizers.set_abstraction import SetAbstraction


def openshape_architecture(tensors: Mapping[str, Tensor]) -> Architecture:
    """Read the sizes of OpenShape's PointBERT from its widths."""
    from clipgs_plugin.models.backbones.openshape import SIZES

    width, = shape(tensors, 'backbone.lift.2.weight')
    hidden, _ = shape(tensors, 'backbone.transformer.layers.0.1.fn.net.0.weight')
    depth = count_blocks(tensors, 'backbone.transformer.layers.')
    fits = [scaling for scaling, (dim, _, _, mlp) in SIZES.items() if (dim, mlp) == (width, hidden)]
    if not fits:
        raise ValueError(f'has widths {width} and {hidden}; the sizes of OpenShape are '
                         f'{", ".join(f"{scaling} ({dim}, {mlp})" for scaling, (dim, _, _, mlp) in SIZES.items())}')
    scaling = next((scaling for scaling in fits if SIZES[scaling][1] == depth), fits[0])
    convs = [shape(tensors, f'{PATCH_ENCODER}mlp_convs.{i}.weight')[0] for i in range(3)]
    return Architecture(
        dict(channels=convs[-1], patch_encoder=dict(type='SetAbstraction', widths=tuple(convs[:-1]))),
        dict(type='OpenShapePPAT', scaling=scaling, in_channels=convs[-1], depth=depth),
        linear_projection(tensors, bias=True))


OPENSHAPE = Family(
    name='openshape',
    backbone='OpenShapePPAT',
    prefixes=('ppat.', 'pc_encoder.ppat.', 'pc_encoder.'),
    signature=('lift.0.weight', 'sa.mlp_convs.0.weight'),
    architecture=openshape_architecture,
    rules=(
        Rule('sa.', PATCH_ENCODER),
        Rule('lift.', 'backbone.lift.'),
        Rule('cls_token', 'backbone.cls_token', 'token'),
        Rule('transformer.', 'backbone.transformer.'),
    ),
    outside=(Rule('proj.', 'projection.'), Rule('pc_encoder.proj.', 'projection.')),
    projection_bias=True,
    unprojected=('pc_encoder.',),
    unused={'logit_scale': 'temperature of training'},
    attributes={9: ('xyz', 'position', 'rgb')},
    first_layer=SetAbstraction.first_layer,
    wrapper='state_dict',
)
