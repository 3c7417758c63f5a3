"""Pickles of arrays: equal to numpy's own reading, and nothing else is read."""
import collections
import os
import pickle
import subprocess

import numpy as np
import pytest
import torch

from clipgs_plugin.io.pickles import read_pickle

FOLD = [(np.arange(48, dtype=np.float32).reshape(8, 6), 3, np.int32(17)), (np.ones((2, 3), '>f8'), 4, np.int32(-1))]
CONTENT = {
    'train': FOLD, 'fortran': np.asfortranarray(np.arange(12).reshape(3, 4)), 'flags': np.array([True, False]),
    'empty': np.zeros((0, 3)), 'names': np.array(['ab', 'ü']), 'text': 'a', 'none': None,
    'objects': np.array([{'xyz': np.eye(3)}, [1, 2.5]], object)}


def assert_same(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected):
            assert_same(one, other)
    elif isinstance(expected, np.ndarray) and expected.dtype.hasobject:
        assert found.shape == expected.shape
        assert_same(found.tolist(), expected.tolist())
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype and found.shape == expected.shape and np.array_equal(found, expected)
    else:
        assert found == expected


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_arrays_equal_those_that_were_pickled(tmp_path, protocol):
    path = tmp_path / 'a.pkl'
    path.write_bytes(pickle.dumps(CONTENT, protocol))
    assert_same(read_pickle(path), CONTENT)
    # As numpy 1 wrote it.
    older = path.read_bytes().replace(b'numpy._core', b'numpy.core') if protocol < 4 else path.read_bytes()
    assert_same(read_pickle(older), CONTENT)


def test_object_arrays_and_files_of_torch(tmp_path):
    item = {'xyz': np.random.default_rng(0).random((5, 3), np.float32), 'rgb': np.zeros((5, 3), np.float16)}
    np.save(tmp_path / 'a.npy', np.array(item, object), allow_pickle=True)
    assert_same(read_pickle(tmp_path / 'a.npy').item(), item)
    torch.save({'3dgs': item['xyz'], 'label': 'mug', 'human_prompt': ['a', 'b']}, tmp_path / 'a.pkl')
    assert_same(read_pickle(tmp_path / 'a.pkl'), {'3dgs': item['xyz'], 'label': 'mug', 'human_prompt': ['a', 'b']})
    shared = np.arange(3)
    first, second = read_pickle(pickle.dumps([shared, shared]))
    assert first is second


class Run:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('function, arguments, name', [
    (os.system, ('touch {}',), r'posix\.system|nt\.system'),
    (eval, ("open('{}', 'w')",), r'(builtins|__builtin__)\.eval'),
    (subprocess.getoutput, ('touch {}',), r'(subprocess|commands)\.getoutput'),
    (getattr, (np, 'load'), r'(builtins|__builtin__)\.getattr'),
    (collections.OrderedDict, (), r'collections\.OrderedDict')])
@pytest.mark.parametrize('protocol', [0, 2, 4, 5])
@pytest.mark.parametrize('kind', ['pickle', 'npy', 'torch'])
def test_anything_else_is_refused_by_name_and_does_not_run(tmp_path, function, arguments, name, protocol, kind):
    target = tmp_path / 'ran'
    hostile = Run(function, *(str(word).format(target) if isinstance(word, str) else word for word in arguments))
    if function is getattr:
        hostile = Run(getattr, 'text', 'upper')
    path = tmp_path / 'hostile'
    if kind == 'pickle':
        path.write_bytes(pickle.dumps([np.eye(2), hostile], protocol))
    elif kind == 'npy':
        with path.open('wb') as file:
            np.lib.format.write_array_header_1_0(file, dict(descr='|O', fortran_order=False, shape=()))
            pickle.dump(hostile, file, protocol)
    else:
        torch.save({'a': hostile}, path, pickle_protocol=max(protocol, 2))
    with pytest.raises(ValueError, match=rf'hostile: holds ({name}), which could run code'):
        read_pickle(path)
    assert not target.exists()


def test_damage_is_refused():
    whole = pickle.dumps(CONTENT, 4)
    for end in range(0, len(whole), 7):
        with pytest.raises(ValueError, match='a: damaged or not a pickle'):
            read_pickle(whole[:end], 'a')
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(whole)
        data[rng.integers(len(data))] = rng.integers(256)
        try:
            read_pickle(bytes(data), 'a')
        except ValueError as error:
            assert str(error).startswith('a: ')


def test_claims_beyond_the_file_are_refused_before_anything_is_allocated():
    array = pickle.dumps(np.zeros(4, np.float32), 2)
    assert array.count(b'K\x04\x85') == 1  # the shape (4,)
    with pytest.raises(ValueError, match=r'shape \(2147483647,\)'):
        read_pickle(array.replace(b'K\x04\x85', b'J\xff\xff\xff\x7f\x85'), 'a')
    with pytest.raises(ValueError, match='a place 4294967280'):
        read_pickle(b'\x80\x02]r\xf0\xff\xff\xff.', 'a')
    with pytest.raises(ValueError, match='damaged'):
        read_pickle(b'\x80\x05\x96' + (1 << 60).to_bytes(8, 'little') + b'abc.', 'a')
    with pytest.raises(ValueError, match=r'holds (a reference outside|the operation BINPERSID)'):
        read_pickle(b'\x80\x02K\x01Q.', 'a')
    nested = []
    for _ in range(100):
        nested = [nested]
    with pytest.raises(ValueError, match='deeper than 64'):
        read_pickle(pickle.dumps(nested), 'a')
    with pytest.raises(ValueError, match="type 'V8'"):
        read_pickle(pickle.dumps(np.zeros(2, [('x', 'f8')]), 2), 'a')


def test_a_header_that_python_cannot_parse_is_refused_by_name(tmp_path):
    np.save(tmp_path / 'a.npy', np.array([{'k': 1}], object), allow_pickle=True)
    data = bytearray((tmp_path / 'a.npy').read_bytes())
    data[data.index(b'}'[0])] = ord('(')
    (tmp_path / 'a.npy').write_bytes(data)
    with pytest.raises(ValueError, match=r'a\.npy: damaged'):
        read_pickle(tmp_path / 'a.npy')
