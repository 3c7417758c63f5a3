import pytest
import torch
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import nn

from clipgs_plugin.engine import AutocastOptimWrapper, CLIPGSOptimWrapperConstructor


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


def test_custom_keys_of_mmengine_and_the_longest_counts():
    paramwise = dict(custom_keys={'backbone': dict(lr_mult=0.1), 'backbone.norm': dict(lr_mult=3.0, decay_mult=2.0)})
    found = settings(Model(), paramwise)[1]
    assert found['encoder.backbone.blocks.blocks.0.linear.weight'] == (0.1, 0.5)
    assert found['encoder.backbone.blocks.blocks.0.norm.weight'] == (0.1, 0.0)
    assert found['encoder.backbone.norm.weight'] == (3.0, 1.0)
    assert found['encoder.projection.weight'] == (1.0, 0.5)


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
