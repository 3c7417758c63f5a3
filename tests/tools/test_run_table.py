"""The program behind the tables of the documentation."""
import json

import pytest
import torch

from clipgs_plugin.models.checkpoints import open_point_cloud_checkpoint
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


def test_unknown_rows_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"--only \['Point-BART'\]: expected some of"):
        run_table.main(['backbones', '--out', str(tmp_path), '--only', 'Point-BART'])
