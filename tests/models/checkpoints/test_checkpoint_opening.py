"""Opening of published checkpoints: catalogue names, detection of the family, contracts and refused files."""
import pytest
import torch
from small_encoders import export_small, small_encoder

from clipgs_plugin import load_point_cloud_checkpoint
from clipgs_plugin.models import GSEncoder, GSTokenizer
from clipgs_plugin.models.checkpoints import FAMILIES, Contract, open_point_cloud_checkpoint
from clipgs_plugin.registry import MODELS
from clipgs_plugin.registry.catalogue import load_catalogue

CATALOGUE = load_catalogue('checkpoints')


@pytest.mark.parametrize('name', [name for name, entry in CATALOGUE.items() if entry['file']])
def test_a_catalogue_name_builds_the_network_of_its_entry(name):
    entry, embed_dim = CATALOGUE[name], CATALOGUE[name]['contract'].get('embed_dim') or 512
    with torch.device('meta'):
        encoder = MODELS.build(dict(type='GSEncoder', backbone=name, embed_dim=embed_dim))
    assert type(encoder.backbone).__name__ == entry['architecture']['backbone']['type']
    assert not Contract.from_dict(entry['contract']).disagreements(encoder)
    assert encoder.init_cfg == dict(type='PointCloudPretrained', checkpoint=name)


def test_options_override_the_catalogue_entry():
    encoder = GSEncoder(dict(num_groups=7), dict(type='uni3d-ti', depth=1, drop_path_rate=0.1), 24,
                        dict(type='PointCloudPretrained', checkpoint='mine.pt'))
    assert encoder.tokenizer.num_groups == 7 and encoder.tokenizer.group_size == 64
    assert len(encoder.backbone.blocks) == 1 and encoder.init_cfg['checkpoint'] == 'mine.pt'


def test_a_catalogue_name_finds_its_file_in_the_checkpoint_folder(tmp_path, monkeypatch):
    export_small(tmp_path / 'weights.pth', 'uni3d')
    monkeypatch.setenv('CLIPGS_CHECKPOINTS', str(tmp_path))
    entry = dict(CATALOGUE['uni3d-ti'], file='deep/model.pt')
    entry['architecture'] = dict(tokenizer={}, backbone=dict(type='Uni3D', size='ti', depth=1, in_channels=32))
    entry['contract'] = dict(entry['contract'], embed_dim=24)
    monkeypatch.setitem(CATALOGUE, 'mine', entry)
    with pytest.raises(FileNotFoundError, match=r'mine: .*`, or download deep/model\.pt from https://.*as mine\.pt'):
        open_point_cloud_checkpoint('mine')
    (tmp_path / 'deep').mkdir()
    for place in ('mine.pth', 'deep/model.pt'):
        (tmp_path / place).write_bytes((tmp_path / 'weights.pth').read_bytes())
        assert open_point_cloud_checkpoint('mine').path == str(tmp_path / place)


def test_unpublished_weights_raise():
    with pytest.raises(FileNotFoundError, match=r'gaussian-mae: its weights have not been published'):
        open_point_cloud_checkpoint('gaussian-mae')


@pytest.mark.parametrize(('backbone', 'match'), [
    ('uni3d-bb', "backbone='uni3d-bb' is neither a published .* close names are uni3d-b"),
    ('Uni3D', r"is a type without its size; write backbone=dict\(type='Uni3D'"),
    (dict(type='Unl3D', size='s'), "backbone='Unl3D' is neither .*Uni3D"),
])
def test_a_misspelt_backbone_gets_suggestions(backbone, match):
    with pytest.raises(ValueError, match=match):
        GSEncoder(dict(type='GSTokenizer'), backbone, 24)


def test_a_misspelt_checkpoint_name_gets_suggestions():
    with pytest.raises(FileNotFoundError, match=r'uni3d-bb: file not found; .* name of the catalogue such as uni3d-b'):
        open_point_cloud_checkpoint('uni3d-bb')


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(IsADirectoryError, match='is a folder'):
        open_point_cloud_checkpoint(tmp_path)


def test_a_published_backbone_refuses_a_tokenizer_module():
    with pytest.raises(ValueError, match='comes with its own tokenizer'):
        GSEncoder(GSTokenizer(8, 6, 32), 'uni3d-ti', 24)


def test_an_unknown_entry_name_raises():
    with pytest.raises(ValueError, match="name='uni3d-xl': not in the catalogue"):
        open_point_cloud_checkpoint('a.pt', name='uni3d-xl')


def test_a_file_with_fewer_blocks_does_not_match_its_catalogue_entry(tmp_path, monkeypatch):
    monkeypatch.setenv('CLIPGS_CHECKPOINTS', str(tmp_path))
    export_small(tmp_path / 'uni3d-ti.pt', 'uni3d')
    with pytest.raises(ValueError, match=r'is not uni3d-ti; .*depth of the backbone: 1 in the file, 12 published'):
        load_point_cloud_checkpoint('uni3d-ti')


def test_an_unknown_file_takes_the_contract_of_the_most_similar_model(tmp_path):
    export_small(tmp_path / 'a.pth', 'ulip')
    assert open_point_cloud_checkpoint(tmp_path / 'a.pth').contract.point_attributes == ('xyz', 'rgb')
    export_small(tmp_path / 'b.pth', 'ulip', point_attributes=('xyz',))
    contract = open_point_cloud_checkpoint(tmp_path / 'b.pth').contract
    assert contract.point_attributes == ('xyz',) and contract.group_size == 32
    assert contract.embed_dim == 24 and contract.teacher is None  # an unknown teacher


@pytest.mark.parametrize('family', ['point_bert', 'point_mae'])
def test_a_fine_tuned_file_is_refused_by_default(tmp_path, family):
    path = tmp_path / 'a.pth'
    export_small(path, family)
    state = torch.load(path)['base_model']
    prefix = f'module.{FAMILIES[family].prefixes[0]}'
    state = {key.removeprefix(prefix): value for key, value in state.items()}
    if family == 'point_mae':
        state |= {'cls_token': torch.ones(1, 1, 64), 'cls_pos': torch.ones(1, 1, 64)}
    torch.save({'base_model': {**state, 'cls_head_finetune.0.weight': torch.zeros(4, 128)}}, path)
    with pytest.raises(ValueError, match=r'was fine-tuned for classification .* a pre-trained file .*finetuned=True'):
        load_point_cloud_checkpoint(path)
    model, report, _ = load_point_cloud_checkpoint(path, finetuned=True)
    assert report.unused == {'cls_head_finetune.0.weight': 'classifier of fine-tuning'}
    assert model.backbone.cls_token is not None


def test_the_causal_recon_plus_plus_is_refused(tmp_path):
    path = tmp_path / 'a.pth'
    export_small(path, 'recon_plus_plus')
    state = torch.load(path)['base_model']
    torch.save({'base_model': {**state, 'module.model.encoder.sos': torch.zeros(1, 1, 384)}}, path)
    with pytest.raises(ValueError, match=r"is a causal ReCon\+\+ .* only the 'openshape' form"):
        load_point_cloud_checkpoint(path)


@pytest.mark.parametrize('family', FAMILIES)
def test_a_missing_signature_tensor_is_named(tmp_path, family):
    path = tmp_path / 'a.pth'
    export_small(path, family)
    content = torch.load(path)
    wrapper, = content
    for name in FAMILIES[family].signature:
        kept = {key: value for key, value in content[wrapper].items() if not key.endswith(f'.{name}')}
        assert len(kept) < len(content[wrapper])
        torch.save({wrapper: kept}, path)
        with pytest.raises(ValueError, match=rf'missing in the file: .*{name}'):
            load_point_cloud_checkpoint(path)


def test_a_checkpoint_of_this_library_is_refused_with_advice(tmp_path):
    torch.save({'state_dict': {f'encoder.{key}': value for key, value in small_encoder('uni3d').state_dict().items()}},
               tmp_path / 'epoch_1.pth')
    with pytest.raises(ValueError, match=r'was trained by this library .* start from it with load_from'):
        open_point_cloud_checkpoint(tmp_path / 'epoch_1.pth')
