"""ReCon (Qi et al., ICML 2023).

A file uses Point-MAE's names and adds three global tokens, which attend to the patches in every block. Residuals start
from the normalised tensors, so the weights do not work in a block of Point-BERT.

A file of cross-modal training projects the image token and the text token to its two teachers. If these are the towers
of one CLIP model, as in the zero-shot model, the projections have the same width and are the embedding. Otherwise they
lead into different spaces and are not used.
"""
from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from clipgs_plugin.models.checkpoints.families.family import Architecture, Family, Rule, shape
from clipgs_plugin.models.checkpoints.families.point_mae import MAE_RULES, MAE_UNUSED, point_mae_architecture


def recon_architecture(tensors: Mapping[str, Tensor]) -> Architecture:
    """Read the sizes of a ReCon. No shape reveals the number of heads; they are assumed to be 64 wide."""
    architecture = point_mae_architecture(tensors, 'ReCon')
    del architecture.backbone['class_token']
    return architecture._replace(projection=query_projection(tensors))


def query_projection(tensors: Mapping[str, Tensor]) -> dict | None:
    """Return the options of the projections of image and text token, or None if they lead into different spaces."""
    weights = [f'projection.{kind}.weight' for kind in ('image', 'text')]
    if not tensors.keys() >= {*weights}:
        return None
    image, text = (shape(tensors, weight)[0] for weight in weights)
    return dict(type='QueryProjection', out_features=image, num_text=1) if image == text else None


RECON = Family(
    name='recon',
    backbone='ReCon',
    prefixes=('MAE_encoder.', ''),
    signature=('blocks.blocks.0.norm1_contrast.weight', 'encoder.first_conv.0.weight'),
    architecture=recon_architecture,
    rules=(
        *MAE_RULES,
        *(Rule(name, f'backbone.{name}') for name in ('img_token', 'img_pos', 'text_token', 'text_pos')),
    ),
    outside=(Rule('img_proj.', 'projection.image.'), Rule('text_proj.', 'projection.text.')),
    unused={
        **MAE_UNUSED,
        'img_encoder.': 'teacher of pre-training',
        'text_encoder.': 'teacher of pre-training',
        'clip_model.': 'teacher of pre-training',
    },
)
