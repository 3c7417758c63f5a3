"""The program behind the tables of the documentation."""
import json
import os
import subprocess
import sys

import pytest
import torch

from clipgs_plugin import GaussianBatch, get_config
from clipgs_plugin.engine import cells
from clipgs_plugin.engine.experiments import embed_dataset
from clipgs_plugin.engine.table_spec import load_table
from clipgs_plugin.evaluation import EvaluationRecord
from clipgs_plugin.models.checkpoints import open_point_cloud_checkpoint
from clipgs_plugin.registry import MODELS
from clipgs_plugin.tools import report, run_table

ROWS = ['Point-MAE', 'Point-MAE, from its file']
VIEWS = load_table('backbones').select(['12 views in the teacher'])[0]


def arguments(folder, *rows):
    small = [f'worlds.{world}' for world in ('main.num_train=60', 'main.num_test=60', 'pretraining.num_train=60',
                                             'main.workers=1', 'pretraining.workers=1')]
    return ['backbones', '--out', str(folder / 'out'), '--worlds', str(folder / 'worlds'), '--seeds', '1', '--rows',
            *rows, '--cfg-options', 'train_cfg.max_epochs=1', '--table-options', *small]


def test_a_row_is_run_from_scratch_and_from_a_file_of_its_family_once(tmp_path, capsys, monkeypatch):
    assert run_table.main(arguments(tmp_path, *ROWS)) == 0
    printed = capsys.readouterr().out
    lines = {line.split('|')[1].strip(): line for line in printed.splitlines() if line.startswith('| Point-MAE')}
    shown = {title: [float(cell) for cell in lines[title].strip('|').split('|')[1:]] for title in ROWS}
    assert all(count == 1 and all(0 <= figure <= 100 for figure in figures) for count, *figures in shown.values())
    file, = (tmp_path / 'out' / 'checkpoints').glob('*.pth')
    found = open_point_cloud_checkpoint(file)
    assert found.family.name == 'point_mae' and found.attributes == ('xyz',) and not found.unused
    results = {each['row']: each for each in map(json.loads, (path.read_text() for path in
                                                              (tmp_path / 'out' / 'cells').glob('*.json')))}
    for title in ROWS:
        metrics, outcomes = results[title]['metrics'], results[title]['outcomes']
        assert shown[title][1:] == [round(metrics[name], 1) for name in ('zero_shot/top1', 'probe/top1')]
        for name in ('zero_shot/top1', 'probe/top1', 'retrieval/text_to_3d_R@1'):
            assert len(outcomes[name]) == 60 and 100 * outcomes[name].count('1') / 60 == pytest.approx(metrics[name])
    assert f'| {ROWS[1]} − {ROWS[0]} |' in printed and (tmp_path / 'out' / 'table.md').read_text() == printed
    monkeypatch.setattr(cells, 'run_cell', lambda *_: pytest.fail('a cell that has its results is not run again'))
    run_table.main(arguments(tmp_path, *ROWS))
    assert capsys.readouterr().out == printed
    is_reported(tmp_path / 'out', shown, tmp_path)


def is_reported(out, shown, tmp_path):
    """Check the records of two cells, and the pages of the table and of the two cells."""
    content = json.loads((out / 'table.json').read_text())
    folders = [out / 'cells' / row['cells'][0] for row in content['rows']]
    for folder, title in zip(folders, ROWS):
        record = EvaluationRecord.load(folder / 'metrics.json')
        counts = record.classification['zero_shot'].counts
        assert (record.num_objects, record.seed, int(counts.sum())) == (60, 0, 60) and not any(
            '/top1/' in name for name in record.metrics)
        assert round(100 * float(counts.trace()) / 60, 1) == shown[title][1]
        assert record.metrics['probe/top1'] == pytest.approx(shown[title][2], abs=0.06)
        assert (folder / 'metrics.json').stat().st_size < 8000
    for runs in ([out], folders):
        page = tmp_path / 'report.html'
        assert report.main([*map(str, runs), '-o', str(page)]) == 0
        text = page.read_text()
        assert text.count('aria-label="confusion matrix') == 2 and 'Differences by class' in text
    (folders[0] / 'metrics.json').unlink()  # a cell of an earlier version
    assert report.main([str(out), '-o', str(page)]) == 0
    text = page.read_text()
    assert text.count('aria-label="confusion matrix') == 1 and 'Differences by class' not in text and ROWS[0] in text


def test_pretraining_never_sees_the_objects_or_looks_it_is_tested_on():
    from clipgs_plugin.toy_world.specs import object_specs
    worlds = load_table('backbones').worlds
    pretraining = object_specs(worlds['pretraining']['num_train'], worlds['pretraining']['seed'], 'train')
    shots, test = (object_specs(worlds['main'][f'num_{split}'], worlds['main']['seed'], split)
                   for split in ('train', 'test'))
    assert not {spec.seed for spec in pretraining} & {spec.seed for spec in (*shots, *test)}
    seen = {(spec.category, spec.look) for spec in (*pretraining, *shots)}
    assert not seen & {(spec.category, spec.look) for spec in test}
    counts = torch.tensor([sum(spec.category == name for spec in shots) for name in {spec.category for spec in shots}])
    assert (counts == 10).all()  # ten-shot


def test_views_of_the_teacher_are_run_once_and_without_a_file(tmp_path, capsys, monkeypatch):
    calls = []
    monkeypatch.setattr(run_table, 'make_world', lambda *_: None)
    found = dict(metrics={'zero_shot/top1': 90.0, 'probe/top1': 80.0}, outcomes={}, objects={})
    monkeypatch.setattr(cells, 'run_cell', lambda *args: calls.append(args) or found)
    words = arguments(tmp_path, VIEWS.title)
    words[words.index('--seeds') + 1] = '3'
    assert run_table.main(words) == 0
    assert len(calls) == 1 and f'| {VIEWS.title} | 1 | 90.0 | 80.0 |' in capsys.readouterr().out
    assert not (tmp_path / 'out' / 'checkpoints').exists()


def test_the_features_of_views_are_their_embeddings(random_cloud):
    model = MODELS.build({**get_config(VIEWS.config).model, 'num_views': 2}).eval()
    dataset = [dict(inputs=random_cloud(30, seed), data_samples=dict(label=seed)) for seed in range(3)]
    features, embeddings, labels = embed_dataset(model, dataset, batch_size=2)
    expected = torch.cat([model(GaussianBatch.from_clouds([each['inputs']])) for each in dataset])
    assert torch.allclose(features, expected, atol=1e-5) and labels.tolist() == [0, 1, 2]
    assert torch.allclose(embeddings, torch.nn.functional.normalize(expected, dim=-1), atol=1e-5)


def test_unknown_rows_and_tables_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"rows \['Point-BART'\]: expected some of \['Point-BERT'"):
        run_table.main(['backbones', '--out', str(tmp_path), '--rows', 'Point-BART'])
    with pytest.raises(FileNotFoundError, match="no table is named 'spines'; expected one of attributes, augm"):
        run_table.main(['spines'])


@pytest.mark.parametrize('task, expected', [((None, None, None), (0, 1)), (('7', '5', '4'), (2, 4)),
                                            (('3', None, '4'), (3, 4))])
def test_the_task_of_a_slurm_array_is_the_shard(monkeypatch, task, expected):
    for name, value in zip(('ID', 'MIN', 'COUNT'), task):
        if value is None:
            monkeypatch.delenv(f'SLURM_ARRAY_TASK_{name}', raising=False)
        else:
            monkeypatch.setenv(f'SLURM_ARRAY_TASK_{name}', value)
    assert run_table._slurm_shard() == expected


def test_a_shard_is_one_of_them():
    with pytest.raises(SystemExit):
        run_table.main(['backbones', '--shard', '2/2'])
    assert run_table._shard('1/2') == (1, 2)


def test_standard_output_has_the_table_alone_when_configs_read_the_environment(tmp_path):
    shown = subprocess.run(
        [sys.executable, '-m', 'clipgs_plugin.tools.run_table', 'fitters', '--show', '--rows', 'paper', '--out',
         tmp_path],
        env={**os.environ, 'CLIPGS_REFITS': str(tmp_path), 'CLIPGS_TOY_WORLD': str(tmp_path)}, capture_output=True,
        text=True, check=True)
    assert shown.stdout == (tmp_path / 'table.md').read_text() and shown.stdout.startswith('Test objects as other')
    assert 'CLIPGS_REFITS' in shown.stderr
