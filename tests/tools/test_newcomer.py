"""The way of a newcomer through the programs: an empty cache, then a full one, then no network; and what goes wrong."""
import json
import shutil
import sys
from contextlib import ExitStack

import pytest
import torch
from loopback_hub import LoopbackHub, publish_small_uni3d

from clipgs_plugin import CLIPGSInferencer, get_model
from clipgs_plugin.apis import SearchIndex
from clipgs_plugin.evaluation import ClassEmbeddings
from clipgs_plugin.models import OpenCLIPTeacher
from clipgs_plugin.registry.catalogue import load_catalogue
from clipgs_plugin.tools import _program, classify, doctor, download, embed, search

pytestmark = pytest.mark.filterwarnings('ignore')
TEACHER = 'eva02-e-14-plus-laion2b'
FILES = ('camera.sog', 'minimal.ksplat', 'potted_plant.splat')
NAMES = ('camera', 'guitar', 'plant')
SPACE = 24  # width of the small model


@pytest.fixture(scope='module')
def home(tmp_path_factory, splats):
    """Folder of a newcomer: scans, class embeddings, a hub to download from, and no checkpoint."""
    folder = tmp_path_factory.mktemp('newcomer')
    (folder / 'scans').mkdir()
    for name in FILES:
        shutil.copy(splats / name, folder / 'scans')
    rows = torch.randn(3, SPACE, generator=torch.Generator().manual_seed(0))
    ClassEmbeddings(NAMES, rows, TEACHER).save(folder / 'classes.npz')
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        catalogue = load_catalogue('checkpoints')
        small = catalogue['uni3d-ti']['contract'] | dict(num_points=512, num_groups=64, group_size=16)
        patch.setitem(catalogue, 'uni3d-ti', catalogue['uni3d-ti'] | dict(contract=small))
        publish_small_uni3d(folder / 'served', catalogue, patch)
        patch.delenv('CLIPGS_CHECKPOINTS', raising=False)
        patch.setenv('HF_HUB_DISABLE_PROGRESS_BARS', '1')
        patch.setenv('XDG_CACHE_HOME', str(folder / 'cache'))
        hub = stack.enter_context(LoopbackHub(folder / 'served'))
        hub.use(patch, folder / 'hf')
        hub.home = folder
        yield hub


@pytest.fixture
def call(home, monkeypatch, capsys):
    """Run a program as the shell does; return its status, output and error output."""
    monkeypatch.chdir(home.home)
    monkeypatch.setattr(sys, 'argv', ['pytest'])

    def run(program, *words):
        with pytest.raises(SystemExit) as stopped:
            _program.run(lambda: program.main([str(word) for word in words]))
        return stopped.value.code, *capsys.readouterr()
    return run


@pytest.fixture
def no_teacher(monkeypatch):
    """Let no teacher be built."""
    def refuse(*args, **kwargs):
        raise AssertionError('the teacher is built')
    monkeypatch.setattr(OpenCLIPTeacher, '__init__', refuse)


@pytest.mark.parametrize('state', ['empty', 'full', 'offline'])
def test_every_step_is_one_command_and_needs_no_teacher(home, call, no_teacher, monkeypatch, state):
    from huggingface_hub import constants
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', state == 'offline')
    if state == 'empty':
        status, _, error = call(embed, 'scans', '-o', 'e.npz', '--model', 'uni3d-ti')
        assert status == 1 and 'python tools/download.py uni3d-ti' in error and error.count('\n') == 1
    before = len(home.contents)
    status, out, _ = call(download, 'uni3d-ti')
    assert status == 0 and out.startswith('uni3d-ti: ')
    assert len(home.contents) - before == (state == 'empty')
    asked = len(home.requests)

    status, out, _ = call(embed, 'scans', '-o', 'e.npz', '--model', 'uni3d-ti', '--up', '-y', '--turns', '2')
    assert status == 0 and len(out.splitlines()) == 3
    status, out, error = call(search, 'e.npz', '--gaussians', 'scans/camera.sog', '--json')
    found = json.loads(out)
    assert status == 0 and '--up=-y --turns=2' in error
    assert found[0]['path'].endswith('camera.sog') and found[0]['score'] == pytest.approx(1, abs=1e-5)
    status, out, _ = call(search, 'e.npz', '--text', 'plant', '--class-embeddings', 'classes.npz', '--json')
    assert status == 0 and len(json.loads(out)) == 3
    status, out, _ = call(classify, 'scans', '--class-embeddings', 'classes.npz', '--model', 'uni3d-ti', '--up', '-y',
                          '--json')
    answers = [json.loads(line) for line in out.splitlines()]
    assert status == 0 and [{x['name'] for x in row['classes']} for row in answers] == [set(NAMES)] * 3
    status, out, _ = call(doctor, 'scans/camera.sog', '--model', 'uni3d-ti', '--json')
    assert status == 0 and json.loads(out)['files'][0]['grade'] == 'note'
    assert len(home.requests) == asked


def test_the_answers_are_those_of_the_python_interface(home, call):
    index = SearchIndex.load(home.home / 'e.npz')
    clipgs = CLIPGSInferencer('uni3d-ti')
    options = _program.repeated_preparation(index.options)
    cloud, _ = _program.prepared(home.home / 'scans' / 'camera.sog', options)
    row = [path.endswith('camera.sog') for path in index.paths].index(True)
    assert torch.allclose(index.embeddings[row], clipgs.embed_gaussians(cloud, turns=2)[0], atol=1e-5)


def test_texts_are_searched_by_the_teacher_of_the_model(home, call, monkeypatch):
    monkeypatch.setattr(CLIPGSInferencer, '_teacher', lambda self, towers: Tower(towers))
    found = ClassEmbeddings.load(home.home / 'classes.npz')
    status, out, _ = call(search, 'e.npz', '--text', 'plant', '--json')
    expected = SearchIndex.load(home.home / 'e.npz').query(found.embeddings[2])
    assert status == 0
    assert [(x['path'], x['score']) for x in json.loads(out)] == [(p, pytest.approx(s, abs=1e-5)) for p, s in expected]


class Tower:
    """Text tower that knows the vectors of the class file."""

    def __init__(self, towers):
        assert towers == 'text'

    def encode_text(self, texts):
        return ClassEmbeddings.load('classes.npz').select(texts).embeddings


def test_a_teacher_that_cannot_be_fetched_is_one_line_with_a_way_out(home, call):
    for program, words, purpose in ((search, ('e.npz', '--text', 'a chair'), 'texts'),
                                    (classify, ('scans', '--classes', 'a,b', '--model', 'uni3d-ti'), 'class names')):
        status, _, error = call(program, *words)
        assert status == 1 and error.count('\n') == 1
        assert error.startswith(f'error: uni3d-ti needs its CLIP model {TEACHER} for {purpose}, and could not download')
        assert error.endswith('or give --class-embeddings FILE instead, written on a machine that has it '
                              '(docs/models.md)\n')


def test_a_saved_model_is_examined_for_and_named_like_its_origin(home, call):
    get_model('uni3d-ti').save_pretrained('saved')
    for name in ('saved', 'uni3d-ti'):
        status, out, _ = call(doctor, 'scans/camera.sog', '--model', name)
        line = next(line for line in out.splitlines() if ' count: ' in line)
        assert status == 0 and f'; {name} reads 512' in line
    status, out, _ = call(embed, 'scans/camera.sog', '-o', 'saved.npz', '--model', 'saved', '--up', '-y',
                          '--turns', '2')
    first, second = (SearchIndex.load(name) for name in ('saved.npz', 'e.npz'))
    assert status == 0
    assert torch.allclose(first.embeddings[0], second.embeddings[second.paths.index(first.paths[0])], atol=1e-5)


def test_stored_options_parse_to_the_same_and_given_ones_replace_them():
    words = ('--up=-y', '--turns=3', '--crop=-1.0,-1.0,-2.5,1.0,1.0,1e-05', '--largest-cluster')
    stored = _program.repeated_preparation(words)
    assert stored.crop == (-1, -1, -2.5, 1, 1, 1e-5) and _program.preparation_words(stored) == words
    found = search.make_parser().parse_args(['e.npz', '--text', 'x', '--up', 'z', '--turns', '1'], stored)
    assert _program.preparation_words(found) == ('--up=z', '--turns=1', *words[2:])
    for wrong in (('--device=cuda',), ('--turns=many',), ('x.ply',)):
        with pytest.raises(ValueError, match=r'no options of tools/embed\.py'):
            _program.repeated_preparation(wrong)


WRONG = {
    'a name misspelt': (embed, 'scans --model Uni3D-Ti', 1, 'close names are uni3d-ti'),
    'a name to download misspelt': (download, 'uni3d-tii', 1, 'close names are uni3d-ti'),
    'a name like no other': (doctor, 'scans --model hf-hub', 1, 'tools/list_models.py lists the models'),
    'views of weights that are not named': (embed, 'scans --model views:ViT-B-32', 1, 'views:vit-b-32-openai'),
    'views for the doctor': (doctor, 'scans --model views:ViT-B-32', 1, 'views:vit-b-32-openai'),
    'no repository': (doctor, 'scans --model hf-hub:me/mine', 1, 'hf-hub:me/mine: no folder of this name'),
    'half a file': (embed, 'scans --model uni3d-ti --checkpoint half.pt', 1, 'half.pt: is truncated'),
    'half a class file': (classify, 'scans --model uni3d-ti --class-embeddings half.npz', 1, 'half.npz: not an .npz'),
    'a splat for a checkpoint': (embed, 'scans --model uni3d-ti --checkpoint scans/camera.sog', 1, 'camera.sog'),
    'a folder for a checkpoint': (embed, 'scans --model uni3d-ti --checkpoint scans', 1, 'scans is a folder'),
    'a folder for a model': (embed, 'scans --model scans', 1, 'config.json'),
    'a class file of another teacher': (
        classify, 'scans --model uni3d-ti --class-embeddings other.npz', 1, "teacher 'vit-b-32-openai', but uni3d-ti"),
    'an image that is not there': (search, 'e.npz --image no.png', 1, 'no.png does not exist'),
    'a text for an image': (search, 'e.npz --image note.txt', 1, 'note.txt is not an image'),
    'no way up': (search, 'e.npz --gaussians scans/camera.sog --up q', 2, 'invalid choice'),
    'no query': (search, 'e.npz', 2, 'one of the arguments')}


@pytest.mark.parametrize('mistake', WRONG)
def test_a_mistake_ends_in_one_line_and_its_status(home, call, no_teacher, mistake):
    whole = home.home / 'served/BAAI/Uni3D/modelzoo/uni3d-ti/model.pt'
    (home.home / 'half.pt').write_bytes(whole.read_bytes()[:20_000])
    (home.home / 'half.npz').write_bytes((home.home / 'classes.npz').read_bytes()[:300])
    ClassEmbeddings(NAMES, torch.eye(3, SPACE), 'vit-b-32-openai').save(home.home / 'other.npz')
    (home.home / 'note.txt').write_text('a note')
    program, words, status, message = WRONG[mistake]
    found, _, error = call(program, *words.split())
    *_, last = error.splitlines()
    assert found == status and message in last and 'Traceback' not in error
    assert status == 2 or error.count('\n') == 1


def test_a_full_disk_is_one_line(home, call, monkeypatch):
    import errno

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(home.home / 'other'))
    monkeypatch.setattr('huggingface_hub.hf_hub_download', full)
    status, _, error = call(download, 'uni3d-ti')
    *_, line = error.splitlines()
    assert status == 1 and line.endswith('No space left on device; free some space and files, or write elsewhere')
