"""Loading of published checkpoints into encoders and into the models of their families."""
import logging

import pytest
import torch
from small_encoders import export_small, projections, small_encoder

from clipgs_plugin import GaussianBatch, load_point_cloud_checkpoint
from clipgs_plugin.models import GSEncoder, GSTokenizer, PointBERT, PointMAE, ReCon
from clipgs_plugin.models.checkpoints import FAMILIES, Contract, load_point_cloud_weights, open_point_cloud_checkpoint


@pytest.mark.parametrize('family', FAMILIES)
def test_an_exported_file_loads_into_an_encoder(tmp_path, family, random_cloud):
    path = tmp_path / 'weights.pth'
    source = export_small(path, family)
    target = small_encoder(family, refine=True)
    report = load_point_cloud_weights(target, path)
    assert report.family == family and report.complete
    assert set(report.unused) == (set(projections(family)) if family == 'recon_plus_plus' else set())
    own = target.state_dict()
    for key, value in source.state_dict().items():
        if not key.startswith('projection.'):
            assert torch.equal(own[key], value) or key.endswith('num_batches_tracked'), key
    batch = GaussianBatch.from_clouds([random_cloud(40)])
    with torch.no_grad():
        pooled = [encoder.eval().backbone(encoder.tokenizer(batch)) for encoder in (source, target)]
    assert torch.equal(*pooled)  # the gate of the refinement is closed


@pytest.mark.parametrize('family', FAMILIES)
def test_the_published_model_equals_the_encoder_without_refinement(tmp_path, family, random_cloud):
    path = tmp_path / 'weights.pth'
    encoder = export_small(path, family)
    model, report, contract = load_point_cloud_checkpoint(path)
    assert report.complete and isinstance(contract, Contract)
    cloud = random_cloud(40)
    batch = GaussianBatch.from_clouds([cloud])
    model.tokenizer.num_groups, model.tokenizer.group_size = 8, 6
    encoder.tokenizer.start, encoder.tokenizer.rule = model.tokenizer.start, model.tokenizer.rule
    others = torch.cat([cloud.opacities[:, None], cloud.scales,
                        torch.where(cloud.quats[:, :1] < 0, -1, 1) * torch.nn.functional.normalize(cloud.quats),
                        (cloud.rgb - 0.5) / 0.28209479177387814], dim=-1)[None]
    with torch.no_grad():
        found = model(batch.means, cloud.rgb[None], others)
        tokens = encoder.tokenizer(batch)
        expected = encoder.backbone(tokens)
    torch.testing.assert_close(found.patch_tokens, tokens.features, atol=1e-6, rtol=1e-5)
    if family == 'recon_plus_plus':
        assert found.feature.shape == (1, 16, 384)
        found = found._replace(feature=torch.cat([found.feature[:, :13].mean(1), found.feature[:, 13:].mean(1)], -1))
    torch.testing.assert_close(found.feature, expected, atol=1e-5, rtol=1e-5)


def test_a_file_without_colour_does_not_replace_a_coloured_one(tmp_path):
    export_small(tmp_path / 'xyz.pt', 'ulip', point_attributes=('xyz',))
    export_small(tmp_path / 'rgb.pt', 'ulip')
    with pytest.raises(ValueError, match=r"is not ulip2-pointbert-10k-colored; input attributes: "
                                         r"\('xyz',\) in the file, \('xyz', 'rgb'\) published"):
        open_point_cloud_checkpoint(tmp_path / 'xyz.pt', name='ulip2-pointbert-10k-colored')
    model = load_point_cloud_checkpoint(tmp_path / 'rgb.pt').model
    with pytest.raises(ValueError, match=r"has input \('xyz',\), but the model has input \('xyz', 'rgb'\);"):
        load_point_cloud_checkpoint(tmp_path / 'xyz.pt', model)
    encoder = small_encoder('ulip')  # an encoder is widened instead, with a note
    report = load_point_cloud_checkpoint(tmp_path / 'xyz.pt', encoder).report
    assert report.notes[0] == 'widened from xyz to xyz, rgb: the weights of the new channels are zero'


@pytest.mark.parametrize('backbone', [lambda: PointBERT(64, 2, 1, 64), lambda: PointMAE(64, 2, 1)])
def test_recon_weights_do_not_load_into_other_blocks(tmp_path, backbone):
    export_small(tmp_path / 'recon.pth', 'recon')
    encoder = GSEncoder(GSTokenizer(8, 6, 64, point_attributes=('xyz',)), backbone(), 24)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    with pytest.raises(ValueError, match=r'weights of recon fit a ReCon .* this encoder has a Point'):
        load_point_cloud_weights(encoder, tmp_path / 'recon.pth')
    with pytest.raises(ValueError, match="is not of family 'point_mae' but of 'recon'"):
        load_point_cloud_weights(encoder, tmp_path / 'recon.pth', 'point_mae')
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


def test_point_mae_weights_do_not_load_into_recon(tmp_path):
    export_small(tmp_path / 'mae.pth', 'point_mae')
    encoder = GSEncoder(GSTokenizer(8, 6, 64, point_attributes=('xyz',)), ReCon(64, 2, 1), 24)
    with pytest.raises(ValueError, match=r'weights of point_mae fit a PointMAE .* has a ReCon'):
        load_point_cloud_weights(encoder, tmp_path / 'mae.pth')


@pytest.mark.parametrize('family', FAMILIES)
def test_an_incomplete_file_is_refused_with_a_report(tmp_path, family):
    path = tmp_path / 'a.pth'
    encoder = export_small(path, family)
    content = torch.load(path)
    wrapper, = content
    lost = [key for key in content[wrapper] if key.endswith(('bias', 'running_var', 'proj.weight'))]
    for key in lost[:: max(1, len(lost) // 6)]:
        kept = {name: value for name, value in content[wrapper].items() if name != key}
        torch.save({wrapper: kept}, path)
        for model in (None, encoder):
            if model is encoder and key.removeprefix('module.') in projections(family):
                continue  # an encoder needs no projection
            with pytest.raises(ValueError, match=r'missing in the file: '):
                load_point_cloud_checkpoint(path, model)


@pytest.mark.parametrize('family', ['uni3d', 'ulip', 'openshape', 'recon_plus_plus'])
def test_a_model_without_its_projection_is_incomplete(tmp_path, family):
    path = tmp_path / 'a.pth'
    export_small(path, family)
    content = torch.load(path)
    wrapper, = content
    names = [f'module.{name}' for name in projections(family)]
    for lost in [names, *([name] for name in names)]:
        torch.save({wrapper: {key: value for key, value in content[wrapper].items() if key not in lost}}, path)
        with pytest.raises(ValueError, match=r'missing in the file: '):
            load_point_cloud_checkpoint(path)
    encoder = small_encoder(family)  # needs no projection
    torch.save({wrapper: {key: value for key, value in content[wrapper].items() if key not in names}}, path)
    assert load_point_cloud_checkpoint(path, encoder).report.complete


def test_unrequested_parts_need_not_fit(tmp_path):
    export_small(tmp_path / 'a.pth', 'point_bert')
    shallow = GSEncoder(GSTokenizer(8, 6, 32, point_attributes=('xyz',)), PointBERT(64, 1, 1, 32), 24)
    report = load_point_cloud_weights(shallow, tmp_path / 'a.pth', parts=('patch_encoder', 'position'))
    assert report.unused['transformer_q.norm.weight'] == "part 'norm' was not requested"
    other = GSEncoder(GSTokenizer(8, 6, 32, point_attributes=('xyz',)), dict(type='Uni3D', size='ti', depth=1,
                                                                            in_channels=32), 24)
    state = other.state_dict()
    with pytest.raises(ValueError, match=r'missing in the file: backbone\.encoder2trans'):
        load_point_cloud_weights(other, tmp_path / 'a.pth', parts='patch_encoder')
    assert all(torch.equal(value, state[key]) for key, value in other.state_dict().items())


def test_a_subclass_of_a_published_backbone_takes_its_weights(tmp_path):
    class Mine(PointBERT):
        pass

    export_small(tmp_path / 'a.pth', 'point_bert')
    encoder = GSEncoder(GSTokenizer(8, 6, 32, point_attributes=('xyz',)), Mine(64, 2, 1, 32), 24)
    assert load_point_cloud_weights(encoder, tmp_path / 'a.pth').complete


@pytest.mark.parametrize(('change', 'match'), [
    (lambda x: x.to(torch.int8), r'wrong shape, type or value: .*fc1\.weight torch\.int8 instead of torch\.float32'),
    (lambda x: x * torch.nan, r'wrong shape, type or value: .*fc1\.weight has NaN or infinite values'),
])
def test_weights_of_a_wrong_type_or_value_are_refused(tmp_path, change, match):
    export_small(tmp_path / 'a.pth', 'point_mae')
    state = torch.load(tmp_path / 'a.pth')['base_model']
    key = 'module.MAE_encoder.blocks.blocks.1.mlp.fc1.weight'
    torch.save({'base_model': {**state, key: change(state[key])}}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=match):
        load_point_cloud_checkpoint(tmp_path / 'a.pth')


def logged(monkeypatch):
    """Collect the logged lines with their levels."""
    lines = []
    monkeypatch.setattr('clipgs_plugin.models.checkpoints.load.print_log',
                        lambda text, logger=None, level=logging.INFO: lines.append((level, text)))
    return lines


def test_a_config_that_disagrees_with_the_contract_is_warned_about(tmp_path, monkeypatch):
    export_small(tmp_path / 'a.pth', 'uni3d')
    encoder = small_encoder('uni3d', point_axes=(0, 2, 1))
    encoder.init_cfg = dict(type='PointCloudPretrained', checkpoint=str(tmp_path / 'a.pth'))
    lines = logged(monkeypatch)
    encoder.init_weights()
    warned = '\n'.join(text for level, text in lines if level == logging.WARNING)
    for line in ('num_groups=512, but the tokenizer has num_groups=8',
                 "start=0, but the tokenizer has start='farthest'",
                 'point_axes=(0, 1, 2), but the tokenizer has point_axes=(0, 2, 1)'):
        assert f'a.pth: was trained with {line}' in warned
    assert 'radius' not in warned and 'point_attributes' not in warned
    report, = encoder.load_reports
    assert report.family == 'uni3d' and report.complete


ALIGNED = {'uni3d': ('trans2embed.weight', 'trans2embed.bias'), 'ulip': ('pc_projection',),
           'openshape': ('proj.weight', 'proj.bias')}


@pytest.mark.parametrize('family', ALIGNED)
def test_the_projection_of_an_aligned_model_is_loaded(tmp_path, family):
    export_small(tmp_path / 'a.pth', family)
    content = torch.load(tmp_path / 'a.pth')
    state, = content.values()
    weight, *bias = (value for name in ALIGNED[family] for key, value in state.items() if key.endswith(name))
    encoder = small_encoder(family)
    report = load_point_cloud_checkpoint(tmp_path / 'a.pth', encoder).report
    assert torch.equal(encoder.projection.weight, weight.T if family == 'ulip' else weight)
    assert torch.equal(encoder.projection.bias, bias[0] if bias else torch.zeros(24))
    assert not report.unused and report.notes == [
        'the projection embeds into the space of an unknown teacher; the encoder names no teacher']


REASONS = {
    'width': 'of width 24, but the encoder has embed_dim=32',
    'lost': 'lacks its projection point_encoder.trans2embed.',
    'other module': 'has a linear projection, but the encoder has a Sequential',
    'point_mae': 'has no projection into a CLIP space',
    'recon_plus_plus': 'has a QueryProjection, which projects queries instead of the pooled feature',
}


@pytest.mark.parametrize('fault', REASONS)
def test_a_projection_that_does_not_fit_is_left_out_with_a_warning(tmp_path, monkeypatch, fault):
    path, family = tmp_path / 'a.pth', fault if fault in FAMILIES else 'uni3d'
    export_small(path, family)
    encoder = small_encoder(family)
    if fault == 'width':
        encoder = GSEncoder(encoder.tokenizer, encoder.backbone, 32)
    elif fault == 'other module':
        encoder.projection = torch.nn.Sequential(encoder.projection)
    elif fault == 'lost':
        content = torch.load(path)
        for state in content.values():
            for name in projections(family):
                del state[f'module.{name}']
        torch.save(content, path)
    before = {key: value.clone() for key, value in encoder.projection.state_dict().items()}
    lines = logged(monkeypatch)
    report = load_point_cloud_checkpoint(path, encoder).report
    assert report.complete and not any(key.startswith('projection') for key in report.loaded)
    assert all(torch.equal(value, before[key]) for key, value in encoder.projection.state_dict().items())
    assert all(REASONS[fault] in reason for reason in report.unused.values())
    line, = (text for level, text in lines if level == logging.WARNING and 'projection of the encoder' in text)
    assert str(path) in line and REASONS[fault] in line and 'stays random until it is trained' in line


def uni3d_for(tmp_path, teacher):
    """Write a file of Uni3D whose projection has the width of its published teacher, and build an encoder for it."""
    encoder = export_small(tmp_path / 'a.pth', 'uni3d')
    content = torch.load(tmp_path / 'a.pth')
    for state in content.values():
        state |= {'module.point_encoder.trans2embed.weight': torch.rand(1024, 192),
                  'module.point_encoder.trans2embed.bias': torch.rand(1024)}
    torch.save(content, tmp_path / 'a.pth')
    return GSEncoder(encoder.tokenizer, encoder.backbone, 1024, teacher=teacher)


@pytest.mark.parametrize('teacher', ['eva02-e-14-plus-laion2b', 'EVA02-E-14-plus-laion2b_s9b_b144k'])
def test_the_projection_for_the_teacher_of_the_encoder_is_loaded(tmp_path, teacher):
    encoder = uni3d_for(tmp_path, teacher)
    report = load_point_cloud_checkpoint(tmp_path / 'a.pth', encoder).report
    assert 'projection.weight' in report.loaded and not report.notes and not report.unused


def test_the_projection_for_an_unnamed_teacher_of_its_width_is_loaded_with_a_note(tmp_path):
    report = load_point_cloud_checkpoint(tmp_path / 'a.pth', uni3d_for(tmp_path, None)).report
    assert 'projection.weight' in report.loaded
    assert report.notes == ['the projection embeds into eva02-e-14-plus-laion2b; the encoder names no teacher']


def test_the_projection_for_another_teacher_of_the_same_width_is_left_out(tmp_path):
    encoder = uni3d_for(tmp_path, 'vit-h-14-laion2b')
    report = load_point_cloud_checkpoint(tmp_path / 'a.pth', encoder).report
    assert 'projection.weight' not in report.loaded
    assert any("embeds into eva02-e-14-plus-laion2b, but the encoder has teacher='vit-h-14-laion2b'" in line
               for line in report.disagreements)
    parts = ('patch_encoder', 'position', 'blocks', 'norm', 'projection')  # named, it is loaded
    assert 'projection.weight' in load_point_cloud_weights(encoder, tmp_path / 'a.pth', parts=parts).loaded


def test_another_embedding_width_is_reported_with_both_sides(tmp_path):
    parts = ('patch_encoder', 'position', 'blocks', 'norm', 'projection')
    export_small(tmp_path / 'a.pth', 'uni3d')
    encoder = small_encoder('uni3d')
    encoder.embed_dim = 1280
    report = load_point_cloud_checkpoint(tmp_path / 'a.pth', encoder).report
    assert any('of width 24, but the encoder has embed_dim=1280' in line for line in report.disagreements)
    encoder.init_cfg = dict(type='PointCloudPretrained', checkpoint=str(tmp_path / 'a.pth'), parts=parts)
    with pytest.raises(ValueError, match=r'of width 24, but the encoder has embed_dim=1280'):
        encoder.init_weights()
