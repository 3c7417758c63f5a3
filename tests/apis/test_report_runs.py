"""Folders of results: what is read of each, and which runs differ by their seed only."""
import json
from dataclasses import replace

import pytest
import torch

from clipgs_plugin.apis.report import collect_report
from clipgs_plugin.apis.report_runs import group_seeds, pooled, read_curves, read_runs
from clipgs_plugin.evaluation import ConfusionMatrix, EvaluationRecord

CLASSES = 'cup', 'owl'


def evaluated(folder, seed, top1, counts=((1, 0), (0, 1)), config='lr = 1\n', **dataset):
    folder.mkdir()
    EvaluationRecord('c', {'zero_shot/top1': top1, 'zero_shot/top1/cup': 1.0}, 2, {'root': 'data', **dataset}, seed,
                     classification={'zero_shot': ConfusionMatrix(CLASSES, torch.tensor(counts))}
                     ).save(folder / 'metrics.json')
    (folder / 'c.py').write_text(f"{config}work_dir = '{folder}'\nrandomness = dict(seed={seed})\n")
    return folder


def scalars(folder, part, *entries):
    (folder / part / 'vis_data').mkdir(parents=True)
    (folder / part / 'vis_data' / 'scalars.json').write_text('\n'.join(map(json.dumps, entries)) + '\n')


def test_runs_that_differ_by_seed_are_one_column_of_mean_and_deviation(tmp_path):
    paths = [evaluated(tmp_path / 'run_seed0', 0, 10.0), evaluated(tmp_path / 'run_seed1', 1, 14.0, ((0, 1), (0, 1))),
             evaluated(tmp_path / 'lr2', 2, 30.0, config='lr = 2\n')]
    report = collect_report(*paths)
    assert report.metrics.columns == ('', 'run (seeds 0, 1)', 'lr2')
    assert report.metrics.rows == [['zero_shot/top1', '12.0 ± 2.8', '30.0']]
    assert [(each.title, each.counts.tolist()) for each in report.confusions] == [
        ('run (seeds 0, 1)', [[1, 1], [0, 2]]), ('lr2', [[1, 0], [0, 1]])]
    assert report.differences[0].rows == [['zero_shot/top1', '12.0', '30.0', '-18.0']]
    assert report.differences[1].rows[0] == ['cup', '50.0', '100.0', '-50.0']
    assert [row[:3] for row in report.runs.rows] == [['run (seeds 0, 1)', 'c', '0, 1'], ['lr2', 'c', '2']]


@pytest.mark.parametrize('other', [dict(seed=0), dict(seed=1, config='lr = 2\n'), dict(seed=1, root='elsewhere')])
def test_other_runs_are_columns_of_their_own(tmp_path, other):
    runs = read_runs([evaluated(tmp_path / 'a', 0, 10.0), evaluated(tmp_path / 'b', top1=12.0, **other)])
    assert [run.name for run in group_seeds(runs)] == ['a', 'b']


def test_runs_of_one_name_are_told_apart(tmp_path):
    for name in ('x', 'y'):
        (tmp_path / name).mkdir()
    paths = [evaluated(tmp_path / 'x' / 'run', 0, 1.0), evaluated(tmp_path / 'y' / 'run', 0, 2.0)]
    assert [run.name for run in read_runs(paths)] == ['x/run', 'y/run']
    assert [run.name for run in read_runs([paths[0], paths[0]])] == ['x/run', 'x/run (2)']


def test_rows_of_a_table_and_few_shot_scores_are_runs(tmp_path):
    for name, file, content in (
            ('t', 'table.json', dict(title='T', rows=[
                dict(title='A', seeds=[0, 1], metrics={'zero_shot/top1': [1.0, 3.0]}),
                dict(title='B', seeds=[0], metrics={'probe/top1': [5.0]})])),
            ('f', 'few_shot.json', dict(config='few', scores={'probe': {
                '5way1shot': {'accuracies': [40.0, 60.0], 'published': {'accuracies': [50.0, 70.0]}}}}))):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(json.dumps(content))
    report = collect_report(tmp_path / 't', tmp_path / 'f')
    assert report.metrics.columns == ('', 'A', 'B', 'f')
    assert report.metrics.rows == [['zero_shot/top1', '2.0 ± 1.4', '-', '-'], ['probe/top1', '-', '5.0', '-'],
                                   ['few_shot/probe, 5way1shot', '-', '-', '50.0 ± 14.1'],
                                   ['few_shot/probe, published protocol, 5way1shot', '-', '-', '60.0 ± 14.1']]


def test_rows_have_the_pooled_records_of_their_cells(tmp_path):
    (tmp_path / 't' / 'cells').mkdir(parents=True)
    for name, counts in (('a-0', ((1, 0), (0, 1))), ('a-1', ((0, 1), (0, 1)))):
        evaluated(tmp_path / 't' / 'cells' / name, 0, 50.0, counts)
    evaluated(tmp_path / 'outside', 0, 0.0)
    row = dict(seeds=[0, 1], metrics={'zero_shot/top1': [100.0, 50.0]})
    rows = [dict(title='A', cells=['a-0', 'a-1'], **row), dict(title='B', cells=['a-0', 'gone'], **row),
            dict(title='C', cells=['../../outside', 'a-0'], **row), dict(title='D', **row)]
    (tmp_path / 't' / 'table.json').write_text(json.dumps(dict(rows=rows)))
    runs = read_runs([tmp_path / 't'])
    assert runs[0].record.classification['zero_shot'].counts.tolist() == [[1, 1], [0, 2]]
    assert [run.record for run in runs[1:]] == [None] * 3 and runs[0].metrics == row['metrics']


def test_a_validation_is_marked_beside_a_test(tmp_path):
    path = evaluated(tmp_path / 'a', 0, 10.0) / 'metrics.json'
    replace(EvaluationRecord.load(path), part='val').save(path)
    report = collect_report(tmp_path / 'a', evaluated(tmp_path / 'b', 0, 20.0))
    assert report.metrics.rows == [['zero_shot/top1 (validation)', '10.0', '-'], ['zero_shot/top1', '-', '20.0']]
    assert [each.title for each in report.confusions] == ['a (validation)', 'b']


def test_a_run_without_evaluation_has_its_last_validation(tmp_path):
    scalars(tmp_path, '1', {'loss': 2.0, 'step': 1}, {'zero_shot/top1': 5.0, 'step': 1},
            {'zero_shot/top1': 7.0, 'step': 2})
    report = collect_report(tmp_path)
    assert report.metrics.rows == [['zero_shot/top1 (validation)', '7.0']]
    assert report.curves['loss'] == {tmp_path.name: [([1], [2.0])]}


def test_a_resumed_part_replaces_what_it_repeats_and_an_unfinished_line_is_left_out(tmp_path):
    scalars(tmp_path, '1', *({'loss': float(step), 'step': step} for step in (1, 2, 3)))
    scalars(tmp_path, '2', {'loss': 0.5, 'step': 2})
    with (tmp_path / '2' / 'vis_data' / 'scalars.json').open('a') as file:
        file.write('{"loss": 0.')
    assert read_curves(tmp_path) == {'loss': ([1, 2], [1.0, 0.5])}


@pytest.mark.parametrize(('file', 'content', 'message'), [
    ('metrics.json', '{"format": 1}', 'metrics.json: format'),
    ('metrics.json', '[' * 1000, 'nested deeper'),
    ('table.json', '{"rows": [{"title": "A"}]}', r'rows\[0\].seeds is missing'),
    ('table.json', '{"rows": [{"title": "A", "seeds": [], "metrics": {"a": ["x"]}}]}', 'expected a number'),
    ('few_shot.json', '{"config": "a", "scores": {"head": {"5way": {}}}}', 'accuracies is missing'),
    ('1/vis_data/scalars.json', '{"step": 1}\nnonsense\n{"step": 2}', 'line 2 is damaged'),
    ('c.py', 'model = dict(', 'damaged or no config')])
def test_damaged_results_are_refused_by_name(tmp_path, file, content, message):
    if file == 'c.py':
        (tmp_path / 'best_x.pth').touch()
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        read_runs([tmp_path])
    assert str(tmp_path / file) in str(error.value)


def test_folders_without_results_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match='has no results'):
        read_runs([tmp_path])
    with pytest.raises(FileNotFoundError, match='is no folder'):
        read_runs([tmp_path / 'absent'])


def test_pooled_evaluations_add_their_counts():
    matrix = ConfusionMatrix(CLASSES, torch.tensor([[1, 2], [0, 3]]))
    record = pooled([EvaluationRecord('c', {'a': 1.0, 'b': None}, 6, classification={'zero_shot': matrix}),
                     EvaluationRecord('c', {'a': 2.0, 'b': 3.0}, 6, classification={'zero_shot': matrix})])
    assert record.metrics == {'a': 1.5, 'b': None}
    assert record.classification['zero_shot'].counts.tolist() == [[2, 4], [0, 6]]
