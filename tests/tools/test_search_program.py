"""The search in a folder, as a user calls it."""
import json
import shutil

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from clipgs_plugin.evaluation import ClassEmbeddings
from clipgs_plugin.search import IndexCard, IndexWriter, SearchIndex
from clipgs_plugin.tools import search

pytestmark = pytest.mark.filterwarnings('ignore')
WIDTH = 128
NAMES = ['chair', 'red', 'wood']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Objects that are chairs, red or wooden, and two that are nearly alike; the file of these names."""
    folder = tmp_path_factory.mktemp('search')
    chair, red, wood = torch.eye(3, WIDTH)
    objects = {'chair.ply': chair, 'red_chair.ply': chair + red, 'wooden_chair.ply': chair + wood, 'red.ply': red,
               'copy.ply': red + 0.05 * wood}
    with IndexWriter(folder / 'index', IndexCard('clipgs_toy', WIDTH)) as index:
        for i, (name, vector) in enumerate(objects.items()):
            index.add(f'/objects/{name}', normalize(vector, dim=0), size=0, mtime_ns=0, gaussians=1000 * i,
                      category='chair' if 'chair' in name else None)
    ClassEmbeddings(NAMES, torch.eye(3, WIDTH), 'toy-clip').save(folder / 'names.npz')
    return folder


def found(folder, capsys, *arguments):
    words = [str(folder / 'index'), *arguments, '--json']
    if '--text' in arguments:
        words += ['--class-embeddings', str(folder / 'names.npz')]
    assert search.main(words) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize('arguments, expected', [
    (['--text', 'chair', '-k', '1'], ['chair']), (['--text', 'chair', '--text', 'red', '-k', '1'], ['red_chair']),
    (['--text', 'chair', '--not-text', 'wood', '-k', '2'], ['chair', 'red_chair']),
    (['--not-text', 'chair', '--text', 'red', '--weights', '3,1', '-k', '2'], ['red', 'copy']),
    (['--text', 'red', '--where', 'category=chair', '--where', 'gaussians>=1000', '-k', '1'], ['red_chair']),
    (['--text', 'red', '--where', 'path~CHAIR', '--exact', '-k', '1'], ['red_chair'])])
def test_parts_weights_and_conditions_decide_what_is_found(folder, capsys, arguments, expected):
    matches = found(folder, capsys, *arguments)
    assert [match['path'] for match in matches] == [f'/objects/{name}.ply' for name in expected]
    assert all(match['metadata']['path'] == match['path'] for match in matches)


def test_near_duplicates_are_shown_in_groups(folder, capsys):
    assert found(folder, capsys, '--duplicates', '0.99') == [['/objects/red.ply', '/objects/copy.ply']]
    assert search.main([str(folder / 'index'), '--duplicates', '0.99']) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == ['group 1 of 2', '  /objects/red.ply', '  /objects/copy.ply']
    assert '1 groups with 2 of 5 objects' in shown.err


def test_an_index_is_compared_with_its_hashes_on_request(folder, tmp_path, capsys):
    index = shutil.copytree(folder / 'index', tmp_path / 'index')
    assert search.main([str(index), '--verify']) == 0
    assert capsys.readouterr().out == f'{index}: 5 objects, all files are as they were written\n'
    path = index / 'img_emb' / 'img_emb_00000.npy'
    np.save(path, np.load(path)[::-1].copy())
    with pytest.raises(ValueError, match=r'img_emb_00000\.npy is not the file that was written'):
        search.main([str(index), '--verify'])


def test_names_of_a_stranger_do_not_reach_the_terminal(tmp_path, folder, capsys):
    with IndexWriter(tmp_path / 'index', IndexCard('clipgs_toy', WIDTH)) as index:
        for name in ('a\nb', '\x1b[31mred'):
            index.add(f'/{name}.ply', torch.eye(1, WIDTH)[0], size=0, mtime_ns=0)
    assert search.main([str(tmp_path / 'index'), '--duplicates', '1']) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ['  /a\\nb.ply', '  /\\x1b[31mred.ply']
    assert search.main([str(tmp_path / 'index'), '--text', 'red', '--class-embeddings', str(folder / 'names.npz')]) == 0
    shown = capsys.readouterr().out
    assert '/a\\nb.ply' in shown and '\x1b[31mred' not in shown


def test_a_query_by_other_weights_than_those_of_the_index_is_refused(tmp_path):
    with IndexWriter(tmp_path / 'index', IndexCard('clipgs_toy', WIDTH, checkpoint_sha256='ab' * 32)) as index:
        index.add('/a.ply', torch.eye(1, WIDTH)[0], size=0, mtime_ns=0)
    with pytest.raises(ValueError, match='index was made with other weights of clipgs_toy'):
        search.main([str(tmp_path / 'index'), '--text', 'a chair'])


@pytest.mark.parametrize('arguments, message', [
    ([], 'is required'), (['--not-text', 'x'], 'a part that is wanted'), (['--text', 'x', '--duplicates', '1'], 'one'),
    (['--text', 'x', '--weights', '1,2'], '2 numbers for 1 parts'), (['--text', 'x', '--weights', '-1'], 'positive'),
    (['--text', 'x', '--weights', 'a'], 'not a list of numbers'), (['--duplicates', '1', '--where', 'a=b'], '--where'),
    (['--image', 'x', '--class-embeddings', 'y'], '--class-embeddings')])
def test_wrong_use_is_said(folder, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        search.main([str(folder / 'index'), *arguments])
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_what_cannot_be_asked_or_built_is_said_in_a_line(folder, tmp_path):
    index = str(folder / 'index')
    with pytest.raises(ValueError, match='is no condition'):
        search.main([index, '--text', 'x', '--where', 'chair'])
    with pytest.raises(ValueError, match="'color' is no column"):
        search.main([index, '--text', 'red', '--where', 'color=red', '--class-embeddings', str(folder / 'names.npz')])
    SearchIndex(torch.eye(2), 'ab', 'm').save(tmp_path / 'e.npz')
    with pytest.raises(ValueError, match='is not a folder'):
        search.main([str(tmp_path / 'e.npz'), '--build-approximate'])
    pytest.importorskip('faiss')
    with pytest.raises(ValueError, match='has 5 rows'):
        search.main([index, '--build-approximate'])
