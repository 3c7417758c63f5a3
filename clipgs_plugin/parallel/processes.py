"""Executor of worker processes of this machine."""
from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Collection
from multiprocessing.connection import Connection, wait

import torch

from clipgs_plugin.parallel.order import Chunk, Make, ProcessDied, Stopped, TimedOut, with_time_limit

_EXIT_SECONDS = 10  # that a process may take to end after its pipe has closed


class ProcessExecutor:
    """Spawned processes with one thread each, started on demand.

    Every process has its own pipe. A process that is killed in the middle of a message closes its pipe, and cannot
    hold a lock that other processes wait for; with the shared pipes of common process pools, the run would hang.

    Args:
        make: Function that makes a chunk; it is pickled.
        workers: Number of processes.
        time_limit: Seconds of a step of an item; None sets no limit.
    """

    def __init__(self, make: Make, workers: int, time_limit: float | None) -> None:
        self.slots = workers
        self._make, self._time_limit = make, time_limit
        # Spawned, since a fork copies the locks of torch's threads without the threads.
        self._context = multiprocessing.get_context('spawn')
        self._processes: dict[Connection, multiprocessing.Process] = {}
        self._idle: list[Connection] = []
        self._starting: dict[Connection, Chunk] = {}  # with their first chunks
        self._began: dict[Connection, float] = {}
        self._stopped = False

    def submit(self, chunk: Chunk, alone: bool) -> Connection:
        self._check_stopped()
        while self._idle:
            pipe = self._idle.pop()
            try:
                self._send(pipe, chunk)
            except OSError:  # it has died while it was idle
                self._kill(pipe)
            else:
                return pipe
        pipe = self._start()
        self._check_stopped()  # stop() may have missed the process
        self._starting[pipe] = chunk  # sent when the process reads: a large chunk would block the next start
        return pipe

    def _send(self, pipe: Connection, chunk: Chunk) -> None:
        self._began[pipe] = time.monotonic()
        pipe.send(chunk)

    def _start(self) -> Connection:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._make, self._time_limit), daemon=True)
        process.start()
        theirs.close()
        self._processes[ours] = process
        return ours

    def next(self, in_progress: Collection[Connection]) -> tuple[Connection, list | ProcessDied | TimedOut]:
        while True:
            pipe = wait(list(in_progress))[0]
            self._check_stopped()
            try:
                answer = pipe.recv()
                if answer is None:  # the process is ready
                    self._send(pipe, self._starting.pop(pipe))
                    continue
            except (EOFError, OSError):
                self._check_stopped()
                if pipe in self._starting:
                    raise RuntimeError('a process ended before it began, for the reason above; a script that works '
                                       "with processes does so below `if __name__ == '__main__':`") from None
                return pipe, self._death(pipe)
            if isinstance(answer, Exception):
                raise answer
            self._idle.append(pipe)
            return pipe, answer

    def _death(self, pipe: Connection) -> ProcessDied | TimedOut:
        """Return the cause of a death: the time limit ends a process with status 1, signals with negative ones."""
        seconds, process = time.monotonic() - self._began[pipe], self._processes[pipe]
        process.join(_EXIT_SECONDS)
        timed_out = process.exitcode == 1 and self._time_limit and seconds >= self._time_limit
        self._kill(pipe)
        return TimedOut(self._time_limit) if timed_out else ProcessDied()

    def _kill(self, pipe: Connection) -> None:
        self._began.pop(pipe, None)
        process = self._processes.pop(pipe)
        process.kill()
        process.join()
        pipe.close()

    def _check_stopped(self) -> None:
        if self._stopped:
            raise Stopped

    def stop(self) -> None:
        self._stopped = True
        for process in list(self._processes.values()):
            process.kill()  # its pipe closes, which ends the wait of the other thread

    def close(self) -> None:
        for pipe in list(self._processes):
            self._kill(pipe)


def _serve(pipe: Connection, make: Make, time_limit: float | None) -> None:
    """Make chunks from a pipe with one thread, until the parent process ends."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C also reaches the parent, which kills this process
    threading.Thread(target=_exit_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    pipe.send(None)
    while True:
        chunk = pipe.recv()
        try:
            answer = with_time_limit(make, chunk, time_limit)
        except Exception as error:  # raised again by the parent
            answer = error
        pipe.send(answer)


def _exit_with(parent) -> None:
    parent.join()
    os._exit(1)
