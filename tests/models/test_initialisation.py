"""Initialisation of an encoder with published weights: order, destination of every tensor, and refusals."""
import argparse

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from torch import nn

from clipgs_plugin import GaussianBatch, get_config
from clipgs_plugin.models import GSEncoder, GSTokenizer, PatchEncoder, PointBERT, Uni3D
from clipgs_plugin.models.checkpoints import load_point_cloud_weights
from clipgs_plugin.registry import MODELS

PARTS = ('patch_encoder', 'position', 'blocks', 'norm')


def randomised(module, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.rand(value.shape, generator=generator) * 0.2 if value.is_floating_point() else value + 7
            for key, value in module.state_dict().items()}


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


def uni3d_names(state):
    """Rename the tensors of the backbone to Uni3D's names."""
    return {f'visual.{key}' if key.startswith(('blocks.', 'fc_norm.')) else key: value for key, value in state.items()}


@pytest.fixture
def uni3d_file(tmp_path):
    """A DeepSpeed state in half precision with unused image tensors, and the expected tensors of an encoder."""
    backbone, patches = randomised(Uni3D('ti', 64, 2)), randomised(PatchEncoder(6, 64), 2)
    projection = randomised(nn.Linear(192, 24), 3)
    model = {**prefixed(patches, 'encoder.'), **uni3d_names(backbone), **prefixed(projection, 'trans2embed.'),
             'visual.cls_token': torch.ones(1, 1, 192), 'visual.pos_embed': torch.ones(1, 257, 192),
             'visual.patch_embed.proj.weight': torch.ones(192, 3, 14, 14)}
    model = {key: value.half() if value.is_floating_point() else value for key, value in model.items()}
    path = tmp_path / 'model.pt'
    torch.save({'module': {'logit_scale': torch.tensor(4.0), **prefixed(model, 'module.point_encoder.')},
                'optimizer': None, 'epoch': 3}, path)
    expected = {**prefixed(patches, 'tokenizer.patch_encoder.'), **prefixed(backbone, 'backbone.'),
                **prefixed(projection, 'projection.')}
    return path, {key: value.half().float() if value.is_floating_point() else value
                  for key, value in expected.items()}


def point_bert_parts(in_channels=3, depth=2):
    return (randomised(PointBERT(48, depth, 1, 64)), randomised(PatchEncoder(in_channels, 64), 2))


def point_bert_file(path, prefix='transformer_q.', wrapper='base_model', in_channels=3, depth=2, **extra):
    backbone, patches = point_bert_parts(in_channels, depth)
    model = prefixed({**prefixed(patches, 'encoder.'), **backbone, 'mask_token': torch.ones(1, 1, 48)}, prefix)
    if prefix == 'transformer_q.':
        model |= {key.replace('transformer_q', 'transformer_k'): value * 0 for key, value in model.items()}
        model |= {'dvae.encoder.first_conv.0.weight': torch.zeros(128, 3, 1), 'queue': torch.zeros(4, 4)}
    torch.save({wrapper: prefixed(model, 'module.'), 'epoch': 3, **extra}, path)
    return path


def uni3d_encoder(depth=2, init_cfg=None, **tokenizer):
    return GSEncoder(GSTokenizer(num_groups=8, group_size=6, channels=64, **tokenizer), Uni3D('ti', 64, depth), 24,
                     init_cfg)


def point_bert_encoder(**tokenizer):
    return GSEncoder(GSTokenizer(num_groups=8, group_size=6, channels=64, **tokenizer), PointBERT(48, 2, 1, 64), 24)


def assert_holds(encoder, expected, but=()):
    state = encoder.state_dict()
    for key, value in expected.items():
        if not key.startswith(but):
            torch.testing.assert_close(state[key], value, atol=0, rtol=0, msg=lambda m, k=key: f'{k}: {m}')


# Order of initialisation


@pytest.mark.parametrize('caller', ['model', 'runner'])
def test_published_weights_are_loaded_after_all_other_initialisation(uni3d_file, caller, tmp_path):
    path, expected = uni3d_file
    overwriting = dict(type='Constant', layer=['Linear', 'Conv1d', 'LayerNorm', 'BatchNorm1d'], val=0.5, bias=0.5)
    model = dict(
        type='CLIPGS', init_cfg=overwriting,
        encoder=dict(
            type='GSEncoder', embed_dim=24,
            tokenizer=dict(type='GSTokenizer', num_groups=8, group_size=6, channels=64, init_cfg=overwriting),
            backbone=dict(type='Uni3D', size='ti', in_channels=64, depth=2, init_cfg=overwriting),
            init_cfg=[dict(type='PointCloudPretrained', checkpoint=str(path)), overwriting]))
    if caller == 'model':
        model = MODELS.build(model)
        model.init_weights()
    else:
        runner = Runner(model, str(tmp_path), default_scope='clipgs_plugin', log_level='ERROR',
                        default_hooks=dict(logger=None))
        runner._init_model_weights()
        model = runner.model
    assert_holds(model.encoder, expected)
    refinement = model.encoder.tokenizer.refinement
    assert any((value == 0.5).all() for value in refinement.parameters())  # the other initialiser did run
    assert model.encoder.init_cfg[0]['type'].endswith('PointCloudPretrained')


def test_a_second_call_keeps_trained_weights(uni3d_file):
    encoder = uni3d_encoder(init_cfg=dict(type='PointCloudPretrained', checkpoint=str(uni3d_file[0])))
    encoder.init_weights()
    nn.init.ones_(encoder.backbone.cls_token)
    encoder.init_weights()
    assert (encoder.backbone.cls_token == 1).all()


def test_the_model_starts_as_the_point_cloud_model(uni3d_file, random_cloud):
    path, expected = uni3d_file
    refined, plain = uni3d_encoder(), uni3d_encoder(refine=False)
    load_point_cloud_weights(refined, path, parts=(*PARTS, 'projection'))
    plain.load_state_dict(expected)
    batch = GaussianBatch.from_clouds([random_cloud(50)])
    with torch.no_grad():
        found = refined.eval()(batch)
        assert found.isfinite().all() and torch.equal(found, plain.eval()(batch))


# Families


def test_uni3d_is_loaded_and_its_unused_tensors_are_reported(uni3d_file):
    path, expected = uni3d_file
    encoder = uni3d_encoder()
    before = encoder.projection.weight.clone()
    report = load_point_cloud_weights(encoder, path, parts=PARTS)
    assert_holds(encoder, expected, but='projection')
    assert torch.equal(encoder.projection.weight, before)
    assert report.family == 'uni3d' and report.complete
    assert sorted(report.loaded) == sorted(key for key in expected if not key.startswith('projection'))
    assert {key.removeprefix('point_encoder.') for key in report.unused} == {
        'logit_scale', 'trans2embed.weight', 'trans2embed.bias', 'visual.cls_token', 'visual.pos_embed',
        'visual.patch_embed.proj.weight'}
    load_point_cloud_weights(encoder, path)
    assert_holds(encoder, expected)


@pytest.mark.parametrize('kind', ['pre-trained', 'fine-tuned', 'ulip'])
def test_point_bert_files_are_loaded(tmp_path, kind):
    path = tmp_path / 'point_bert.pth'
    if kind == 'pre-trained':
        point_bert_file(path, metrics=np.float64(0.5), best_metrics={'acc': np.float32(1)})
    elif kind == 'fine-tuned':
        point_bert_file(path, prefix='', wrapper='model')
    else:
        point_bert_file(path, prefix='point_encoder.', wrapper='state_dict', args=argparse.Namespace(lr=0.1))
    encoder = point_bert_encoder(point_attributes=('xyz',))
    report = load_point_cloud_weights(encoder, path)
    backbone, patches = point_bert_parts()
    assert report.family == ('ulip' if kind == 'ulip' else 'point_bert')
    assert_holds(encoder, {**prefixed(patches, 'tokenizer.patch_encoder.'), **prefixed(backbone, 'backbone.')})


def test_only_requested_parts_are_loaded(uni3d_file):
    path, expected = uni3d_file
    encoder = uni3d_encoder(depth=3)  # the depth of the blocks does not matter here
    report = load_point_cloud_weights(encoder, path, parts=('patch_encoder',))
    assert_holds(encoder, {k: v for k, v in expected.items() if 'patch_encoder' in k or 'encoder2trans' in k})
    assert not any('blocks' in key for key in report.loaded)


@pytest.mark.parametrize('attributes', [('xyz', 'rgb'), ('rgb', 'xyz'), ('opacity', 'xyz', 'scale', 'rgb')])
def test_the_first_layer_is_widened_by_attribute(tmp_path, attributes):
    path = point_bert_file(tmp_path / 'xyz.pth')
    encoder = point_bert_encoder(point_attributes=attributes)
    load_point_cloud_weights(encoder, path)
    widened = encoder.tokenizer.patch_encoder.first_conv[0].weight.detach()
    at = {('xyz', 'rgb'): 0, ('rgb', 'xyz'): 3, ('opacity', 'xyz', 'scale', 'rgb'): 1}[attributes]
    assert torch.equal(widened[:, at:at + 3], point_bert_parts()[1]['first_conv.0.weight'])
    widened[:, at:at + 3] = 0
    assert widened.abs().max() == 0


# Refusals


def refused(encoder, path, match, **options):
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    with pytest.raises(ValueError, match=match):
        load_point_cloud_weights(encoder, path, **options)
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


def test_missing_weights_are_refused(tmp_path, uni3d_file):
    refused(uni3d_encoder(depth=3), uni3d_file[0], r'missing in the file: backbone\.blocks\.2\.')
    content = torch.load(uni3d_file[0])
    del content['module']['module.point_encoder.encoder.first_conv.1.running_mean']
    torch.save(content, tmp_path / 'less.pt')
    refused(uni3d_encoder(), tmp_path / 'less.pt', r'missing in the file: .*first_conv\.1\.running_mean')


def test_weights_that_the_encoder_lacks_are_refused(uni3d_file):
    refused(uni3d_encoder(depth=1), uni3d_file[0], r'not in the encoder: backbone\.blocks\.1\.')


def test_weights_of_another_shape_are_refused(uni3d_file):
    encoder = GSEncoder(GSTokenizer(channels=48), Uni3D('ti', 48, 2), 24)
    refused(encoder, uni3d_file[0], r'wrong shape.*second_conv\.3\.weight \(64, 512, 1\) instead of \(48, 512, 1\)')


def test_another_backbone_is_refused(uni3d_file):
    refused(point_bert_encoder(), uni3d_file[0], 'weights of uni3d fit a Uni3D .* has a PointBERT')


def test_an_encoder_with_fewer_input_channels_is_refused(uni3d_file):
    refused(uni3d_encoder(point_attributes=('xyz',)), uni3d_file[0], 'set point_attributes')


def test_another_family_is_refused(tmp_path, uni3d_file):
    refused(uni3d_encoder(), uni3d_file[0], "not of family 'point_bert' but of 'uni3d'", family='point_bert')
    refused(uni3d_encoder(), uni3d_file[0], "family='uni4d'", family='uni4d')
    torch.save({'conv.weight': torch.ones(3)}, tmp_path / 'other.pt')
    refused(uni3d_encoder(), tmp_path / 'other.pt', r'none of the families .* first names are conv\.weight')
    refused(uni3d_encoder(), uni3d_file[0], r"parts=\('head',\)", parts=('head',))


def test_only_an_encoder_is_accepted(uni3d_file):
    with pytest.raises(TypeError, match='put PointCloudPretrained into the init_cfg of the GSEncoder'):
        load_point_cloud_weights(Uni3D('ti', 64, 2), uni3d_file[0])


@pytest.mark.parametrize('name', ['model', 'encoder', 'backbone'])
def test_initialisation_by_hand_prints_no_line_per_parameter(name, capfd):
    MMLogger._instance_dict.clear()
    model = MODELS.build({**get_config('clipgs_pointbert-nano_15e_toy-world').model, 'teacher': None})
    part = {'model': model, 'encoder': model.encoder, 'backbone': model.encoder.backbone}[name]
    part.init_weights()
    printed = capfd.readouterr()
    assert 'before and after' not in printed.out + printed.err
