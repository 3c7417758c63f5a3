"""Consistency of the catalogue of published point-cloud checkpoints."""
import re

import pytest
import torch

from clipgs_plugin.models.checkpoints.contract import Contract
from clipgs_plugin.ops.sampling import check_start
from clipgs_plugin.registry import MODELS
from clipgs_plugin.registry.catalogue import load_catalogue

CATALOGUE = load_catalogue('checkpoints')
BACKBONES = {
    'point_bert': 'PointBERT', 'point_mae': 'PointMAE', 'ulip': 'ULIP', 'openshape': 'OpenShapePPAT', 'uni3d': 'Uni3D',
    'recon': 'ReCon', 'recon_plus_plus': 'ReConPlusPlus', 'gaussian_mae': 'GaussianMAE',
}
CHANNELS = {'xyz': 3, 'position': 3, 'rgb': 3, 'opacity': 1, 'linear_scale': 3, 'quat': 4, 'sh_dc': 3}
POINT_ATTRIBUTES = {
    'point_bert': [('xyz',)],
    'point_mae': [('xyz',)],
    'ulip': [('xyz',), ('xyz', 'rgb')],
    'openshape': [('xyz', 'position', 'rgb')],
    'uni3d': [('xyz', 'rgb')],
    'recon': [('xyz',)],
    'recon_plus_plus': [('xyz', 'rgb')],
    'gaussian_mae': [('xyz', 'opacity', 'linear_scale', 'quat', 'sh_dc')],
}
PATCH_ENCODERS = {'openshape': {'SetAbstraction'}, 'gaussian_mae': {'SoftPatchEncoder', 'PatchEncoder'}}
# Width of the teachers that open_clip does not have.
OTHER_TEACHERS = {'SLIP ViT-B/16': 512}
# Bytes per parameter of published files: float16, float32, or float32 with the two moments of Adam.
BYTES_PER_PARAMETER = {
    'openshape-pointbert-vitg14': 12, 'openshape-pointbert-vitg14-no-lvis': 12, 'openshape-pointbert-shapenet': 12,
    'openshape-pointbert-vitl14': 4, 'openshape-pointbert-vitb32': 4, 'uni3d-ti': 2, 'uni3d-s': 2, 'uni3d-b': 2,
    'uni3d-l': 2, 'uni3d-g': 2, 'ulip2-pointbert-10k-colored': 12,
}
ABOUT = {'ulip2-pointbert-10k-colored': 402_000_000}  # bytes, known to three digits

every_entry = pytest.mark.parametrize('name', CATALOGUE)


@pytest.fixture
def entry(name):
    return CATALOGUE[name]


@pytest.fixture
def contract(entry):
    return Contract.from_dict(entry['contract'])


def built(entry):
    """Build the tokenizer and the backbone of an entry on the meta device."""
    contract = Contract.from_dict(entry['contract'])
    with torch.device('meta'):
        tokenizer = MODELS.build(dict(type='GSTokenizer', refine=False, **contract.tokenizer_options(),
                                      **entry['architecture']['tokenizer']))
        return tokenizer, MODELS.build(entry['architecture']['backbone'])


@every_entry
def test_an_entry_has_all_required_and_no_unknown_keys(name, entry):
    required = {'family', 'architecture', 'file', 'page', 'licence', 'contract'}
    assert required <= entry.keys() <= required | {'published', 'note', 'hub', 'bytes', 'revision', 'sha256'}
    assert {'tokenizer', 'backbone'} <= entry['architecture'].keys() <= {
        'tokenizer', 'backbone', 'projection', 'parameters'}
    assert {'channels'} <= entry['architecture']['tokenizer'].keys() <= {'channels', 'patch_encoder'}
    assert entry['page'].startswith('https://') and entry['licence']
    assert entry['file'] is None or entry['file'].endswith(('.pt', '.pth'))
    assert entry['file'] or 'released' in entry['note']


@every_entry
def test_an_entry_of_the_hub_names_the_repository_of_its_page(name, entry):
    if 'hub' in entry:
        assert entry['page'].startswith(f'https://huggingface.co/{entry["hub"]}') and entry['file']
        assert re.fullmatch(r'(datasets/)?[\w.-]+/[\w.-]+', entry['hub'])
    else:
        assert 'huggingface.co' not in entry['page'] and not entry.keys() & {'bytes', 'revision', 'sha256'}
    assert re.fullmatch('[0-9a-f]{40}', entry.get('revision', '0' * 40))
    assert re.fullmatch('[0-9a-f]{64}', entry.get('sha256', '0' * 64))


@every_entry
def test_every_result_has_a_source(name, entry):
    for result in entry.get('published', []):
        assert {'benchmark', 'top1', 'source'} <= result.keys() <= {'benchmark', 'top1', 'top5', 'source'}
        assert 0 < result['top1'] <= result.get('top5', 100) <= 100
        assert result['source'].startswith('https://')


@every_entry
def test_a_contract_survives_a_round_trip(name, entry, contract):
    kept = contract.to_dict()
    assert {key: kept[key] for key in entry['contract']} == entry['contract']
    assert Contract.from_dict(kept) == contract
    assert contract.lines()


@every_entry
def test_a_contract_agrees_with_its_family(name, entry, contract):
    family = entry['family']
    assert contract.point_attributes in POINT_ATTRIBUTES[family]
    assert contract.normalisation == 'unit_sphere'
    check_start(contract.start, contract.rule)
    # OpenShape uses dgl's sampling and ball queries; all others use pointnet2's sampling and nearest neighbours.
    openshape = family == 'openshape'
    assert (contract.start, contract.rule) == (('random', 'exact') if openshape else (0, 'pointnet2'))
    assert (contract.radius is not None) == openshape
    z_up = openshape and contract.teacher == 'vit-bigg-14-laion2b'
    assert contract.point_axes == ((0, 2, 1) if z_up else (0, 1, 2))
    if 'rgb' in contract.point_attributes:
        assert contract.color_range == (0, 1) and contract.missing_color == 0.4
    else:
        assert contract.color_range is contract.missing_color is None


@every_entry
def test_an_entry_has_the_embedding_width_of_its_teacher(name, contract):
    widths = {None: None, **OTHER_TEACHERS,
              **{teacher: entry['width'] for teacher, entry in load_catalogue('teachers').items()}}
    assert contract.embed_dim == widths[contract.teacher]


@every_entry
def test_the_parts_of_an_entry_fit(name, entry, contract):
    family, parts = entry['family'], entry['architecture']
    assert parts['backbone']['type'] == BACKBONES[family]
    patch_encoder = parts['tokenizer'].get('patch_encoder', {'type': 'PatchEncoder'})
    assert patch_encoder['type'] in PATCH_ENCODERS.get(family, {'PatchEncoder'})
    tokenizer, backbone = built(entry)
    assert tokenizer.channels == backbone.in_channels
    first = tokenizer.patch_encoder.get_submodule(tokenizer.patch_encoder.first_layer)
    assert first.weight.shape[1] == sum(CHANNELS[each] for each in contract.point_attributes)


@pytest.mark.parametrize('name', BYTES_PER_PARAMETER)
def test_the_parameters_of_an_entry_match_its_file_size(name, entry, contract):
    size, bytes_each = entry.get('bytes') or ABOUT[name], BYTES_PER_PARAMETER[name]
    tokenizer, backbone = built(entry)
    count = sum(p.numel() for part in (tokenizer, backbone) for p in part.parameters())
    if name != 'openshape-pointbert-vitb32':  # its class token is the embedding
        count += backbone.out_channels * contract.embed_dim
    # A file also has names, batch-norm statistics, biases of the projection and, for Uni3D, the first and last layers
    # of an image model.
    assert 0.965 < count * bytes_each / size < 1


def test_every_entry_has_its_own_file():
    files = [(entry['page'], entry['file']) for entry in CATALOGUE.values()]
    assert len(set(files)) == len(files)


def test_every_family_has_an_entry():
    assert {entry['family'] for entry in CATALOGUE.values()} == set(BACKBONES)
