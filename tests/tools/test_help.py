"""Help texts of all programs."""
import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'
PROGRAMS = sorted(path.relative_to(TOOLS).with_suffix('').as_posix()
                  for path in [*TOOLS.glob('[a-z]*.py'), *TOOLS.glob('dev/[a-z]*.py')])


class Parsed(Exception):
    """Arguments were understood; the program goes no further."""


@pytest.fixture
def parse_only(monkeypatch):
    parse = argparse.ArgumentParser.parse_args

    def parse_args(self, *args, **kwargs):
        raise Parsed(parse(self, *args, **kwargs))
    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse_args)


def load(name):
    return importlib.import_module('clipgs_plugin.tools.' + name.replace('/', '.'))


@pytest.mark.parametrize('name', PROGRAMS)
def test_help_is_a_sentence_and_an_example_that_begins_with_nothing(name, root, capsys, parse_only):
    program = load(name)
    with pytest.raises(SystemExit) as exit_:
        program.main(['--help'])
    text = capsys.readouterr().out
    sentence = program.__doc__.splitlines()[0]
    assert exit_.value.code == 0 and sentence.endswith('.') and sentence in ' '.join(text.split())
    *_, example = text.partition('\nexample:\n')
    lines = [line.strip() for line in example.strip().splitlines()]
    assert lines and lines[-1].startswith(f'python tools/{name}.py')

    written = set()  # folders below work_dirs that lines so far have made
    for line in lines:
        interpreter, script, *arguments = shlex.split(line)
        assert (root / script).is_file()
        if interpreter == 'bash':
            written.add('work_dirs/quickstart')
            continue
        with pytest.raises(Parsed):
            load(Path(script).relative_to('tools').with_suffix('').as_posix()).main(arguments)
        if script == 'tools/run_table.py':
            written.add(f'work_dirs/tables/{arguments[0]}')
        for word in arguments:
            if re.search(r'/|\.\w+$', word):
                assert word.startswith('work_dirs/'), f'{word} of {line!r} is neither made nor shipped'
        # What a program reads comes first among its arguments, and was written by a line before.
        read = arguments[0]
        if script != 'tools/make_toy_world.py' and read.startswith('work_dirs/'):
            assert any(read.startswith(folder) for folder in written), f'no line before {line!r} made {read}'
        written.update(word for word in arguments if word.startswith('work_dirs/'))
