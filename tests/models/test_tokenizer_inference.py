"""Chunks of patches at inference: how many there are, and that they give the whole."""
import pytest
import torch

from clipgs_plugin.models.tokenizers.inference import CHUNK_ROWS, in_chunks


@pytest.mark.parametrize(('patches', 'sizes'), [(5, [5]), (8, [8]), (11, [8, 3]), (20, [8, 8, 4])])
def test_a_chunk_on_a_cpu_has_as_many_gaussians_as_fit_into_the_cache(patches, sizes):
    x, seen = torch.arange(patches * (CHUNK_ROWS['cpu'] // 8)).view(patches, -1, 1), []

    def double(chunk):
        seen.append(len(chunk))
        return 2 * chunk
    assert torch.equal(in_chunks(double, x), 2 * x) and seen == sizes


def test_a_patch_beyond_the_cache_is_a_chunk_of_its_own():
    x, seen = torch.zeros(2, CHUNK_ROWS['cpu'] + 1, 1), []
    assert in_chunks(lambda chunk: seen.append(len(chunk)) or chunk, x).shape == x.shape and seen == [1, 1]


def test_other_devices_take_many_patches_at_once():
    seen = []
    in_chunks(lambda chunk: seen.append(len(chunk)) or chunk, torch.empty(1000, 64, 3, device='meta'))
    assert seen == [1000]
