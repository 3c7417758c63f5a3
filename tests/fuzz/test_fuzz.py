"""Damaged files are refused by name or read sound, within bounds of memory and time."""
import math
import sys

import harness
import pytest

if sys.platform != 'linux':
    pytest.skip('limits of a process are those of Linux', allow_module_level=True)

CASES, SEED = 500, 0  # more: python tests/fuzz
TARGETS = harness.load_targets()


@pytest.fixture(scope='module')
def fuzzer():
    with harness.Fuzzer() as fuzzer:
        yield fuzzer


@pytest.mark.parametrize('name', TARGETS)
def test_damaged_files_are_refused_or_read_sound(fuzzer, name):
    cases = math.ceil(CASES / len(TARGETS) * TARGETS[name].share)
    outcomes = [fuzzer.run(name, SEED, case) for case in range(cases)]
    wrong = [str(outcome) for outcome in outcomes if not outcome.fine]
    assert not wrong, '\n'.join(wrong)


def test_the_harness_sees_every_fault():
    with harness.Fuzzer(['broken_readers'], seconds=1) as fuzzer:
        assert {name: fuzzer.run(name, 0, 0).kind for name in fuzzer.targets} == {
            name: name for name in fuzzer.targets}


def test_a_case_depends_on_its_seed_and_number_only(fuzzer, tmp_path):
    name = next(iter(TARGETS))
    made = [fuzzer.make(name, 3, case, tmp_path / f'{i}').read_bytes() for i, case in enumerate((7, 8, 7))]
    assert made[0] == made[2] != made[1]
