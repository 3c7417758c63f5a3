"""The program that classifies, as a user calls it."""
import json

import pytest
import torch

from clipgs_plugin import CLIPGSInferencer
from clipgs_plugin.apis import SearchIndex
from clipgs_plugin.evaluation import ClassEmbeddings
from clipgs_plugin.tools import classify, embed, search
from clipgs_plugin.toy_world.writing import export_files

pytestmark = pytest.mark.filterwarnings('ignore')
NAMES = ['chair', 'car', 'mug', 'rocket', 'teapot', 'teddy bear']


@pytest.fixture(scope='module')
def toys(tmp_path_factory):
    folder = tmp_path_factory.mktemp('toys')
    export_files(folder, 6)
    return folder


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """The classes as the toy teacher embeds them."""
    path = tmp_path_factory.mktemp('classes') / 'classes.safetensors'
    CLIPGSInferencer('clipgs_toy').classes(NAMES).save(path)
    return path


def answers(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_files_are_classified_by_names_a_list_and_embeddings_alike(toys, saved, tmp_path, capsys, monkeypatch):
    (tmp_path / 'names.txt').write_text('\n'.join(NAMES) + '\n\n')
    found = []
    for option in (['--classes', ', '.join(NAMES)], ['--classes-file', str(tmp_path / 'names.txt')],
                   ['--class-embeddings', str(saved)]):
        if option[0] == '--class-embeddings':  # the teacher is not needed
            monkeypatch.setattr(CLIPGSInferencer, '_teacher', None)
        assert classify.main([str(toys), *option, '--json', '--top', '2']) == 0
        found.append(answers(capsys))
    rows = found[0]
    assert [len(row['classes']) for row in rows] == [2] * 6
    right = [row['classes'][0]['name'].replace(' ', '_') in row['path'] for row in rows]
    assert sum(right) >= 5, rows
    assert found[1] == rows
    for row, other in zip(rows, found[2]):
        assert [x['name'] for x in row['classes']] == [x['name'] for x in other['classes']]
        assert [x['probability'] for x in row['classes']] == pytest.approx(
            [x['probability'] for x in other['classes']], abs=1e-5)


def test_text_is_a_line_a_file_and_bad_files_are_named(toys, saved, tmp_path, capsys):
    (tmp_path / 'broken.ply').write_bytes(b'ply\nformat binary_little_endian 1.0\nelement vertex 5\n')
    good = sorted(map(str, toys.glob('*chair*')))[0]
    assert classify.main([str(tmp_path / 'broken.ply'), good, '--class-embeddings', str(saved)]) == 1
    captured = capsys.readouterr()
    assert 'broken.ply' in captured.err and '1 of 2 files could not be classified' in captured.err
    line, = captured.out.splitlines()
    assert line.startswith(f'{good}: chair ') and line.count('%') == 5


@pytest.mark.parametrize('arguments, message', [
    (['x.ply'], 'one of the arguments'), (['x.ply', '--classes', ' , '], '--classes names no class'),
    (['x.ply', '--classes', 'a', '--top', '0'], '--top 0'), (['x.ply', '--classes', 'a', '--classes-file', 'b'], 'not'),
    (['x.ply', '--class-embeddings', 'a.npz', '--templates', 'toy'], '--templates has no effect')])
def test_wrong_use_exits_with_two(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        classify.main(arguments)
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_embeddings_of_another_space_are_refused_before_any_file_is_read(toys, tmp_path):
    rows = torch.eye(6, 512)
    for teacher, width, message in (
            ('vit-b-32-openai', 512, "wrong.npz: embeddings of the teacher 'vit-b-32-openai', but clipgs_toy embeds "
                                     "into the space of 'toy-clip'"),
            ('', 512, 'wrong.npz: embeddings of width 512, but clipgs_toy has width 128'),
            ('Toy-CLIP', 512, 'of width 512')):
        ClassEmbeddings(tuple(NAMES), rows[:, :width], teacher).save(tmp_path / 'wrong.npz')
        with pytest.raises(ValueError, match=message):
            classify.main([str(toys), '--class-embeddings', str(tmp_path / 'wrong.npz')])


def test_an_index_is_searched_by_a_name_of_a_file_without_a_teacher(toys, saved, tmp_path, capsys, monkeypatch):
    index = tmp_path / 'e.npz'
    assert embed.main([str(toys), '-o', str(index)]) == 0
    monkeypatch.setattr(CLIPGSInferencer, '_teacher', None)
    capsys.readouterr()
    assert search.main([str(index), '--text', 'rocket', '--class-embeddings', str(saved), '--json', '-k', '2']) == 0
    found = json.loads(capsys.readouterr().out)
    row = ClassEmbeddings.load(saved).select(['rocket']).embeddings[0]
    assert [(x['path'], pytest.approx(x['score'], abs=1e-5)) for x in found] == SearchIndex.load(index).query(row, 2)
    with pytest.raises(ValueError, match='lack 1 of 1 names'):
        search.main([str(index), '--text', 'dragon', '--class-embeddings', str(saved)])
    with pytest.raises(SystemExit):
        search.main([str(index), '--image', 'x.png', '--class-embeddings', str(saved)])
    assert 'of which --text names one' in capsys.readouterr().err
