"""The program that lists datasets: every set of the catalogue has a class, and what is here is found."""
import json
import re
from configparser import ConfigParser

import pytest

from clipgs_plugin import get_config
from clipgs_plugin.datasets.modelnet import SPLITS
from clipgs_plugin.datasets.public import PublicSet
from clipgs_plugin.registry import DATASETS
from clipgs_plugin.registry.catalogue import load_catalogue
from clipgs_plugin.tools import list_datasets

FOLDERS = {name: entry for name, entry in load_catalogue('datasets').items() if 'folder' in entry}
PUBLIC = {name: entry for name, entry in FOLDERS.items() if entry['dataset'] != 'ModelNetGaussians'}


@pytest.mark.parametrize('name', PUBLIC)
def test_the_catalogue_agrees_with_the_class(root, name):
    entry = PUBLIC[name]
    kind = DATASETS.get(f"clipgs_plugin.{entry['dataset']}")
    assert issubclass(kind, PublicSet) and kind.up == entry['up'] and set(kind.splits) == set(entry['splits'])
    assert {'page', 'licence', 'layout', 'kind'} <= set(entry)
    assert f'`{entry["dataset"]}`' in (root / 'docs' / 'datasets.md').read_text(encoding='utf-8')


@pytest.mark.parametrize('name', ['modelnet10', 'modelnet40'])
def test_modelnet_lies_where_its_config_looks(root, name):
    entry, config = FOLDERS[name], get_config(f'clipgs_plugin::_base_/datasets/{name}.py')
    assert config.data_root == f"data/{entry['folder']}" and config.up == entry['up']
    assert config.train_dataloader.dataset.type == f"clipgs_plugin.{entry['dataset']}"
    assert tuple(entry['splits']) == SPLITS
    assert f'`{entry["dataset"]}`' in (root / 'docs' / 'datasets.md').read_text(encoding='utf-8')


def test_every_public_set_is_in_the_catalogue():
    from clipgs_plugin.datasets import public
    classes = {name for name in public.__all__ if name in DATASETS.module_dict}
    assert classes == {entry['dataset'] for entry in PUBLIC.values()} and len(classes) == 10


def test_a_set_names_the_extra_that_it_needs(root):
    setup = ConfigParser()
    setup.read(root / 'setup.cfg', encoding='utf-8')
    extras = setup['options.extras_require']
    for name, entry in load_catalogue('datasets').items():
        is_mesh = 'make_triplets.py' in entry.get('prepare', '') and entry['licence'] != 'your own files'
        assert ('needs' in entry) == is_mesh, name
        if 'needs' in entry:
            packages, extra = re.fullmatch(r'(.+) \(extra (\w+)\)', entry['needs']).groups()
            assert all(package in extras[extra] for package in re.split(', | and ', packages)), name


def test_sets_below_the_root_are_here(tmp_path, capsys):
    for name in ('shapesplats', 'gaussianverse'):  # the second one is empty
        (tmp_path / name).mkdir()
    (tmp_path / 'shapesplats' / '03001627.zip').touch()
    assert list_datasets.main(['--root', str(tmp_path), '--json']) == 0
    found = {entry['name']: entry for entry in json.loads(capsys.readouterr().out)}
    assert set(found) == set(load_catalogue('datasets'))
    assert [name for name, entry in found.items() if entry['path']] == ['shapesplats']
    assert found['shapesplats']['path'] == str(tmp_path / 'shapesplats')
    assert list_datasets.main(['--root', str(tmp_path)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ['shapesplats', 'ShapeSplats', 'here'] in [row[:3] for row in rows]
    assert ['modelnet-splats', 'ModelNetSplats', 'missing'] in [row[:3] for row in rows]


def test_one_set_in_full_and_unknown_names(tmp_path, capsys):
    assert list_datasets.main(['modelnet-splats', '--root', str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert 'ShapeSplats/ModelNet_Splats' in out and "dataset=dict(type='ModelNetSplats', root='data/" in out
    with pytest.raises(SystemExit) as stopped:
        list_datasets.main(['modelnet-splat'])
    assert stopped.value.code == 2 and 'close names are modelnet-splats' in capsys.readouterr().err


def test_a_root_that_does_not_exist_is_named(tmp_path, capsys):
    assert list_datasets.main(['abo-points', '--root', str(tmp_path / 'gone')]) == 0
    assert f'the folder of the datasets, {tmp_path}/gone, does not exist' in capsys.readouterr().err
