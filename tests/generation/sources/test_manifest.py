import datetime
import json
import pickle

import numpy as np
import pytest
from PIL import Image

from clipgs_plugin import GaussianCloud
from clipgs_plugin.generation.objects import Points, PosedImages
from clipgs_plugin.generation.sources import detect_source
from clipgs_plugin.generation.sources.manifest import ManifestSource, source_type
from clipgs_plugin.generation.sources.points import PointSource
from clipgs_plugin.generation.sources.splats import SplatSource
from clipgs_plugin.io import write_gaussians

ASCII_PLY = 'ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n'


def texts(listed) -> list[str]:
    assert all(caption['source'] == 'manifest' for caption in listed.captions)
    return [caption['text'] for caption in listed.captions]


@pytest.fixture
def folder(tmp_path, random_cloud):
    (tmp_path / 'files').mkdir()
    np.save(tmp_path / 'files' / 'a.npy', np.arange(12.0).reshape(4, 3))
    write_gaussians(random_cloud(7), tmp_path / 'files' / 'b.spz')
    write_gaussians(random_cloud(8), tmp_path / 'files' / 'c.ply')
    (tmp_path / 'files' / 'd.ply').write_text(ASCII_PLY + 'end_header\n0 0 0\n1 0 0\n0 1 0\n')
    return tmp_path


def test_csv_with_every_column(folder):
    (folder / 'm.csv').write_text(
        '\ufeffuid,path,category,caption,captions,split,license,year\n'
        '001,files/a.npy,armchair,"a chair, red","[""one"", ""two"", ""one"", """"]",test,CC0,1999\n'
        'b/x,files/b.spz,,,only one,,,\n'
        'c,files/c.ply,,"two\nlines",,,,\n'
        'd,files/d.ply,,[not json,,,,\n')
    source = ManifestSource()
    listed = source.list(folder / 'm.csv')
    assert [x.uid for x in listed] == ['001', 'b_x', 'c', 'd']
    assert [x.category for x in listed] == ['armchair', None, None, None]
    assert [x.split for x in listed] == ['test', 'train', 'train', 'train']
    assert [texts(x) for x in listed] == [['a chair, red', 'one', 'two'], ['only one'], ['two\nlines'], ['[not json']]
    assert listed[0].attributes == dict(license='CC0', year='1999', original_uid='001')
    assert listed[1].attributes == dict(original_uid='b/x')
    content = [source.load(x) for x in listed]
    assert [type(x) for x in content] == [Points, GaussianCloud, GaussianCloud, Points]
    assert np.array_equal(content[0].positions, np.arange(12).reshape(4, 3))
    assert [len(content[1]), len(content[2]), len(content[3].positions)] == [7, 8, 3]


def test_parquet_with_renamed_columns(folder):
    import pyarrow as pa
    import pyarrow.parquet as pq
    pq.write_table(pa.table({
        'file': ['a.npy', 'nowhere/z.glb'], 'class': [3, None], 'texts': [['x', None, 'y'], []],
        'when': [datetime.date(2024, 5, 6), None], 'score': [0.5, float('nan')], 'tags': [[{'k': 1}], None],
    }), folder / 'm.parquet')
    source = ManifestSource(source=dict(type='PointSource', up='z'), files=folder / 'files',
                            columns=dict(path='file', category='class', captions='texts'))
    assert source.up == 'z'
    listed = source.list(folder / 'm.parquet')
    assert [x.uid for x in listed] == ['a', 'nowhere-z'] and [x.category for x in listed] == ['3', None]
    assert [texts(x) for x in listed] == [['x', 'y'], []]
    assert [x.attributes for x in listed] == [dict(when='2024-05-06', score=0.5, tags=[{'k': 1}]), {}]
    json.dumps([x.attributes for x in listed], allow_nan=False)
    assert isinstance(source.load(listed[0]), Points)
    with pytest.raises(FileNotFoundError, match=r'z\.glb: the file of nowhere-z does not exist'):
        source.load(listed[1])


def test_captions_as_a_json_list_without_a_header(folder):
    (folder / 'cap3d.csv').write_text('a,"[""A cup."", ""A mug, white.""]"\nb,"[""A plate.""]"\na,A bowl.\n')
    listed = ManifestSource(files=folder / 'files').list(folder / 'cap3d.csv')
    assert [texts(x) for x in listed] == [['A cup.', 'A mug, white.', 'A bowl.'], ['A plate.']]


def test_the_layout_of_cap3d(folder):
    (folder / 'files' / 'deep').mkdir()
    np.save(folder / 'files' / 'deep' / 'e.npy', np.zeros((2, 3)))
    (folder / 'files' / 'd.txt').write_text('1 2 3\n')  # d.ply comes before it
    (folder / 'cap3d.csv').write_text('e,"A small, white cup."\nd,A plate.\ngone,A ghost.\ne,A mug.\n')
    source = ManifestSource(files=folder / 'files')
    listed = source.list(folder / 'cap3d.csv')
    assert [x.uid for x in listed] == ['e', 'd', 'gone']
    assert [texts(x) for x in listed] == [['A small, white cup.', 'A mug.'], ['A plate.'], ['A ghost.']]
    assert [x.path.name for x in listed] == ['e.npy', 'd.ply', 'gone']
    assert len(source.load(listed[0]).positions) == 2
    with pytest.raises(FileNotFoundError, match='gone'):
        source.load(listed[2])
    present = ManifestSource(files=folder / 'files', only_present=True).list(folder / 'cap3d.csv')
    assert [x.uid for x in present] == ['e', 'd']


# Folders that are objects

NUMBERS = np.arange(48).reshape(4, 4, 3).astype(np.uint8) * 5


def write_images(folder, layout: str) -> None:
    """Write two images from 5 above the origin, along the default up axis of the layout's source."""
    (folder / 'images').mkdir(parents=True)
    for i in range(2):
        Image.fromarray(NUMBERS + i).save(folder / 'images' / f'{i}.png')
    if layout == 'nerf':
        matrix = np.eye(4)
        matrix[:3, 3] = 0, 0, 5
        frames = [dict(file_path=f'images/{i}.png', transform_matrix=matrix.tolist()) for i in range(2)]
        (folder / 'transforms.json').write_text(json.dumps(dict(fl_x=4, frames=frames)))
        return
    (folder / 'sparse/0').mkdir(parents=True)
    (folder / 'sparse/0/cameras.txt').write_text('1 SIMPLE_PINHOLE 4 4 4 2 2\n')
    (folder / 'sparse/0/images.txt').write_text(''.join(f'{i} 1 0 0 0 0 5 0 1 {i}.png\n\n' for i in range(2)))
    (folder / 'sparse/0/points3D.txt').write_text('1 0 -1 0 255 0 0 0.5\n')


@pytest.fixture
def captures(folder, random_cloud):
    write_images(folder / 'files' / 'shoe', 'nerf')
    write_images(folder / 'files' / 'cup', 'colmap')
    (folder / 'files' / 'sog').mkdir()
    write_gaussians(random_cloud(9), folder / 'files' / 'sog' / 'meta.json')
    return folder


def eyes(posed: PosedImages) -> np.ndarray:
    return np.stack([np.linalg.inv(viewmat.astype(np.float64))[:3, 3] for viewmat in posed.viewmats])


def test_rows_of_all_kinds_get_one_up_axis(captures):
    (captures / 'm.csv').write_text('path\nfiles/shoe\nfiles/cup\nfiles/a.npy\nfiles/sog\n')
    source = ManifestSource()
    assert source.up == 'y'
    shoe, cup, points, splat = map(source.load, source.list(captures / 'm.csv'))
    assert (type(points), type(splat)) == (Points, GaussianCloud)
    for posed in (shoe, cup):  # z and -y up in their files
        np.testing.assert_allclose(eyes(posed), [(0, 5, 0)] * 2, atol=1e-6)
        np.testing.assert_allclose(posed.images[1, ..., :3], (NUMBERS + 1) / 255, atol=1e-6)
    np.testing.assert_allclose(cup.points.positions, [(0, 1, 0)], atol=1e-6)
    assert np.array_equal(points.positions, np.arange(12).reshape(4, 3))
    source = ManifestSource(up='z')  # applies to all files, which the builder rotates
    shoe, cup, *_ = map(source.load, source.list(captures / 'm.csv'))
    np.testing.assert_allclose(eyes(shoe), [(0, 0, 5)] * 2, atol=1e-6)
    np.testing.assert_allclose(eyes(cup), [(0, -5, 0)] * 2, atol=1e-6)


def test_camera_files_stand_for_their_folders(captures):
    (captures / 'm.csv').write_text('path\nfiles/shoe/transforms.json\nfiles/cup/sparse/0/cameras.txt\n'
                                    'files/cup/sparse/0\nfiles/sog/meta.json\n')
    source = ManifestSource()
    shoe, cup, again, splat = map(source.load, source.list(captures / 'm.csv'))
    assert (type(shoe), type(splat)) == (PosedImages, GaussianCloud)
    np.testing.assert_array_equal(cup.viewmats, again.viewmats)
    (captures / 'm.csv').write_text('path\nfiles\n')
    with pytest.raises(ValueError, match=r'files: the folder has none of transforms\.json, .*name a file'):
        source.load(source.list(captures / 'm.csv')[0])


def test_captions_by_uid_find_folders(captures):
    (captures / 'files/lamp').mkdir()
    np.save(captures / 'files/lamp/model.npy', np.ones((3, 3)))
    (captures / 'files/many').mkdir()
    for name in ('one.npy', 'two.npy'):
        np.save(captures / 'files/many' / name, np.ones((3, 3)))
    (captures / 'cap3d.csv').write_text(''.join(
        f'{uid},A thing.\n' for uid in ('shoe', 'cup', 'sog', 'lamp', 'one', 'many')))
    source = ManifestSource(files=captures / 'files')
    listed = source.list(captures / 'cap3d.csv')
    assert [item.path.relative_to(captures / 'files').as_posix() for item in listed] == [
        'shoe', 'cup', 'sog', 'lamp/model.npy', 'many/one.npy', 'many']
    assert [type(source.load(item)) for item in listed[:5]] == [PosedImages, PosedImages, GaussianCloud, Points, Points]
    with pytest.raises(ValueError, match='many: the folder has none of'):
        source.load(listed[5])
    present = ManifestSource(files=captures / 'files', only_present=True).list(captures / 'cap3d.csv')
    assert [item.uid for item in present] == ['shoe', 'cup', 'sog', 'lamp', 'one']


def test_camera_files_decide_the_source_of_a_folder(captures, random_cloud):
    files = captures / 'files'
    assert detect_source(files / 'shoe') == detect_source(files / 'shoe/transforms.json') == 'nerf'
    assert detect_source(files / 'cup') == detect_source(files / 'cup/sparse/0/cameras.txt') == 'colmap'
    assert detect_source(files / 'sog') == detect_source(files / 'sog/meta.json') == 'splats'
    for i in range(1100):  # images that come before the model
        (files / 'cup/images' / f'{i:04d}.jpg').touch()
    np.save(files / 'cup/points.npy', np.zeros((3, 3)))
    assert detect_source(files / 'cup') == 'colmap'
    write_images(files / 'cup/.cache', 'nerf')  # hidden folders are not listed either
    assert detect_source(files / 'cup') == 'colmap'
    for name in ('transforms_old.json', 'notes.txt', 'images.csv'):
        (files / 'sog' / name).write_text('{}')
    assert detect_source(files / 'sog') == 'splats'
    assert detect_source(files) == 'nerf'  # of both, the first


def test_rows_are_sliced_and_pickled(folder):
    (folder / 'm.csv').write_text('uid,path\n' + ''.join(f'o{i},files/a.npy\n' for i in range(10)))
    rows = ManifestSource().list(folder / 'm.csv')
    assert [x.uid for x in rows[3::4]] == ['o3', 'o7'] and rows[-1].uid == 'o9' and len(rows[:0]) == 0
    assert [x.uid for x in pickle.loads(pickle.dumps(rows[8:]))] == ['o8', 'o9']
    with pytest.raises(IndexError):
        rows[10]


def test_tsv(folder):
    (folder / 'm.tsv').write_text('path\tcaption\nfiles/a.npy\tone, two\n')
    listed, = ManifestSource().list(folder / 'm.tsv')
    assert listed.uid == 'files-a' and texts(listed) == ['one, two']


@pytest.mark.parametrize('text, reason', [
    ('', 'the manifest is empty'),
    ('uid,path\na,x.glb\nb,y.glb\na,z.glb\n', '1 uids are repeated: a; give'),
    ('uid,path\na b,x.glb\na?b,y.glb\n', r'a b and a\?b'),
    ('uid,path\na,x.glb\nb\n', 'line 3: 1 values, expected 2'),
    ('uid,path\na,x.glb,1\n', 'line 2: 3 values, expected 2'),
    ('uid,path\na,\n', '1 rows have no path, the first is row 1'),
    ('uid,path\na,x\n,y\n', '1 rows have no uid, the first is row 2'),
    ('object_id,caption\na,x\n', "none of its columns .* is 'uid' or 'path'"),
    ('id,file,class\na,x,y\n', "neither 'uid' nor 'path'"),
    ('uid,path,path\na,x,y\n', 'names a column twice'),
    ('uid,path\na,"x\n', 'not a table in UTF-8'),
])
def test_bad_tables_are_refused_with_a_reason(tmp_path, text, reason):
    (tmp_path / 'm.csv').write_text(text)
    with pytest.raises(ValueError, match=reason) as error:
        ManifestSource().list(tmp_path / 'm.csv')
    assert str(tmp_path / 'm.csv') in str(error.value)


def test_other_files_are_refused(tmp_path):
    (tmp_path / 'm.csv').write_bytes(b'uid,path\na,\xff\xfe\n')
    (tmp_path / 'm.parquet').write_bytes(b'nonsense')
    (tmp_path / 'm.xlsx').write_bytes(b'')
    for name, reason in (('m.csv', 'UTF-8'), ('m.parquet', 'not a Parquet table'), ('m.xlsx', 'ends in .csv')):
        with pytest.raises(ValueError, match=reason):
            ManifestSource().list(tmp_path / name)
    with pytest.raises(FileNotFoundError, match='no such manifest'):
        ManifestSource().list(tmp_path)
    with pytest.raises(ValueError, match='columns names id, expected uid'):
        ManifestSource(columns=dict(id='uid'))


def test_every_ending_has_its_source(tmp_path, random_cloud):
    for name in ('a.glb', 'b.OBJ', 'c.stl', 'd.xyz', 'e.pcd', 'f.splat', 'g.sog', 'h.compressed.ply'):
        (tmp_path / name).write_bytes(b'x')
    (tmp_path / 'sog').mkdir()
    write_gaussians(random_cloud(5), tmp_path / 'sog' / 'meta.json')
    write_gaussians(random_cloud(5), tmp_path / 'i.ply')
    points = ASCII_PLY + 'end_header\n0 0 0\n1 0 0\n0 1 0\n'
    faces = ASCII_PLY + 'element face {}\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n1 0 0\n0 1 0\n'
    (tmp_path / 'j.ply').write_text(points)
    (tmp_path / 'k.ply').write_text(faces.format(1) + '3 0 1 2\n')
    (tmp_path / 'l.ply').write_text(faces.format(0))
    found = ''.join(source_type(path)[0] for path in sorted(tmp_path.iterdir()))
    assert found == 'MMMPPSSSSPMPS'  # a to l, and the folder
    for name, content, reason in (('m.docx', b'x', 'no source reads this ending'), ('n.ply', b'', 'the file is empty'),
                                  ('o.ply', b'x', 'not a PLY file')):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=reason):
            source_type(tmp_path / name)


def test_the_up_axis_reaches_the_sources_of_all_endings(folder):
    (folder / 'm.csv').write_text('path\nfiles/a.npy\nfiles/b.spz\n')
    source = ManifestSource(up='-z')
    for x in source.list(folder / 'm.csv'):
        source.load(x)
    assert {type(s): s.up for s in source._sources.values()} == {PointSource: '-z', SplatSource: '-z'}


def test_a_parquet_manifest_whose_text_is_no_text_is_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    damaged = pa.array([b'a\xff.ply']).view(pa.string())
    pq.write_table(pa.table(dict(path=damaged)), tmp_path / 'm.parquet')
    with pytest.raises(ValueError, match=r'm\.parquet: not a Parquet table') as caught:
        ManifestSource().list(tmp_path / 'm.parquet')
    assert not isinstance(caught.value, UnicodeError)
