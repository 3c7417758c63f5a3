"""Change modules in one small place at a time, run their tests, and list the changes that no test catches."""
# mutmut and cosmic-ray cope, but import torch anew for every mutant, which takes seconds; a fork does not.
from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import yaml

from clipgs_plugin.tools._program import parser, progress_bar, run
from clipgs_plugin.tools.dev._mutations import Mutation, find_mutations

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = 'clipgs_plugin'
AREAS = ('tokenizers', 'losses', 'ops', 'evaluation', 'io')
COPIED = (PACKAGE, 'registry', 'configs', 'tools', 'tests', 'pyproject.toml', 'setup.cfg')  # what tests need
HEAVY = ('torch', 'torchvision', 'numba', 'scipy', 'pyarrow', 'mmengine.runner', 'mmengine.evaluator', 'open_clip',
         'timm', 'pytest')  # imported once, before the forks
SPARE_SECONDS, SLOWDOWN = 20, 4  # time limit of a mutant: a constant, and a multiple of the time of its tests


class Tests(NamedTuple):
    """Outcome of a run of tests."""

    status: str                # 'passed', 'failed', 'broken' (not even collected) or 'timeout'
    failed: str | None         # the first test that failed
    seconds: dict[str, float]  # by test


# Tables

def load_tables() -> dict:
    """Load the table of tests and that of equivalent mutants."""
    return yaml.safe_load(Path(__file__).with_suffix('.yml').read_text('utf-8'))


def find_modules(names: Sequence[str], root: Path = ROOT) -> list[str]:
    """Return the modules of the package whose dotted names hold one of the given dotted names.

    Raises:
        ValueError: No module matches a name.
    """
    paths = [path.relative_to(root / PACKAGE).with_suffix('') for path in (root / PACKAGE).rglob('[!_]*.py')]
    modules = sorted('.'.join(path.parts) for path in paths)
    found = set()
    for name in names:
        matching = [module for module in modules if f'.{name}.' in f'.{module}.']
        if not matching:
            raise ValueError(f'no module is named {name!r}; expected a module or a folder below {PACKAGE}, for example '
                             'sampling or models.losses')
        found.update(matching)
    return sorted(found)


def find_tests(module: str, table: dict[str, list[str]], root: Path = ROOT) -> list[str]:
    """Return the test files of a module: its entry in the table, or that of its folder, or what mirrors its name.

    ``a.b.c`` is mirrored by ``tests/a/b/test_c.py``, then by ``tests/a/test_b.py``.

    Raises:
        ValueError: No file mirrors the module, and the table does not list it.
    """
    parts = module.split('.')
    for i in range(len(parts), 0, -1):
        if '.'.join(parts[:i]) in table:
            return [f'tests/{name}' for name in table['.'.join(parts[:i])]]
    for i in range(len(parts), 0, -1):
        path = Path('tests', *parts[:i - 1], f'test_{parts[i - 1]}.py')
        if (root / path).is_file():
            return [path.as_posix()]
    raise ValueError(f'no test file mirrors {module}; list its tests in {Path(__file__).with_suffix(".yml").name}')


# Trees

@contextmanager
def copied_tree(root: Path = ROOT, names: Sequence[str] = COPIED) -> Iterator[Path]:
    """Copy what tests need to a temporary folder, in which all mutations take place."""
    with tempfile.TemporaryDirectory(prefix='mutate-') as folder:
        for name in names:
            if (root / name).is_dir():
                shutil.copytree(root / name, Path(folder, name))
            else:
                shutil.copy2(root / name, folder)
        yield Path(folder)


@contextmanager
def mutated(path: Path, text: str) -> Iterator[None]:
    """Write a mutant in place of a module, and the module again."""
    original = path.read_bytes()
    try:
        path.write_text(text, 'utf-8')
        _drop_compiled(path)
        yield
    finally:
        path.write_bytes(original)
        _drop_compiled(path)


def _drop_compiled(path: Path) -> None:
    """Delete bytecode of a module, which may be as old, and numba's of its folder, which misses calls between files."""
    for pattern in (f'{path.stem}.*.pyc', '*.nbi', '*.nbc'):
        for compiled in (path.parent / '__pycache__').glob(pattern):
            compiled.unlink()


# Forks

def run_tests(tree: Path, tests: Sequence[str], limit: float | None = None,
              seconds: dict[str, float] | None = None) -> Tests:
    """Run tests of a tree in a fork of this process, up to the first failure.

    Args:
        tree: Folder of the package and its tests.
        tests: Test files, relative to the tree.
        limit: Time limit in seconds.
        seconds: Expected duration of each test; the fastest files, and the fastest tests of a file, run first.
    """
    context = multiprocessing.get_context('fork')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run_pytest, args=(tree, tests, seconds or {}, sender))
    process.start()
    sender.close()
    try:
        done = receiver.recv() if receiver.poll(limit) else Tests('timeout', None, {})
    except EOFError:  # the process has died
        done = Tests('broken', None, {})
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
    return done


def _run_pytest(tree: Path, tests: Sequence[str], seconds: dict[str, float], sender) -> None:
    os.setsid()  # a group, to end with all its processes
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silent, stream)
    os.chdir(tree)
    os.environ['PYTHONPATH'] = str(tree)
    os.environ['PYTHONDONTWRITEBYTECODE'] = '1'
    sys.path[:0] = [str(tree)]
    # A mutant's bytecode would outlive it, but the first run, which has no durations yet, compiles the tests.
    sys.dont_write_bytecode = bool(seconds)
    for name in list(sys.modules):
        if name.partition('.')[0] in (PACKAGE, 'conftest'):
            del sys.modules[name]
    import pytest

    notes = _Notes(seconds)
    # unraisableexception collects all garbage at the end, which takes half of the time of a caught mutant.
    options = ['-x', '-q', '-p', 'no:cacheprovider', '-p', 'no:unraisableexception', '--rootdir', str(tree)]
    code = pytest.main([*options, *tests], plugins=[notes])
    status = {pytest.ExitCode.OK: 'passed', pytest.ExitCode.TESTS_FAILED: 'failed'}.get(code, 'broken')
    sender.send(Tests(status, notes.failed, dict(notes.seconds)))


class _Notes:
    """Plugin of pytest that sorts tests by duration, and notes durations and the first failure."""

    def __init__(self, expected: dict[str, float]) -> None:
        self.expected = expected
        self.seconds: Counter[str] = Counter()
        self.failed: str | None = None

    def pytest_collection_modifyitems(self, items: list) -> None:
        files = Counter()
        for item in items:
            files[item.path] += self.expected.get(item.nodeid, 0)
        items.sort(key=lambda item: (files[item.path], item.path, self.expected.get(item.nodeid, 0)))

    def pytest_runtest_logreport(self, report) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.failed and self.failed is None:
            self.failed = report.nodeid


# Mutants

class Bench:
    """Place of all runs: a tree, the durations of tests without a mutation, and the folder of results.

    A result is filed by the hash of the module's source and the mutation. A survivor runs again when its tests have
    changed; a caught mutant stays caught until its module changes.

    Args:
        tree: Copy of the checkout, changed and restored by each mutant.
        out: Folder of the results.
    """

    def __init__(self, tree: Path, out: Path) -> None:
        self.tree = tree
        self.out = out
        self._baselines: dict[tuple[str, ...], Tests] = {}

    def baseline(self, tests: Sequence[str]) -> Tests:
        """Run tests without a mutation, once.

        Raises:
            ValueError: A test fails.
        """
        key = tuple(tests)
        if key not in self._baselines:
            done = run_tests(self.tree, tests)
            if done.status != 'passed':
                raise ValueError(f'{done.failed or ", ".join(tests)} is {done.status} without any mutation; mend it '
                                 'first, since a test that fails anyway catches nothing')
            self._baselines[key] = done
        return self._baselines[key]

    def judge(self, module: str, mutation: Mutation, tests: Sequence[str]) -> dict:
        """Return the result of a mutant, from its file or from its tests."""
        path = self.tree / PACKAGE / f'{module.replace(".", "/")}.py'
        source = path.read_text('utf-8')
        digest = sha256(b'\0'.join((self.tree / test).read_bytes() for test in tests)).hexdigest()
        name = sha256(json.dumps([source, mutation]).encode()).hexdigest()[:16]
        file = self.out / module / f'{name}.json'
        if file.is_file():
            result = json.loads(file.read_text('utf-8'))
            if result['status'] == 'caught' or result['tests'] == digest:
                return result
        seconds = self.baseline(tests).seconds
        started = time.perf_counter()
        with mutated(path, mutation.apply(source)):
            done = run_tests(self.tree, tests, SPARE_SECONDS + SLOWDOWN * sum(seconds.values()), seconds)
        result = {'module': module, 'line': mutation.line, 'scope': mutation.scope, 'before': mutation.before,
                  'after': mutation.after, 'status': 'survived' if done.status == 'passed' else 'caught',
                  'by': done.failed or done.status, 'tests': digest, 'seconds': round(time.perf_counter() - started, 2)}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')
        return result


def sample_mutations(module: str, count: int | None, seed: int, root: Path = ROOT) -> list[Mutation]:
    """Draw mutations of a module, in the order of its lines; None takes all."""
    mutations = find_mutations((root / PACKAGE / f'{module.replace(".", "/")}.py').read_text('utf-8'))
    if count is not None and count < len(mutations):
        mutations = random.Random(f'{seed} {module}').sample(mutations, count)
    return sorted(mutations, key=lambda mutation: (mutation.line, mutation.start))


def is_listed(module: str, mutation: Mutation, equivalent: list[dict]) -> bool:
    """Return True if the table of equivalent mutants has a mutation."""
    key = {'module': module, 'scope': mutation.scope, 'before': mutation.before, 'after': mutation.after}
    return any(key.items() <= entry.items() for entry in equivalent)


# Program

def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__, 'python tools/dev/mutate.py rotations --sample 5')
    args.add_argument('names', metavar='NAME', nargs='*', help='module or folder, such as sampling or models.losses '
                      f'({" ".join(AREAS)})')
    args.add_argument('--sample', type=int, metavar='N', help='number of mutants drawn from each module (all)')
    args.add_argument('--seed', type=int, default=0, help='seed of the sample (%(default)s)')
    args.add_argument('--out', type=Path, default=Path('work_dirs/mutate'),
                      help='folder of results; a run continues with those in it (%(default)s)')
    args.add_argument('--json', action='store_true', help='print a JSON list of all mutants')
    options = args.parse_args(argv)

    tables = load_tables()
    plan, equivalent = [], Counter()
    for module in find_modules(options.names or AREAS):
        tests = find_tests(module, tables['tests'])
        for mutation in sample_mutations(module, options.sample, options.seed):
            if is_listed(module, mutation, tables['equivalent']):
                equivalent[module] += 1
            else:
                plan.append((module, mutation, tests))
    print(f'{len(plan)} mutants of {len({module for module, *_ in plan})} modules', file=sys.stderr)
    data = ROOT.parent / 'shared' / 'data'
    if data.is_dir():  # real data of the tests, which they look for beside the checkout
        os.environ.setdefault('CLIPGS_TEST_DATA', str(data))
    for name in HEAVY:
        with suppress(ImportError):
            import_module(name)
    out = options.out.resolve()
    with copied_tree() as tree, progress_bar() as bar:
        bench = Bench(tree, out)
        results = [bench.judge(*job) for job in bar.track(plan, description='mutants')]
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        print_table(results, equivalent)
    print(f'results: {options.out}', file=sys.stderr)
    return 0


def print_table(results: list[dict], equivalent: Counter) -> None:
    """Print the counts of each module, and each survivor with its line."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text  # does not read brackets as markup

    counts = Counter((result['module'], result['status']) for result in results)
    modules = sorted({result['module'] for result in results} | set(equivalent))
    table = Table('module', box=box.SIMPLE_HEAD, show_edge=False)
    for column in ('mutants', 'caught', 'survived', 'equivalent'):
        table.add_column(column, justify='right')
    for module in modules:
        caught, survived = counts[module, 'caught'], counts[module, 'survived']
        table.add_row(module, *map(str, (caught + survived, caught, survived, equivalent[module])))
    caught = sum(result['status'] == 'caught' for result in results)
    table.add_section()
    table.add_row('all', *map(str, (len(results), caught, len(results) - caught, equivalent.total())))
    console = Console()
    console.print(table)
    if results:
        console.print(f'{caught / len(results):.1%} caught')
    for result in results:
        if result['status'] == 'survived':
            console.print(Text(f'{PACKAGE}/{result["module"].replace(".", "/")}.py:{result["line"]}'
                               f'{" in " * bool(result["scope"])}{result["scope"]}\n'
                               f'  - {result["before"]}\n  + {result["after"]}'), soft_wrap=True)


if __name__ == '__main__':
    run(main)
