"""Readers with one fault each, which show that the harness sees it."""
import ctypes
from pathlib import Path

import numpy as np
from harness import Target


def files(folder: Path) -> Path:
    path = folder / 'a.bin'
    path.write_bytes(bytes(range(64)))
    return path


def reader(act):
    """Return a reader that acts on damaged files only."""
    return lambda path: None if path.read_bytes() == bytes(range(64)) else act(path)


def refuse(path: Path):
    raise ValueError(f'{path}: damaged')


def nameless(path: Path):
    raise ValueError('damaged')


def surrogate(path: Path):
    raise ValueError(f'{path}: \ud800')


def wrong_type(path: Path):
    raise KeyError(str(path))


def allocate(path: Path):
    return np.ones(2 ** 31, np.uint8)


def wait(path: Path):
    while True:
        pass


def die(path: Path):
    ctypes.string_at(0)


TARGETS = [Target(name, files, reader(act), check) for name, act, check in [
    ('refused', refuse, lambda _: None), ('read', lambda path: 1, lambda _: None),
    ('nameless', nameless, lambda _: None), ('message', surrogate, lambda _: None),
    ('type', wrong_type, lambda _: None), ('memory', allocate, lambda _: None), ('time', wait, lambda _: None),
    ('death', die, lambda _: None), ('silent', lambda path: 1, lambda value: 'one' if value else None)]]
