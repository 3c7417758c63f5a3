"""From a checkpoint to a folder, and from the folder to embeddings and answers."""
import json
import shutil

import numpy as np
import pytest
import torch
from conftest import random_cloud, run_python

from clipgs_plugin import get_config, get_model, write_gaussians
from clipgs_plugin.apis import SearchIndex, diagnose
from clipgs_plugin.apis.attributes import attribute_ranges
from clipgs_plugin.apis.doctor_expectations import expectations
from clipgs_plugin.apis.sharing import prepared
from clipgs_plugin.models import pretrained
from clipgs_plugin.tools import embed, search, share

pytestmark = pytest.mark.filterwarnings('ignore')
CONFIG = 'clipgs_pointbert-nano_15e_splats'


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A work dir with the config and a checkpoint, and its data."""
    root = tmp_path_factory.mktemp('run')
    for i, name in enumerate(('apple', 'chair')):
        for split in ('train', 'test'):
            (root / 'data' / split / name).mkdir(parents=True)
            write_gaussians(random_cloud(60 + i, seed=i), root / 'data' / split / name / 'a.ply')
    get_config(CONFIG, {'data_root': str(root / 'data'), 'num_gaussians': 64}).dump(root / 'config.py')
    model = get_model('clipgs_toy')
    torch.save({'state_dict': model.state_dict()}, root / 'best.pth')
    (root / 'results.json').write_text('{"zero_shot/top1": 62.5}')
    return root


@pytest.fixture(scope='module')
def shared(run):
    assert share.main([str(run / 'config.py'), str(run / 'best.pth'), str(run / 'shared'), '--data', 'train',
                       '--results', str(run / 'results.json'), '--license', 'mit']) == 0
    return run / 'shared'


def test_the_folder_states_results_and_quantiles(run, shared):
    about = json.loads((shared / 'config.json').read_text())['card']
    clouds = [random_cloud(60), random_cloud(61, seed=1)]
    assert about == {'license': 'mit', 'metrics': {'zero_shot/top1': 62.5}, 'data': 'train, split train',
                     'quantiles': attribute_ranges(prepared(get_config(run / 'config.py'), clouds, 'train'))}
    card = (shared / 'README.md').read_text()
    assert '| `zero_shot/top1` | 62.5 |' in card and 'of any of 2 prepared objects' in card and 'license: mit' in card
    low, high = about['quantiles']['attributes']['opacity']['0.5']
    assert f'| {low:.4g} to {high:.4g} |' in card and '|  | 5 % | 50 % | 95 % |' in card
    assert str(shared.parent) not in card + (shared / 'config.json').read_text()


def test_the_doctor_compares_files_with_the_card(shared):
    # What tools/dev records for the shipped model, a shared one states in its card.
    ranges = json.loads((shared / 'config.json').read_text())['card']['quantiles']['attributes']
    assert expectations(str(shared)).attributes == ranges
    known, faint = random_cloud(60), random_cloud(60)
    faint = faint.replace(opacity_logits=faint.opacity_logits * 0 - 2)
    found = [next(each for each in diagnose(cloud, str(shared)).findings if each.check == 'attributes')
             for cloud in (known, faint)]
    assert [each.grade for each in found] == ['ok', 'warning'] and str(shared) in found[0].what
    low, high = ranges['opacity']['0.5']
    assert f'median opacity 0.119, trained {low:.3g} to {high:.3g}' in found[1].what


def test_a_folder_embeds_and_searches_as_config_and_checkpoint_do(run, shared, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(run)
    data = str(run / 'data' / 'test')
    assert embed.main([data, '-o', str(tmp_path / 'a.npz'), '--model', 'config.py', '--checkpoint', 'best.pth']) == 0
    assert embed.main([data, '-o', str(tmp_path / 'b.npz'), '--model', 'shared']) == 0
    monkeypatch.chdir(tmp_path)
    a, b = SearchIndex.load(tmp_path / 'a.npz'), SearchIndex.load(tmp_path / 'b.npz')
    assert torch.equal(a.embeddings, b.embeddings) and b.model == str(shared)
    capsys.readouterr()
    found = []
    for name in 'ab':
        assert search.main([f'{name}.npz', '--text', 'a red chair', '--json']) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1] and len(found[0]) == 2


def test_programs_take_a_repository_from_the_cache(shared, run, tmp_path, root):
    """In a process of its own, because huggingface_hub reads its environment once."""
    snapshot = tmp_path / 'hub' / 'models--owner--toy' / 'snapshots' / ('0' * 40)
    shutil.copytree(shared, snapshot)
    (snapshot.parents[1] / 'refs').mkdir()
    (snapshot.parents[1] / 'refs' / 'main').write_text('0' * 40)
    data = str(run / 'data' / 'test')
    code = f"""from clipgs_plugin.tools import embed
assert embed.main([{data!r}, '-o', 'cache.npz', '--model', 'hf-hub:owner/toy']) == 0
try:
    embed.main([{data!r}, '-o', 'absent.npz', '--model', 'hf-hub:owner/absent'])
except FileNotFoundError as error:
    print(error)"""
    lines = run_python(code, tmp_path, PYTHONPATH=str(root), HF_HOME=str(tmp_path), HF_HUB_OFFLINE='1').splitlines()
    assert lines[-1].startswith('hf-hub:owner/absent: no folder of this name, and config.json was not found')
    assert embed.main([str(run / 'data' / 'test'), '-o', str(tmp_path / 'folder.npz'), '--model', str(shared)]) == 0
    with np.load(tmp_path / 'cache.npz') as a, np.load(tmp_path / 'folder.npz') as b:
        np.testing.assert_array_equal(a['embeddings'], b['embeddings'])


def test_push_uploads_the_folder(run, tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(pretrained, 'upload', lambda *args, **options: calls.append((args, options)) or 'URL')
    assert share.main([str(run / 'config.py'), str(run / 'best.pth'), str(tmp_path / 'x'), '--push', 'owner/toy',
                       '--private', '--data', str(run / 'data')]) == 0
    assert calls == [((tmp_path / 'x', 'owner/toy'), {'private': True})]
    assert capsys.readouterr().out.splitlines()[-1] == 'URL'
    assert "CLIPGSInferencer('owner/toy')" in (tmp_path / 'x' / 'README.md').read_text()
    assert json.loads((tmp_path / 'x' / 'config.json').read_text())['card']['quantiles']['objects'] == 4


@pytest.mark.parametrize('options', [['--push', 'name'], ['--push', 'hf-hub:a/b'], ['--data', 'absent']])
def test_wrong_use_is_told(options, capsys):
    with pytest.raises(SystemExit) as exit_:
        share.main([CONFIG, 'x.pth', 'out', *options])
    assert exit_.value.code == 2 and options[1] in capsys.readouterr().err


def test_a_teacher_of_this_machine_is_noted(run, tmp_path, capsys):
    cfg = get_config(run / 'config.py')
    cfg.teacher.model = str(run)
    cfg.dump(tmp_path / 'config.py')
    assert share.main([str(tmp_path / 'config.py'), str(run / 'best.pth'), str(tmp_path / 'out')]) == 0
    assert f'note: the teacher {run} lies on this machine only' in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match=r'absent\.pth: file not found'):
        share.main([CONFIG, str(tmp_path / 'absent.pth'), str(tmp_path / 'out')])
