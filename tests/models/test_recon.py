"""ReCon and ReCon++, compared with their formulas in float64."""
import pytest
import timm
import torch
from formulas import Formula, randomise_parameters, tokens

from clipgs_plugin.models import Tokens
from clipgs_plugin.models.backbones.recon import ReCon, ReConBlock
from clipgs_plugin.models.backbones.recon_plus_plus import SIZES, GlobalBlock, LocalBlock, ReConPlusPlus
from clipgs_plugin.registry import MODELS

SMALL = {'ReCon': dict(type='ReCon', embed_dims=48, depth=3, num_heads=4),
         'ReConPlusPlus': dict(type='ReConPlusPlus', size='tiny'),
         'ReConPlusPlus-scaled': dict(type='ReConPlusPlus', size='tiny-scaled')}


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch):
    """Narrow sizes of ReCon++ with and without LayerScale, for speed."""
    monkeypatch.setitem(SIZES, 'tiny', (48, 3, 4, 4.0, False))
    monkeypatch.setitem(SIZES, 'tiny-scaled', (48, 3, 4, 4.0, True))


def build(name, **options):
    """Build a small backbone with random weights in eval mode."""
    module = randomise_parameters(MODELS.build(dict(SMALL[name], **options)))
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, torch.nn.LayerNorm):
                layer.weight += 1
    return module


def scaled(f, x, name):
    """Apply a LayerScale, if the block has one."""
    return x * f.w.get(f'{name}.gamma', 1.0)


def recon(module, tokens, wrong='', depth=3, heads=4):
    f = Formula(module)
    b, g = tokens.features.shape[:2]
    x, position = f.prompted(tokens.features.double(), f.position(tokens.centers))
    names = ('cls', 'img', 'text')
    queries = torch.cat([f.w[f'{name}_token'] for name in names], 1).expand(b, -1, -1)
    learned = torch.cat([f.w[f'{name}_pos'] for name in names], 1)
    for i in range(depth):
        name = f'blocks.blocks.{i}'
        if i == 0 or wrong != 'position once':
            x, queries = x + position, queries + learned
        y, r = f.norm(x, f'{name}.norm1'), f.norm(queries, f'{name}.norm1_contrast')
        x, queries = (x, queries) if wrong == 'pre-norm' else (y, r)
        attended = f.cross_attention(r, y, f'{name}.attn_contrast', heads)
        x = x + f.self_attention(y, f'{name}.attn', heads)
        if wrong == 'patches after their self-attention':
            attended = f.cross_attention(r, x, f'{name}.attn_contrast', heads)
        queries = queries + attended
        y, r = f.norm(x, f'{name}.norm2'), f.norm(queries, f'{name}.norm2_contrast')
        x, queries = (x, queries) if wrong == 'pre-norm' else (y, r)
        x, queries = x + f.mlp(y, f'{name}.mlp'), queries + f.mlp(r, f'{name}.mlp_contrast')
    return f.norm(torch.cat([queries, x[:, :g]], 1), 'norm')


def recon_plus_plus(module, tokens, wrong='', depth=3, heads=4):
    f = Formula(module)
    b, g = tokens.features.shape[:2]
    x, position = f.prompted(tokens.features.double(), f.position(tokens.centers))
    queries = f.w['global_query'].expand(b, -1, -1)
    for i in range(depth):
        before = x
        name = f'encoder.blocks.local_blocks.{i}'
        if i == 0 or wrong != 'position once':
            x = x + position
        x = x + scaled(f, f.self_attention(f.norm(x, f'{name}.norm1'), f'{name}.attn', heads), f'{name}.ls1')
        x = x + scaled(f, f.mlp(f.norm(x, f'{name}.norm2'), f'{name}.mlp'), f'{name}.ls2')
        name = f'encoder.blocks.global_blocks.{i}'
        context = before if wrong == 'patches before their block' else x
        if wrong != 'patches not normalised':
            context = f.norm(context, f'{name}.norm1')
        attended = f.cross_attention(f.norm(queries, f'{name}.norm1'), context, f'{name}.attn', heads)
        queries = queries + scaled(f, attended, f'{name}.ls1')
        queries = queries + scaled(f, f.mlp(f.norm(queries, f'{name}.norm2'), f'{name}.mlp'), f'{name}.ls2')
    return torch.cat([f.norm(queries, 'encoder.ln_f2'), f.norm(x[:, :g], 'encoder.ln_f1')], 1)


def formula(name, *args):
    return (recon if name == 'ReCon' else recon_plus_plus)(*args)


@pytest.mark.parametrize('num_prompts', [0, 3])
@pytest.mark.parametrize('name', SMALL)
def test_features_match_their_formula(name, num_prompts):
    module = build(name, num_prompts=num_prompts)
    some = tokens(channels=module.in_channels)
    expected = formula(name, module, some)
    torch.testing.assert_close(module.forward_features(some).double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(('name', 'wrong'), [
    ('ReCon', 'pre-norm'), ('ReCon', 'position once'), ('ReCon', 'patches after their self-attention'),
    ('ReConPlusPlus', 'position once'), ('ReConPlusPlus', 'patches before their block'),
    ('ReConPlusPlus', 'patches not normalised')])
def test_misread_formulas_differ(name, wrong):
    module = build(name)
    some = tokens(channels=module.in_channels)
    differences = (module.forward_features(some) - formula(name, module, some, wrong)).abs()
    assert differences[:, :3].max() > 1e-2  # in tokens that the feature uses


def test_recon_pools_its_global_tokens_and_the_maximum_over_patches():
    module = build('ReCon')
    features = torch.randn(2, 13, 48)
    expected = [[*row[0], *row[1], *row[2], *(max(column) for column in zip(*row[3:]))] for row in features.tolist()]
    assert torch.equal(module.pool(features, None), torch.tensor(expected))
    assert torch.equal(module.readout(features, None), torch.tensor(expected))
    some = torch.ones(2, 10, dtype=torch.bool)
    some[1, 4:] = False
    assert module.pool(features, some)[1, 144:].tolist() == features[1, 3:7].max(0).values.tolist()
    assert module.out_channels == 192


def test_recon_plus_plus_pools_thirteen_image_and_three_text_queries():
    module = build('ReConPlusPlus')
    features = torch.randn(2, 26, 48)
    assert torch.equal(module.readout(features, None), features[:, :16])
    expected = torch.stack([torch.cat([sum(row[:13]) / 13, sum(row[13:16]) / 3]) for row in features])
    torch.testing.assert_close(module.pool(features, None), expected, atol=1e-6, rtol=0)
    assert module.out_channels == 96


@pytest.mark.parametrize('name', SMALL)
def test_forward_is_the_pooled_feature(name):
    module = build(name)
    some = tokens(channels=module.in_channels, masked=[4, 10])
    features = module.forward_features(some)
    assert features.shape == (2, (3 if name == 'ReCon' else 16) + 10, module.in_channels)
    pooled = module(some)
    assert pooled.shape == (2, module.out_channels)
    assert torch.equal(pooled, module.pool(features, some.mask))


@pytest.mark.parametrize('num_prompts', [0, 2])
@pytest.mark.parametrize('name', SMALL)
def test_masked_tokens_change_nothing(name, num_prompts):
    module = build(name, num_prompts=num_prompts)
    some = tokens(channels=module.in_channels, masked=[4, 10])
    alone = Tokens(some.features[:1, :4], some.centers[:1, :4], None)
    expected, pooled = module.forward_features(alone)[0], module(alone)[0]
    garbage = some.features.clone()
    garbage[0, 4:] = 1e4
    for features in (some.features, garbage):
        same = some._replace(features=features)
        found = module.forward_features(same)[0, :len(expected)]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(module(same)[0], pooled, atol=1e-5, rtol=0)
    unmasked = module.forward_features(some._replace(features=garbage, mask=None))[0, :len(expected)]
    assert ((unmasked - expected).abs().amax(-1) > 1e-2).all()  # every token sees the padding then


@pytest.mark.parametrize('name', SMALL)
def test_recomputed_blocks_give_the_same_gradients(name):
    def gradients(**options):
        module = build(name, num_prompts=2, **options).train()
        some = tokens(channels=module.in_channels, masked=[4, 10])
        calls = []
        for block in module.modules():
            if isinstance(block, (ReConBlock, LocalBlock, GlobalBlock)):
                block.register_forward_pre_hook(lambda *_: calls.append(1))
        module(some._replace(features=some.features.requires_grad_())).square().sum().backward()
        return {'tokens': some.features.grad, **{key: value.grad for key, value in module.named_parameters()}}, calls

    (kept, once), (computed, twice) = gradients(), gradients(grad_checkpointing=True)
    assert len(twice) == 2 * len(once)
    for key, value in kept.items():
        # The pooled feature of ReCon++ does not use the norm of the patches.
        assert (value.abs().max() > 0) == (not key.startswith('encoder.ln_f1.')), key
        torch.testing.assert_close(computed[key], value, atol=1e-6, rtol=1e-5, msg=lambda m, k=key: f'{k}: {m}')


@pytest.mark.parametrize('name', SMALL)
def test_gradients_reach_the_patches_through_queries(name):
    module = build(name)
    some = tokens(channels=module.in_channels)
    queries = module.forward_features(some._replace(features=some.features.requires_grad_()))[:, :3]
    (queries * torch.randn(queries.shape)).sum().backward()
    assert (some.features.grad.abs().amax(-1) > 1e-4).all()


@pytest.mark.parametrize('name', SMALL)
def test_every_parameter_belongs_to_one_part(name):
    module = build(name)
    for key in module.state_dict():
        assert [part for part, names in module.parts.items() if key.startswith(names)] in (
            ['position'], ['blocks'], ['norm']), key
    assert list(module.parts) == ['patch_encoder', 'position', 'blocks', 'norm'] and not module.parts['patch_encoder']


def test_drop_path_grows_towards_the_last_block():
    module = build('ReCon', drop_path_rate=0.2)
    assert [block.drop_path.rate for block in module.blocks['blocks']] == pytest.approx([0, 0.1, 0.2])
    blocks = build('ReConPlusPlus', drop_path_rate=0.2).encoder['blocks']
    for kind in ('local_blocks', 'global_blocks'):
        assert [block.drop_path.rate for block in blocks[kind]] == pytest.approx([0, 0.1, 0.2])


def shapes(module):
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def test_recon_has_the_names_and_shapes_of_published_checkpoints():
    norm = {'weight': (384,), 'bias': (384,)}
    mlp = {'fc1.weight': (1536, 384), 'fc1.bias': (1536,), 'fc2.weight': (384, 1536), 'fc2.bias': (384,)}
    block = {
        **{f'{name}.{key}': shape for name in ('norm1', 'norm2', 'norm1_contrast', 'norm2_contrast')
           for key, shape in norm.items()},
        **{f'{name}.{key}': shape for name in ('mlp', 'mlp_contrast') for key, shape in mlp.items()},
        'attn.qkv.weight': (1152, 384), 'attn.proj.weight': (384, 384), 'attn.proj.bias': (384,),
        'attn_contrast.q.weight': (384, 384), 'attn_contrast.kv.weight': (768, 384),
        'attn_contrast.proj.weight': (384, 384), 'attn_contrast.proj.bias': (384,)}
    assert shapes(ReCon()) == {
        **{f'{name}_{what}': (1, 1, 384) for name in ('cls', 'img', 'text') for what in ('token', 'pos')},
        'pos_embed.0.weight': (128, 3), 'pos_embed.0.bias': (128,),
        'pos_embed.2.weight': (384, 128), 'pos_embed.2.bias': (384,),
        **{f'blocks.blocks.{i}.{key}': shape for i in range(12) for key, shape in block.items()},
        'norm.weight': (384,), 'norm.bias': (384,)}


# Image model that initialises each size. Its blocks are the local blocks, name by name, and the global blocks with
# qkv split into q and kv.
IMAGE_MODELS = {'s': 'vit_small_patch14_dinov2', 'b': 'vit_base_patch32_clip_384', 'l': 'eva_large_patch14_336',
                'g': 'vit_giant_patch14_clip_224'}


@pytest.mark.parametrize('size', SIZES)
def test_recon_plus_plus_has_the_names_and_shapes_of_published_checkpoints(size):
    with torch.device('meta'):
        module = ReConPlusPlus(size)
        image_model = timm.create_model(IMAGE_MODELS[size])
    dim, local_blocks, global_blocks = image_model.embed_dim, shapes(image_model.blocks), {}
    for key, (rows, *columns) in local_blocks.items():
        if '.qkv.' in key:
            global_blocks[key.replace('.qkv.', '.q.')] = (rows // 3, *columns)
            global_blocks[key.replace('.qkv.', '.kv.')] = (rows // 3 * 2, *columns)
        else:
            global_blocks[key] = (rows, *columns)
    assert shapes(module) == {
        'global_query': (1, 16, dim),
        'pos_embed.0.weight': (128, 3), 'pos_embed.0.bias': (128,),
        'pos_embed.2.weight': (dim, 128), 'pos_embed.2.bias': (dim,),
        **{f'encoder.blocks.local_blocks.{key}': shape for key, shape in local_blocks.items()},
        **{f'encoder.blocks.global_blocks.{key}': shape for key, shape in global_blocks.items()},
        **{f'encoder.{name}.{key}': (dim,) for name in ('ln_f1', 'ln_f2') for key in ('weight', 'bias')}}
    assert module.in_channels == dim and module.out_channels == 2 * dim
    heads = {block.attn.num_heads for blocks in module.encoder['blocks'].values() for block in blocks}
    assert heads == {image_model.blocks[0].attn.num_heads}


@pytest.mark.parametrize(('size', 'dim', 'depth', 'hidden', 'scales'), [
    ('s', 384, 12, 1536, 2), ('b', 768, 12, 3072, 0), ('l', 1024, 24, 4096, 0), ('g', 1408, 40, 6144, 0)])
def test_recon_plus_plus_sizes_have_their_number_of_blocks_and_parameters(size, dim, depth, hidden, scales):
    with torch.device('meta'):
        module = ReConPlusPlus(size)
    assert [len(blocks) for blocks in module.encoder['blocks'].values()] == [depth, depth]
    attention, mlp, norms = 4 * dim * dim + 4 * dim, 2 * dim * hidden + hidden + dim, 4 * dim
    blocks = 2 * depth * (attention + mlp + norms + scales * dim)
    position = 3 * 128 + 128 + 128 * dim + dim
    assert sum(p.numel() for p in module.parameters()) == blocks + 16 * dim + position + 4 * dim


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="size='xl'"):
        ReConPlusPlus('xl')
    with pytest.raises(ValueError, match='num_queries=3: expected more than 3'):
        ReConPlusPlus('s', depth=1, num_queries=3)
    with pytest.raises(ValueError, match='50 does not split into 4 heads'):
        ReCon(50, depth=1, num_heads=4)
