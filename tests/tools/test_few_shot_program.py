"""The few-shot program, as a user calls it: from objects by a model, and from files of features."""
import json
import statistics
from pathlib import Path

import pytest
import torch
from fold_files import write_folds

from clipgs_plugin import get_config, get_model, write_gaussians
from clipgs_plugin.apis import frozen
from clipgs_plugin.apis.report_runs import read_runs
from clipgs_plugin.datasets import FrozenFeatures, load_episodes
from clipgs_plugin.evaluation import ClassEmbeddings, FewShotAccuracy, trials
from clipgs_plugin.io.lock import folder_lock
from clipgs_plugin.tools import few_shot
from clipgs_plugin.toy_world.specs import object_specs
from clipgs_plugin.toy_world.world import make_object

NAMES = ['bench', 'car', 'mug']
SETTINGS = "settings=[dict(ways=2, shots=1), dict(ways=None, shots=2)], queries=2, trials=2)"


@pytest.fixture(scope='module')
def toys(tmp_path_factory):
    """Labelled splat files, three of each class in train and two in test."""
    folder = tmp_path_factory.mktemp('toys')
    for split, count in (('train', 3), ('test', 2)):
        specs = object_specs(360, split=split)
        for name in NAMES:
            (folder / split / name).mkdir(parents=True)
            for i, spec in enumerate([spec for spec in specs if spec.category == name][:count]):
                write_gaussians(make_object(spec, 256).gaussians, folder / split / name / f'{i}.ply')
    return folder


@pytest.fixture
def config(toys, tmp_path):
    path = tmp_path / 'mine.py'
    datasets = ', '.join(f"{part}=dict(_delete_=True, type='clipgs_plugin.GaussianFolder', root={str(toys / split)!r})"
                         for part, split in (('support', 'train'), ('query', 'test')))
    path.write_text("_base_ = 'clipgs_plugin::fewshot/clipgs_pointbert-nano_15e_toy-world-few-shot.py'\n"
                    'few = dict(epochs=5)\n'
                    "heads = {'ZS-LP': few, 'CLAP': few, 'Tip-Adapter-F': few, 'CLIP-Adapter': few}\n"
                    f'few_shot = dict({datasets}, heads=heads, {SETTINGS}')
    return path


def run(capsys, *arguments):
    assert few_shot.main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def test_a_table_comes_from_objects_and_is_resumed_from_their_features(config, tmp_path, capsys, monkeypatch):
    work_dir = tmp_path / 'work'
    text = run(capsys, config, 'clipgs_toy', '--work-dir', work_dir)
    lines = text.splitlines()
    assert lines[0] == '| head | 2way1shot | all2shot |' and len(lines) == 10
    assert {path.name for path in work_dir.iterdir()} == {'support.npz', 'query.npz', 'folds', 'few_shot.json'}
    assert [run.source for run in read_runs([work_dir])] == [config.stem]
    support = FrozenFeatures.load(work_dir / 'support.npz')
    assert list(support.classes) == NAMES and len(support) == 9 and support.uids[0] == 'bench/0.ply'

    # Neither objects nor features are computed again, and the folds can be read.
    monkeypatch.setattr(frozen, 'DataLoader', lambda *_, **__: pytest.fail('features were computed again'))
    again = run(capsys, config, 'clipgs_toy', '--work-dir', work_dir, '--folds', work_dir / 'folds')
    assert again == text
    found = json.loads(run(capsys, config, 'clipgs_toy', '--work-dir', work_dir, '--json', '--only', 'prototype'))
    score = found['prototype']['2way1shot']
    assert list(found) == ['prototype'] and len(score['accuracies']) == 2
    assert score['mean'] == pytest.approx(statistics.mean(score['accuracies']))
    row = next(line for line in lines if line.startswith('| prototype |'))
    assert f'{score["mean"]:.1f} ± {score["std"]:.1f}' in row
    assert score['mean'] == pytest.approx(accuracy_by_hand(work_dir, '2way1shot'))


def test_a_checkpoint_of_a_training_is_the_model_of_the_config(config, tmp_path, capsys):
    checkpoint = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict=get_model('clipgs_toy').state_dict()), checkpoint)
    own, shipped = (run(capsys, config, model, '--only', 'prototype', '--work-dir', tmp_path / name)
                    for name, model in (('own', checkpoint), ('shipped', 'clipgs_toy')))
    assert own == shipped


def accuracy_by_hand(work_dir, setting):
    """One shot: the nearest support object decides."""
    support, query = (FrozenFeatures.load(work_dir / f'{part}.npz') for part in ('support', 'query'))
    hits = []
    for episode in load_episodes(work_dir / 'folds' / f'{setting}.json'):
        shots = [support.embeddings[support.uids.index(group[0])] for group in episode.support]
        hits += [int((torch.stack(shots) @ query.embeddings[query.uids.index(uid)]).argmax()) == label
                 for label, group in enumerate(episode.query) for uid in group]
    return 100 * statistics.mean(hits)


def test_the_fingerprint_follows_weights_data_and_pipeline(config, toys):
    clipgs = few_shot.load_model(get_config(config), few_shot.parse([str(config), 'clipgs_toy']))
    datasets = get_config(config).few_shot
    train = datasets.support.to_dict()
    first = frozen.fingerprint(clipgs, train)
    assert first == frozen.fingerprint(clipgs, train) != frozen.fingerprint(clipgs, datasets.query.to_dict())
    pipeline = clipgs.model.cfg.test_dataloader.dataset.pipeline
    pipeline[0]['sh_degree'] = 1
    second = frozen.fingerprint(clipgs, train)
    with torch.no_grad():
        next(clipgs.model.parameters()).view(-1)[0] += 1e-3
    third = frozen.fingerprint(clipgs, train)
    file = toys / 'train' / 'mug' / '0.ply'
    file.touch()
    assert len({first, second, third, frozen.fingerprint(clipgs, train)}) == 4


@pytest.fixture
def features(tmp_path):
    """A config of features in files, which needs no model."""
    g = torch.Generator().manual_seed(0)
    centers = torch.randn(3, 8, generator=g)
    for part, count in (('support', 6), ('query', 4)):
        labels = torch.arange(3).repeat_interleave(count)
        FrozenFeatures(centers[labels] + torch.randn(len(labels), 8, generator=g), labels,
                       [f'{part}{i}' for i in range(len(labels))], NAMES).save(tmp_path / f'{part}.npz')
    ClassEmbeddings(NAMES, torch.randn(3, 8, generator=g)).save(tmp_path / 'text.npz')
    path = tmp_path / 'features.py'
    files = ', '.join(f'{key}={str(tmp_path / file)!r}' for key, file in (
        ('support', 'support.npz'), ('query', 'query.npz'), ('class_embeddings', 'text.npz')))
    path.write_text(f"few_shot = dict({files}, seed=0, templates='plain', protocol='fixed',\n"
                    "heads={'mean': dict(type='PrototypeHead'), 'ZS-LP': dict(type='ZeroShotLinear', epochs=20)},\n"
                    + SETTINGS)
    return path


def test_files_of_features_need_no_checkpoint_and_the_published_protocol_names_its_leak(features, tmp_path, capsys):
    text = run(capsys, features, '--work-dir', tmp_path / 'work', '--protocol', 'published')
    names = [line.split('|')[1].strip() for line in text.splitlines() if line.startswith('|')]
    assert names == ['head', '---', 'mean', 'ZS-LP', 'ZS-LP, published protocol']
    assert text.splitlines()[-1] == ('The published protocol chooses on the test queries, so its numbers are '
                                     'optimistic. ZS-LP: the epoch.')
    found = json.loads(run(capsys, features, '--work-dir', tmp_path / 'work', '--protocol', 'published', '--json'))
    score = found['ZS-LP']['all2shot']
    assert score['published']['leak'] == 'the epoch' and score['published']['mean'] >= score['mean']


@pytest.mark.parametrize('name, expected', [
    ('clipgs_pointbert-nano_15e_toy-world-few-shot-probe', [f'all{shots}shot' for shots in (1, 2, 4, 8, 16)]),
    ('clipgs_pointbert-nano_15e_toy-world-few-shot-ways', [f'{ways}way5shot' for ways in (5, 10, 20, 50)]),
    ('clipgs_uni3d-b_uni3d-init_20e_objaverse-few-shot-ways', [f'{ways}way5shot' for ways in (5, 10, 20, 50)])])
def test_a_shipped_protocol_is_one_command_on_features_in_files(name, expected, tmp_path, capsys):
    g, classes = torch.Generator().manual_seed(0), [f'class {i:02d}' for i in range(52)]
    for part, count in (('support', 26), ('query', 20)):
        labels = torch.arange(52).repeat_interleave(count)
        FrozenFeatures(torch.randn(len(labels), 8, generator=g), labels, [f'{part}{i}' for i in range(len(labels))],
                       classes).save(tmp_path / f'{part}.npz')
    found = json.loads(run(capsys, name, '--work-dir', tmp_path / 'work', '--only', 'prototype', '--json', '--protocol',
                           'published', '--cfg-options', 'few_shot.trials=2',
                           *(f'few_shot.{part}={tmp_path / part}.npz' for part in ('support', 'query'))))
    assert list(found['prototype']) == expected
    assert all(len(score['accuracies']) == 2 == len(score['published']['accuracies'])
               for score in found['prototype'].values())
    folds = {setting: load_episodes(tmp_path / 'work' / 'folds' / f'{setting}.json') for setting in expected}
    ways = {setting: {len(fold.classes) for fold in tasks} for setting, tasks in folds.items()}
    assert ways == {setting: {52 if 'all' in setting else int(setting.partition('way')[0])} for setting in expected}


def test_the_published_folds_are_one_command_from_the_weights_before_training(tmp_path, capsys):
    write_folds(tmp_path / '2way_1shot', classes=((7, 3), (0, 39)))
    config = tmp_path / 'mine.py'
    config.write_text("_base_ = 'clipgs_plugin::fewshot/clipgs_pointbert-nano_15e_modelnet40-published-folds.py'\n"
                      f"folds_root = {str(tmp_path)!r}\nsettings = [dict(ways=2, shots=1)]\n"
                      "few_shot = dict(folds=dict(folds=2), settings=settings)\n")
    only = ['--work-dir', tmp_path / 'work', '--json', '--protocol', 'published', '--only', 'prototype', 'linear probe']
    found = json.loads(run(capsys, config, 'initial', *only))
    train, test = (FrozenFeatures.load(tmp_path / 'work' / f'2way1shot-{part}.npz') for part in ('train', 'test'))
    hits = []
    for fold in range(2):
        shots, queries = train.embeddings[2 * fold:2 * fold + 2], test.embeddings[40 * fold:40 * fold + 40]
        right = (queries @ shots.T).argmax(1) == torch.arange(2).repeat_interleave(20)
        hits.append(100 * float(right.float().mean()))
    assert found['prototype']['2way1shot']['accuracies'] == pytest.approx(hits)
    score = found['linear probe']['2way1shot']
    assert score['published']['leak'] == 'the strength of the regularisation' and len(score['accuracies']) == 2
    assert run(capsys, config, 'initial', *only) == json.dumps(found) + '\n'  # the weights depend on the seed alone
    with pytest.raises(ValueError, match='has published folds; leave out --folds'):
        few_shot.main([str(config), 'initial', '--folds', str(tmp_path)])


@pytest.mark.parametrize('checkpoint, folder', [
    ('clipgs_toy', 'clipgs_toy'), ('views:toy-clip', 'views-toy-clip'), ('initial', 'initial'), (None, ''),
    ('work_dirs/mine/epoch_15.pth', 'mine-epoch_15'), ('/best.pth', 'best'), ('../best.pth', 'best')])
def test_models_have_folders_of_their_own(checkpoint, folder, tmp_path):
    assert few_shot.default_work_dir(str(tmp_path / 'few.py'), checkpoint) == Path('work_dirs', 'few', folder)


@pytest.mark.parametrize('kind', ['ways', 'probe'])
def test_objaverse_is_divided_by_its_rule(kind):
    task = get_config(f'clipgs_uni3d-b_uni3d-init_20e_objaverse-few-shot-{kind}').few_shot
    assert (task.support.split, task.query.split) == ('train', 'test')
    assert {**task.support, 'split': 0} == {**task.query, 'split': 0}


def test_wrong_use_is_named(features, config, tmp_path):
    work_dir = ['--work-dir', str(tmp_path / 'work')]
    for setting, match in (('mean.type=Meen', "'mean'=.*Meen is not in the .* registry.*; see the heads in docs"),
                           ('mean.epochs=3', "'mean'=.*unexpected keyword argument 'epochs'; see the heads in docs"),
                           ('mean.type=GaussianDataPreprocessor', '.*a GaussianDataPreprocessor is no few-shot head')):
        with pytest.raises(ValueError, match=f'few_shot.heads has {match}'):
            few_shot.main([str(features), *work_dir, '--cfg-options', f'few_shot.heads.{setting}'])
    with pytest.raises(FileNotFoundError, match=r'runs/none.pth: file not found'):  # it is no repository of the hub
        few_shot.main([str(config), 'runs/none.pth', *work_dir])
    with pytest.raises(ValueError, match='--only best: expected some of'):
        few_shot.main([str(features), '--only', 'best', *work_dir])
    with pytest.raises(ValueError, match='names objects to embed; add a checkpoint or the name of a model'):
        few_shot.main([str(config), *work_dir])
    with pytest.raises(ValueError, match=r'lacks few_shot\.support, few_shot\.settings, few_shot\.heads'):
        few_shot.main(['clipgs_pointbert-nano_15e_toy-world', *work_dir])
    with pytest.raises(ValueError, match="class 'bench' has 6 objects to learn from, expected at least 30"):
        few_shot.main([str(features), '--cfg-options', 'few_shot.settings.0.shots=30', *work_dir])


@pytest.fixture
def tuned(toys, tmp_path):
    """A config of two trials a setting with heads that tune the encoder."""
    path = tmp_path / 'tuned.py'
    datasets = ', '.join(f"{part}=dict(_delete_=True, type='clipgs_plugin.GaussianFolder', root={str(toys / split)!r})"
                         for part, split in (('support', 'train'), ('query', 'test')))
    heads = ("{'probe': dict(type='LinearProbe'), 'no epochs': dict(type='FineTuned', epochs=0),"
             " 'LoRA': dict(type='FineTuned', epochs=1, frozen=('blocks', 'refinement'), lora=dict(rank=2)),"
             " 'full': dict(type='FineTuned', epochs=1, batch_size=2, lr=0.01)}")
    path.write_text("_base_ = 'clipgs_plugin::fewshot/clipgs_pointbert-nano_15e_toy-world-few-shot.py'\n"
                    f"few_shot = dict({datasets}, heads=dict(_delete_=True, **{heads}),\n"
                    'settings=[dict(ways=2, shots=1), dict(ways=None, shots=2)], queries=2, trials=2)')
    return path


def test_heads_that_tune_the_encoder_stand_in_the_table_and_go_on_where_a_run_was_killed(tuned, tmp_path, capsys,
                                                                                        monkeypatch):
    work_dir = tmp_path / 'work'
    command = [tuned, 'clipgs_toy', '--work-dir', work_dir, '--json']
    ran, run_trial = [], trials.run_trial

    def killed_in_the_fourth(head, *arguments):
        if len(ran) == 3:
            raise KeyboardInterrupt
        ran.append(head)
        return run_trial(head, *arguments)
    monkeypatch.setattr(trials, 'run_trial', killed_in_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        few_shot.main([str(word) for word in command])
    with (work_dir / 'trials.jsonl').open('a') as file:
        file.write('{"key": "cut')  # by the kill
    again = []
    monkeypatch.setattr(trials, 'run_trial', lambda *arguments: again.append(1) or run_trial(*arguments))
    found = json.loads(run(capsys, *command))
    assert list(found) == ['probe', 'no epochs', 'LoRA', 'full'] and len(ran) + len(again) == 3 * 2 * 2
    assert found['no epochs'] == found['probe']  # the same tasks, and the untouched encoder
    assert all(len(score['accuracies']) == 2 for row in found.values() for score in row.values())
    assert json.loads(run(capsys, *command)) == found and len(again) == 9
    monkeypatch.undo()
    alone = json.loads(run(capsys, *command[:2], '--work-dir', tmp_path / 'other', '--json', '--only', 'full'))
    assert alone == {'full': found['full']}
    changed = [*command, '--only', 'LoRA', '--cfg-options', 'few_shot.heads.LoRA.epochs=0']
    assert json.loads(run(capsys, *changed))['LoRA'] == found['probe']  # trials of another recipe are not taken


def test_heads_that_tune_an_encoder_need_objects_and_an_encoder(features, tuned, tmp_path):
    work_dir = ['--work-dir', str(tmp_path / 'work')]
    with pytest.raises(ValueError, match=r"few_shot.support is a file of features, and 'full' tunes the encoder on"):
        few_shot.main([str(features), *work_dir, '--cfg-options', 'few_shot.heads.full.type=FineTuned'])
    with pytest.raises(ValueError, match=r"head .no epochs. with the model views:toy-clip: FineTuned tunes a GSEncoder,"
                                         r' got a MultiViewCLIP; .* choose other heads with --only'):
        few_shot.main([str(tuned), 'views:toy-clip', *work_dir])
    with pytest.raises(ValueError, match=r"heads=\['full'\]: FewShotAccuracy has the embeddings .* tools/few_shot.py"):
        FewShotAccuracy(heads=dict(mean=dict(type='PrototypeHead'), full=dict(type='FineTuned')), settings=[])
    with folder_lock(tmp_path / 'work'), pytest.raises(OSError, match='is in use by this process'):
        few_shot.main([str(features), *work_dir])
