"""The benchmark program on small inputs, without its repeats."""
import json
import time

import pytest

from clipgs_plugin.tools import benchmark


@pytest.fixture(autouse=True)
def once(monkeypatch):
    monkeypatch.setattr(benchmark, 'measure', lambda function: (function(), (2.0, 2.0))[1])


ARGUMENTS = ['ops', '--points', '200', '--clouds', '2', '--groups', '16', '--size', '4', '--threads', '1']


def test_json_is_all_that_is_printed(capsys):
    assert benchmark.main([*ARGUMENTS, '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert found['options'] == dict(points=200, clouds=2, groups=16, size=4, threads='1')
    cases = {(case['what'], case['way']): case for case in found['cases']}
    assert cases['FPS', 'cpu']['note'].startswith('100.00%')
    assert cases['FPS', 'cpu']['ms'] == 1.0 and cases['FPS', 'cpu']['times'] == 1.0


def test_table_names_every_case(capsys):
    assert benchmark.main(ARGUMENTS) == 0
    table = capsys.readouterr().out
    assert all(word in table for word in ('naive loop', 'reference', 'hilbert', 'order by content'))


def test_measure_takes_the_least_after_a_warm_up(monkeypatch):
    monkeypatch.undo()
    delays = iter([0.3, 0.02, 0.002, 0.02])
    ms, cpu_ms = benchmark.measure(lambda: time.sleep(next(delays, 0.02)), seconds=0.03)
    assert 2 <= ms < 300
    assert cpu_ms < ms


def test_unknown_benchmark_is_wrong_use():
    with pytest.raises(SystemExit) as stop:
        benchmark.main(['nothing'])
    assert stop.value.code == 2
