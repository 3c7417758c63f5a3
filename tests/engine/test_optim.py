import pytest
import torch
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import nn

from clipgs_plugin.engine import AutocastOptimWrapper, CLIPGSOptimWrapperConstructor
from clipgs_plugin.models import ContrastiveLoss, GSEncoder, GSTokenizer, PointBERT, Uni3D
from clipgs_plugin.models.backbones import OpenShapePPAT, ReCon, ReConPlusPlus


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.linear = nn.Linear(4, 4)


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.cls_pos = nn.Parameter(torch.zeros(1, 1, 4))
        self.pos_embed = nn.Sequential(nn.Linear(3, 4))
        self.blocks = nn.ModuleDict({'blocks': nn.ModuleList([Block() for _ in range(2)])})
        self.norm = nn.LayerNorm(4)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokenizer = nn.ModuleDict({'conv': nn.Conv1d(3, 4, 1)})
        self.backbone = Backbone()
        self.projection = nn.Linear(4, 5)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.logit_scale = nn.Parameter(torch.tensor(2.0))


def settings(model, paramwise=None):
    """Learning rate and decay of each trainable parameter by name."""
    wrapper = build_optim_wrapper(model, dict(
        type='OptimWrapper', constructor='clipgs_plugin.CLIPGSOptimWrapperConstructor', paramwise_cfg=paramwise,
        optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.5)))
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {names[parameter]: (group['lr'], group['weight_decay'])
             for group in wrapper.optimizer.param_groups for parameter in group['params']}
    return wrapper, found


def test_only_weight_matrices_are_decayed():
    model = Model()
    wrapper, found = settings(model)
    assert isinstance(wrapper, OptimWrapper) and len(wrapper.optimizer.param_groups) == 2
    assert found.keys() == {name for name, _ in model.named_parameters()}
    decayed = {name for name, (_, decay) in found.items() if decay}
    assert decayed == {'encoder.tokenizer.conv.weight', 'encoder.backbone.pos_embed.0.weight',
                       'encoder.backbone.blocks.blocks.0.linear.weight',
                       'encoder.backbone.blocks.blocks.1.linear.weight', 'encoder.projection.weight'}
    assert {values for values in found.values()} == {(1.0, 0.5), (1.0, 0.0)}


def test_frozen_parameters_are_in_no_group():
    model = Model()
    model.encoder.tokenizer.requires_grad_(False)
    assert not [name for name in settings(model)[1] if 'tokenizer' in name]


def test_layer_decay_counts_blocks_to_the_output():
    wrapper, found = settings(Model(), dict(layer_decay=0.5))
    expected = {'tokenizer': 0.125, 'cls_token': 0.125, 'cls_pos': 0.125, 'pos_embed': 0.125, 'blocks.0': 0.25,
                'blocks.1': 0.5, 'backbone.norm': 1.0, 'projection': 1.0, 'logit_scale': 1.0}
    for name, (lr, _) in found.items():
        assert lr == next(value for key, value in expected.items() if key in name), name
    assert wrapper.optimizer.param_groups[0]['lr'] == 1.0


def nested(**paths):
    """Modules at the ends of dotted paths."""
    root = nn.Module()
    for path, module in paths.items():
        *owners, leaf = path.split('.')
        owner = root
        for name in owners:
            if not hasattr(owner, name):
                owner.add_module(name, nn.Module())
            owner = getattr(owner, name)
        if isinstance(module, nn.Parameter):
            owner.register_parameter(leaf, module)
        else:
            owner.add_module(leaf, module)
    return root


def row(depth=3):
    return nn.ModuleList([nn.Linear(4, 4) for _ in range(depth)])


@pytest.mark.parametrize('blocks', [
    ['blocks'], ['blocks.blocks'], ['transformer.layers'], ['transformer.resblocks'],
    ['encoder.blocks.local_blocks', 'encoder.blocks.global_blocks']])
def test_layer_decay_sees_the_blocks_by_every_familys_names(blocks):
    model = nested(**{
        'encoder.tokenizer.patch_encoder': nn.Linear(3, 4), 'encoder.tokenizer.refinement.gate': nn.Linear(4, 4),
        'encoder.tokenizer.refinement.convs.layers.0': nn.Linear(3, 4),
        'encoder.backbone.prompt_tokens': nn.Parameter(torch.zeros(1, 2, 4)),
        'encoder.backbone.global_query': nn.Parameter(torch.zeros(1, 2, 4)),
        **{f'encoder.backbone.{name}': row() for name in blocks}, 'encoder.backbone.norm': nn.LayerNorm(4)})
    model.logit_scale = nn.Parameter(torch.tensor(2.0))
    found = settings(model, dict(layer_decay=0.5))[1]
    for name, (lr, decay) in found.items():
        index = next((i for i in range(3) if f'locks.{i}.' in name or f'transformer.layers.{i}.' in name), None)
        expected = (0.5 ** (3 - index) if index is not None
                    else 0.5 ** 4 if 'patch_encoder' in name or 'global_query' in name else 1.0)
        assert lr == expected, name
        assert decay == (0.5 if name.endswith('weight') and 'norm' not in name else 0.0), name
    assert len(found) == 2 * 3 + 3 + 2 + 2 * 3 * len(blocks)


@pytest.mark.parametrize(('frozen', 'lora'), [
    ((), dict(rank=2)), (('patch_encoder',), dict(rank=2)), (('blocks', 'norm'), dict(rank=2)), (('blocks',), None)])
@pytest.mark.parametrize('backbone', ['PointBERT', 'Uni3D'])
def test_layer_decay_of_real_encoders(backbone, frozen, lora):
    """By their parts; frozen blocks count, and low-rank updates learn as the block they are in."""
    tokenizer = GSTokenizer(num_groups=8, group_size=6, channels=24, refine_widths=(8, 8, 16))
    kwargs = dict(num_prompts=2)
    module = PointBERT(24, 3, 4, 24, **kwargs) if backbone == 'PointBERT' else Uni3D('ti', 24, 3, **kwargs)
    model = nn.Module()
    model.encoder = GSEncoder(tokenizer, module, 16, frozen=frozen, lora=lora)
    model.logit_scale = nn.Parameter(torch.tensor(2.0))
    found = settings(model, dict(layer_decay=0.5))[1]
    start = 'encoder.backbone.blocks.blocks.' if backbone == 'PointBERT' else 'encoder.backbone.blocks.'
    below = ('encoder.tokenizer.patch_encoder.', 'encoder.backbone.reduce_dim.', 'encoder.backbone.encoder2trans.',
             'encoder.backbone.cls_', 'encoder.backbone.pos_embed.')
    for name, (lr, decay) in found.items():
        if name.startswith(start):
            assert lr == 0.5 ** (3 - int(name.removeprefix(start)[0])), name
        else:
            assert lr == (0.5 ** 4 if name.startswith(below) else 1.0), name
        matrix = name.endswith(('.weight', '.lora_a', '.lora_b')) and model.get_parameter(name).ndim > 1
        assert decay == (0.5 if matrix else 0.0), name
    names = {name for name, _ in model.named_parameters()}
    without = {name for part in frozen for name in model.encoder.parts()[part]}
    assert found.keys() == names - {f'encoder.{name}' for name in without}
    assert {name.rpartition('.')[-1] for name, (_, decay) in found.items() if not decay} >= {
        'cls_token', 'cls_pos', 'prompt_tokens', 'logit_scale', 'bias'}
    in_blocks = set() if lora is None and 'blocks' in frozen else {0.5 ** 3, 0.5 ** 2, 0.5}
    assert {lr for lr, _ in found.values()} == {0.5 ** 4, 1.0} | in_blocks  # each kind of group is there


@pytest.mark.parametrize('backbone', [
    lambda: OpenShapePPAT(1, 24, 2), lambda: ReCon(24, 2, 4), lambda: ReConPlusPlus('s', 2)])
def test_layer_decay_reaches_from_patch_encoder_to_norm_in_every_family(backbone):
    backbone = backbone()
    tokenizer = GSTokenizer(num_groups=8, group_size=6, channels=backbone.in_channels, refine=False)
    model = GSEncoder(tokenizer, backbone, 5)
    found = settings(model, dict(layer_decay=0.5))[1]
    for part, names in model.parts().items():
        expected = {'patch_encoder': {0.125}, 'position': {0.125}, 'blocks': {0.25, 0.5}}.get(part, {1.0})
        assert {found[name][0] for name in names} == (expected if names else set()), part
    tokens = [name for name in found if name.endswith(('_token', '_pos', '_query'))]
    assert tokens and all(found[name][1] == 0 for name in tokens)


def test_parts_tell_what_is_ahead_in_whatever_order_it_was_registered():
    class Reversed(nn.Module):
        input, in_channels, out_channels = 'tokens', 24, 24
        parts = {'norm': ('norm.',), 'blocks': ('blocks.',), 'position': ('pos_embed.',)}

        def __init__(self):
            super().__init__()
            self.norm, self.blocks, self.pos_embed = nn.LayerNorm(4), row(2), nn.Linear(3, 4)

    tokenizer = GSTokenizer(num_groups=8, group_size=6, channels=24, refine=False)
    found = settings(GSEncoder(tokenizer, Reversed(), 5), dict(layer_decay=0.5))[1]
    expected = {'tokenizer': 0.125, 'pos_embed': 0.125, 'blocks.0': 0.25, 'blocks.1': 0.5, 'norm': 1.0,
                'projection': 1.0}
    for name, (lr, _) in found.items():
        assert lr == next(value for key, value in expected.items() if key in name), name


def test_custom_keys_of_mmengine_and_the_longest_counts():
    paramwise = dict(custom_keys={'backbone': dict(lr_mult=0.1), 'backbone.norm': dict(lr_mult=3.0, decay_mult=2.0)})
    found = settings(Model(), paramwise)[1]
    assert found['encoder.backbone.blocks.blocks.0.linear.weight'] == (0.1, 0.5)
    assert found['encoder.backbone.blocks.blocks.0.norm.weight'] == (0.1, 0.0)
    assert found['encoder.backbone.norm.weight'] == (3.0, 1.0)
    assert found['encoder.projection.weight'] == (1.0, 0.5)


def test_the_bias_of_a_sigmoid_loss_learns_at_the_full_rate_without_decay():
    model = Model()
    model.text_loss = ContrastiveLoss(kind='sigmoid')
    assert settings(model, dict(layer_decay=0.5))[1]['text_loss.logit_bias'] == (1.0, 0.0)


@pytest.mark.parametrize('paramwise, match', [
    (dict(norm_decay_mult=0.0), 'norm_decay_mult'),
    (dict(layer_decay=1.5), 'layer_decay=1.5'),
    (dict(custom_keys={'backbon.': dict(lr_mult=0.1)}), r'backbon\.'),
])
def test_wrong_options_are_named(paramwise, match):
    with pytest.raises(ValueError, match=match):
        CLIPGSOptimWrapperConstructor(dict(optimizer=dict(type='SGD', lr=0.1)), paramwise)(Model())


def test_autocast_computes_in_bfloat16_and_keeps_float32_weights():
    model = nn.Linear(4, 4)
    wrapper = AutocastOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    with wrapper.optim_context(model):
        output = model(torch.ones(2, 4))
    assert output.dtype == torch.bfloat16
    wrapper.update_params(output.float().pow(2).mean())
    assert model.weight.dtype == torch.float32
    assert model(torch.ones(2, 4)).dtype == torch.float32
    with pytest.raises(ValueError, match='AmpOptimWrapper'):
        AutocastOptimWrapper(dtype='float16', optimizer=wrapper.optimizer)


@pytest.mark.parametrize('name', ['Adam', 'AdamW', 'SGD'])
def test_moments_of_a_scalar_logit_scale_resume(name):
    """Checkpoints from before logit_scale had a dimension continue as those of today."""
    def steps(optimizer, model, count):
        for _ in range(count):
            optimizer.zero_grad()
            (model.logit_scale ** 2).sum().backward()
            optimizer.step()

    options = dict(type=name, lr=0.1, **({'momentum': 0.9} if name == 'SGD' else {}))
    found = []
    for scalar in (False, True):
        model = nn.Module()
        model.logit_scale = nn.Parameter(torch.tensor([2.0]))
        first, second = (CLIPGSOptimWrapperConstructor({'optimizer': options})(model).optimizer for _ in range(2))
        steps(first, model, 2)
        content = first.state_dict()
        if scalar:
            content['state'][0].update({key: value.squeeze() for key, value in content['state'][0].items()})
        second.load_state_dict(content)
        steps(second, model, 2)
        found.append(model.logit_scale.detach())
    assert torch.equal(*found)
