import pytest
import torch

from clipgs_plugin.apis.class_report import class_tables, describe_record, difference_tables
from clipgs_plugin.apis.report import collect_report
from clipgs_plugin.evaluation import ConfusionMatrix, EvaluationRecord
from clipgs_plugin.visualization.report import render_html

CLASSES = 'cup', 'owl', 'key'


def write(folder, counts, top1, root='data', classes=CLASSES, **metrics):
    folder.mkdir()
    EvaluationRecord('a_config', {'zero_shot/top1': top1, **metrics}, 8, {'root': root, 'split': 'test'}, 1,
                     'run/best.pth', '0123456789abcdef', {'zero_shot': ConfusionMatrix(classes, torch.tensor(counts))}
                     ).save(folder / 'metrics.json')
    return folder


@pytest.fixture
def runs(tmp_path):
    return (write(tmp_path / 'a', [[3, 1, 0], [2, 0, 2], [0, 0, 0]], 37.5, mine=1.0),
            write(tmp_path / 'b', [[4, 0, 0], [0, 3, 1], [0, 0, 0]], 87.5))


def differences(*folders):
    return difference_tables(*(EvaluationRecord.load(folder / 'metrics.json') for folder in folders),
                             tuple(folder.name for folder in folders))


def test_tables_of_classes_and_errors():
    accuracy, errors = class_tables(ConfusionMatrix(CLASSES, torch.tensor([[3, 1, 0], [2, 0, 2], [0, 0, 0]])))
    assert accuracy.rows == [['cup', '4', '75.0'], ['owl', '4', '0.0'], ['key', '0', '-']]
    assert errors.rows == [['owl', 'cup', '2', '50.0'], ['owl', 'key', '2', '50.0'], ['cup', 'owl', '1', '25.0']]
    assert len(class_tables(ConfusionMatrix(('cup',), torch.tensor([[3]])))) == 1


def test_differences_have_the_largest_first(runs):
    metrics, classes = differences(*runs)
    assert metrics.rows == [['zero_shot/top1', '37.5', '87.5', '-50.0']]
    assert classes.rows == [['owl', '0.0', '75.0', '-75.0'], ['cup', '75.0', '100.0', '-25.0'], ['key', '-', '-', '-']]
    assert metrics.columns == ('', 'a', 'b', 'difference') and 'different objects' not in metrics.note


def test_runs_on_different_objects_are_marked(runs, tmp_path):
    other = write(tmp_path / 'c', [[1, 0], [0, 1]], 100.0, root='elsewhere', classes=('owl', 'dog'))
    metrics, classes = differences(runs[0], other)
    assert 'different objects' in metrics.note and [row[0] for row in classes.rows] == ['owl']


def test_evaluations_without_a_common_metric_are_refused(runs, tmp_path):
    (tmp_path / 'd').mkdir()
    EvaluationRecord('x', {'else': 1.0}, 2).save(tmp_path / 'd' / 'metrics.json')
    with pytest.raises(ValueError, match='no metric in common'):
        differences(runs[0], tmp_path / 'd')


def test_a_folder_of_an_evaluation_is_reported_by_its_record(runs):
    report = collect_report(runs[0])
    assert report.metrics.rows == [['zero_shot/top1', '37.5'], ['mine', '1.0']]
    assert report.confusions[0].counts.tolist() == [[3, 1, 0], [2, 0, 2], [0, 0, 0]]
    page = render_html(report)
    for text in ('best.pth (sha256 0123456789ab)', 'Accuracy by class', 'confusion matrix',
                 'seed 1, was evaluated on 8 objects (data, test).'):
        assert text in page


def test_two_evaluations_are_compared_on_their_page(runs):
    report = collect_report(*runs)
    assert report.metrics.rows == [['zero_shot/top1', '37.5', '87.5'], ['mine', '1.0', '-']]
    assert [table.title for table in report.differences] == ['Differences', 'Differences by class']
    page = render_html(report)
    assert '<td class=best>87.5</td>' in page and page.count('aria-label="confusion matrix') == 2
    assert page.count('class="down behind"') == 4 and '<td>-75.0</td>' in page


def test_a_description_names_what_was_evaluated():
    assert describe_record(EvaluationRecord('x', {}, 2)) == (
        'x, seed None, was evaluated on 2 objects.')


def test_a_lower_rank_is_ahead(tmp_path):
    for name, rank in (('a', 12.0), ('b', 20.0)):
        (tmp_path / name).mkdir()
        EvaluationRecord('x', {'retrieval/text_to_3d_median_rank': rank, 'retrieval/text_to_3d_R@1': rank}, 2).save(
            tmp_path / name / 'metrics.json')
    page = render_html(collect_report(tmp_path / 'a', tmp_path / 'b'))
    assert page.count('class="down ahead"') == page.count('class="down behind"') == 1
