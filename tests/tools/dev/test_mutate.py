"""tools/dev/mutate.py on a toy module."""
import ast
import sys
import textwrap
import time
from collections import Counter

import pytest

from clipgs_plugin.tools.dev import mutate
from clipgs_plugin.tools.dev._mutations import find_mutations

needs_fork = pytest.mark.skipif(sys.platform == 'win32', reason='a mutant is a fork')

TOY = textwrap.dedent('''\
    """A toy."""
    LIMIT = 3


    def count(values: list[int], *, low: int | None = -1) -> int:
        """Count the values above a bound."""
        if low is None:
            raise ValueError(f'{low} < {LIMIT + 1}')
        total = 0
        for value in values:
            if value > low:
                total += 1
        return min(total, LIMIT)
    ''')
TESTS = textwrap.dedent('''\
    import pytest

    import toy


    def test_count():
        assert toy.count([1, 2]) == 2
        assert toy.count([1, 2], low=1) == 1


    def test_no_bound_is_an_error():
        with pytest.raises(ValueError):
            toy.count([], low=None)
    ''')


@pytest.mark.parametrize(('line', 'mutants'), [
    ('a < b', ['', 'a <= b']),
    ('x = a <= b == c', ['x = a < b == c', 'x = a <= b != c']),
    ('x = a * b', ['x = a / b']),
    ('x = a ** b * c', ['x = a ** b / c', 'x = (a * b) * c']),
    ('x -= a', ['', 'x += a']),
    ('x = a and not b', ['x = a or not b', 'x = a and b']),
    ('x = y if a else b', ['x = y if not a else b']),
    ('x = y if a is b else c', ['x = y if a is not b else c']),  # as by negation
    ('x = [y for y in z if y]', ['x = [y for y in z if not y]']),
    ('x = y[5]', ['x = y[6]', 'x = y[4]']),
    ('x = y[-1]', ['x = y[1]', 'x = y[0]', 'x = y[-2]']),
    ('x = f(True)', ['x = f(False)']),
    ('x = f(y, dim=z)', ['x = f(y)']),
    ('x = y.amin(z)', ['x = y.amax(z)']),
    ('x = y.float()', ['x = y.double()']),
    ('x = float(y)', []),
    ('x: int | None = min(y, z)', ['x: int | None = max(y, z)']),
    ('x = x.f()', ['']),
    ('x = y.f()', []),
    ('x.y = z', ['']),
    ("x = f'{a + b}'", []),
    ('raise ValueError(a + b)', ['']),
    ('return a', ['']),
    ('@f(1)\ndef g(x: int | None = 1): pass', ['@f(1)\ndef g(x: int | None = 2): pass',
                                              '@f(1)\ndef g(x: int | None = 0): pass']),
])
def test_mutants_of_a_line(line, mutants):
    source = 'def f():\n{}\n    return None\n'
    tree = lambda text: ast.dump(ast.parse(source.format(textwrap.indent(text or 'pass', '    '))))  # noqa: E731
    original = source.format(textwrap.indent(line, '    '))
    found = {ast.dump(ast.parse(mutation.apply(original).replace(', **{}', ''))) for mutation in
             find_mutations(original)}
    assert found == {tree(mutant) for mutant in mutants}


def test_the_last_return_stays_since_a_function_without_it_fails_anyway():
    assert find_mutations('def f():\n    return a\n') == []


def test_a_mutation_tells_its_place_and_changes_nothing_else():
    found = find_mutations(TOY)
    bound = next(mutation for mutation in found if 'value >= low' in mutation.after)
    assert bound[:4] == ('count', 11, 'if value > low:', 'if (value >= low):')
    assert bound.apply(TOY) == TOY.replace('value > low', '(value >= low)')
    assert len(set(found)) == len(found)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    monkeypatch.setattr(mutate, 'PACKAGE', 'package')
    for path, text in {'package/toy.py': TOY, 'tests/test_toy.py': TESTS,
                       'tests/conftest.py': 'import sys\nsys.path.insert(0, "package")\n'}.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def judge(root):
    """Return the status of some mutants of the toy, and how many of them were run."""
    tests = mutate.find_tests('toy', {}, root)
    with mutate.copied_tree(root, ('package', 'tests')) as tree:
        bench = mutate.Bench(tree, root / 'results')
        files = {path: path.stat().st_mtime_ns for path in (root / 'results').rglob('*.json')}
        results = {mutation.after: bench.judge('toy', mutation, tests)['status']
                   for mutation in mutate.sample_mutations('toy', None, 0, root) if mutation.line in (2, 11)}
        run = [path for path in (root / 'results').rglob('*.json') if path.stat().st_mtime_ns != files.get(path)]
        assert (tree / 'package/toy.py').read_text() == TOY
    assert (root / 'package/toy.py').read_text() == TOY
    return results, len(run)


@needs_fork
def test_survivors_are_what_no_test_distinguishes_and_run_again_when_their_tests_change(toy):
    caught = {'if (value >= low):': 'caught', 'if (not value > low):': 'caught'}
    assert judge(toy) == ({'LIMIT = 4': 'survived', 'LIMIT = 2': 'survived', **caught}, 4)
    assert judge(toy)[1] == 0
    with (toy / 'tests/test_toy.py').open('a') as file:
        file.write('\n\ndef test_limit():\n    assert toy.count(range(9)) == 3\n')
    assert judge(toy) == ({'LIMIT = 4': 'caught', 'LIMIT = 2': 'caught', **caught}, 2)


@needs_fork
def test_tests_that_fail_anyway_are_an_error(toy):
    (toy / 'tests/test_toy.py').write_text('def test_wrong():\n    assert False\n')
    with pytest.raises(ValueError, match=r'test_wrong is failed without any mutation'):
        judge(toy)


@needs_fork
@pytest.mark.parametrize(('line', 'status'), [('while True: pass', 'timeout'), ('os.abort()', 'broken')])
def test_a_run_that_hangs_or_dies_ends(toy, line, status):
    (toy / 'tests/test_toy.py').write_text(f'import os\n\n\ndef test_it():\n    {line}\n')
    started = time.perf_counter()
    assert mutate.run_tests(toy, ['tests/test_toy.py'], limit=3).status == status
    assert time.perf_counter() - started < 30


def test_samples_depend_on_the_seed_only():
    draw = lambda seed: mutate.sample_mutations('ops.rotations', 10, seed)  # noqa: E731
    assert draw(0) == draw(0) != draw(1) and len(draw(0)) == 10


def test_every_module_of_the_areas_has_tests(root):
    table = mutate.load_tables()['tests']
    modules = mutate.find_modules(mutate.AREAS)
    assert all((root / test).is_file() for module in modules for test in mutate.find_tests(module, table))
    assert not [name for name in table if name not in modules and name != 'models.tokenizers']


def test_every_equivalent_mutant_exists_and_has_a_reason():
    for entry in mutate.load_tables()['equivalent']:
        found = mutate.sample_mutations(entry['module'], None, 0)
        assert any(mutate.is_listed(entry['module'], mutation, [entry]) for mutation in found), entry
        assert len(entry['reason'].split()) > 3, entry


def test_an_unknown_module_is_an_error():
    with pytest.raises(ValueError, match=r"'samplin'.*for example sampling"):
        mutate.main(['samplin'])


def test_the_table_names_survivors(capsys):
    result = {'module': 'ops.toy', 'line': 3, 'scope': 'f', 'before': 'x[0]', 'after': 'x[1]'}
    mutate.print_table([{**result, 'status': 'survived'}, {**result, 'status': 'caught'}], Counter({'ops.toy': 2}))
    out = capsys.readouterr().out
    assert ['ops.toy', '2', '1', '1', '2'] in [line.split() for line in out.splitlines()] and '50.0% caught' in out
    assert 'clipgs_plugin/ops/toy.py:3 in f\n  - x[0]\n  + x[1]\n' in out
