"""Published checkpoints by name, by file and by mistake: what is built, what is said, what is refused."""
import json
import logging
import pickle

import pytest
import torch
from mmengine.logging import MMLogger
from safetensors import safe_open

from clipgs_plugin import GaussianBatch, load_point_cloud_checkpoint
from clipgs_plugin.models import GSEncoder, GSTokenizer, PointBERT, PointMAE, ReCon
from clipgs_plugin.models.checkpoints import (
    FAMILIES,
    Contract,
    convert_checkpoint,
    export_point_cloud_checkpoint,
    load_point_cloud_weights,
    open_point_cloud_checkpoint,
)
from clipgs_plugin.models.checkpoints.loading import disagreements
from clipgs_plugin.registry import MODELS
from clipgs_plugin.registry.catalogue import load_catalogue

CATALOGUE = load_catalogue('checkpoints')
# An encoder of each family, small, and what its point-cloud model sees.
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
    tokenizer, backbone = SMALL[family]
    tokenizer = {**dict(type='GSTokenizer', num_groups=8, group_size=6, refine=refine), **tokenizer, **options}
    return GSEncoder(tokenizer, dict(backbone), 24)


def moved(encoder, seed=0):
    """The encoder with other weights and statistics than it began with."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in encoder.state_dict().values():
            if value.is_floating_point():
                value.copy_(0.2 * torch.rand(value.shape, generator=generator) + 0.05)
    return encoder.eval()


def projections(family):
    """The projection of a small file, by the family's own names: into a width of 24."""
    return {'uni3d': {'point_encoder.trans2embed.weight': (24, 192), 'point_encoder.trans2embed.bias': (24,)},
            'ulip': {'pc_projection': (128, 24)},
            'openshape': {'proj.weight': (24, 256), 'proj.bias': (24,)},
            'recon_plus_plus': {'img_proj.weight': (24, 384), 'img_proj.bias': (24,), 'text_proj.weight': (24, 384),
                                'text_proj.bias': (24,)}}.get(family, {})


def exported(path, family, seed=0, **options):
    """A whole file of a family, and the encoder whose point-cloud part it holds."""
    encoder = moved(small_encoder(family, **options), seed)
    export_point_cloud_checkpoint(encoder, path, family)
    content = torch.load(path)
    for state in content.values():
        state.update({f'module.{name}': torch.rand(shape) for name, shape in projections(family).items()})
    torch.save(content, path)
    return encoder


def logged(monkeypatch):
    """Lines that are logged, with their level."""
    lines = []
    monkeypatch.setattr('clipgs_plugin.models.checkpoints.initializer.print_log',
                        lambda text, logger=None, level=logging.INFO: lines.append((level, text)))
    return lines


# From an encoder to a family's file and back


@pytest.mark.parametrize('family', FAMILIES)
def test_what_is_saved_as_a_family_saves_loads_into_an_encoder(tmp_path, family, random_cloud):
    path = tmp_path / 'weights.pth'
    source = exported(path, family)
    target = small_encoder(family, refine=True)
    report = load_point_cloud_weights(target, path)
    assert report.family == family and report.complete and report.unused == {
        name: "of the part 'projection', which was not asked for" for name in projections(family)}
    own = target.state_dict()
    for key, value in source.state_dict().items():
        if not key.startswith('projection.'):
            assert torch.equal(own[key], value) or key.endswith('num_batches_tracked'), key
    batch = GaussianBatch.from_clouds([random_cloud(40)])
    with torch.no_grad():
        pooled = [encoder.eval().backbone(encoder.tokenizer(batch)) for encoder in (source, target)]
    assert torch.equal(*pooled)  # the gate of the refinement is closed


@pytest.mark.parametrize('family', FAMILIES)
def test_the_plain_model_of_a_file_is_the_encoder_without_refinement(tmp_path, family, random_cloud):
    path = tmp_path / 'weights.pth'
    encoder = exported(path, family)
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


def test_weights_a_family_has_no_name_for_are_not_dropped(tmp_path):
    with pytest.raises(ValueError, match=r'point_mae has no names for .* a PointBERT'):
        export_point_cloud_checkpoint(small_encoder('point_bert'), tmp_path / 'a.pth', 'point_mae')
    with pytest.raises(ValueError, match=r'projection\.bias is not zero, and ulip has none'):
        export_point_cloud_checkpoint(moved(small_encoder('ulip')), tmp_path / 'a.pth', 'ulip', ('projection',))


def test_a_projection_without_a_bias_fills_a_projection_with_one(tmp_path):
    encoder = moved(small_encoder('ulip'))
    torch.nn.init.zeros_(encoder.projection.bias)
    parts = ('patch_encoder', 'position', 'blocks', 'norm', 'projection')
    export_point_cloud_checkpoint(encoder, tmp_path / 'ulip.pt', 'ulip', parts)
    stored = torch.load(tmp_path / 'ulip.pt')['state_dict']['module.pc_projection']
    assert torch.equal(stored, encoder.projection.weight.T)
    target = small_encoder('ulip')
    load_point_cloud_weights(target, tmp_path / 'ulip.pt', parts=parts)
    assert torch.equal(target.projection.weight, encoder.projection.weight) and not target.projection.bias.any()


# The catalogue


@pytest.mark.parametrize('name', [name for name, entry in CATALOGUE.items() if entry['file']])
def test_a_name_builds_the_network_of_its_entry(name):
    entry, embed_dim = CATALOGUE[name], CATALOGUE[name]['contract'].get('embed_dim') or 512
    with torch.device('meta'):
        encoder = MODELS.build(dict(type='GSEncoder', backbone=name, embed_dim=embed_dim))
    assert type(encoder.backbone).__name__ == entry['architecture']['backbone']['type']
    assert not disagreements(Contract.from_dict(entry['contract']), encoder)
    assert encoder.init_cfg == dict(type='PointCloudPretrained', checkpoint=name)


def test_options_go_before_those_of_the_entry():
    encoder = GSEncoder(dict(num_groups=7), dict(type='uni3d-ti', depth=1, drop_path_rate=0.1), 24,
                        dict(type='PointCloudPretrained', checkpoint='mine.pt'))
    assert encoder.tokenizer.num_groups == 7 and encoder.tokenizer.group_size == 64
    assert len(encoder.backbone.blocks) == 1 and encoder.init_cfg['checkpoint'] == 'mine.pt'


def test_a_name_finds_its_file_where_the_user_keeps_it(tmp_path, monkeypatch):
    exported(tmp_path / 'weights.pth', 'uni3d')
    monkeypatch.setenv('CLIPGS_CHECKPOINTS', str(tmp_path))
    entry = dict(CATALOGUE['uni3d-ti'], file='deep/model.pt')
    entry['architecture'] = dict(tokenizer={}, backbone=dict(type='Uni3D', size='ti', depth=1, in_channels=32))
    entry['contract'] = dict(entry['contract'], embed_dim=24)
    monkeypatch.setitem(CATALOGUE, 'mine', entry)
    with pytest.raises(FileNotFoundError, match=r'mine: download deep/model\.pt from https://.*as mine\.pt'):
        open_point_cloud_checkpoint('mine')
    (tmp_path / 'deep').mkdir()
    for place in ('mine.pth', 'deep/model.pt'):
        (tmp_path / place).write_bytes((tmp_path / 'weights.pth').read_bytes())
        assert open_point_cloud_checkpoint('mine').path == str(tmp_path / place)


def test_weights_that_were_never_released_are_said_to_be():
    with pytest.raises(FileNotFoundError, match=r'gaussian-mae: its weights have not been published'):
        open_point_cloud_checkpoint('gaussian-mae')


def test_the_contract_of_a_file_is_that_of_the_published_model_it_is_like(tmp_path):
    exported(tmp_path / 'a.pth', 'ulip')
    assert open_point_cloud_checkpoint(tmp_path / 'a.pth').contract.point_attributes == ('xyz', 'rgb')
    exported(tmp_path / 'b.pth', 'ulip', point_attributes=('xyz',))
    contract = open_point_cloud_checkpoint(tmp_path / 'b.pth').contract
    assert contract.point_attributes == ('xyz',) and contract.group_size == 32
    assert contract.embed_dim == 24 and contract.teacher is None  # of no teacher that is known


# Refusals


def test_an_xyz_file_is_not_the_coloured_one(tmp_path):
    exported(tmp_path / 'xyz.pt', 'ulip', point_attributes=('xyz',))
    exported(tmp_path / 'rgb.pt', 'ulip')
    with pytest.raises(ValueError, match=r"is not ulip2-pointbert-10k-colored; sees: \('xyz',\) in the file, "
                                         r"\('xyz', 'rgb'\) published"):
        open_point_cloud_checkpoint(tmp_path / 'xyz.pt', name='ulip2-pointbert-10k-colored')
    model = load_point_cloud_checkpoint(tmp_path / 'rgb.pt').model
    with pytest.raises(ValueError, match=r"sees \('xyz',\), the model sees \('xyz', 'rgb'\): they are different"):
        load_point_cloud_checkpoint(tmp_path / 'xyz.pt', model)
    encoder = small_encoder('ulip')  # into which it may be widened, and says so
    report = load_point_cloud_checkpoint(tmp_path / 'xyz.pt', encoder).report
    assert report.notes == ['widened from xyz to xyz, rgb: the new channels begin with zero weights']


@pytest.mark.parametrize('family', ['point_bert', 'point_mae'])
def test_a_fine_tuned_file_is_not_a_pre_trained_one(tmp_path, family):
    path = tmp_path / 'a.pth'
    exported(path, family)
    state = torch.load(path)['base_model']
    prefix = f'module.{FAMILIES[family].prefixes[0]}'
    state = {key.removeprefix(prefix): value for key, value in state.items()}
    if family == 'point_mae':
        state |= {'cls_token': torch.ones(1, 1, 64), 'cls_pos': torch.ones(1, 1, 64)}
    torch.save({'base_model': {**state, 'cls_head_finetune.0.weight': torch.zeros(4, 128)}}, path)
    with pytest.raises(ValueError, match=r'was fine-tuned to classify .* a pre-trained file .*finetuned=True'):
        load_point_cloud_checkpoint(path)
    model, report, _ = load_point_cloud_checkpoint(path, finetuned=True)
    assert report.unused == {'cls_head_finetune.0.weight': 'the classifier of fine-tuning'}
    assert model.backbone.cls_token is not None


@pytest.mark.parametrize('backbone', [lambda: PointBERT(64, 2, 1, 64), lambda: PointMAE(64, 2, 1)])
def test_recon_weights_mean_nothing_in_other_blocks(tmp_path, backbone):
    exported(tmp_path / 'recon.pth', 'recon')
    encoder = GSEncoder(GSTokenizer(8, 6, 64, point_attributes=('xyz',)), backbone(), 24)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    with pytest.raises(ValueError, match=r'weights of recon fit a ReCon of the same size, this encoder has a Point'):
        load_point_cloud_weights(encoder, tmp_path / 'recon.pth')
    with pytest.raises(ValueError, match="is not of family 'point_mae' but of 'recon'"):
        load_point_cloud_weights(encoder, tmp_path / 'recon.pth', 'point_mae')
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


def test_point_mae_weights_are_not_enough_for_recon(tmp_path):
    exported(tmp_path / 'mae.pth', 'point_mae')
    encoder = GSEncoder(GSTokenizer(8, 6, 64, point_attributes=('xyz',)), ReCon(64, 2, 1), 24)
    with pytest.raises(ValueError, match=r'weights of point_mae fit a PointMAE .* has a ReCon'):
        load_point_cloud_weights(encoder, tmp_path / 'mae.pth')


@pytest.mark.parametrize('family', FAMILIES)
def test_a_file_that_lacks_anything_is_refused_with_the_report(tmp_path, family):
    path = tmp_path / 'a.pth'
    encoder = exported(path, family)
    content = torch.load(path)
    wrapper, = content
    lost = [key for key in content[wrapper] if key.endswith(('bias', 'running_var', 'proj.weight'))]
    for key in lost[:: max(1, len(lost) // 6)]:
        kept = {name: value for name, value in content[wrapper].items() if name != key}
        torch.save({wrapper: kept}, path)
        for model in (None, encoder):
            if model is encoder and key.removeprefix('module.') in projections(family):
                continue  # which it does not need
            with pytest.raises(ValueError, match=r'missing in the file: '):
                load_point_cloud_checkpoint(path, model)


def test_the_causal_recon_plus_plus_is_another_model(tmp_path):
    path = tmp_path / 'a.pth'
    exported(path, 'recon_plus_plus')
    state = torch.load(path)['base_model']
    torch.save({'base_model': {**state, 'module.model.encoder.sos': torch.zeros(1, 1, 384)}}, path)
    with pytest.raises(ValueError, match=r"is of the causal ReCon\+\+ .* only its 'openshape' form"):
        load_point_cloud_checkpoint(path)


def test_no_such_name():
    with pytest.raises(ValueError, match="name='uni3d-xl': not in the catalogue"):
        open_point_cloud_checkpoint('a.pt', name='uni3d-xl')


# What is said


def test_a_config_that_disagrees_with_the_contract_is_told_both_sides(tmp_path, monkeypatch):
    exported(tmp_path / 'a.pth', 'uni3d')
    encoder = small_encoder('uni3d', point_axes=(0, 2, 1))
    encoder.init_cfg = dict(type='PointCloudPretrained', checkpoint=str(tmp_path / 'a.pth'))
    lines = logged(monkeypatch)
    encoder.init_weights()
    warned = '\n'.join(text for level, text in lines if level == logging.WARNING)
    for line in ('num_groups=512, the tokenizer has num_groups=8', "start=0, the tokenizer has start='farthest'",
                 'point_axes=(0, 1, 2), the tokenizer has point_axes=(0, 2, 1)'):
        assert f'a.pth: was trained with {line}' in warned
    assert 'radius' not in warned and 'point_attributes' not in warned
    report, = encoder.load_reports
    assert report.family == 'uni3d' and report.complete


def test_the_width_of_the_teacher_is_told_with_both_sides(tmp_path):
    parts = ('patch_encoder', 'position', 'blocks', 'norm', 'projection')
    exported(tmp_path / 'a.pth', 'uni3d')
    encoder = small_encoder('uni3d')
    encoder.embed_dim = 1280
    report = load_point_cloud_checkpoint(tmp_path / 'a.pth', encoder).report
    assert any('of width 24, the encoder has embed_dim=1280' in line for line in report.disagreements)
    encoder.init_cfg = dict(type='PointCloudPretrained', checkpoint=str(tmp_path / 'a.pth'), parts=parts)
    with pytest.raises(ValueError, match=r'of width 24, the encoder into embed_dim=1280'):
        encoder.init_weights()


# Conversion


@pytest.mark.parametrize('family', FAMILIES)
def test_a_converted_file_is_the_file_and_says_what_it_is(tmp_path, family):
    source, target = tmp_path / 'a.pth', tmp_path / 'a.safetensors'
    exported(source, family)
    convert_checkpoint(source, target)
    with safe_open(target, 'pt') as file:
        metadata = file.metadata()
    assert metadata['family'] == family and metadata['source'] == 'a.pth' and len(metadata['source_sha256']) == 64
    assert Contract.from_dict(json.loads(metadata['contract'])) == open_point_cloud_checkpoint(source).contract
    one, other = (load_point_cloud_checkpoint(path).model.state_dict() for path in (source, target))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_conversion_leaves_out_what_is_never_used(tmp_path):
    exported(tmp_path / 'a.pth', 'uni3d')
    state = torch.load(tmp_path / 'a.pth')['module']
    torch.save({'module': {**state, 'module.point_encoder.visual.pos_embed': torch.ones(1, 5, 192)}},
               tmp_path / 'a.pth')
    convert_checkpoint(tmp_path / 'a.pth', tmp_path / 'a.safetensors')
    report = load_point_cloud_checkpoint(tmp_path / 'a.safetensors').report
    assert not report.unused and 'image model' not in str(report)
    with pytest.raises(ValueError, match=r'expected a name that ends in \.safetensors'):
        convert_checkpoint(tmp_path / 'a.pth', tmp_path / 'b.pt')


class Code:
    def __reduce__(self):
        return (MMLogger.get_instance, ('converted',))


def test_code_is_run_only_where_it_is_trusted(tmp_path):
    exported(tmp_path / 'a.pth', 'point_mae')
    torch.save({**torch.load(tmp_path / 'a.pth'), 'logger': Code()}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r'could run code, .* --trust-pickle'):
        convert_checkpoint(tmp_path / 'a.pth', tmp_path / 'a.safetensors')
    convert_checkpoint(tmp_path / 'a.pth', tmp_path / 'a.safetensors', trust_pickle=True)
    assert load_point_cloud_checkpoint(tmp_path / 'a.safetensors').report.family == 'point_mae'


# Findings of a review


def test_the_number_of_heads_is_not_taken_on_trust(tmp_path):
    exported(tmp_path / 'a.pth', 'point_bert')
    encoder = GSEncoder(GSTokenizer(8, 6, 32, point_attributes=('xyz',)), PointBERT(64, 2, 2, 32), 24)
    with pytest.raises(ValueError, match=r'its 1 heads are 64 wide, .* the PointBERT has num_heads=2'):
        load_point_cloud_weights(encoder, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='this PointBERT of 64 has num_heads=2'):
        export_point_cloud_checkpoint(encoder, tmp_path / 'b.pth', 'point_bert')


@pytest.mark.parametrize('family', ['uni3d', 'ulip', 'openshape', 'recon_plus_plus'])
def test_a_model_without_its_projection_is_not_whole(tmp_path, family):
    path = tmp_path / 'a.pth'
    exported(path, family)
    content = torch.load(path)
    wrapper, = content
    names = [f'module.{name}' for name in projections(family)]
    for lost in [names, *([name] for name in names)]:
        torch.save({wrapper: {key: value for key, value in content[wrapper].items() if key not in lost}}, path)
        with pytest.raises(ValueError, match=r'missing in the file: '):
            load_point_cloud_checkpoint(path)
    encoder = small_encoder(family)  # which needs none
    torch.save({wrapper: {key: value for key, value in content[wrapper].items() if key not in names}}, path)
    assert load_point_cloud_checkpoint(path, encoder).report.complete


def test_a_file_with_fewer_blocks_is_not_the_one_of_the_catalogue(tmp_path, monkeypatch):
    monkeypatch.setenv('CLIPGS_CHECKPOINTS', str(tmp_path))
    exported(tmp_path / 'uni3d-ti.pt', 'uni3d')
    with pytest.raises(ValueError, match=r'is not uni3d-ti; .*depth of its backbone: 1 in the file, 12 published'):
        load_point_cloud_checkpoint('uni3d-ti')


@pytest.mark.parametrize('family', FAMILIES)
def test_a_file_without_what_tells_its_family_is_refused_by_its_own_names(tmp_path, family):
    path = tmp_path / 'a.pth'
    exported(path, family)
    content = torch.load(path)
    wrapper, = content
    for name in FAMILIES[family].signature:
        kept = {key: value for key, value in content[wrapper].items() if not key.endswith(f'.{name}')}
        assert len(kept) < len(content[wrapper])
        torch.save({wrapper: kept}, path)
        with pytest.raises(ValueError, match=rf'missing in the file: .*{name}'):
            load_point_cloud_checkpoint(path)


@pytest.mark.parametrize(('backbone', 'match'), [
    ('uni3d-bb', "backbone='uni3d-bb' is neither a published .* close names are uni3d-b"),
    ('Uni3D', r"is a type and says nothing of its size; write backbone=dict\(type='Uni3D'"),
    (dict(type='Unl3D', size='s'), "backbone='Unl3D' is neither .*Uni3D"),
])
def test_misspelt_backbones_are_told_what_is_near(backbone, match):
    with pytest.raises(ValueError, match=match):
        GSEncoder(dict(type='GSTokenizer'), backbone, 24)


def test_misspelt_names_of_files_are_told_what_is_near():
    with pytest.raises(FileNotFoundError, match=r'uni3d-bb: no such checkpoint; .* did you mean uni3d-b'):
        open_point_cloud_checkpoint('uni3d-bb')


def test_a_published_backbone_brings_its_tokenizer():
    with pytest.raises(ValueError, match='comes with its own tokenizer'):
        GSEncoder(GSTokenizer(8, 6, 32), 'uni3d-ti', 24)


def test_parts_that_are_not_asked_for_need_not_fit(tmp_path):
    exported(tmp_path / 'a.pth', 'point_bert')
    shallow = GSEncoder(GSTokenizer(8, 6, 32, point_attributes=('xyz',)), PointBERT(64, 1, 1, 32), 24)
    report = load_point_cloud_weights(shallow, tmp_path / 'a.pth', parts=('patch_encoder', 'position'))
    assert report.unused['transformer_q.norm.weight'] == "of the part 'norm', which was not asked for"
    other = GSEncoder(GSTokenizer(8, 6, 32, point_attributes=('xyz',)), dict(type='Uni3D', size='ti', depth=1,
                                                                            in_channels=32), 24)
    state = other.state_dict()
    with pytest.raises(ValueError, match=r'missing in the file: backbone\.encoder2trans'):
        load_point_cloud_weights(other, tmp_path / 'a.pth', parts='patch_encoder')
    assert all(torch.equal(value, state[key]) for key, value in other.state_dict().items())


def test_a_backbone_made_of_a_published_one_takes_its_weights(tmp_path):
    class Mine(PointBERT):
        pass

    exported(tmp_path / 'a.pth', 'point_bert')
    encoder = GSEncoder(GSTokenizer(8, 6, 32, point_attributes=('xyz',)), Mine(64, 2, 1, 32), 24)
    assert load_point_cloud_weights(encoder, tmp_path / 'a.pth').complete


def test_what_was_trained_here_is_told_how_it_goes_in(tmp_path):
    torch.save({'state_dict': {f'encoder.{key}': value for key, value in small_encoder('uni3d').state_dict().items()}},
               tmp_path / 'epoch_1.pth')
    with pytest.raises(ValueError, match=r'was trained here, .* start from it with load_from'):
        open_point_cloud_checkpoint(tmp_path / 'epoch_1.pth')


@pytest.mark.parametrize(('arguments', 'match'), [
    (dict(colors=torch.full((1, 30, 3), 200.0)), r'colors reach 200, expected sRGB in \[0, 1\]'),
    (dict(colors=torch.zeros(1, 30, 3, dtype=torch.uint8)), r'colors are torch\.uint8, expected a tensor of floats'),
    (dict(colors=torch.zeros(1, 29, 3)), r'colors have shape \(1, 29, 3\)'),
    (dict(neighbor_idx=torch.zeros(1, 4, 3, dtype=torch.int64)), 'neighbor_idx is given without center_idx'),
    (dict(center_idx=torch.tensor([[0, 30]])), 'center_idx ranges from 0 to 30, expected indices of points, 0 to 29'),
    (dict(center_idx=torch.tensor([0, 3])), r'center_idx is torch\.int64 of shape \(2,\), expected .* \(1, any\)'),
    (dict(center_idx=torch.tensor([[0, 3]]), neighbor_idx=torch.tensor([[[0, -1], [1, 2]]])),
     'neighbor_idx ranges from -1 to 2'),
    (dict(center_idx=torch.tensor([[0.0, 3.0]])), r'center_idx is torch\.float32'),
])
def test_wrong_inputs_of_the_plain_model_are_named(tmp_path, arguments, match):
    exported(tmp_path / 'a.pth', 'uni3d')
    model = load_point_cloud_checkpoint(tmp_path / 'a.pth').model
    with pytest.raises(ValueError, match=match):
        model(torch.rand(1, 30, 3), **arguments)


def test_double_points_and_narrow_indices_are_taken(tmp_path):
    exported(tmp_path / 'a.pth', 'uni3d')
    model = load_point_cloud_checkpoint(tmp_path / 'a.pth').model
    points, center_idx = torch.rand(1, 30, 3), torch.tensor([[0, 5, 9]])
    with torch.no_grad():
        expected = model(points, center_idx=center_idx).embedding
        assert torch.equal(model(points.double(), center_idx=center_idx.int()).embedding, expected)


@pytest.mark.parametrize(('content', 'match'), [
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n', 'pointer of git-LFS'),
    (b'<!DOCTYPE html><html></html>', 'is a web page'),
    (pickle.dumps({'a': Code()}), 'holds .* could run code, .* --trust-pickle'),
    (pickle.dumps({'a': Code()})[:-5], 'or truncated'),
])
def test_other_things_than_checkpoints_are_told_apart(tmp_path, content, match):
    (tmp_path / 'a.pt').write_bytes(content)
    with pytest.raises(ValueError, match=match):
        open_point_cloud_checkpoint(tmp_path / 'a.pt')


def test_safetensors_by_another_name_and_folders_are_told(tmp_path):
    exported(tmp_path / 'a.pth', 'point_mae')
    convert_checkpoint(tmp_path / 'a.pth', tmp_path / 'a.safetensors')
    (tmp_path / 'a.safetensors').rename(tmp_path / 'b.pt')
    with pytest.raises(ValueError, match=r'is a file of safetensors by another name; call it b\.safetensors'):
        open_point_cloud_checkpoint(tmp_path / 'b.pt')
    with pytest.raises(IsADirectoryError, match='is a folder'):
        open_point_cloud_checkpoint(tmp_path)


def test_every_plain_number_of_numpy_is_data(tmp_path):
    import numpy as np
    exported(tmp_path / 'a.pth', 'point_mae')
    numbers = {kind.__name__: kind(1) for kind in (np.float16, np.uint8, np.int16, np.float32, np.int64, np.bool_)}
    torch.save({**torch.load(tmp_path / 'a.pth'), 'metrics': numbers}, tmp_path / 'a.pth')
    assert load_point_cloud_checkpoint(tmp_path / 'a.pth').report.complete


def test_wrappers_within_wrappers_are_taken_off(tmp_path):
    exported(tmp_path / 'a.pth', 'point_mae')
    torch.save({'model': {'state_dict': torch.load(tmp_path / 'a.pth')['base_model']}}, tmp_path / 'a.pth')
    assert load_point_cloud_checkpoint(tmp_path / 'a.pth').report.complete


@pytest.mark.parametrize(('change', 'match'), [
    (lambda x: x.to(torch.int8), r'of another form: .*fc1\.weight torch\.int8 for torch\.float32'),
    (lambda x: x * torch.nan, r'of another form: .*fc1\.weight has values that are NaN or infinite'),
])
def test_weights_that_are_no_numbers_are_refused(tmp_path, change, match):
    exported(tmp_path / 'a.pth', 'point_mae')
    state = torch.load(tmp_path / 'a.pth')['base_model']
    key = 'module.MAE_encoder.blocks.blocks.1.mlp.fc1.weight'
    torch.save({'base_model': {**state, key: change(state[key])}}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=match):
        load_point_cloud_checkpoint(tmp_path / 'a.pth')
