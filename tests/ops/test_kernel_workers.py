"""Kernels in data loader workers, forked and spawned, and in other processes."""
import multiprocessing

import pytest
import torch
from conftest import START_METHODS, run_python
from torch.utils.data import DataLoader, Dataset

from clipgs_plugin import ops


def object_points(index: int) -> torch.Tensor:
    return torch.rand(2, 800, 3, generator=torch.Generator().manual_seed(index))


def patches(index: int) -> torch.Tensor:
    points = object_points(index)
    centers, neighbors = ops.group(points, 32, 8, start='farthest')
    order = ops.canonical_order(points)
    return torch.cat([centers.flatten(), neighbors.flatten(), order.flatten()])


class Patches(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return patches(index)


@pytest.fixture
def two_threads(set_threads):
    """Run kernels and torch's loops on several threads of the parent before workers start."""
    set_threads(2)
    torch.rand(200_000).sort()
    ops.group(torch.rand(4, 2000, 3), 64, 16)


@pytest.mark.parametrize('method', START_METHODS)
def test_loader_workers_survive_and_agree(method, two_threads):
    loader = DataLoader(Patches(), batch_size=None, num_workers=2, multiprocessing_context=method, timeout=120)
    found = list(loader)
    ops.group(torch.rand(4, 2000, 3), 64, 16)  # the parent still works
    expected = [patches(index) for index in range(6)]
    assert all(torch.equal(a, b) for a, b in zip(found, expected)) and len(found) == 6


def _group_on_two_threads(result):
    torch.set_num_threads(2)
    result.put([x.sum().item() for x in ops.group(object_points(0).repeat(3, 1, 1), 32, 8)])


@pytest.mark.skipif('fork' not in START_METHODS, reason='this system does not fork')
def test_forked_process_can_start_its_own_threads(two_threads):
    context = multiprocessing.get_context('fork')
    result = context.SimpleQueue()
    process = context.Process(target=_group_on_two_threads, args=(result,), daemon=True)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert result.get() == [x.sum().item() for x in ops.group(object_points(0).repeat(3, 1, 1), 32, 8)]


def test_numba_is_imported_when_first_used():
    code = ('import sys, clipgs_plugin.ops; print("numba" in sys.modules); import torch; '
            'clipgs_plugin.ops.knn(torch.rand(1, 4, 3), torch.rand(1, 1, 3), 2); print("numba" in sys.modules)')
    assert run_python(code).split() == ['False', 'True']


def test_kernel_compiles_without_a_writable_cache(tmp_path):
    # Neither the folder of the source nor the user's cache folder is writable.
    module = tmp_path / 'locked' / 'increment.py'
    module.parent.mkdir()
    module.write_text('from clipgs_plugin.ops.kernels.jit import kernel\n\n\n'
                      "@kernel('int64(int64)')\ndef increment(x):\n    return x + 1\n")
    code = ('import numba, os, sys, tempfile\n'
            f'sys.path.insert(0, {str(module.parent)!r})\n'
            'def refuse(*args, **kwargs): raise PermissionError("read-only")\n'
            'tempfile.TemporaryFile = os.makedirs = refuse\n'
            'from increment import increment\n'
            'try: numba.njit(cache=True)(increment.py_func)\n'
            'except RuntimeError: print("numba alone refuses,", "with kernel 1 + 1 =", increment(1))')
    assert run_python(code, PYTHONDONTWRITEBYTECODE='1', NUMBA_CACHE_DIR='').endswith('with kernel 1 + 1 = 2')
