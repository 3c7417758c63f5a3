"""The program that labels the objects of a scene, as a user calls it."""
import importlib.util
import json
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from clipgs_plugin import CLIPGSInferencer, read_gaussians, scenes, write_gaussians
from clipgs_plugin.io import inria_ply
from clipgs_plugin.io.inria_ply import further_columns
from clipgs_plugin.ops import axis_change
from clipgs_plugin.scenes import finding, folder
from clipgs_plugin.scenes.table import read_table
from clipgs_plugin.search import SearchIndex
from clipgs_plugin.tools import label_scene, search
from clipgs_plugin.toy_world import make_object
from clipgs_plugin.toy_world.writing import export_specs

spec = importlib.util.spec_from_file_location('composed', Path(__file__).parents[1] / 'scenes' / 'composed.py')
composed = importlib.util.module_from_spec(spec)
spec.loader.exec_module(composed)

pytestmark = pytest.mark.filterwarnings('ignore')
NAMES = ['chair', 'car', 'mug', 'rocket', 'teapot', 'teddy bear']


@pytest.fixture(scope='module')
def scene(tmp_path_factory):
    """Six toys on a floor, and the same with the object of each Gaussian."""
    folder = tmp_path_factory.mktemp('scene')
    toys = [make_object(spec, 1000).gaussians for spec in export_specs(6)]
    cloud, truth = composed.compose(toys, seed=2, ground=3000)
    write_gaussians(cloud, folder / 'plain.ply')
    write_gaussians(cloud, folder / 'known.ply', columns={'object': truth.numpy().astype(np.int32),
                                                          'keep': np.arange(len(truth), dtype=np.float32)})
    return folder


@pytest.fixture(scope='module', autouse=True)
def one_model():
    """Load the toy model and its teacher once for all tests."""
    clipgs = CLIPGSInferencer('clipgs_toy')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_scene, 'load_inferencer', lambda *args: clipgs)
        yield clipgs


def run(capsys, *arguments) -> dict:
    assert label_scene.main([*map(str, arguments), '--json']) == 0
    return json.loads(capsys.readouterr().out)


def test_objects_of_labels_are_named_and_written(scene, tmp_path, capsys, one_model):
    out, cut, rest = tmp_path / 'new' / 'out', tmp_path / 'chair.ply', tmp_path / 'rest.spz'
    found = run(capsys, scene / 'known.ply', '--classes', ','.join(NAMES), '-o', out, '--cut', 'chair', cut,
                '--remove', '1, 2', rest, '--keep-light')
    cloud, truth = read_gaussians(scene / 'known.ply'), further_columns(scene / 'known.ply')['object']
    assert found['way'] == 'labels (property object)' and found['up'] == 'y'
    rows, embeddings, notes = read_table(out / 'scene.objects.parquet')
    assert {row.object: row.label for row in rows} == dict(enumerate(NAMES, 1))
    assert [row['object'] for row in found['objects']] == [row.object for row in rows]
    assert notes['model'] == 'clipgs_toy' and notes['texts'] == NAMES and notes['gaussians'] == len(cloud)
    for row, embedding in zip(rows, embeddings):
        alone = cloud[torch.from_numpy(truth == row.object)]
        assert row.gaussians == len(alone) == 1000
        assert torch.equal(read_gaussians(out / row.path).means, alone.means)
        assert torch.allclose(embedding, one_model.embed_gaussians(alone)[0], atol=1e-5)
        answer = one_model.classify(alone, NAMES)[0][0]
        assert (row.label, row.score) == (answer[0], pytest.approx(answer[1], abs=1e-5))
        low, high = np.quantile(alone.means.double().numpy(), [0.01, 0.99], axis=0)
        assert np.allclose(row.center, (low + high) / 2) and np.allclose(row.extent, high - low)
    columns = further_columns(out / 'scene.labelled.ply')
    assert np.array_equal(columns['object'], truth) and np.array_equal(columns['keep'], np.arange(len(truth)))
    scores = {row.object: row.score for row in rows} | {0: 0.0}
    assert np.allclose(columns['score'], [scores[i] for i in truth])
    assert torch.equal(read_gaussians(out / 'scene.labelled.ply').sh, cloud.sh)
    saved = np.load(out / 'scores.npz')
    assert saved['scores'].shape == (6, 6) and saved['texts'].tolist() == NAMES and str(saved['kind']) == 'probability'
    assert np.allclose(saved['scores'].sum(1), 1)
    assert len(read_gaussians(cut)) == 1000 and set(further_columns(cut)) == {'object', 'keep'}
    assert len(read_gaussians(rest)) == len(cloud) - 2000
    assert [done['objects'] for done in found['edits']] == [[1], [1, 2]]
    table = pq.read_table(out / 'scene.objects.parquet')
    assert table.column_names[:4] == ['object', 'label', 'score', 'gaussians']


def test_a_query_ranks_the_clusters_of_a_scene_that_lies(scene, tmp_path, capsys):
    lying, out = tmp_path / 'lying.ply', tmp_path / 'out'
    write_gaussians(read_gaussians(scene / 'plain.ply').transform(axis_change('y', '-z')), lying)
    found = run(capsys, lying, '--query', 'a rocket', '-o', out, '--up', '-z', '--cut', 'a rocket', tmp_path / 'r.ply')
    assert found['way'] == 'clusters' and len(found['objects']) == 6
    scores = [row['score'] for row in found['objects']]
    assert scores == sorted(scores, reverse=True) and all(row['label'] == '' for row in found['objects'])
    truth = torch.from_numpy(further_columns(scene / 'known.ply')['object'].astype(np.int64))
    labels = torch.from_numpy(further_columns(out / 'scene.labelled.ply')['object'].astype(np.int64))
    recall, purity = composed.recall_and_purity(torch.where(labels == 0, -1, labels), truth)
    assert recall == 1 and purity > 0.9
    best = found['objects'][0]['object']
    assert torch.bincount(truth[labels == best]).argmax() == 4  # the rocket
    assert found['edits'][0]['objects'] == [best]
    assert len(read_gaussians(tmp_path / 'r.ply')) == found['objects'][0]['gaussians']
    assert str(np.load(out / 'scores.npz')['kind']) == 'cosine'


def test_the_objects_are_an_index_that_the_programs_search(scene, tmp_path, capsys, monkeypatch, one_model):
    out, index = tmp_path / 'out', tmp_path / 'out' / 'index'
    run(capsys, scene / 'known.ply', '--classes', ','.join(NAMES), '-o', out)
    (index / 'mine.txt').write_text('mine')
    monkeypatch.setattr(search, 'load_inferencer', lambda *args: one_model)
    assert search.main([str(index), '--text', 'a rocket', '-k', '2', '--json']) == 0
    first, _ = json.loads(capsys.readouterr().out)
    assert Path(first['path']) == out / 'objects' / '0004.ply'
    rows = SearchIndex.load(index)
    _, embeddings, _ = read_table(out / 'scene.objects.parquet')
    assert torch.allclose(rows.embeddings, embeddings, atol=2e-3) and rows.options == ('--up=y', '--turns=1')
    match, = rows.find(embeddings[2], 1, ['category=mug'])
    assert match.metadata['object'] == 3 and match.metadata['gaussians'] == 1000
    run(capsys, scene / 'known.ply', '-o', out, '--max-objects', 2, '--turns', 2)  # other vectors, another index
    rows = SearchIndex.load(index)
    assert len(rows) == 2 and rows.options[1] == '--turns=2' and (index / 'mine.txt').exists()


def test_a_second_run_replaces_the_first_and_nothing_else(scene, tmp_path, capsys):
    out = tmp_path / 'out'
    run(capsys, scene / 'known.ply', '-o', out)
    assert len(list((out / 'objects').iterdir())) == 6 and not (out / 'scores.npz').exists()
    (out / 'objects' / 'mine.ply').write_text('mine')
    found = run(capsys, scene / 'known.ply', '-o', out, '--max-objects', 2, '--crop', '-9,-9,-9,9,9,9')
    assert len(found['objects']) == 2 and all(row['score'] is None for row in found['objects'])
    assert {path.name for path in (out / 'objects').iterdir()} == {'0001.ply', '0002.ply', 'mine.ply'}


@pytest.mark.parametrize('step', ['_write_scenes', '_write_index', 'write_table'])
def test_a_run_that_fails_leaves_the_results_and_can_be_repeated(scene, tmp_path, capsys, monkeypatch, step):
    def files():
        return {path.relative_to(out): path.read_bytes() for path in out.rglob('*') if path.is_file()}

    def failing(*args):
        raise OSError('no space is left')
    out = tmp_path / 'out'
    with monkeypatch.context() as patch, pytest.raises(OSError, match='no space'):
        patch.setattr(folder, step, failing)
        label_scene.main([str(scene / 'known.ply'), '-o', str(out)])
    assert {path.name for path in files()} == {'.label_scene'}
    run(capsys, scene / 'known.ply', '-o', out, '--max-objects', 3)
    before = files()
    with monkeypatch.context() as patch, pytest.raises(OSError, match='no space'):
        patch.setattr(folder, step, failing)
        label_scene.main([str(scene / 'known.ply'), '-o', str(out), '--max-objects', '2'])
    assert files() == before and len(before) > 6
    run(capsys, scene / 'known.ply', '-o', out, '--max-objects', 2)
    assert len(list((out / 'objects').iterdir())) == 2 and len(SearchIndex.load(out / 'index')) == 2


def test_results_are_refused_as_input_of_the_run_that_replaces_them(scene, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(capsys, scene / 'known.ply', '-o', 'os')
    np.save('os/index/labels.npy', np.ones(3))
    Path('link.ply').symlink_to('os/scene.labelled.ply')
    for arguments in (['os/objects/0002.ply'], ['os/scene.labelled.ply'], ['link.ply'],
                      [scene / 'known.ply', '--labels', 'os/index/labels.npy'],
                      [scene / 'known.ply', '--class-embeddings', 'os/scores.npz']):
        Path('os/scores.npz').touch()
        with pytest.raises(SystemExit) as exit_:
            label_scene.main([*map(str, arguments), '-o', 'os'])
        assert exit_.value.code == 2
        assert f'{arguments[-1]} is among the results in os, which this run replaces' in capsys.readouterr().err
    run(capsys, 'os/scene.labelled.ply', '-o', 'other')


def test_scores_of_an_earlier_run_are_not_kept(scene, tmp_path, capsys):
    run(capsys, scene / 'known.ply', '--classes', 'car,mug', '-o', tmp_path / 'a')
    run(capsys, tmp_path / 'a' / 'scene.labelled.ply', '-o', tmp_path / 'b')
    assert set(further_columns(tmp_path / 'b' / 'scene.labelled.ply')) == {'object', 'keep'}


def test_the_stages_are_told(scene, tmp_path, capsys):
    label_scene.main([str(scene / 'known.ply'), '-o', str(tmp_path / 'out')])
    lines = [line.partition(':')[0] for line in capsys.readouterr().err.splitlines()]
    assert lines[:3] == [f'reading {scene}/known.ply', f'{scene}/known.ply', 'finding the objects']
    assert lines[3].endswith(f'writing {tmp_path}/out')


def test_spheres_are_scored_by_the_texts(scene, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(finding, 'split_by_spheres', partial(scenes.split_by_spheres, max_spheres=40))
    found = run(capsys, scene / 'plain.ply', '--split', 'spheres', '--classes', ','.join(NAMES), '-o', tmp_path / 'out')
    assert found['way'] == 'spheres' and len({row['label'] for row in found['objects']} & set(NAMES)) >= 4


def test_invalid_gaussians_are_dropped_with_their_labels(scene, tmp_path, capsys):
    broken, array = tmp_path / 'broken.ply', tmp_path / 'labels.npy'
    cloud, truth = read_gaussians(scene / 'known.ply'), further_columns(scene / 'known.ply')['object']
    bad = np.flatnonzero(truth == 3)[:50]
    means = cloud.means.clone()
    means[bad] = torch.nan
    inria_ply.write(cloud.replace(means=means), broken, columns={'object': truth})
    np.save(array, truth)
    with pytest.raises(ValueError, match='NaN or infinite in 50 of'):
        label_scene.main([str(broken), '-o', str(tmp_path / 'o')])
    for source in ('object', array):
        found = run(capsys, broken, '--clean', '--labels', source, '-o', tmp_path / 'out')
        counts = {row['object']: row['gaussians'] for row in found['objects']}
        assert counts == dict.fromkeys(range(1, 7), 1000) | {3: 950}
    np.save(array, truth[:-1])
    with pytest.raises(ValueError, match='expected one number for each of'):
        label_scene.main([str(broken), '--clean', '--labels', str(array), '-o', str(tmp_path / 'new')])
    assert np.array_equal(further_columns(tmp_path / 'out' / 'scene.labelled.ply')['object'], np.delete(truth, bad))


def test_only_objects_in_the_crop_are_found(scene, tmp_path, capsys):
    truth = further_columns(scene / 'known.ply')['object']
    means = read_gaussians(scene / 'known.ply').means[torch.from_numpy(truth == 2)]
    box = torch.cat([means.amin(0) - 0.02, means.amax(0) + 0.02]).tolist()
    crop = ['--crop', ','.join(map(str, box))]
    for way in ('labels', 'clusters'):
        found = run(capsys, scene / 'known.ply', '--split', way, '-o', tmp_path / way, *crop)
        row, = found['objects']
        assert abs(row['gaussians'] - 1000) < 100


def test_the_table_has_a_row_an_object(scene, tmp_path, capsys):
    assert label_scene.main([str(scene / 'known.ply'), '--classes', 'car,mug', '-o', str(tmp_path / 'out')]) == 0
    captured = capsys.readouterr()
    assert 'probability' in captured.out and captured.out.count('1,000') == 6
    assert '6 objects by labels (property object)' in captured.err


@pytest.mark.parametrize('options, message', [
    (['--min-gaussians', '5000'], 'no object of at least 5000 Gaussians by labels'),
    (['--labels', 'nothing'], "labels 'nothing' are neither a file nor a property"),
    (['--cut', '77', 'cut.ply'], 'there is no object 77; the objects are 1, 2'),
    (['--classes', ','.join([*NAMES, 'snowman']), '--remove', 'snowman', 'o.ply'], "no object is labelled 'snowman'")])
def test_failures_are_one_sentence(scene, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError), match=message):
        label_scene.main([str(scene / 'known.ply'), '-o', 'out', *options])


def test_labels_of_another_scene_are_refused(scene, tmp_path):
    np.save(tmp_path / 'labels.npy', np.arange(12))
    arguments = [str(scene / 'plain.ply'), '-o', str(tmp_path / 'o')]
    with pytest.raises(ValueError, match=r'labels.npy: int64 of shape \(12,\), expected one number for each of'):
        label_scene.main([*arguments, '--labels', str(tmp_path / 'labels.npy')])
    with pytest.raises(ValueError, match='no labels in it or beside it'):
        label_scene.main([*arguments, '--split', 'labels'])
    assert not (tmp_path / 'o').exists()


@pytest.mark.parametrize('options, message', [
    (['--min-gaussians', '0'], 'min-gaussians 0'), (['--classes', 'a, ,a'], 'fewer than two classes'),
    (['--color', 'nan'], '--color nan: expected a difference'),
    (['--query', ' '], '--query is empty'), (['--split', 'clusters', '--labels', 'object'], 'is for --split labels'),
    (['--cut', '1', 'out.txt'], 'expected the name of a splat file'), (['--cut', '1', 'there.ply'], 'there.ply exists'),
    (['--cut', '1', 'c.ply', '--cut', '2', './c.ply'], 'c.ply is named by two'),
    (['--cut', '1', 'c.ply', '--remove', '2', 'c.ply'], 'c.ply is named by two'),
    (['--cut', '1', 'out/objects/0001.ply'], 'is among the results that this run writes to out'),
    (['--cut', ' ', 'out.ply'], 'names nothing'), (['--classes', 'a', '--query', 'b'], 'not allowed with'),
    (['-o', 'full'], 'is not empty and was not written by this program'),
    (['-o', 'there.ply'], 'is a file; name a folder')])
def test_wrong_use_exits_with_two(scene, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'there.ply').write_text('mine')
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'mine.txt').write_text('mine')
    with pytest.raises(SystemExit) as exit_:
        label_scene.main([str(scene / 'plain.ply'), '-o', 'out', *options])
    assert exit_.value.code == 2 and message in capsys.readouterr().err


def test_tables_of_another_kind_are_refused_by_name(tmp_path):
    import pyarrow as pa
    path = tmp_path / 'scene.objects.parquet'
    pq.write_table(pa.table({'a': [1]}), path)
    with pytest.raises(ValueError, match=f'^{path}: not a table of the objects of a scene'):
        read_table(path)
    path.write_bytes(b'PAR1')
    with pytest.raises(ValueError, match=f'^{path}: not a table'):
        read_table(path)
