"""Digests of files, and arrays of clouds."""
import hashlib
import io

import numpy as np
import torch

from clipgs_plugin.io.files import arrays_from_cloud, cloud_from_arrays, sha256_of


def test_sha256_is_that_of_the_remaining_bytes():
    data = np.random.default_rng(0).bytes(3_000_001)  # several blocks
    file = io.BytesIO(data)
    assert sha256_of(file) == hashlib.sha256(data).hexdigest()
    file.seek(7)
    assert sha256_of(file) == hashlib.sha256(data[7:]).hexdigest()


def test_clouds_of_arrays_are_contiguous_float32_copies_and_back(random_cloud):
    arrays = {name: np.asfortranarray(value.double().numpy()) for name, value in random_cloud(9, sh_degree=1).fields()}
    cloud = cloud_from_arrays(**arrays)
    for name, value in cloud.fields():
        assert value.is_contiguous() and value.dtype == torch.float32
        np.testing.assert_array_equal(value, arrays[name].astype(np.float32))
    arrays['means'][:] = 0
    assert cloud.means.abs().max() > 0
    for name, value in arrays_from_cloud(cloud.to(torch.float64)).items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, getattr(cloud, name))
