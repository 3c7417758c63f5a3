"""Small encoders of every family, and files that export them."""
import torch

from clipgs_plugin.models import GSEncoder
from clipgs_plugin.models.checkpoints import export_point_cloud_checkpoint

# Options of the tokenizer and the backbone, by family.
SMALL = {
    'point_bert': (dict(channels=32, point_attributes=('xyz',)),
                   dict(type='PointBERT', embed_dims=64, depth=2, num_heads=1, in_channels=32)),
    'point_mae': (dict(channels=64, point_attributes=('xyz',)),
                  dict(type='PointMAE', embed_dims=64, depth=2, num_heads=1)),
    'ulip': (dict(channels=32), dict(type='ULIP', embed_dims=64, depth=2, num_heads=1, in_channels=32)),
    'uni3d': (dict(channels=32), dict(type='Uni3D', size='ti', depth=1, in_channels=32)),
    'openshape': (dict(channels=32, radius=0.2, point_attributes=('xyz', 'position', 'rgb'),
                       patch_encoder=dict(type='SetAbstraction')),
                  dict(type='OpenShapePPAT', scaling=1, depth=1, in_channels=32)),
    'recon': (dict(channels=64, point_attributes=('xyz',)),
              dict(type='ReCon', embed_dims=64, depth=2, num_heads=1)),
    'recon_plus_plus': (dict(channels=384), dict(type='ReConPlusPlus', size='s', depth=1)),
    'gaussian_mae': (dict(channels=64, point_attributes=('xyz', 'opacity', 'linear_scale', 'quat', 'sh_dc'),
                          patch_encoder=dict(type='SoftPatchEncoder', num_neighbors=5)),
                     dict(type='GaussianMAE', embed_dims=64, depth=2, num_heads=1)),
}


def small_encoder(family, refine=False, **options):
    """Build the encoder of a family; options go to the tokenizer."""
    tokenizer, backbone = SMALL[family]
    tokenizer = {**dict(type='GSTokenizer', num_groups=8, group_size=6, refine=refine), **tokenizer, **options}
    return GSEncoder(tokenizer, dict(backbone), 24)


def randomise(encoder, seed=0):
    """Draw new weights and statistics, and return the encoder in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in encoder.state_dict().values():
            if value.is_floating_point():
                value.copy_(0.2 * torch.rand(value.shape, generator=generator) + 0.05)
    return encoder.eval()


def projections(family):
    """Shapes of the projection of a small file by the family's own names. The embedding has width 24."""
    return {'uni3d': {'point_encoder.trans2embed.weight': (24, 192), 'point_encoder.trans2embed.bias': (24,)},
            'ulip': {'pc_projection': (128, 24)},
            'openshape': {'proj.weight': (24, 256), 'proj.bias': (24,)},
            'recon_plus_plus': {'img_proj.weight': (24, 384), 'img_proj.bias': (24,), 'text_proj.weight': (24, 384),
                                'text_proj.bias': (24,)}}.get(family, {})


def export_small(path, family, seed=0, **options):
    """Write a complete file of a family, and return the encoder with the same point-cloud model."""
    encoder = randomise(small_encoder(family, **options), seed)
    export_point_cloud_checkpoint(encoder, path, family)
    content = torch.load(path)
    for state in content.values():
        state.update({f'module.{name}': torch.rand(shape) for name, shape in projections(family).items()})
    torch.save(content, path)
    return encoder
