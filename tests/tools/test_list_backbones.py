"""tools/list_backbones.py."""
import json

import pytest

from clipgs_plugin.models.checkpoints.contract import Contract
from clipgs_plugin.registry.catalogue import load_catalogue
from clipgs_plugin.tools import list_backbones

CATALOGUE = load_catalogue('checkpoints')


def test_the_table_has_one_line_per_model_within_112_columns(capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '112')
    assert list_backbones.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {words[0]: words[1:] for line in lines if line.startswith(' ') and (words := line.split())}
    table = [line for line in lines if not line.startswith('Backbones without')]  # of any length, with plug-ins
    assert rows.keys() >= CATALOGUE.keys() and max(map(len, table)) <= 112
    assert rows['uni3d-l'] == ['1024', 'x', '24', '10k', 'x', '6,', '512', 'x', '64',
                               'eva02-e-14-plus-laion2b', '1024', 'MIT*']
    assert rows['openshape-pointbert-shapenet'][:3] == ['256', 'x', '6']
    assert rows['recon++-l'][:3] == ['1024', 'x', '24']
    assert rows['gaussian-mae'][-2:] == ['not', 'released']
    others = next(line for line in lines if line.startswith('Backbones without'))
    assert 'PointNet2' in others and 'DGCNN' in others and 'Uni3D' not in others


def test_the_table_of_a_family_has_only_its_models(capsys):
    assert list_backbones.main(['--family', 'ulip', '--json']) == 0
    names = [entry['name'] for entry in json.loads(capsys.readouterr().out)]
    assert names == ['ulip-pointbert', 'ulip2-pointbert-10k-colored', 'ulip2-pointbert-xyz']
    assert list_backbones.main(['--family', 'ulip']) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in names) and 'uni3d' not in out


@pytest.mark.parametrize('name', CATALOGUE)
def test_a_name_prints_all_details_of_its_model(name, capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '112')
    entry = CATALOGUE[name]
    assert list_backbones.main([name]) == 0
    out = capsys.readouterr().out
    words = ' '.join(out.split())
    assert all(line in words for line in Contract.from_dict(entry['contract']).lines())
    assert entry['page'] in words and entry['licence'] in words and ' '.join(entry['note'].split()) in words
    for result in entry.get('published', []):
        assert f'{result["benchmark"]}: {result["top1"]} %' in words and result['source'] in words
    if entry['file'] is None:
        assert 'not released' in words and 'GSEncoder' not in words
        return
    assert entry['file'] in words
    line = next(line.partition('config')[2].strip() for line in out.splitlines() if 'GSEncoder' in line)
    encoder = eval(f'dict({line.partition("  #")[0]})')['encoder']  # the config line is Python
    width = entry['contract'].get('embed_dim')
    assert (encoder['type'], encoder['backbone']) == ('GSEncoder', name)
    assert encoder['embed_dim'] == width if width else 'your teacher' in line


def test_json_has_every_field_of_the_contract(capsys):
    assert list_backbones.main(['--json', 'point-mae', 'uni3d-ti']) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first['name'], second['name']) == ('point-mae', 'uni3d-ti')
    assert first['contract']['rule'] == 'pointnet2' and first['contract']['point_attributes'] == ['xyz']
    assert second['architecture']['backbone'] == {'type': 'Uni3D', 'size': 'ti', 'in_channels': 512,
                                                   'depth': 12}


def test_an_unknown_name_gets_suggestions(capsys):
    with pytest.raises(SystemExit) as stopped:
        list_backbones.main(['uni3d-B'])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and "'uni3d-B'" in error and 'uni3d-b' in error.partition('close names')[2]
