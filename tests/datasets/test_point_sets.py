"""Published sets of points on small copies of their layouts."""
import json

import h5py
import numpy as np
import pytest
import torch

from clipgs_plugin.datasets.public.class_names import MODELNET40, SCANOBJECTNN, SHAPENET
from clipgs_plugin.datasets.public.point_sets import VARIANTS
from clipgs_plugin.registry import DATASETS

UIDS = [f'{number:032x}' for number in range(6)]


def build(type, **options):
    return DATASETS.build(dict(type=type, **options))


def sphere(seed, count=64):
    points = np.random.default_rng(seed).normal(size=(count, 3))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def write_h5(path, points, labels, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, 'w') as file:
        for name, value in dict(data=points, label=labels, **more).items():
            file.create_dataset(name, data=value, compression='gzip' if name == 'data' else None)


def test_modelnet40_in_hdf5(tmp_path):
    clouds = np.stack([sphere(seed) for seed in range(5)])
    write_h5(tmp_path / 'ply_data_train0.h5', clouds[:3], np.array([[0], [39], [8]], np.uint8), normal=clouds[:3])
    write_h5(tmp_path / 'ply_data_train1.h5', clouds[3:], np.array([[8], [23]], np.uint8))
    write_h5(tmp_path / 'ply_data_test0.h5', clouds[:1], np.array([[1]], np.uint8))
    (tmp_path / 'ply_data_train_0_id2file.json').write_text(json.dumps(
        ['airplane/airplane_0001.ply', 'xbox/xbox_0002.ply', 'chair/chair_0003.ply']))
    train = build('ModelNet40HDF5', root=tmp_path, split='train')
    assert train.classes == list(MODELNET40) and len(MODELNET40) == 40
    assert [(item['uid'], item['category'], item['label']) for item in train] == [
        ('airplane_0001', 'airplane', 0), ('xbox_0002', 'xbox', 39), ('chair_0003', 'chair', 8),
        ('ply_data_train1_0000', 'chair', 8), ('ply_data_train1_0001', 'night stand', 23)]
    for index in (1, 3):  # with the normals of the file, and with estimated ones
        cloud = train[index]['gaussians']
        assert np.array_equal(cloud.means.numpy(), clouds[index])
        assert torch.allclose(cloud.rgb, torch.full((64, 3), 0.4))
        thin = cloud.rotations[torch.arange(64), :, cloud.log_scales.argmin(-1)]
        cosines = (thin * cloud.means).sum(-1).abs()  # a sphere's normals are its points
        assert cosines.min() > (0.999 if index == 1 else 0.5) and cosines.median() > 0.9
    first = build('ModelNet40HDF5', root=tmp_path, split='train', num_points=16)[0]['gaussians']
    assert np.array_equal(first.means.numpy(), clouds[0, :16])
    assert [entry.uid for entry in build('ModelNet40HDF5', root=tmp_path).entries] == ['ply_data_test0_0000']


@pytest.mark.parametrize('variant', VARIANTS)
def test_scanobjectnn_in_every_variant(tmp_path, variant):
    for number, (folder, ending) in enumerate(VARIANTS.values()):
        for split, rows in (('training', 3), ('test', 2)):
            write_h5(tmp_path / 'h5_files' / folder / f'{split}_objectdataset{ending}.h5',
                     np.stack([sphere(10 * number + row) for row in range(rows)]), np.arange(rows) + number)
    place = list(VARIANTS).index(variant)
    test = build('ScanObjectNN', root=tmp_path, variant=variant)
    assert test.classes == list(SCANOBJECTNN) and len(test) == 2
    assert len(build('ScanObjectNN', root=tmp_path / 'h5_files', split='train', variant=variant)) == 3
    for row in range(2):
        item = test[row]
        assert np.array_equal(item['gaussians'].means.numpy(), sphere(10 * place + row))
        assert (item['uid'], item['label'], item['category']) == (
            f'{variant}/test/{row:05d}', row + place, SCANOBJECTNN[row + place])


def test_hdf5_that_is_damaged_or_leads_elsewhere_is_refused(tmp_path):
    path = tmp_path / 'ply_data_test0.h5'

    def refused(message):
        with pytest.raises(ValueError, match=message):
            build('ModelNet40HDF5', root=tmp_path)
    path.write_bytes(b'no hdf5')
    refused('damaged or not an HDF5 file')
    write_h5(path, sphere(0)[None], np.array([40]))
    refused('label runs from 40 to 40, expected 0 to 39')
    write_h5(path, sphere(0)[None], np.array([1, 2]))
    refused('label is int64 of shape')
    with h5py.File(path, 'w') as file:  # a header of 2 TB in a file of 2 kB
        file.create_dataset('data', (10 ** 8, 2048, 3), 'f4', chunks=(1, 2048, 3))
        file.create_dataset('label', (10 ** 8,), 'u1', chunks=(1024,))
    assert path.stat().st_size < 10_000
    refused('data has shape')
    write_h5(tmp_path / 'other.h5', sphere(0)[None], np.array([1]))
    with h5py.File(path, 'w') as file:
        file['data'] = h5py.ExternalLink('other.h5', 'data')
        file['label'] = np.array([1])
    refused('expected an array data')
    write_h5(path, np.full((1, 64, 3), np.nan, np.float32), np.array([1]))
    with pytest.raises(ValueError, match='ply_data_test0_0000 holds no points, or some that are not finite'):
        build('ModelNet40HDF5', root=tmp_path)[0]


def test_class_names_are_those_of_the_published_protocol(data):
    published = json.loads((data / 'labels' / 'labels.json').read_text())
    assert list(MODELNET40) == published['modelnet40_openshape']
    assert list(SCANOBJECTNN) == published['scanobjnn_openshape']
    assert len(SHAPENET) == len(set(SHAPENET.values())) == 55 and list(SHAPENET) == sorted(SHAPENET)


@pytest.mark.parametrize('shape', [(1, 64, 1), (1, 32, 3)])
def test_normals_that_do_not_fit_the_points_are_refused_by_file(tmp_path, shape):
    write_h5(tmp_path / 'ply_data_test0.h5', sphere(0)[None], np.array([[1]], np.uint8),
             normal=np.ones(shape, np.float32))
    with pytest.raises(ValueError, match=r'ply_data_test0\.h5: normal has'):
        build('ModelNet40HDF5', root=tmp_path)[0]
