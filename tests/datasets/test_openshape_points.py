"""Objaverse-LVIS and Amazon Berkeley Objects as points, on small copies of the layouts of their publishers."""
import gzip
import io
import json
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from clipgs_plugin.datasets.public import split_of_uid
from clipgs_plugin.datasets.public.abo import PARTS, read_abo_types
from clipgs_plugin.datasets.transforms import up_matrix
from clipgs_plugin.registry import DATASETS

UIDS = [f'{number:032x}' for number in range(6)]
MODELS = ['B07B4W2DYF', 'B07VPNX3QL', 'B075X2FZSM', 'B07DBHLX1W', 'B01N2P9OTY']


def build(type, **options):
    return DATASETS.build(dict(type=type, **options))


def sphere(seed, count=64):
    points = np.random.default_rng(seed).normal(size=(count, 3))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def object_npy(**content):
    """Return an object of OpenShape: a pickled dict in an array without dimensions."""
    file = io.BytesIO()
    np.save(file, np.array(content, object), allow_pickle=True)
    return file.getvalue()


def openshape_object(seed, uid, dataset):
    """Return an object with the keys of OpenShape's files, features of fewer dimensions."""
    text = {'original': np.ones((1, 4), np.float32), 'prompt_avg': np.ones((1, 4), np.float32)}
    return object_npy(
        dataset=dataset, group=dataset, id=uid, xyz=sphere(seed), rgb=np.full((64, 3), 0.25, np.float32),
        image_feat=np.ones((12, 4), np.float32), text=['a thing'], text_feat=[text], blip_caption='a thing',
        blip_caption_feat=text, msft_caption='', msft_caption_feat={}, retrieval_text=[], retrieval_text_feat=[])


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, 'w') as archive:
        for name, data in members.items():
            item = tarfile.TarInfo(name)
            item.size = len(data)
            archive.addfile(item, io.BytesIO(data))


@pytest.fixture
def colors():
    return np.random.default_rng(0).random((64, 3)).astype(np.float32)


@pytest.fixture
def lvis(tmp_path, colors):
    """Points in a tar and in the folder, of all listed objects but the last; colours also as 0 to 255."""
    points = {uid: object_npy(xyz=sphere(i), rgb=colors if i % 2 else np.round(colors * 255))
              for i, uid in enumerate(UIDS[:5])}
    tar(tmp_path / 'lvis' / '000-000.tar', {f'000-000/{uid}.npy': points[uid] for uid in UIDS[:3]})
    for uid in UIDS[3:5]:
        put(tmp_path / 'lvis' / f'{uid}.npy', points[uid])
    rows = [dict(uid=uid, category=('mug', 'Band_Aid')[i % 2], group='000-000', data_path=f'x/{uid}.npy')
            for i, uid in enumerate(UIDS)]
    put(tmp_path / 'lvis.json', json.dumps(rows).encode())
    return tmp_path / 'lvis'


def test_objaverse_lvis_of_openshape(lvis, colors):
    labels = lvis.with_suffix('.json')
    dataset = build('ObjaverseLVIS', root=lvis, labels=labels)
    assert dataset.classes == ['Band_Aid', 'mug'] and dataset.absent == [UIDS[5]]
    assert [(item['uid'], item['label']) for item in dataset] == [(uid, 1 - i % 2) for i, uid in enumerate(UIDS[:5])]
    for i in range(5):
        cloud = dataset[i]['gaussians']
        assert np.array_equal(cloud.means.numpy(), sphere(i))
        assert torch.allclose(cloud.rgb, torch.from_numpy(colors), atol=2.5e-3)
    turned = build('ObjaverseLVIS', root=lvis, labels=labels, up='z')
    assert torch.allclose(turned[0]['gaussians'].means, torch.from_numpy(sphere(0)) @ up_matrix('z', 'y').T.float(),
                          atol=1e-6)


def test_objaverse_lvis_as_plain_tables(lvis, colors):
    np.save(lvis / f'{UIDS[5]}.npy', np.concatenate([sphere(5), colors], 1))
    plain = build('ObjaverseLVIS', root=lvis, labels=lvis.with_suffix('.json'))
    assert torch.allclose(plain[5]['gaussians'].rgb, torch.from_numpy(colors), atol=1e-6)
    np.save(lvis / f'{UIDS[5]}.npy', np.array([1, 'a'], object), allow_pickle=True)
    with pytest.raises(ValueError, match='expected a dict with xyz and rgb'):
        plain[5]


def test_objaverse_lvis_of_uni3d(tmp_path, colors):
    """One zip with the list beside the points, which lie in folders by their chunk."""
    rows = [(3, 'mug', UIDS[0]), (1, 'hat, felt', UIDS[1]), (3, 'mug', UIDS[2])]
    with zipfile.ZipFile(tmp_path / 'objaverse_lvis.zip', 'w', zipfile.ZIP_DEFLATED) as archive:
        for i, (_, _, uid) in enumerate(rows[:2]):
            archive.writestr(f'objaverse_lvis/000-00{i}/{uid}.npy', openshape_object(i, uid, 'Objaverse'))
    listed = ''.join(f'{label},{name},{uid},/000-00{i}/{uid}.npy\n' for i, (label, name, uid) in enumerate(rows))
    put(tmp_path / 'lvis_testset.txt', listed.encode())
    dataset = build('ObjaverseLVIS', root=tmp_path, labels=tmp_path / 'lvis_testset.txt')
    assert dataset.classes == ['hat, felt', 'mug'] and dataset.absent == [UIDS[2]]
    assert [(item['uid'], item['category'], item['label']) for item in dataset] == [
        (UIDS[0], 'mug', 1), (UIDS[1], 'hat, felt', 0)]
    for i, item in enumerate(dataset):
        assert np.array_equal(item['gaussians'].means.numpy(), sphere(i))
        assert torch.allclose(item['gaussians'].rgb, torch.full((64, 3), 0.25))


def test_objaverse_lvis_of_ulip(tmp_path, colors):
    """Categories in one file, paths of fewer objects in another, whose names need not be the uids."""
    names = {UIDS[0]: '000-009/first.npy', UIDS[1]: f'000-010/{UIDS[1]}.npy'}
    for i, name in enumerate(names.values()):
        put(tmp_path / 'points' / name, object_npy(xyz=sphere(i).astype(np.float64), rgb=colors))
    put(tmp_path / 'lvis.json', json.dumps(names).encode())
    put(tmp_path / 'objaverse_lvis_metadata.json', json.dumps(dict(
        value_to_key_mapping={UIDS[1]: 'mug', UIDS[0]: 'Band_Aid', UIDS[2]: 'zebra'},
        key_to_id={'Band_Aid': 0, 'mug': 1, 'zebra': 2}, all_keys=['Band_Aid', 'mug', 'zebra'])).encode())
    dataset = build('ObjaverseLVIS', root=tmp_path / 'points', labels=tmp_path / 'objaverse_lvis_metadata.json')
    assert dataset.classes == ['Band_Aid', 'mug', 'zebra'] and dataset.absent == [UIDS[2]]
    assert [(item['uid'], item['label']) for item in dataset] == [(UIDS[1], 1), (UIDS[0], 0)]
    assert np.array_equal(dataset[1]['gaussians'].means.numpy(), sphere(0))
    assert torch.allclose(dataset[0]['gaussians'].rgb, torch.from_numpy(colors), atol=1e-6)


def test_points_that_are_not_those_of_the_list_are_named(tmp_path):
    labels = tmp_path / 'lvis_testset.txt'
    put(labels, f'0,mug,{UIDS[0]},/{UIDS[0]}.npy\n'.encode())
    with pytest.raises(ValueError, match=f'holds no points, expected files UID.npy, such as {UIDS[0]}'):
        build('ObjaverseLVIS', root=tmp_path, labels=labels)
    put(tmp_path / 'points' / 'chair_0001.npy', b'')
    with pytest.raises(ValueError, match=r'holds 1 \.npy files such as chair_0001\.npy, none of them of the 1 listed'):
        build('ObjaverseLVIS', root=tmp_path, labels=labels)
    put(tmp_path / '000-000.tar.gz', b'x')
    with pytest.raises(ValueError, match=r'000-000\.tar\.gz and other \.tar\.gz archives cannot be read at random'):
        build('ObjaverseLVIS', root=tmp_path, labels=labels)


def listing(uid, *types, **more):
    """Return a row of ABO's listings."""
    return {'item_id': f'I{uid}', 'brand': [{'language_tag': 'en_US', 'value': 'Rivet'}], 'country': 'US',
            'item_name': [{'language_tag': 'de_DE', 'value': 'Sessel für alle'}], '3dmodel_id': uid,
            'product_type': [{'value': name} for name in types], **more}


def packed(rows):
    return gzip.compress(''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows).encode())


@pytest.fixture
def listings():
    """The 16 files by their names: listings of five models, and of products without one."""
    rows = {part: [{'item_id': f'X{part}', 'product_type': [{'value': 'SHOES'}]}] for part in PARTS}
    rows['0'] += [listing(MODELS[0], 'CHAIR'), listing(MODELS[1], 'OFFICE_CHAIR')]
    rows['3'] += [listing(MODELS[0], 'SOFA', country='DE'), listing(MODELS[2], 'LAMP')]
    rows['a'] += [listing(MODELS[0], 'SOFA', country='IN'), listing(MODELS[1], 'CHAIR', country='GB')]
    rows['f'] += [listing(MODELS[3], 'LAMP'), listing(MODELS[4])]
    return {f'listings/metadata/listings_{part}.json.gz': packed(content) for part, content in rows.items()}


def points_of_abo(root, seeds=(0, 1, 3)):
    tar(root / 'ABO.tar', {f'ABO/{MODELS[i]}.npy': openshape_object(i, MODELS[i], 'ABO') for i in seeds})


def test_abo_points_have_the_product_types_of_their_listings(tmp_path, listings):
    """Model 0 is a sofa in two of three countries; model 1 is tied, and chair comes before office chair."""
    points_of_abo(tmp_path)
    put(tmp_path / 'B0UNLISTED.npy', openshape_object(9, 'B0UNLISTED', 'ABO'))
    tar(tmp_path / 'abo-listings.tar', {'LICENSE-CC-BY-4.0.txt': b'x', **listings})
    dataset = build('ABOPoints', root=tmp_path)
    assert dataset.classes == ['chair', 'lamp', 'sofa'] and dataset.absent == [MODELS[2]]
    assert [(item['uid'], item['category'], item['label'], item['caption']) for item in dataset] == [
        ('B07B4W2DYF', 'sofa', 2, 'a sofa'), ('B07DBHLX1W', 'lamp', 1, 'a lamp'), ('B07VPNX3QL', 'chair', 0, 'a chair')]
    for item, seed in zip(dataset, (0, 3, 1)):
        assert np.array_equal(item['gaussians'].means.numpy(), sphere(seed))
        assert torch.allclose(item['gaussians'].rgb, torch.full((64, 3), 0.25))


def test_abo_is_divided_by_the_rule_and_reads_listings_elsewhere(tmp_path, listings):
    points_of_abo(tmp_path / 'points', range(4))
    for name, data in listings.items():
        put(tmp_path / 'elsewhere' / name, data)
    options = dict(root=tmp_path / 'points', listings=tmp_path / 'elsewhere')
    parts = {split_of_uid(uid) for uid in MODELS[:4]}
    assert len(parts) > 1
    for split in parts:
        assert [entry.uid for entry in build('ABOPoints', split=split, **options).entries] == sorted(
            uid for uid in MODELS[:4] if split_of_uid(uid) == split)
    kept = build('ABOPoints', classes=['sofa'], **options)
    assert [(item['uid'], item['label']) for item in kept] == [(MODELS[0], 0)]
    with pytest.raises(FileNotFoundError, match=r'lacks listings_0\.json\.gz.* put abo-listings\.tar there'):
        build('ABOPoints', root=tmp_path / 'points')
    (tmp_path / 'elsewhere' / 'listings' / 'metadata' / 'listings_c.json.gz').unlink()
    with pytest.raises(FileNotFoundError, match=r'lacks listings_c\.json\.gz of the 16 files'):
        build('ABOPoints', **options)


@pytest.mark.parametrize('damaged, message', [
    (b'no gzip', 'Not a gzipped file'),
    (packed([listing('a', 'SOFA')])[:-12], 'ended before the end-of-stream'),
    (gzip.compress(b'{"3dmodel_id": \n'), 'line 1: not valid JSON'),
    (packed([{'3dmodel_id': ['a']}]), 'line 1: 3dmodel_id is a list of 1, expected a string'),
    (packed([{'3dmodel_id': 'a', 'product_type': 'SOFA'}]), 'line 1: product_type is'),
    (gzip.compress(b'{"3dmodel_id": "' + b'a' * (1 << 20)), 'line 1 is longer than 1048576 bytes'),
    (gzip.compress(b'\n' * (1 << 24)), 'made to fill the memory'),
])
def test_damaged_listings_are_refused_by_name(tmp_path, listings, damaged, message):
    for name, data in {**listings, 'listings/metadata/listings_7.json.gz': damaged}.items():
        put(tmp_path / name, data)
    with pytest.raises(ValueError, match=rf'listings_7\.json\.gz is damaged \(.*{message}'):
        read_abo_types(tmp_path)


def test_abo_points_run_no_code(tmp_path, listings):
    class Hostile:
        def __reduce__(self):
            return eval, (f"open({str(tmp_path / 'ran')!r}, 'w')",)
    put(tmp_path / f'{MODELS[0]}.npy', object_npy(xyz=sphere(0), rgb=sphere(0), extra=Hostile()))
    tar(tmp_path / 'abo-listings.tar', listings)
    dataset = build('ABOPoints', root=tmp_path)
    with pytest.raises(ValueError, match=rf'{MODELS[0]}\.npy: holds \w+\.eval, which could run code'):
        dataset[0]
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('content, message', [
    (np.float32(3), r'an array of shape \(\), expected a table of 3 or 6 columns'),
    (dict(xyz=sphere(0), rgb=sphere(0)[:4]), 'rgb has 4 rows, expected 64 finite ones'),
    (dict(xyz=sphere(0), rgb=np.full((64, 3), np.nan, np.float32)), 'rgb has 64 rows, expected 64 finite ones'),
    (dict(xyz=[[0, 0, 0]]), 'expected xyz and rgb as tables of 3 columns')])
def test_other_points_are_refused_by_folder_and_file(tmp_path, content, message):
    file = io.BytesIO()
    np.save(file, np.array(content, object) if isinstance(content, dict) else content, allow_pickle=True)
    put(tmp_path / f'{UIDS[0]}.npy', file.getvalue())
    put(tmp_path / 'list.txt', f'0,mug,{UIDS[0]},/{UIDS[0]}.npy\n'.encode())
    dataset = build('ObjaverseLVIS', root=tmp_path, labels=tmp_path / 'list.txt')
    with pytest.raises(ValueError, match=rf'{tmp_path}: {UIDS[0]}\.npy: {message}'):
        dataset[0]
    with pytest.raises(ValueError, match="needs labels=, the list of its objects: OpenShape's"):
        build('ObjaverseLVIS', root=tmp_path)
