"""The programs that embed and search, as a user calls them."""
import json
import os
import shutil
import signal
import subprocess
import sys
from importlib import resources

import numpy as np
import pytest

from clipgs_plugin import ops, read_gaussians, write_gaussians
from clipgs_plugin.apis import SearchIndex
from clipgs_plugin.apis.configs import find_config
from clipgs_plugin.tools import embed, search
from clipgs_plugin.toy_world.writing import export_files

pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture(scope='module')
def toys(tmp_path_factory):
    folder = tmp_path_factory.mktemp('toys')
    export_files(folder, 6)
    return folder


def test_a_folder_is_embedded_and_searched(toys, tmp_path, capsys):
    index = tmp_path / 'new' / 'e.npz'
    assert embed.main([str(toys), '-o', str(index)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and all('1,024 Gaussians of SH degree 0' in line for line in lines)
    with np.load(index, allow_pickle=False) as arrays:
        assert arrays['embeddings'].shape[0] == 6
        assert np.allclose(np.linalg.norm(arrays['embeddings'], axis=1), 1, atol=1e-5)

    assert search.main([str(index), '--text', 'a rocket', '--json', '-k', '2']) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 2 and 'rocket' in found[0]['path'] and found[0]['score'] >= found[1]['score']

    teapot = next(str(path) for path in toys.iterdir() if 'teapot' in path.name)
    assert search.main([str(index), '--gaussians', teapot, '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert found[0]['path'] == teapot and found[0]['score'] == pytest.approx(1, abs=1e-4)

    lying = tmp_path / 'lying.ply'
    write_gaussians(read_gaussians(teapot).transform(ops.axis_change('y', 'z')), lying)
    assert search.main([str(index), '--gaussians', str(lying), '--up', 'z', '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert found[0]['path'] == teapot and found[0]['score'] == pytest.approx(1, abs=1e-4)


def test_bad_files_are_named_and_the_others_embedded(toys, tmp_path, capsys):
    (tmp_path / 'broken.ply').write_bytes(b'ply\nformat binary_little_endian 1.0\nelement vertex 5\n')
    good = next(toys.glob('*.ply'))
    index = tmp_path / 'e.npz'
    assert embed.main([str(tmp_path / 'broken.ply'), str(good), '-o', str(index), '--json']) == 1
    captured = capsys.readouterr()
    assert 'broken.ply' in captured.err and '1 of 2 files' in captured.err
    assert [json.loads(line)['path'] for line in captured.out.splitlines()] == [str(good)]
    with np.load(index) as arrays:
        assert arrays['paths'].tolist() == [str(good)]


@pytest.mark.parametrize('arguments, status', [([], 2), (['--model'], 2), (['x.ply', '--up', 'north'], 2)])
def test_wrong_use_exits_with_two(arguments, status):
    with pytest.raises(SystemExit) as stopped:
        embed.main(arguments)
    assert stopped.value.code == status


def test_wrong_paths_are_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'absent\.ply does not exist'):
        embed.main([str(tmp_path / 'absent.ply')])
    with pytest.raises(FileNotFoundError, match='holds no splat files'):
        embed.main([str(tmp_path)])
    with pytest.raises(FileNotFoundError, match=r'embed\.py FILES'):
        search.main([str(tmp_path / 'absent.npz'), '--text', 'x'])


def test_a_config_without_weights_is_refused(toys, tmp_path):
    with pytest.raises(ValueError, match='--checkpoint'):
        embed.main([str(toys), '-o', str(tmp_path / 'e.npz'), '--model', 'clipgs_pointbert-nano_15e_toy-world'])
    assert not (tmp_path / 'e.npz').exists()


def test_brackets_in_names_are_shown_as_they_are(toys, tmp_path, capsys):
    named = tmp_path / 'chair[red].ply'
    named.write_bytes(next(toys.glob('*.ply')).read_bytes())
    index = tmp_path / 'e.npz'
    assert embed.main([str(named), '-o', str(index)]) == 0
    capsys.readouterr()
    assert search.main([str(index), '--text', '[red] chair']) == 0
    shown = ''.join(capsys.readouterr().out.replace('│', '').split())
    assert 'chair[red].ply' in shown and '[red]chair' in shown


def test_what_cannot_be_asked_is_said(toys, tmp_path):
    index = tmp_path / 'e.npz'
    assert embed.main([str(next(toys.glob('*.ply'))), '-o', str(index)]) == 0
    with pytest.raises(ValueError, match='empty'):
        search.main([str(index), '--text', ' '])
    (tmp_path / 'a.txt').write_text('words')
    with pytest.raises(ValueError, match=r'a\.txt is not an image'):
        search.main([str(index), '--image', str(tmp_path / 'a.txt')])
    with pytest.raises(IsADirectoryError, match=r'is a folder, expected an image; name one file in it'):
        search.main([str(index), '--image', str(toys)])
    with pytest.raises(IsADirectoryError, match='is a folder'):
        search.main([str(tmp_path), '--text', 'a chair'])
    with pytest.raises(ValueError, match='holds files and is not an index'):
        embed.main([str(toys), '-o', str(tmp_path)])


@pytest.mark.parametrize('name', ['chair.ply', 'cloud.npz', 'new.ply', 'text.npz', 'e.npz'])
def test_only_an_index_is_ever_replaced(toys, tmp_path, capsys, name):
    good = next(toys.glob('*.ply'))
    (tmp_path / 'chair.ply').write_bytes(good.read_bytes())
    np.savez(tmp_path / 'cloud.npz', points=np.zeros((5, 3)))
    (tmp_path / 'text.npz').write_text('mine')
    (tmp_path / 'e.npz.part').write_text('mine')
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(SystemExit) as stopped:
        embed.main([str(good), '-o', str(tmp_path / name)])
    assert stopped.value.code == 2 and 'an index' in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_index_is_replaced(toys, tmp_path):
    index, files = tmp_path / 'e.npz', sorted(toys.glob('*.ply'))
    for count in (2, 1):
        assert embed.main([*map(str, files[:count]), '-o', str(index)]) == 0
        assert len(SearchIndex.load(index)) == count


def test_an_index_is_searched_from_any_folder(toys, tmp_path, monkeypatch, capsys):
    (tmp_path / 'near').mkdir()
    shutil.copytree(toys, tmp_path / 'near' / 'toys')
    monkeypatch.chdir(tmp_path / 'near')
    weights = tmp_path / 'near' / 'w.safetensors'
    shutil.copy(resources.files('clipgs_plugin') / 'weights' / 'clipgs_toy' / 'weights.safetensors', weights)
    (tmp_path / 'near' / 'mine.py').write_text(f"_base_ = ['{find_config('clipgs_pointbert-nano_15e_toy-world')}']")
    assert embed.main(['toys', '-o', 'e.npz', '--model', 'mine.py', '--checkpoint', 'w.safetensors']) == 0
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert search.main(['near/e.npz', '--text', 'a rocket', '--json', '-k', '1']) == 0
    found, = json.loads(capsys.readouterr().out)
    assert found['path'].startswith(f'{tmp_path}/near/toys/') and read_gaussians(found['path'])


STOPPED = """
import os, signal, sys
from clipgs_plugin.tools import embed
from clipgs_plugin.tools import _index_output
_index_output.SAVE_EVERY, read = 2, embed.prepared
embed.prepared = lambda path, *options: (
    os.kill(os.getpid(), signal.SIGKILL) if str(path) == sys.argv[2] else read(path, *options))
embed.main([sys.argv[1], '-o', 'e.npz', '--batch-size', '2'])
"""


def test_a_run_that_is_killed_leaves_the_index_of_the_files_before(toys, tmp_path):
    files = sorted(map(str, toys.iterdir()))
    command = [sys.executable, '-c', STOPPED, str(toys)]
    done = subprocess.run([*command, files[4]], cwd=tmp_path, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert SearchIndex.load(tmp_path / 'e.npz').paths == tuple(files[:4])

    done = subprocess.run([*command, files[2]], cwd=tmp_path, capture_output=True)  # an index that exists is kept
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert SearchIndex.load(tmp_path / 'e.npz').paths == tuple(files[:4])
    assert SearchIndex.load(tmp_path / 'e.npz.part').paths == tuple(files[:2])
    assert embed.main([*files, '-o', str(tmp_path / 'e.npz')]) == 0
    assert SearchIndex.load(tmp_path / 'e.npz').paths == tuple(files) and os.listdir(tmp_path) == ['e.npz']


def test_an_interrupted_run_keeps_the_index_that_was_there(toys, tmp_path, monkeypatch, capsys):
    out, files = tmp_path / 'e.npz', sorted(map(str, toys.iterdir()))
    assert embed.main([*files[:2], '-o', str(out)]) == 0
    read = embed.prepared

    def interrupted(path, *options):
        if str(path) == files[3]:
            raise KeyboardInterrupt
        return read(path, *options)
    monkeypatch.setattr(embed, 'prepared', interrupted)
    capsys.readouterr()
    with pytest.raises(KeyboardInterrupt):
        embed.main([*files, '-o', str(out), '--batch-size', '1'])
    count = len(SearchIndex.load(f'{out}.part'))
    assert SearchIndex.load(out).paths == tuple(files[:2]) and 1 <= count <= 3
    assert capsys.readouterr().err.endswith(
        f'note: {out} is as before; the {count} embeddings of this run are in {out}.part\n')


@pytest.mark.parametrize('name, advice', [('absent.npz', True), ('absent.ply', False), ('chair.ply', False)])
def test_the_way_to_make_an_index_is_shown_for_names_of_indexes_only(toys, tmp_path, name, advice):
    (tmp_path / 'chair.ply').write_bytes(next(toys.glob('*.ply')).read_bytes())
    with pytest.raises((FileNotFoundError, ValueError)) as error:
        search.main([str(tmp_path / name), '--text', 'x'])
    assert (f'embed.py FILES -o {tmp_path / name}' in str(error.value)) == advice
    assert advice or 'ends in .npz' in str(error.value)


def test_up_axis_and_removals_are_shown_and_kept_in_the_index(splats, tmp_path, capsys):
    path, index = str(splats / 'potted_plant.splat'), tmp_path / 'e.npz'
    options = ['--up', 'auto', '--crop', '-9,-9,-9,9,9,9', '--remove-plane', '--largest-cluster', '--turns', '2']
    assert embed.main([path, '-o', str(index), *options, '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found['up'], found['cropped'], found['plane']) == ('-y', 0, 0)
    assert found['gaussians'] + found['other_clusters'] == len(read_gaussians(path))
    assert SearchIndex.load(index).ups == (('-y', found['up_confidence']),)
    assert search.main([str(index), '--gaussians', path, *options, '--json']) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)[0]['score'] == pytest.approx(1, abs=1e-5)
    assert 'up -y by estimate (confidence 0.' in captured.err and '0 of the plane removed' in captured.err


@pytest.mark.parametrize('box', ['1,2,3', '0,0,0,1,a,1', '0,0,0,1,-1,1'])
def test_a_crop_that_is_no_box_is_wrong_use(box, capsys):
    with pytest.raises(SystemExit) as stopped:
        embed.main(['x.ply', '--crop', box])
    assert stopped.value.code == 2 and repr(box) in capsys.readouterr().err
