"""Frozen features: what makes them stale, and batches of any size."""
import os
import zipfile
from pathlib import Path

import pytest
import torch

from clipgs_plugin import CLIPGSInferencer, write_gaussians
from clipgs_plugin.apis import frozen
from clipgs_plugin.io.archives import INDEX


@pytest.fixture(scope='module')
def clipgs():
    return CLIPGSInferencer('clipgs_toy')


@pytest.fixture
def zipped(tmp_path, random_cloud):
    """A set of three objects in a zip."""
    write_gaussians(random_cloud(60, seed=1), tmp_path / 'one.ply')
    root = tmp_path / 'set'
    root.mkdir()
    with zipfile.ZipFile(root / 'chair.zip', 'w') as archive:
        for i in range(3):
            archive.write(tmp_path / 'one.ply', f'chair/test/chair_{i:04d}/point_cloud.ply')
    return root


def test_features_of_archives_are_computed_once(clipgs, zipped, tmp_path, monkeypatch):
    dataset = dict(type='ModelNetSplats', root=str(zipped))
    first = frozen.frozen_features(clipgs, dataset, tmp_path / 'features.npz')
    assert (zipped / INDEX).is_file() and len(first) == 3
    monkeypatch.setattr(frozen, 'DataLoader', lambda *_, **__: pytest.fail('features were computed again'))
    again = frozen.frozen_features(clipgs, dataset, tmp_path / 'features.npz')
    assert torch.equal(again.embeddings, first.embeddings)
    os.utime(zipped / 'chair.zip', ns=(1, 1))
    assert frozen.fingerprint(clipgs, dataset) != first.fingerprint


def test_a_last_batch_of_one_has_the_features_of_a_full_batch(clipgs, zipped):
    dataset = dict(type='ModelNetSplats', root=str(zipped))
    by_two, at_once = (frozen.frozen_features(clipgs, dataset, batch_size=size) for size in (2, 3))
    assert by_two.uids == at_once.uids and by_two.fingerprint == at_once.fingerprint
    torch.testing.assert_close(by_two.embeddings, at_once.embeddings, rtol=0, atol=1e-5)


@pytest.mark.parametrize('kind', [str, Path])
def test_a_changed_list_makes_features_stale(clipgs, zipped, tmp_path, kind):
    labels = tmp_path / 'lvis.json'
    labels.write_text('[]')
    dataset = dict(type='ObjaverseLVIS', root=str(zipped), labels=kind(labels), split='all')
    first = frozen.fingerprint(clipgs, dataset)
    assert frozen.fingerprint(clipgs, dataset) == first
    labels.write_text('[1]')
    assert frozen.fingerprint(clipgs, dataset) != first
