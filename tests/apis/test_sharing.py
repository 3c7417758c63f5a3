"""Models as folders and repositories: the same answers after saving, and no code from a folder."""
import inspect
import json
import re
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import random_cloud
from safetensors.torch import load_file, save_file

from clipgs_plugin import CLIPGSInferencer, get_config, get_model, write_gaussians
from clipgs_plugin.apis.configs import list_configs
from clipgs_plugin.apis.sharing import clouds_of_split, is_shared, prepared, read_metrics
from clipgs_plugin.models import CLIPGS, GSEncoder
from clipgs_plugin.models.shared_config import to_plain
from clipgs_plugin.registry import MODELS

pytestmark = pytest.mark.filterwarnings('ignore:clipgs_toy')
COMMIT = '0123456789abcdef0123456789abcdef01234567'
ABOUT = {'license': 'apache-2.0', 'data': 'toy world', 'metrics': {'zero_shot/top1': 91.25}}


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """The toy model, saved."""
    folder = tmp_path_factory.mktemp('shared') / 'toy'
    get_model('clipgs_toy').save_pretrained(folder, repo_id='owner/toy', model_card_kwargs=ABOUT)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of the saved model to damage."""
    return shutil.copytree(saved, tmp_path / 'toy')


def edit(folder, **changes):
    """Replace entries of the config, by dotted keys with ``__`` for the dots."""
    config = json.loads((folder / 'config.json').read_text())
    for key, value in changes.items():
        *path, last = key.split('__')
        place = config
        for step in path:
            place = place[step]
        place[last] = value
    (folder / 'config.json').write_text(json.dumps(config))


def answers(clipgs):
    clouds = [random_cloud(1500, seed=1), random_cloud(700, seed=2, sh_degree=2)]
    return torch.cat([clipgs.embed_gaussians(clouds), clipgs.embed_text(['a red chair', 'a mug'])])


def test_a_saved_model_answers_to_the_bit_as_before(saved):
    before, after = CLIPGSInferencer('clipgs_toy'), CLIPGSInferencer(str(saved))
    assert torch.equal(answers(before), answers(after))
    assert torch.equal(before.model.logit_scale, after.model.logit_scale)
    assert before.classify(random_cloud(90), ['mug', 'car']) == after.classify(random_cloud(90), ['mug', 'car'])
    assert not after.model.training


def test_a_folder_holds_three_files_and_no_path_of_the_machine(saved):
    assert sorted(path.name for path in saved.iterdir()) == ['README.md', 'config.json', 'model.safetensors']
    text = (saved / 'config.json').read_text() + (saved / 'README.md').read_text()
    assert str(saved) not in text and 'work_dirs' not in text


def test_saving_a_loaded_model_writes_the_same_files(saved, tmp_path):
    CLIPGS.from_pretrained(saved).save_pretrained(tmp_path / 'again', repo_id='owner/toy')
    for path in saved.iterdir():
        assert (tmp_path / 'again' / path.name).read_bytes() == path.read_bytes(), path.name


TRAINED = [name for name in list_configs() if not name.startswith('views_')]  # these have no weights to share


@pytest.mark.parametrize('name', TRAINED)
def test_every_shipped_config_survives_as_plain_data(name):
    cfg = get_config(name)
    data = json.loads(json.dumps(to_plain(cfg)))
    with torch.device('meta'):
        model = {key: value for key, value in cfg.model.items() if key != 'teacher'}
        expected, found = MODELS.build(model), MODELS.build(data['model'])
    assert {key: value.shape for key, value in found.state_dict().items()} == {
        key: value.shape for key, value in expected.state_dict().items()}
    assert 'init_cfg' not in json.dumps(data)
    assert [step['type'] for step in data['pipeline']] == [
        step.type for step in cfg.test_dataloader.dataset.pipeline]


def test_the_card_has_the_header_of_the_hub_and_the_facts(saved):
    from huggingface_hub import ModelCard
    card = ModelCard.load(saved / 'README.md')
    assert (card.data.library_name, card.data.license, card.data.pipeline_tag) == (
        'clipgs_plugin', 'apache-2.0', 'feature-extraction')
    assert {'clip-gs', '3d-gaussian-splatting'} <= set(card.data.tags)
    for fact in ("CLIPGSInferencer('owner/toy')", '| `zero_shot/top1` | 91.25 |', '`toy-clip`', 'toy world',
                 "SampleGaussians(num=1024, method='fps')", '128 numbers'):
        assert fact in card.text, fact


def test_a_training_run_keeps_the_weights_of_a_loaded_model(saved):
    model = CLIPGS.from_pretrained(saved)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.init_weights()  # as the Runner does
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_checkpoint_replaces_the_shared_weights(saved, tmp_path):
    state = {key: value * 0.5 if value.is_floating_point() else value
             for key, value in load_file(saved / 'model.safetensors').items()}
    torch.save({'state_dict': state}, tmp_path / 'half.pth')
    found = get_model(saved, tmp_path / 'half.pth').state_dict()
    assert all(torch.equal(found[key], value) for key, value in state.items())


# ---- Names


@pytest.mark.parametrize('name, expected', [
    ('hf-hub:owner/name', True), ('owner/name', True), ('owner/name@main', True), ('clipgs_toy', False),
    ('work_dirs/epoch_15.pth', False), ('runs/best.safetensors', False),
    ('clipgs_plugin::quickstart/x.py', False), ('work_dirs/x.py', False), ('views:ViT-B-32', False), ('uni3d-b', False),
    ('a/b/c', False)])
def test_names_of_shared_models(name, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'clipgs_toy').mkdir()  # does not hide the shipped model
    assert is_shared(name) is expected


def in_cache(saved, cache):
    """Place a model into the layout of the hub's cache: blobs, and a snapshot of links to them."""
    repo = cache / 'models--owner--toy'
    (repo / 'refs').mkdir(parents=True)
    (repo / 'refs' / 'main').write_text(COMMIT)
    (repo / 'blobs').mkdir()
    (repo / 'snapshots' / COMMIT).mkdir(parents=True)
    for path in saved.iterdir():
        shutil.copy(path, repo / 'blobs' / path.name)
        (repo / 'snapshots' / COMMIT / path.name).symlink_to(f'../../blobs/{path.name}')
    return cache


@pytest.mark.parametrize('name', ['owner/toy', 'hf-hub:owner/toy', f'hf-hub:owner/toy@{COMMIT}'])
def test_a_repository_loads_from_the_cache_of_the_hub(saved, tmp_path, name):
    model = CLIPGS.from_pretrained(name, cache_dir=in_cache(saved, tmp_path), local_files_only=True)
    expected = load_file(saved / 'model.safetensors')
    assert model.name == name
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


def test_a_repository_that_is_nowhere_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'^owner/other: no folder of this name.*LocalEntryNotFoundError'):
        CLIPGS.from_pretrained('owner/other', cache_dir=tmp_path, local_files_only=True)
    with pytest.raises(FileNotFoundError, match='neither a folder nor a repository'):
        CLIPGS.from_pretrained(tmp_path / 'absent')


def test_another_class_is_refused(saved):
    class Other(CLIPGS):
        pass
    with pytest.raises(ValueError, match='holds a CLIPGS, not a Other; load it with get_model'):
        Other.from_pretrained(saved)


# ---- Upload


class Recorder:
    """Stand-in for HfApi that keeps what would be uploaded, chosen by the hub's own rule."""

    calls: list = []

    def __init__(self, **options):
        self.calls.append(('api', options))

    def create_repo(self, repo_id, **options):
        self.calls.append(('create_repo', repo_id, options))
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, folder_path, allow_patterns, **options):
        from huggingface_hub.utils import filter_repo_objects
        names = (path.relative_to(folder_path).as_posix() for path in sorted(folder_path.rglob('*')) if path.is_file())
        files = {name: (folder_path / name).read_bytes()
                 for name in filter_repo_objects(names, allow_patterns=allow_patterns)}
        self.calls.append(('upload_folder', files, options))
        return f'https://huggingface.co/{options["repo_id"]}/commit/1'


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(Recorder, 'calls', [])
    monkeypatch.setattr('huggingface_hub.HfApi', Recorder)
    return Recorder.calls


def test_exactly_the_three_files_go_up(saved, hub):
    url = CLIPGS.from_pretrained(saved).push_to_hub('owner/toy', private=True, token='hf_x', branch='dev',
                                                    commit_message='First')
    assert url == 'https://huggingface.co/owner/toy/commit/1'
    api, create, (_, files, options) = hub
    assert api == ('api', {'token': 'hf_x', 'library_name': 'clipgs_plugin'})
    assert create == ('create_repo', 'owner/toy', {'private': True, 'exist_ok': True})
    assert files == {path.name: path.read_bytes() for path in saved.iterdir()}
    assert options == dict(repo_id='owner/toy', repo_type='model', revision='dev', commit_message='First',
                           create_pr=None)


def test_other_files_of_the_folder_stay_here(folder, hub):
    (folder / 'secret.txt').write_text('x')
    (folder / 'logs').mkdir()
    (folder / 'logs' / 'config.json').write_text('{}')
    CLIPGS.from_pretrained(folder).save_pretrained(folder, repo_id='owner/toy', push_to_hub=True)
    assert sorted(hub[-1][1]) == ['README.md', 'config.json', 'model.safetensors']


def test_a_refusal_of_the_hub_is_one_sentence(folder, monkeypatch):
    class Refusing(Recorder):
        def create_repo(self, repo_id, **options):
            raise OSError('401 Client Error\nlong text')
    monkeypatch.setattr('huggingface_hub.HfApi', Refusing)
    with pytest.raises(ConnectionError, match=r'^owner/toy: not uploaded \(OSError: 401 Client Error\); log in'):
        CLIPGS.from_pretrained(folder).push_to_hub('owner/toy')
    with pytest.raises(ValueError, match='needs the repository'):
        CLIPGS.from_pretrained(folder).save_pretrained(folder, push_to_hub=True)


@pytest.mark.parametrize('method', ['save_pretrained', 'from_pretrained', 'push_to_hub'])
def test_the_methods_take_the_arguments_of_the_hubs_own(method):
    from huggingface_hub import ModelHubMixin
    ours, theirs = (inspect.signature(getattr(kind, method)).parameters for kind in (CLIPGS, ModelHubMixin))
    named = [name for name, parameter in ours.items() if parameter.kind is not parameter.VAR_KEYWORD]
    assert set(named) <= theirs.keys() and named[0] == next(iter(theirs))


# ---- Folders from anywhere


@pytest.mark.parametrize('place, name', [
    ('model', 'builtins.exec'), ('model__encoder', 'os.system'), ('model__encoder__backbone', 'mmengine.xyz'),
    ('teacher', 'subprocess.Popen'), ('model__encoder__tokenizer', 'colorsys.rgb_to_hsv'), ('model', 'Pretrained'),
    ('model', 'mmengine.model.BaseModel')])
def test_types_that_are_not_registered_are_refused_and_not_imported(folder, place, name):
    loaded = set(sys.modules)
    edit(folder, **{f'{place}__type': name})
    with pytest.raises(ValueError, match=f'{place.replace("__", ".")}: type {re.escape(repr(name))} is not registered'):
        get_model(folder)
    assert 'colorsys' not in set(sys.modules) - loaded


def test_a_transform_that_is_not_registered_is_refused(folder):
    edit(folder, pipeline=[{'type': 'mypackage.Load'}])
    with pytest.raises(ValueError, match=r"config.json: pipeline\[0\]: type 'mypackage.Load' is not registered"):
        get_model(folder)


def test_a_registered_type_of_a_user_loads(folder):
    @MODELS.register_module(name='SharedTestEncoder')
    class Encoder(GSEncoder):
        pass
    try:
        edit(folder, model__encoder__type='SharedTestEncoder')
        assert type(get_model(folder).encoder) is Encoder
    finally:
        MODELS.module_dict.pop('SharedTestEncoder')


@pytest.mark.parametrize('key', ['_target_', '_scope_', '_delete_', '_base_', 'custom_imports'])
def test_keys_with_a_meaning_beyond_an_argument_are_refused(folder, key):
    loaded = set(sys.modules)
    edit(folder, model__encoder={'type': 'GSEncoder', key: 'colorsys'})
    with pytest.raises(ValueError, match=rf'model\.encoder\.{key} is no setting'):
        get_model(folder)
    assert 'colorsys' not in set(sys.modules) - loaded


@pytest.mark.parametrize('content, message', [
    (b'{', 'not valid JSON'), (b'[' * 5000 + b']' * 5000, 'nested deeper'), (b' ' * 2 ** 21, 'bytes, expected at most'),
    (b'{"model_type": "bert"}', "library_name is None, expected 'clipgs_plugin'"), (b'[]', 'library_name is None'),
    (b'{"library_name": "clipgs_plugin"}', 'format is missing'),
    (b'{"library_name": "clipgs_plugin", "format": 2, "model": {"type": "a"}, "teacher": null, "pipeline": []}',
     'format 2, this version reads 1; update'),
    (b'{"library_name": "clipgs_plugin", "format": 1, "model": {"type": 3}, "teacher": null, "pipeline": []}',
     'model.type is 3, expected a string')])
def test_damaged_configs_are_one_sentence(folder, content, message):
    (folder / 'config.json').write_bytes(content)
    with pytest.raises(ValueError, match=message) as refused:
        get_model(folder)
    assert str(folder / 'config.json') in str(refused.value) and '\n' not in str(refused.value)


@pytest.mark.parametrize('changes', [{'model__unknown': 1}, {'model__encoder__embed_dim': 'wide'},
                                     {'model__encoder__embed_dim': 10 ** 17}, {'model__encoder__embed_dim': -1},
                                     {'model__encoder__tokenizer__patch_encoder': {'widths': []}}])
def test_settings_that_do_not_build_are_one_sentence(folder, changes):
    edit(folder, **changes)
    with pytest.raises(ValueError, match=r'config\.json: damaged or not a config of a model') as refused:
        get_model(folder)
    assert '\n' not in str(refused.value)


def test_the_teacher_in_the_model_is_not_built(folder):
    edit(folder, model__teacher={'type': 'clipgs_plugin.OpenCLIPTeacher', 'model': '/etc'})
    assert get_model(folder).teacher is None


def test_weights_that_do_not_fit_are_named(folder):
    state = load_file(folder / 'model.safetensors')
    save_file({**state, 'logit_scale': torch.zeros(2), 'extra': torch.zeros(1)}, folder / 'model.safetensors')
    with pytest.raises(ValueError, match=r'1 unexpected \(extra\); 1 of another shape \(logit_scale \(2,\) for \(1,\)'):
        get_model(folder)
    state['encoder.projection.bias'][3] = float('nan')
    save_file(state, folder / 'model.safetensors')
    with pytest.raises(ValueError, match=r'model\.safetensors: tensor encoder\.projection\.bias holds NaN'):
        get_model(folder)
    (folder / 'model.safetensors').write_bytes((folder / 'config.json').read_bytes())
    with pytest.raises(ValueError, match=r'model\.safetensors: is truncated'):
        get_model(folder)


def test_pickled_weights_beside_the_config_are_not_read(folder):
    (folder / 'model.safetensors').unlink()
    torch.save({}, folder / 'pytorch_model.bin')
    with pytest.raises(FileNotFoundError, match=r'has no regular file model\.safetensors'):
        get_model(folder)


@pytest.mark.parametrize('target', ['/dev/zero', 'nowhere', 'model.safetensors'])
def test_links_to_no_regular_file_are_refused(folder, target):
    (folder / 'model.safetensors').unlink()
    (folder / 'model.safetensors').symlink_to(target)
    with pytest.raises(FileNotFoundError, match=r'has no regular file model\.safetensors'):
        get_model(folder)


# ---- Saving


def test_saving_replaces_a_link_and_not_its_target(folder, tmp_path):
    model = CLIPGS.from_pretrained(folder)
    target = tmp_path / 'kept.safetensors'
    target.write_bytes((folder / 'model.safetensors').read_bytes())
    (folder / 'model.safetensors').unlink()
    (folder / 'model.safetensors').symlink_to(target)
    model.logit_scale.data += 1
    before = target.read_bytes()
    model.save_pretrained(folder)
    assert target.read_bytes() == before and not (folder / 'model.safetensors').is_symlink()
    assert torch.equal(get_model(folder).logit_scale, model.logit_scale)


@pytest.mark.parametrize('name, content', [('config.json', b'{"model_type": "bert"}'),
                                           ('model.safetensors', b'of another program')])
def test_files_of_other_programs_are_not_replaced(saved, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileExistsError, match='of another program or model; name another folder'):
        CLIPGS.from_pretrained(saved).save_pretrained(tmp_path)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [content]


def test_a_card_with_text_of_the_user_stays(folder):
    card = folder / 'README.md'
    card.write_text('My own words')
    CLIPGS.from_pretrained(folder).save_pretrained(folder)
    assert card.read_text() == 'My own words'


def test_a_save_that_is_cut_off_leaves_no_model_that_looks_complete(folder, monkeypatch):
    model = CLIPGS.from_pretrained(folder)
    monkeypatch.setattr('clipgs_plugin.models.pretrained.write_whole', lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.save_pretrained(folder)
    with pytest.raises(FileNotFoundError, match=r'no regular file config\.json'):
        get_model(folder)
    monkeypatch.undo()
    model.save_pretrained(folder)
    assert get_model(folder).name == str(folder)


def test_models_that_cannot_be_saved_are_named(saved, tmp_path):
    model = CLIPGS.from_pretrained(saved)
    with pytest.raises(ValueError, match=r"has \['author'\], expected some of license"):
        model.save_pretrained(tmp_path, model_card_kwargs={'author': 'me'})
    model.cfg.model.init_logit_scale = torch.zeros(1)
    with pytest.raises(ValueError, match=r'model\.init_logit_scale of the config is tensor.*JSON does not hold'):
        model.save_pretrained(tmp_path)
    del model.cfg
    with pytest.raises(ValueError, match='has no cfg'):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


# ---- Facts about data


def test_objects_of_a_split_are_those_stored(tmp_path):
    for i in range(3):
        (tmp_path / 'test' / f'class{i}').mkdir(parents=True)
        write_gaussians(random_cloud(40 + i, seed=i), tmp_path / 'test' / f'class{i}' / 'a.ply')
    cfg = get_config('clipgs_pointbert-nano_15e_splats', {'data_root': str(tmp_path)})
    found = list(clouds_of_split(cfg, 'test'))
    assert [len(cloud) for cloud in found] == [40, 41, 42]
    assert torch.equal(found[2].means, random_cloud(42, seed=2).means)
    assert [len(cloud) for cloud in clouds_of_split(cfg, 'test', max_objects=2)] == [40, 42]
    for cloud in prepared(cfg, found):
        assert float(cloud.means.double().mean(0).norm()) < 1e-5 and float(cloud.means.norm(dim=1).max()) <= 1 + 1e-5


@pytest.mark.parametrize('text', ['[1]', '{"a": "b"}', '{"a": true}', '{"a": NaN}'])
def test_results_that_are_no_numbers_are_refused(tmp_path, text):
    (tmp_path / 'r.json').write_text(text)
    with pytest.raises(ValueError, match=r'r\.json: '):
        read_metrics(tmp_path / 'r.json')
