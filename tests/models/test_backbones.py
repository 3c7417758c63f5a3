"""Transformers over tokens, compared with their formulas in float64."""
import pytest
import torch
from formulas import Formula, gelu, randomise_parameters, silu, tokens

from clipgs_plugin.models import PointBERT, Tokens, Uni3D
from clipgs_plugin.models.backbones.base import drop_patches
from clipgs_plugin.models.backbones.blocks import DropPath, drop_path_rates


def point_bert(module, tokens, depth, heads):
    f = Formula(module)
    x = f.linear(tokens.features.double(), 'reduce_dim')
    b = len(x)
    x = torch.cat([f.w['cls_token'].expand(b, -1, -1), x], 1)
    position = torch.cat([f.w['cls_pos'].expand(b, -1, -1), f.position(tokens.centers)], 1)
    for i in range(depth):
        name = f'blocks.blocks.{i}'
        x = x + position
        x = x + f.self_attention(f.norm(x, f'{name}.norm1'), f'{name}.attn', heads)
        x = x + f.mlp(f.norm(x, f'{name}.norm2'), f'{name}.mlp')
    x = f.norm(x, 'norm')
    return torch.cat([x[:, 0], x[:, 1:].max(1).values], -1).float()


def uni3d(module, tokens, depth, heads, size):
    f = Formula(module)
    x = f.linear(tokens.features.double(), 'encoder2trans')
    b = len(x)
    x = torch.cat([f.w['cls_token'].expand(b, -1, -1), x], 1)
    x = x + torch.cat([f.w['cls_pos'].expand(b, -1, -1), f.position(tokens.centers)], 1)
    for i in range(depth):
        name = f'blocks.{i}'
        y = f.norm(x, f'{name}.norm1', 1e-6)
        if size == 'b':
            q, k, v = (f.linear(y, f'{name}.attn.{p}_proj') for p in 'qkv')
        else:
            q, k, v = f.linear(y, f'{name}.attn.qkv').chunk(3, dim=-1)
            q, v = q + f.w[f'{name}.attn.q_bias'], v + f.w[f'{name}.attn.v_bias']
        x = x + f.linear(f.attend(q, k, v, heads), f'{name}.attn.proj')
        y = f.norm(x, f'{name}.norm2', 1e-6)
        if size == 'b':
            y = silu(f.linear(y, f'{name}.mlp.fc1_g')) * f.linear(y, f'{name}.mlp.fc1_x')
            y = f.norm(y, f'{name}.mlp.norm', 1e-6)
        elif size == 'g':
            y = gelu(f.linear(y, f'{name}.mlp.fc1'))
        else:
            gate, value = f.linear(y, f'{name}.mlp.fc1').chunk(2, dim=-1)
            y = silu(gate) * value
        x = x + f.linear(y, f'{name}.mlp.fc2')
    return f.norm(x[:, 0], 'fc_norm', 1e-6).float()


def test_point_bert_matches_its_formula():
    module = randomise_parameters(PointBERT(48, depth=3, num_heads=4, in_channels=24))
    torch.testing.assert_close(module(tokens()), point_bert(module, tokens(), 3, 4), atol=2e-5, rtol=0)


@pytest.mark.parametrize(('size', 'heads'), [('ti', 3), ('s', 6), ('b', 12), ('g', 16)])
def test_uni3d_matches_its_formula(size, heads):
    depth = 1 if size == 'g' else 2
    module = randomise_parameters(Uni3D(size, in_channels=24, depth=depth))
    torch.testing.assert_close(module(tokens()), uni3d(module, tokens(), depth, heads, size), atol=3e-5, rtol=0)


def test_point_bert_has_the_names_and_shapes_of_published_checkpoints():
    shapes = {key: tuple(value.shape) for key, value in PointBERT().state_dict().items()}
    block = {'norm1.weight': (384,), 'norm1.bias': (384,), 'attn.qkv.weight': (1152, 384),
             'attn.proj.weight': (384, 384), 'attn.proj.bias': (384,), 'norm2.weight': (384,), 'norm2.bias': (384,),
             'mlp.fc1.weight': (1536, 384), 'mlp.fc1.bias': (1536,), 'mlp.fc2.weight': (384, 1536),
             'mlp.fc2.bias': (384,)}
    assert shapes == {
        'reduce_dim.weight': (384, 256), 'reduce_dim.bias': (384,), 'cls_token': (1, 1, 384), 'cls_pos': (1, 1, 384),
        'pos_embed.0.weight': (128, 3), 'pos_embed.0.bias': (128,),
        'pos_embed.2.weight': (384, 128), 'pos_embed.2.bias': (384,),
        **{f'blocks.blocks.{i}.{key}': shape for i in range(12) for key, shape in block.items()},
        'norm.weight': (384,), 'norm.bias': (384,)}


@pytest.mark.parametrize(('size', 'depth', 'millions'), [('ti', 12, 6.22), ('s', 12, 22.50), ('b', 12, 86.95),
                                                         ('l', 24, 304.7), ('g', 40, 1012.9)])
def test_uni3d_sizes_have_the_published_number_of_parameters(size, depth, millions):
    with torch.device('meta'):
        module = Uni3D(size)
    assert len(module.blocks) == depth
    # The published count includes the patch encoder and the projection to 1024.
    encoder = 6 * 128 + 128 + 2 * 128 + 128 * 256 + 256 + 512 * 512 + 512 + 2 * 512 + 512 * 512 + 512
    projection = (module.out_channels + 1) * 1024
    found = sum(p.numel() for p in module.parameters()) + encoder + projection
    assert found / 1e6 == pytest.approx(millions, rel=1e-3)


BACKBONES = {'PointBERT': lambda: PointBERT(48, 2, 4, 24), 'Uni3D-ti': lambda: Uni3D('ti', 24, 2),
             'Uni3D-b': lambda: Uni3D('b', 24, 1)}


@pytest.fixture(params=BACKBONES)
def backbone(request):
    return randomise_parameters(BACKBONES[request.param]())


def test_masked_tokens_change_nothing(backbone):
    some = tokens(masked=[4, 10])
    alone = Tokens(some.features[:1, :4], some.centers[:1, :4], None)
    expected = backbone(alone)[0]
    torch.testing.assert_close(backbone(some)[0], expected, atol=1e-5, rtol=0)
    garbage = some.features.clone()
    garbage[0, 4:] = 1e4
    torch.testing.assert_close(backbone(some._replace(features=garbage))[0], expected, atol=1e-5, rtol=0)
    assert (backbone(some._replace(features=garbage, mask=None))[0] - expected).abs().max() > 1e-2


def test_backbones_have_the_common_interface(backbone):
    some = tokens()
    assert backbone.input == 'tokens' and backbone.in_channels == 24
    features = backbone.forward_features(some)
    assert features.shape[:2] == (2, 11)
    pooled = backbone.pool(features, None)
    assert pooled.shape == (2, backbone.out_channels)
    assert torch.equal(pooled, backbone(some))


def test_drop_path_drops_whole_objects_and_keeps_the_mean():
    torch.manual_seed(0)
    x = torch.ones(2000, 3, 2)
    dropped = DropPath(0.25).train()(x)
    assert torch.equal(dropped, dropped[:, :1, :1].expand_as(x))
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert dropped.mean() == pytest.approx(1, abs=0.05)
    assert torch.equal(DropPath(0.25).eval()(x), x)
    assert drop_path_rates(0.1, 3) == pytest.approx([0, 0.05, 0.1])


def test_patch_dropout_is_active_only_in_training():
    module = randomise_parameters(Uni3D('ti', 24, 1, patch_dropout=0.5))
    seen = []
    module.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    module(tokens())
    torch.manual_seed(0)
    module.train()(tokens())
    assert seen == [11, 6]


def test_patch_dropout_keeps_a_real_patch():
    torch.manual_seed(0)
    for _ in range(20):
        dropped = drop_patches(tokens(masked=[1, 10]), 0.5)
        assert dropped.features.shape == (2, 5, 24) and dropped.mask.sum(1).tolist() == [1, 5]
        assert torch.equal(dropped.features[0, 0], tokens().features[0, 0])


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="size='xl'"):
        Uni3D('xl')
    with pytest.raises(ValueError, match=r'patch_dropout=1\.0'):
        Uni3D('ti', patch_dropout=1.0)
    with pytest.raises(ValueError, match='50 does not split into 4 heads'):
        PointBERT(50, num_heads=4)
