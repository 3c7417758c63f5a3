"""The program that classifies, as a user calls it."""
import json
from types import SimpleNamespace

import pytest
import torch

from clipgs_plugin import CLIPGSInferencer, get_config, read_gaussians
from clipgs_plugin.apis import SearchIndex, teacher, upright
from clipgs_plugin.evaluation import ClassEmbeddings
from clipgs_plugin.models import GSClassifier
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


@pytest.mark.parametrize('suffix', ['npz', 'safetensors'])
def test_class_embeddings_are_written_once_and_read_later(toys, saved, tmp_path, capsys, monkeypatch, suffix):
    path, names = tmp_path / 'new' / f'classes.{suffix}', ['--classes', ','.join(NAMES)]
    expected = ClassEmbeddings.load(saved)
    # Without files to classify, the weights of the model are not read.
    monkeypatch.setattr(classify, 'load_inferencer', None)
    assert classify.main([*names, '--write-class-embeddings', str(path)]) == 0
    assert capsys.readouterr().err == f'6 classes of 128 numbers, teacher toy-clip, in {path}\n'
    monkeypatch.undo()
    found = ClassEmbeddings.load(path)
    assert (found.names, found.teacher) == (tuple(NAMES), 'toy-clip')
    assert torch.allclose(found.embeddings, expected.embeddings, atol=1e-6)

    # Beside the answers, and with templates; the file replaces its own kind only.
    toy = str(sorted(toys.iterdir())[0])
    assert classify.main([toy, *names, '--templates', 'toy', '--write-class-embeddings', str(path), '--json']) == 0
    first = answers(capsys)
    assert not torch.allclose(ClassEmbeddings.load(path).embeddings, expected.embeddings, atol=1e-4)
    assert classify.main([toy, '--class-embeddings', str(path), '--json']) == 0
    assert answers(capsys)[0]['classes'][0]['name'] == first[0]['classes'][0]['name']
    with pytest.raises(ValueError, match="teacher 'toy-clip', but views:vit-b-32-openai embeds"):
        multi_view = SimpleNamespace(cfg=get_config('views_vit-b-32-openai_0e_splats'), name='views:vit-b-32-openai')
        CLIPGSInferencer.classes(without_weights(multi_view), class_embeddings=path)


def without_weights(model):
    """An inferencer whose model has a config and a name alone."""
    clipgs = CLIPGSInferencer.__new__(CLIPGSInferencer)
    clipgs.model, clipgs.name = model, model.name
    return clipgs


def test_classes_of_a_published_model_need_its_teacher_alone(monkeypatch, tmp_path):
    asked = []

    class Teacher:
        def encode_text(self, texts):
            return torch.eye(3)[:len(texts)]

    monkeypatch.setattr(teacher, 'build_teacher', lambda cfg, towers, device: asked.append((cfg.teacher.model, towers))
                        or Teacher())
    found = teacher.embed_classes('uni3d-b', ['a', 'b'])
    assert asked == [('eva02-e-14-plus-laion2b', 'text')]
    assert found.teacher == 'eva02-e-14-plus-laion2b' and torch.equal(found.embeddings, torch.eye(3)[:2])


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


def test_the_opinion_of_a_model_on_the_up_axis_is_printed_and_stored(toys, saved, tmp_path, capsys, monkeypatch):
    toy, index = str(sorted(toys.iterdir())[0]), tmp_path / 'e.npz'
    monkeypatch.setitem(upright.MODEL_WEIGHTS, 'clipgs_toy', 4.0)
    options = ['--up', 'auto', '--up-cue', 'model']
    assert embed.main([toy, '-o', str(index), '--json', *options]) == 0
    row, = answers(capsys)
    found = upright.up_estimates(read_gaussians(toy), CLIPGSInferencer('clipgs_toy'))
    expected = {by: [each.axis, round(each.confidence, 3)] for by, each in found.items()}
    assert [row['up'], row['up_confidence']] == expected.pop('all') and row['up_opinions'] == expected
    kept = SearchIndex.load(index)
    assert kept.ups == ((row['up'], row['up_confidence']),) and kept.options[-1] == '--up-cue=model'
    assert kept.up_opinions == (tuple(map(tuple, expected.values())),)
    assert classify.main([toy, '--class-embeddings', str(saved), *options]) == 0
    (axis, confidence), (other, its) = kept.up_opinions[0]
    assert f'; {axis} by the geometry {confidence:.2f}, {other} by the model {its:.2f})' in capsys.readouterr().out


def test_text_is_a_line_a_file_and_bad_files_are_named(toys, saved, tmp_path, capsys):
    (tmp_path / 'broken.ply').write_bytes(b'ply\nformat binary_little_endian 1.0\nelement vertex 5\n')
    good = sorted(map(str, toys.glob('*chair*')))[0]
    assert classify.main([str(tmp_path / 'broken.ply'), good, '--class-embeddings', str(saved)]) == 1
    captured = capsys.readouterr()
    assert 'broken.ply' in captured.err and '1 of 2 files could not be classified' in captured.err
    line, = captured.out.splitlines()
    assert line.startswith(f'{good}: chair ') and line.count('%') == 5


@pytest.mark.parametrize('arguments, message', [
    (['x.ply'], 'clipgs_toy compares objects with names of classes; give one of --classes, '),
    (['x.ply', '--classes', ' , '], '--classes names no class'),
    (['x.ply', '--classes', 'a', '--top', '0'], '--top 0'), (['x.ply', '--classes', 'a', '--classes-file', 'b'], 'not'),
    (['x.ply', '--classes', 'a', '--up-cue', 'model'], 'is a cue of --up auto and has no effect on --up y'),
    (['--classes', 'a'], 'name splat files to classify'),
    (['--classes', 'a', '--write-class-embeddings', 'a.txt'], 'ends in .npz or .safetensors'),
    (['--class-embeddings', 'a.npz', '--write-class-embeddings', 'b.npz'], 'embeds class names'),
    (['x.ply', '--class-embeddings', 'a.npz', '--templates', 'toy'], '--templates has no effect')])
def test_wrong_use_exits_with_two(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        classify.main(arguments)
    assert stopped.value.code == 2 and message in capsys.readouterr().err


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
    """A shared classifier with random weights, and its config."""
    cfg = get_config('classifier_pointbert-nano_50e_modelnet10')
    model = GSClassifier(**{**{key: value for key, value in cfg.model.items() if key != 'type'}, 'num_classes': 3})
    model.cfg, model.classes = cfg, ('night stand', 'mug', 'chair')
    cfg.model.num_classes = 3
    folder = tmp_path_factory.mktemp('classifier')
    model.save_pretrained(folder)
    return str(folder)


def test_a_shared_classifier_knows_its_classes(toys, classifier, capsys, monkeypatch):
    files = sorted(map(str, toys.iterdir()))
    expected = CLIPGSInferencer(classifier).classify(files)
    monkeypatch.setattr(CLIPGSInferencer, '_teacher', None)
    assert classify.main([*files, '--model', classifier, '--json', '--top', '2']) == 0
    captured = capsys.readouterr()
    assert captured.err == f'Classifying 6 files among the 3 classes of {classifier}\n'
    for line, path, (first, second, _) in zip(captured.out.splitlines(), files, expected, strict=True):
        assert json.loads(line) == {'path': path, 'up': 'y', 'classes': [
            {'name': name, 'probability': pytest.approx(value, abs=2e-6)} for name, value in (first, second)]}


@pytest.mark.parametrize('arguments, named', [
    (['--classes', 'a'], '--classes'), (['--classes-file', 'a.txt', '--turns', '2'], '--classes-file, --turns'),
    (['--templates', 'toy'], '--templates'), (['--up', 'auto', '--up-cue', 'model'], '--up-cue model'),
    (['--write-class-embeddings', 'a.npz'], '--write-class-embeddings')])
def test_options_without_effect_on_a_classifier_are_wrong_use(classifier, arguments, named, capsys):
    with pytest.raises(SystemExit) as stopped:
        classify.main(['x.ply', '--model', classifier, *arguments])
    message = f'is a classifier with classes of its own and does not embed; leave out {named}\n'
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_embeddings_of_another_space_are_refused_before_any_file_is_read(toys, tmp_path):
    rows = torch.eye(6, 512)
    for named, width, message in (
            ('vit-b-32-openai', 512, "wrong.npz: embeddings of the teacher 'vit-b-32-openai', but clipgs_toy embeds "
                                     "into the space of 'toy-clip'"),
            ('', 512, 'wrong.npz: embeddings of width 512, but clipgs_toy has width 128'),
            ('Toy-CLIP', 512, 'of width 512')):
        ClassEmbeddings(tuple(NAMES), rows[:, :width], named).save(tmp_path / 'wrong.npz')
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
