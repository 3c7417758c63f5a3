import argparse

import pytest

from clipgs_plugin.tools._settings import settings_action


def parsed(*values: str) -> dict:
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=settings_action())
    return parser.parse_args(['--cfg-options', *values]).cfg_options


def test_settings_are_read_as_mmengine_reads_them():
    assert parsed('a.b=3', 'c=[1,2]', 'd=(x,y)', 'e=None') == {'a.b': 3, 'c': [1, 2], 'd': ('x', 'y'), 'e': None}


@pytest.mark.parametrize('wrong', ['word', 'a=[dict(b=1,c=2)]', 'a=[1,(2]'])
def test_what_cannot_be_read_is_wrong_use_and_named(wrong, capsys):
    with pytest.raises(SystemExit) as exit_:
        parsed('a=1', wrong)
    assert exit_.value.code == 2 and f'--cfg-options {wrong}: expected KEY=VALUE' in capsys.readouterr().err
