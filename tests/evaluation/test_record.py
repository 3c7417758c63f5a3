import json
from dataclasses import replace

import pytest
import torch

from clipgs_plugin.evaluation import ConfusionMatrix, EvaluationRecord
from clipgs_plugin.evaluation.record import joined


def record():
    return EvaluationRecord('a_config', {'zero_shot/top1': 60.0, 'mine': float('nan')}, 5, {'root': 'data'}, 3,
                            'run/best.pth', 'ab' * 32,
                            {'zero_shot': ConfusionMatrix(('cup', 'owl'), torch.tensor([[2, 1], [1, 1]]))})


def test_a_record_reads_back_as_written(tmp_path):
    record().save(tmp_path / 'metrics.json')
    found = EvaluationRecord.load(tmp_path / 'metrics.json')
    assert found.metrics == {'zero_shot/top1': 60.0, 'mine': None}
    assert (found.config, found.num_objects, found.dataset, found.seed, found.checkpoint, found.checkpoint_sha256) == (
        'a_config', 5, {'root': 'data'}, 3, 'run/best.pth', 'ab' * 32)
    assert found.classification['zero_shot'].counts.tolist() == [[2, 1], [1, 1]]
    content = json.loads((tmp_path / 'metrics.json').read_text())
    assert content['classification']['zero_shot']['accuracies'] == {'cup': pytest.approx(200 / 3), 'owl': 50}


def test_a_record_of_an_earlier_version_is_that_of_a_test(tmp_path):
    replace(record(), part='val').save(tmp_path / 'metrics.json')
    assert EvaluationRecord.load(tmp_path / 'metrics.json').part == 'val'
    content = json.loads((tmp_path / 'metrics.json').read_text())
    del content['part']
    (tmp_path / 'metrics.json').write_text(json.dumps(content))
    assert EvaluationRecord.load(tmp_path / 'metrics.json').part == 'test'


def test_records_of_several_test_sets_are_joined_by_name():
    other = replace(record(), metrics={'zero_shot/top1': 20.0}, num_objects=7)
    found = joined({'plain': record(), 'turned': other})
    assert [*found.metrics] == ['plain/zero_shot/top1', 'plain/mine', 'turned/zero_shot/top1']
    assert found.metrics['turned/zero_shot/top1'] == 20 and found.num_objects == 5
    assert [*found.classification] == ['plain/zero_shot', 'turned/zero_shot']
    assert joined({'': record()}).classification.keys() == {'zero_shot'}


@pytest.mark.parametrize('changes, message', [
    (dict(format='other'), 'of format'), (dict(num_objects='5'), 'num_objects'),
    (dict(metrics={'a': 'b'}), 'metrics: a'), (dict(part='all'), "part is 'all', expected one of test, val"),
    (dict(classification={'x': {'classes': ['a'], 'counts': [[0, 1, 1]]}}), 'not a count'),
    (dict(classification={'x': []}), 'classification: x'), (dict(dataset={'root': 3}), 'dataset: root')])
def test_other_files_are_refused_by_name(tmp_path, changes, message):
    path = tmp_path / 'metrics.json'
    record().save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ValueError, match=rf'metrics\.json.*{message}'):
        EvaluationRecord.load(path)
    with pytest.raises(FileNotFoundError, match=r'tools/test\.py writes it'):
        EvaluationRecord.load(tmp_path / 'none.json')
