"""Readers under damaged files: a worker process with limits of memory and time reads each case.

A case is the small undamaged files of a :class:`Target`, one of them damaged by a seed. A worker reads it and reports
an :class:`Outcome`. The worker is forked from a process that has loaded the library, so that another one takes its
place at once if it dies.
"""
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).parent))
from mutations import damage

MEMORY = 2 ** 30        # bytes that a case may add to the address space
SECONDS = 10            # processor time of a case
WALL_SECONDS = 120      # time on the clock, for a case that waits for ever; several times longer on a busy machine
MAX_MESSAGE = 2000
FINE = ('refused', 'read')


@dataclass(frozen=True)
class Target:
    """A reader under test.

    ``files`` writes the undamaged files into a new folder and returns the path to read, a file or the folder itself.
    They should be small, some kB. ``check`` returns a sentence if the result holds something that a damaged file may
    not turn into, else None. ``damage`` adds mutations that know the format, from (bytes, rng) to bytes; each file name
    pattern in ``kept`` is never damaged. ``share`` is the part of the suite's cases that a slow reader gets.
    """

    name: str
    files: Callable[[Path], Path]
    read: Callable[[Path], object]
    check: Callable[[object], str | None] = lambda result: None
    damage: tuple[Callable[[bytes, Random], bytes], ...] = ()
    kept: tuple[str, ...] = ()
    share: float = 1


@dataclass(frozen=True)
class Outcome:
    """Outcome of a case.

    ``kind`` is ``refused`` or ``read`` (both fine), ``type`` (neither ValueError nor OSError), ``nameless`` (the
    message lacks the path), ``message`` (too long, or not UTF-8), ``memory``, ``time``, ``death`` or ``silent``.
    """

    target: str
    seed: int
    case: int
    kind: str
    detail: str

    @property
    def fine(self) -> bool:
        return self.kind in FINE

    def __str__(self) -> str:
        return (f'{self.kind}: {self.detail[:600]}\n    again: python tests/fuzz --only {self.target} '
                f'--seed {self.seed} --case {self.case} --keep FOLDER')


def load_targets(modules: Sequence[str] | None = None) -> dict[str, Target]:
    """Return the targets by name of all ``targets_*.py`` beside this file, or of the named modules."""
    if modules is None:
        modules = sorted(path.stem for path in Path(__file__).parent.glob('targets_*.py'))
    return {target.name: target for module in modules for target in importlib.import_module(module).TARGETS}


class Fuzzer:
    """Damaged files for one set of targets, and the worker that reads them.

    Args:
        modules: Modules beside this file, each with a list ``TARGETS``; all ``targets_*.py`` by default.
        seconds: Processor time of a case.
    """

    def __init__(self, modules: Sequence[str] | None = None, seconds: int = SECONDS):
        self.targets = load_targets(modules)
        self._folder = TemporaryDirectory(prefix='fuzz-')
        self.folder = Path(self._folder.name)
        self._paths = {}
        self._worker = subprocess.Popen([sys.executable, __file__, str(seconds), *(modules or [])],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._worker.stdin.close()
        self._worker.wait(WALL_SECONDS)
        self._folder.cleanup()

    def make(self, name: str, seed: int, case: int, folder: Path) -> Path:
        """Write the files of a case into a folder that does not exist yet, and return the path to read."""
        target, root, path = self.targets[name], self.folder / name, self._pristine(name)
        shutil.copytree(root, folder)
        rng = Random(f'{name}/{seed}/{case}')
        files = sorted(file for file in folder.rglob('*')
                       if file.is_file() and not any(file.match(pattern) for pattern in target.kept))
        file = rng.choice(files)
        mutation = rng.choice(target.damage) if target.damage and rng.random() < 0.25 else damage
        file.write_bytes(mutation(file.read_bytes(), rng))
        return folder / path.relative_to(root)

    def run(self, name: str, seed: int, case: int) -> Outcome:
        """Read one case in the worker."""
        folder = self.folder / 'case'
        shutil.rmtree(folder, ignore_errors=True)
        path = self.make(name, seed, case, folder)
        answer = self._ask(target=name, path=str(path), folder=f'{folder}{os.sep}', pristine=str(self._pristine(name)))
        return Outcome(name, seed, case, **answer)

    def _pristine(self, name: str) -> Path:
        """Return the path to read of the undamaged files of a target, writing them once."""
        if name not in self._paths:
            (self.folder / name).mkdir()
            self._paths[name] = self.targets[name].files(self.folder / name)
        return self._paths[name]

    def _ask(self, **request) -> dict:
        self._worker.stdin.write(json.dumps(request) + '\n')
        self._worker.stdin.flush()
        line = self._worker.stdout.readline()
        if not line:
            raise RuntimeError(f'the worker ended with {self._worker.wait()} at {request}; see its error above')
        return json.loads(line)


# The worker

def serve(seconds: int, modules: Sequence[str]) -> None:
    """Answer requests from stdin on stdout, in a child that is replaced when it dies."""
    output = os.dup(1)
    os.dup2(2, 1)  # what a reader prints may not mix with the answers
    warnings.simplefilter('ignore')
    targets = load_targets(modules or None)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        child = os.fork()
        if not child:
            _answer_requests(targets, output, seconds)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            return
        kind = {-signal.SIGXCPU: 'time', -signal.SIGALRM: 'time', -signal.SIGKILL: 'memory'}.get(status, 'death')
        _send(output, kind, f'the process ended with status {status} '
                            f'({signal.Signals(-status).name if status < 0 else "exit"})')


def _answer_requests(targets: dict[str, Target], output: int, seconds: int) -> None:
    warm = set()
    requests = os.fdopen(0, 'rb', buffering=0)
    while line := requests.readline():
        request = json.loads(line)
        target = targets[request['target']]
        if target.name not in warm:  # loads what the reader imports, and shows that the files are readable
            complaint = target.check(target.read(Path(request['pristine'])))
            assert complaint is None, f'{target.name}: undamaged files: {complaint}'
            warm.add(target.name)
        _limit(MEMORY, seconds)
        kind, detail = _outcome(target, Path(request['path']), request['folder'])
        _limit(None, None)
        _send(output, kind, detail)


def _send(output: int, kind: str, detail: str) -> None:
    os.write(output, (json.dumps({'kind': kind, 'detail': detail[:MAX_MESSAGE]}) + '\n').encode())


def _limit(memory: int | None, seconds: int | None) -> None:
    """Bound what the process may add to its address space and its processor time."""
    unlimited = resource.RLIM_INFINITY
    pages = int(Path('/proc/self/statm').read_text().split()[0])
    space = unlimited if memory is None else pages * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (space, unlimited))
    cpu = unlimited if seconds is None else int(time.process_time()) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, unlimited))
    signal.alarm(0 if seconds is None else WALL_SECONDS)


def _outcome(target: Target, path: Path, folder: str) -> tuple[str, str]:
    """Read a case, and name what became of it; a message may name any file of the case."""
    try:
        complaint = target.check(target.read(path))
    except MemoryError as error:
        return 'memory', f'MemoryError: {error} {_place_of(error)}'
    except BaseException as error:
        text = str(error)
        detail = f'{type(error).__name__}: {text[:MAX_MESSAGE // 2]!r} {_place_of(error)}'
        if not isinstance(error, (ValueError, OSError)) or isinstance(error, UnicodeError):
            return 'type', detail
        if str(path) not in text and folder not in text:
            return 'nameless', detail
        if len(text) > MAX_MESSAGE or text != text.encode('utf-8', 'replace').decode():
            return 'message', detail
        return 'refused', detail
    return ('silent', complaint) if complaint else ('read', '')


def _place_of(error: BaseException) -> str:
    """Return the innermost lines of the traceback, the library's own first."""
    places, traceback = [], error.__traceback__
    while traceback:
        code = traceback.tb_frame.f_code
        places.append(f'{Path(code.co_filename).name}:{traceback.tb_lineno}')
        traceback = traceback.tb_next
    return '(' + ' < '.join(reversed(places[-5:])) + ')'


if __name__ == '__main__':
    serve(int(sys.argv[1]), sys.argv[2:])
