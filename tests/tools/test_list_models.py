"""tools/list_models.py."""
import json

import pytest

from clipgs_plugin.apis.published import list_published
from clipgs_plugin.tools import list_models


@pytest.mark.parametrize('columns', [80, 112])
def test_the_table_has_one_line_per_model(columns, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv('COLUMNS', str(columns))
    monkeypatch.setenv('CLIPGS_CHECKPOINTS', str(tmp_path))
    (tmp_path / 'uni3d-ti.pt').touch()
    assert list_models.main([]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line[:1].isalpha()}
    assert rows.keys() >= {'clipgs_toy', *list_published()} and max(map(len, out.splitlines())) <= columns
    licence = ['MIT*'] if columns > 80 else []
    assert rows['uni3d-l'] == ['304.7', 'M', 'eva02-e-14-plus-laion2b', *licence, 'missing']
    assert rows['clipgs_toy'][-1] == rows['uni3d-ti'][-1] == 'here'
    assert out.splitlines()[-1] == 'Get a missing file: python tools/download.py NAME'


def test_only_models_with_files_are_listed_on_request(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv('CLIPGS_CHECKPOINTS', str(tmp_path))
    (tmp_path / 'uni3d-ti.pt').touch()
    assert list_models.main(['--ready', '--json']) == 0
    toy, ti = json.loads(capsys.readouterr().out)
    assert toy['name'] == 'clipgs_toy' and toy['teacher'] == 'toy-clip'
    assert ti == dict(name='uni3d-ti', family='uni3d', parameters=6221824, teacher='eva02-e-14-plus-laion2b',
                      licence='MIT (code)', file=str(tmp_path / 'uni3d-ti.pt'))
