"""The program behind the tables of the documentation."""
import json

import pytest
import torch

from clipgs_plugin import GaussianBatch, get_config
from clipgs_plugin.engine.experiments import embed_dataset
from clipgs_plugin.models.checkpoints import open_point_cloud_checkpoint
from clipgs_plugin.registry import MODELS
from clipgs_plugin.tools import run_table

SMALL = ['--seeds', '1', '--objects', '60', '--test-objects', '60', '--pretrain-objects', '60', '--epochs', '1',
         '--pretrain-epochs', '1']


def test_a_row_is_run_from_scratch_and_from_a_file_of_its_family_once(tmp_path, capsys, monkeypatch):
    arguments = ['backbones', '--out', str(tmp_path), '--only', 'Point-MAE', *SMALL]
    assert run_table.main(arguments) == 0
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.startswith('| Point-MAE |'))
    cells = [float(cell) for cell in row.strip('|').split('|')[1:]]
    assert len(cells) == 4 and all(0 <= cell <= 100 for cell in cells)
    found = open_point_cloud_checkpoint(tmp_path / 'checkpoints' / '60x1' / 'point_mae.pth')
    assert found.family.name == 'point_mae' and found.attributes == ('xyz',) and not found.unused
    folder = tmp_path / '60x1-from-60x1-on-60'
    runs = sorted(path.name for path in folder.glob('*.json'))
    assert [name.rsplit('-', 2)[1] for name in runs] == ['checkpoint', 'scratch']
    scores = {name: json.loads((folder / name).read_text()) for name in runs}
    assert cells == [round(scores[name][kind], 1) for kind in ('zero_shot', 'ten_shot') for name in reversed(runs)]
    monkeypatch.setattr(run_table, 'finetune', lambda *_: pytest.fail('a run that has its numbers is not run again'))
    run_table.main(arguments)
    assert row in capsys.readouterr().out


def test_pretraining_never_sees_the_objects_or_looks_it_is_tested_on():
    from clipgs_plugin.toy_world.specs import object_specs
    pretraining = object_specs(1200, 1, 'train')
    shots, test = object_specs(600, 0, 'train'), object_specs(400, 0, 'test')
    assert not {spec.seed for spec in pretraining} & {spec.seed for spec in (*shots, *test)}
    seen = {(spec.category, spec.look) for spec in (*pretraining, *shots)}
    assert not seen & {(spec.category, spec.look) for spec in test}
    counts = torch.tensor([sum(spec.category == name for spec in shots) for name in {spec.category for spec in shots}])
    assert (counts == 10).all()  # ten-shot


VIEWS = next(row for row in run_table.ROWS if not row.trained)


def test_views_of_the_teacher_are_run_once_and_without_a_file(tmp_path, capsys, monkeypatch):
    calls = []
    monkeypatch.setattr(run_table, 'make_world', lambda folder, **_: folder)
    monkeypatch.setattr(run_table, 'pretrained_file', lambda *_: pytest.fail('views have no file of a family'))
    monkeypatch.setattr(run_table, 'finetune', lambda *args: calls.append(args) or dict(zero_shot=90.0, ten_shot=80.0))
    assert run_table.main(['backbones', '--out', str(tmp_path), '--only', VIEWS.title, '--seeds', '3']) == 0
    assert len(calls) == 1 and f'| {VIEWS.title} | - | 90.0 | - | 80.0 |' in capsys.readouterr().out


def test_the_features_of_views_are_their_embeddings(random_cloud):
    model = MODELS.build({**get_config(VIEWS.config).model, 'num_views': 2}).eval()
    dataset = [dict(inputs=random_cloud(30, seed), data_samples=dict(label=seed)) for seed in range(3)]
    features, embeddings, labels = embed_dataset(model, dataset, batch_size=2)
    expected = torch.cat([model(GaussianBatch.from_clouds([each['inputs']])) for each in dataset])
    assert torch.allclose(features, expected, atol=1e-5) and labels.tolist() == [0, 1, 2]
    assert torch.allclose(embeddings, torch.nn.functional.normalize(expected, dim=-1), atol=1e-5)


def test_unknown_rows_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"--only \['Point-BART'\]: expected some of"):
        run_table.main(['backbones', '--out', str(tmp_path), '--only', 'Point-BART'])
