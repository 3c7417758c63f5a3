"""Partial training of an encoder: frozen parts and low-rank updates."""
import copy
from functools import cache

import pytest
import torch
from conftest import random_cloud as cloud
from mmengine.model import BaseModule
from torch import nn

from clipgs_plugin import GaussianBatch
from clipgs_plugin.models import GSEncoder, GSTokenizer, PointBERT, PointMAE, Tokens, Uni3D
from clipgs_plugin.models.backbones import OpenShapePPAT, ReCon, ReConPlusPlus
from clipgs_plugin.models.backbones.blocks import Attention, Mlp
from clipgs_plugin.models.backbones.dgcnn import DGCNN
from clipgs_plugin.models.backbones.lora import LoRALinear, add_lora, merge_lora
from clipgs_plugin.models.backbones.pointnet2 import PointNet2
from clipgs_plugin.models.backbones.serialized_transformer import SerializedTransformer
from clipgs_plugin.models.gs_encoder import parts_in

WIDTH = 24
BACKBONES = {
    'PointBERT': lambda **kwargs: PointBERT(WIDTH, 2, 1, WIDTH, **kwargs),
    'PointMAE': lambda **kwargs: PointMAE(WIDTH, 2, 4, **kwargs),
    'Uni3D-ti': lambda **kwargs: Uni3D('ti', WIDTH, 2, **kwargs),
    'Uni3D-b': lambda **kwargs: Uni3D('b', WIDTH, 1, **kwargs),
    'Uni3D-g': lambda **kwargs: Uni3D('g', WIDTH, 1, **kwargs),
}
SMALL = ('PointBERT', 'Uni3D-ti')
ADAPTED = {
    **BACKBONES,
    'OpenShape': lambda: OpenShapePPAT(1, WIDTH, 1),
    'ReCon': lambda: ReCon(WIDTH, 2, 4),
    'ReCon++': lambda: ReConPlusPlus('s', 1),
    'SerializedTransformer': lambda: SerializedTransformer((8, 12), (1, 2), (2, 3), window=8, cells=(4,)),
}


def embed(backbone, dtype=torch.float64):
    if backbone.input == 'gaussians':
        return backbone(GaussianBatch.from_clouds([cloud(30, seed=0), cloud(20, seed=1)]))
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)  # noqa: E731
    return backbone(Tokens(draw(2, 7, backbone.in_channels), draw(2, 7, 3), None))


def randomised(module, but=()):
    """Draw random weights and biases."""
    with torch.no_grad():
        for name, value in module.named_parameters():
            if not name.endswith(but):
                value.normal_(std=value[0].numel() ** -0.5 if value.ndim > 1 else 0.3)
    return module


@cache
def original(name):
    return randomised(ADAPTED[name]()).double().eval()


def built(name):
    return copy.deepcopy(original(name))


def encoder(backbone='PointBERT', refine=True, num_prompts=3, **kwargs):
    tokenizer = GSTokenizer(num_groups=8, group_size=6, channels=WIDTH, refine=refine, refine_widths=(8, 8, 16),
                            patch_encoder=dict(widths=(8, 16, 32)))
    return GSEncoder(tokenizer, BACKBONES[backbone](num_prompts=num_prompts), embed_dim=16, **kwargs)


@pytest.fixture
def batch(random_cloud):
    return GaussianBatch.from_clouds([random_cloud(40, i) for i in range(3)])


# Low-rank updates


@pytest.mark.parametrize('name', ADAPTED)
def test_new_update_changes_nothing(name):
    backbone = built(name)
    expected = embed(backbone)
    assert len(add_lora(backbone, rank=3)) >= 4
    torch.testing.assert_close(embed(backbone), expected, atol=1e-10, rtol=0)


def test_a_backbone_over_gaussians_trains_in_its_updates_alone():
    torch.manual_seed(0)
    frozen = ('patch_encoder', 'blocks', 'norm')
    model = GSEncoder(None, ADAPTED['SerializedTransformer'](), 5, frozen=frozen, lora=dict(rank=2, targets='attn'))
    torch.manual_seed(0)
    plain = GSEncoder(None, ADAPTED['SerializedTransformer'](), 5)
    batch = GaussianBatch.from_clouds([cloud(30, seed=0), cloud(20, seed=1)])
    assert torch.equal(model.eval()(batch), plain.eval()(batch))  # bit for bit
    layers = [name for name in model.parts()['lora'] if name.endswith('lora_b')]
    assert layers == [f'backbone.blocks.{i}.block.attn.{layer}.lora_b' for i in range(3) for layer in ('qkv', 'proj')]
    changed = step(randomised(model, but=('weight', 'bias')), batch)
    assert changed == {*model.parts()['lora'], *model.parts()['projection']}  # batch norms keep their statistics too


@pytest.mark.parametrize('name', ADAPTED)
def test_every_adapted_layer_matches_its_formula_and_learns(name):
    """Compare with an unadapted backbone of weights W + alpha / rank B A, layer by layer and all together."""
    unadapted, rank, alpha = built(name), 3, 12
    adapted = copy.deepcopy(unadapted)
    layers = {layer: adapted.get_submodule(layer) for layer in add_lora(adapted, rank, alpha)}
    weights = {key: value.clone() for key, value in unadapted.state_dict().items()}
    at_start, changed, updates = embed(unadapted).detach(), {}, {}
    for layer, module in layers.items():
        key = f'{layer}.weight'
        out_features, in_features = weights[key].shape
        assert module.lora_a.shape == (rank, in_features) and not module.lora_b.any()
        assert max(gradients(adapted, module.lora_b)) > 0, layer
        updates[layer] = torch.randn(out_features, rank, dtype=torch.float64)
        changed[key] = weights[key] + sum(
            alpha / rank * updates[layer][:, r, None] * module.lora_a.detach()[r] for r in range(rank))
        with torch.no_grad():
            module.lora_b.copy_(updates[layer])
        unadapted.load_state_dict({**weights, key: changed[key]})
        found = embed(adapted)
        torch.testing.assert_close(found, embed(unadapted), atol=1e-10, rtol=0, msg=lambda m, k=layer: f'{k}: {m}')
        assert (found - at_start).abs().max() > 1e-3, layer
        assert min(gradients(adapted, module.lora_a, module.lora_b)) > 0, layer
        nn.init.zeros_(module.lora_b)
    with torch.no_grad():
        for layer, module in layers.items():
            module.lora_b.copy_(updates[layer])
    unadapted.load_state_dict({**weights, **changed})
    torch.testing.assert_close(embed(adapted), embed(unadapted), atol=1e-10, rtol=0)


def gradients(module, *parameters):
    """Return the largest absolute gradient of each parameter."""
    found = torch.autograd.grad(embed(module).square().sum(), parameters)
    return [gradient.abs().max().item() for gradient in found]


@pytest.mark.parametrize('name', ADAPTED)
def test_merged_layers_are_ordinary_and_equivalent(name):
    backbone = built(name)
    names = list(backbone.state_dict())
    add_lora(backbone, rank=2)
    randomised(backbone, but=('weight', 'bias'))
    expected = embed(backbone)
    assert merge_lora(backbone) is backbone
    assert list(backbone.state_dict()) == names
    assert not any(isinstance(module, LoRALinear) for module in backbone.modules())
    torch.testing.assert_close(embed(backbone), expected, atol=1e-10, rtol=0)
    single = embed(backbone.float(), torch.float32)
    torch.testing.assert_close(single, expected.float(), atol=1e-4, rtol=1e-5)


def test_merged_layers_stay_frozen_or_trainable():
    for frozen in (True, False):
        linear = nn.Linear(4, 5).requires_grad_(not frozen)
        merged = LoRALinear(linear, rank=2, alpha=4).merged()
        assert merged.weight.requires_grad == merged.bias.requires_grad == (not frozen)


@pytest.mark.parametrize(('name', 'attn', 'mlp'), [
    ('PointBERT', {'blocks.blocks.0.attn.qkv', 'blocks.blocks.0.attn.proj'},
     {'blocks.blocks.0.mlp.fc1', 'blocks.blocks.0.mlp.fc2'}),
    ('Uni3D-ti', {'blocks.0.attn.qkv', 'blocks.0.attn.proj'}, {'blocks.0.mlp.fc1', 'blocks.0.mlp.fc2'}),
    ('Uni3D-b', {'blocks.0.attn.q_proj', 'blocks.0.attn.k_proj', 'blocks.0.attn.v_proj', 'blocks.0.attn.proj'},
     {'blocks.0.mlp.fc1_g', 'blocks.0.mlp.fc1_x', 'blocks.0.mlp.fc2'}),
])
def test_targets_are_layers_of_the_blocks(name, attn, mlp):
    def first_block(*targets):
        return {layer for layer in add_lora(built(name), targets=targets) if layer.startswith(('blocks.blocks.0.',
                                                                                               'blocks.0.'))}
    assert first_block('attn') == attn
    assert first_block('mlp') == mlp
    assert first_block('attn', 'mlp') == attn | mlp
    everything = add_lora(built(name))
    assert all(layer.startswith('blocks.') for layer in everything)  # not the layers before the blocks


class SelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.to_qkv, self.to_out = nn.Linear(4, 12), nn.Sequential(nn.Linear(4, 4), nn.Dropout(0))


class PreNorm(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.norm, self.fn = nn.LayerNorm(4), fn


def test_attention_is_recognised_by_type_or_name():
    """Layers of OpenShape have numbers, so only the type identifies them; layers of ReCon have names."""
    mlp = nn.ModuleDict({'net': nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))})
    numbered = nn.ModuleDict({'transformer': nn.ModuleDict({'layers': nn.ModuleList([nn.ModuleList(
        [PreNorm(SelfAttention()), PreNorm(mlp)])])})})
    assert add_lora(numbered, targets='attn') == [
        'transformer.layers.0.0.fn.to_qkv', 'transformer.layers.0.0.fn.to_out.0']
    assert add_lora(numbered, targets='mlp') == ['transformer.layers.0.1.fn.net.0', 'transformer.layers.0.1.fn.net.2']
    named = nn.ModuleDict({
        'attn': Attention(4, 2), 'mlp': Mlp(4, 8), 'mlp_contrast': Mlp(4, 8),
        'attn_contrast': nn.ModuleDict({'q': nn.Linear(4, 4), 'kv': nn.Linear(4, 8), 'proj': nn.Linear(4, 4)})})
    assert add_lora(named, targets=['attn']) == [
        'attn.qkv', 'attn.proj', 'attn_contrast.q', 'attn_contrast.kv', 'attn_contrast.proj']
    assert add_lora(named, targets=['mlp']) == ['mlp.fc1', 'mlp.fc2', 'mlp_contrast.fc1', 'mlp_contrast.fc2']


def test_refused_adaptation_changes_nothing():
    with pytest.raises(ValueError, match=r"targets=\('qkv',\): expected one or more of \('attn', 'mlp'\)"):
        add_lora(built('PointBERT'), targets=('qkv',))
    with pytest.raises(ValueError, match='rank=0'):
        add_lora(built('PointBERT'), rank=0)
    for backbone in (Statistics(), PointNet2(), DGCNN()):
        with pytest.raises(ValueError, match=f'{type(backbone).__name__} has no attention.*set lora=None'):
            add_lora(backbone, targets='mlp')
        assert not any(isinstance(module, LoRALinear) for module in backbone.modules())
    with pytest.raises(ValueError, match=r"LayerNorm has no linear layers for targets=\('attn',\)"):
        add_lora(nn.LayerNorm(4), targets='attn')
    adapted = built('PointBERT')
    add_lora(adapted, targets='attn')
    with pytest.raises(ValueError, match=r'blocks\.blocks\.0\.attn\.qkv is a LoRALinear'):
        add_lora(adapted)
    assert type(adapted.blocks.blocks[0].mlp.fc1) is nn.Linear
    with pytest.raises(ValueError, match='out_proj is a NonDynamicallyQuantizableLinear'):  # weight read without a call
        add_lora(nn.TransformerEncoderLayer(8, 2))


def test_adaptation_keeps_other_names_and_weights():
    torch.manual_seed(0)
    expected = encoder().state_dict()
    torch.manual_seed(0)
    found = encoder(lora=dict(rank=2)).state_dict()
    added = {name for name in found if name not in expected}
    assert len(added) == 2 * 2 * 4 and all(name.rpartition('.')[-1] in ('lora_a', 'lora_b') for name in added)
    assert expected.keys() < found.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


# Parts


def test_every_parameter_is_in_the_part_of_its_name():
    prefixes = {
        'patch_encoder': ('tokenizer.patch_encoder.', 'backbone.reduce_dim.', 'backbone.encoder2trans.'),
        'refinement': ('tokenizer.refinement.',),
        'position': ('backbone.cls_token', 'backbone.cls_pos', 'backbone.pos_embed.'),
        'blocks': ('backbone.blocks.',),
        'norm': ('backbone.norm.', 'backbone.fc_norm.'),
        'prompts': ('backbone.prompt_tokens',),
        'projection': ('projection.',),
    }
    for name in BACKBONES:
        model = encoder(name, lora=dict(rank=2))
        parts = model.parts()
        assert parts.keys() == {*prefixes, 'lora'}
        listed = [name for names in parts.values() for name in names]
        assert sorted(listed) == sorted(name for name, _ in model.named_parameters())
        for part, beginnings in prefixes.items():
            assert parts[part] and all(name.startswith(beginnings) and '.lora_' not in name for name in parts[part])
        assert parts['lora'] and all('.lora_' in name for name in parts['lora'])
    assert parts_in(nn.ModuleDict({'encoder': model}))['encoder.projection.bias'] == 'projection'
    assert parts_in(nn.Linear(2, 2)) == {}


class Statistics(BaseModule):
    """Backbone over Gaussians with given parts."""

    input, out_channels = 'gaussians', 3

    def __init__(self, parts=None):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        self.head = nn.Linear(3, 3)
        if parts is not None:
            self.parts = parts

    def forward(self, batch):
        return self.head(self.layers(batch.means.mean(1)))


def test_backbones_over_gaussians_have_parts():
    for backbone in (Statistics(), Statistics({'blocks': ('',)})):
        parts = GSEncoder(None, backbone, 5).parts()
        assert len(parts['blocks']) == 6 and parts['projection'] == ['projection.weight', 'projection.bias']
    parts = GSEncoder(None, Statistics({'head': ('head.',), 'blocks': ('layers.',)}), 5, frozen='head').parts()
    assert len(parts['blocks']) == 4 and parts['head'] == ['backbone.head.weight', 'backbone.head.bias']
    with pytest.raises(ValueError, match=r'backbone\.head\.weight belongs to no part of Statistics'):
        GSEncoder(None, Statistics({'blocks': ('layers.',)}), 5).parts()


# Freezing


def step(model, batch):
    """Take one training step and return the names of changed parameters and buffers."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    model(batch).square().sum().backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize('name', SMALL)
def test_frozen_parts_keep_weights_and_statistics_while_others_learn(name, batch):
    frozen = ('patch_encoder', 'position', 'blocks', 'norm')
    model = randomised(encoder(name, frozen=frozen, lora=dict(rank=2)))
    changed = step(model, batch)
    expected = {name for name in model.state_dict() if '.lora_' in name or name == 'backbone.prompt_tokens'
                or name.startswith(('tokenizer.refinement.', 'projection.'))}
    assert changed == expected
    assert 'tokenizer.refinement.convs.rows.0.1.running_mean' in expected


def test_each_part_freezes_by_its_name(batch):
    for part in encoder().parts():
        model = randomised(encoder(lora=dict(rank=2), frozen=part))
        frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
        assert frozen == set(model.parts()[part]) != set()
    statistics = {name for name in step(encoder(frozen='refinement'), batch) if 'running_mean' in name}
    assert statistics and all(name.startswith('tokenizer.patch_encoder.') for name in statistics)


def test_frozen_modules_stay_in_eval_mode():
    model = encoder(frozen=('patch_encoder', 'blocks'))
    for training in (model.training, model.train().training, model.eval().train().training):
        assert training
        assert not any(m.training for part in (model.tokenizer.patch_encoder, model.backbone.blocks,
                                               model.backbone.reduce_dim) for m in part.modules())
        assert all(m.training for part in (model.tokenizer.refinement, model.backbone.norm, model.projection)
                   for m in part.modules())
        assert model.backbone.training and model.tokenizer.training  # they contain other parts too
    assert not any(m.training for m in model.eval().modules())


def test_frozen_backbone_keeps_patch_dropout_and_recomputation(batch):
    """They affect the training of earlier layers, not the frozen weights."""
    model = encoder(frozen=('position', 'blocks', 'norm'))
    model.backbone.patch_dropout, model.backbone.grad_checkpointing = 0.5, True
    seen = []
    model.backbone.blocks.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    model.train()(batch).square().sum().backward()
    assert seen == [1 + 4 + 3] * 2  # class token, half of 8 patches, 3 prompts; forward, and again for the gradient


def test_frozen_blocks_with_low_rank_updates_stay_in_training_mode():
    model = encoder(frozen='blocks', lora=dict(rank=2, targets=('attn',)))
    block = model.train().backbone.blocks.blocks[1]
    assert block.drop_path.training and block.attn.training and not block.mlp.training and not block.norm1.training


def test_unknown_part_is_refused():
    with pytest.raises(ValueError, match=r"unknown part 'block', 'head'; expected some of "
                                         r"\('patch_encoder', 'refinement', 'position', 'blocks', 'norm', "):
        encoder(frozen=('norm', 'block', 'head'))
    absent = encoder(refine=False, num_prompts=0, frozen=('refinement', 'prompts', 'lora'))
    assert all(p.requires_grad for p in absent.parameters())


# Initialisation


def test_mmengine_initialises_adapted_layers_like_ordinary_ones():
    constant = dict(type='Constant', layer=['Linear', 'Conv1d'], val=0.25, bias=0.5)
    model = encoder('Uni3D-b', lora=dict(rank=2), frozen='blocks', init_cfg=constant)
    before = {name: value.clone() for name, value in model.named_parameters() if 'lora' in name or 'prompt' in name}
    model.init_weights()
    fc1 = model.backbone.blocks[0].mlp.fc1_g
    assert (fc1.weight == 0.25).all() and (fc1.bias == 0.5).all() and not fc1.weight.requires_grad
    assert len(before) == 1 + 2 * 7
    for name, value in before.items():
        assert torch.equal(model.get_parameter(name), value), name


@pytest.mark.parametrize('name', SMALL)
def test_published_weights_load_into_an_adapted_and_frozen_encoder(name, tmp_path):
    published = randomised(encoder(name, num_prompts=0))
    state = {key.removeprefix('tokenizer.patch_').removeprefix('backbone.'): value
             for key, value in published.state_dict().items() if 'refinement' not in key and 'projection' not in key}
    if name == 'Uni3D-ti':
        state = {f'visual.{key}' if key.startswith(('blocks.', 'fc_norm.')) else key: value
                 for key, value in state.items()}
    torch.save({'state_dict': state}, tmp_path / 'published.pt')
    model = encoder(name, lora=dict(rank=2), frozen=('patch_encoder', 'blocks'),
                    init_cfg=dict(type='PointCloudPretrained', checkpoint=str(tmp_path / 'published.pt')))
    adapted = {key: model.get_parameter(key).clone() for key in [*model.parts()['lora'], 'backbone.prompt_tokens']}
    model.init_weights()
    for key, value in model.state_dict().items():
        if key in adapted:
            assert torch.equal(value, adapted[key]), key
        elif 'refinement' not in key and 'projection' not in key:
            assert torch.equal(value, published.state_dict()[key]), key
    assert not model.backbone.pos_embed[0].weight.grad_fn and not any(
        model.get_parameter(key).requires_grad for key in model.parts()['blocks'])


@pytest.mark.parametrize('name', SMALL)
def test_short_objects_see_their_prompts_in_a_padded_batch(name, random_cloud):
    model = encoder(name).eval()
    with torch.no_grad():
        model.backbone.prompt_tokens.normal_()
        clouds = [random_cloud(n, n) for n in (40, 3, 1)]  # 3 and 1 Gaussians have fewer patches than 8
        together = model(GaussianBatch.from_clouds(clouds))
        alone = torch.cat([model(GaussianBatch.from_clouds([cloud])) for cloud in clouds])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
        model.backbone.prompt_tokens.normal_()
        assert ((model(GaussianBatch.from_clouds(clouds)) - together).abs().amax(1) > 1e-3).all()
