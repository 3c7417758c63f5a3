"""The index: rebuilt from the shards, and read in its early form."""
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_shards import digests, make, write_object

from clipgs_plugin.triplets import ShardReader, ShardWriter, rebuild_index
from clipgs_plugin.triplets.inspection import inspect

QUALITY = [dict(psnr=30.0, psnr_foreground=25.0, ssim=0.9), {}, dict(psnr=31, lpips=0.1), dict(ssim=0.8)]


def make_measured(root: Path, random_cloud, count: int = len(QUALITY)) -> Path:
    """Write or continue a dataset of objects with some measurements, two per shard."""
    with ShardWriter(root, objects_per_shard=2, webp_quality=None) as writer:
        for i in range(count):
            if f'uid-{i}' not in writer:
                write_object(writer, i, random_cloud, quality=QUALITY[i])
    return root


def age_index(root: Path) -> None:
    """Rewrite the index in its early form, with the PSNR as ``quality`` and no other measure."""
    table = pq.read_table(root / 'index.parquet').drop_columns(['psnr_foreground', 'ssim'])
    table = table.rename_columns(['quality' if name == 'psnr' else name for name in table.column_names])
    pq.write_table(table, root / 'index.parquet')


def test_the_index_holds_the_measures_of_the_records(tmp_path, random_cloud):
    reader = ShardReader(make_measured(tmp_path, random_cloud))
    for name in ('psnr', 'psnr_foreground', 'ssim'):
        expected = [quality.get(name, np.nan) for quality in QUALITY]
        assert getattr(reader, name).dtype == np.float64
        assert np.array_equal(getattr(reader, name), expected, equal_nan=True)
        column = pq.read_table(tmp_path / 'index.parquet')[name]
        assert column.to_pylist() == [quality.get(name) for quality in QUALITY]


def test_an_early_index_is_read_and_has_no_problems(tmp_path, random_cloud):
    age_index(make_measured(tmp_path, random_cloud))
    reader = ShardReader(tmp_path)
    assert np.array_equal(reader.psnr, [30.0, np.nan, 31.0, np.nan], equal_nan=True)
    assert np.isnan(reader.psnr_foreground).all() and np.isnan(reader.ssim).all()
    assert inspect(tmp_path).problems == []


def test_an_early_index_with_a_wrong_psnr_is_found(tmp_path, random_cloud):
    age_index(make_measured(tmp_path, random_cloud))
    table = pq.read_table(tmp_path / 'index.parquet')
    rows = table.to_pylist()
    rows[0]['quality'] = 99.0
    pq.write_table(table.from_pylist(rows, table.schema), tmp_path / 'index.parquet')
    assert [str(problem) for problem in inspect(tmp_path).problems] == [
        'shard 00000, uid-0: index.parquet has psnr 99.0, the shard 30.0']


def test_rebuilding_an_early_index_adds_the_measures(tmp_path, random_cloud):
    expected = (make_measured(tmp_path, random_cloud) / 'index.parquet').read_bytes()
    age_index(tmp_path)
    rebuild_index(tmp_path)
    assert (tmp_path / 'index.parquet').read_bytes() == expected


@pytest.mark.parametrize('written', [2, 4])
def test_resuming_an_early_dataset_gives_the_same_bytes_as_a_new_one(tmp_path, random_cloud, written):
    """The columns that the early index lacks come from the records of its shards."""
    expected = digests(make_measured(tmp_path / 'new', random_cloud))
    early = make_measured(tmp_path / 'early', random_cloud, count=written)
    age_index(early)
    assert digests(make_measured(early, random_cloud)) == expected


def test_the_index_and_counts_are_rebuilt_from_the_shards_alone(tmp_path, random_cloud):
    before = digests(make(tmp_path, random_cloud))
    (tmp_path / 'index.parquet').unlink()
    settings = json.loads((tmp_path / 'dataset.json').read_text())
    del settings['counts']
    (tmp_path / 'dataset.json').write_text(json.dumps(settings))
    assert rebuild_index(tmp_path) == 7
    assert len(pq.read_table(tmp_path / 'index.parquet')) == 7
    assert ShardReader(tmp_path).settings['counts']['objects'] == 7
    assert digests(tmp_path)['index.parquet'] == before['index.parquet']


def test_separate_datasets_are_joined_by_moving_their_shards(tmp_path, random_cloud):
    one = make(tmp_path / 'one', random_cloud, count=4)
    with ShardWriter(tmp_path / 'two', objects_per_shard=3, webp_quality=None) as writer:
        for i in (4, 5):
            write_object(writer, i, random_cloud)
    os.replace(tmp_path / 'two' / 'shards' / '00000.tar', one / 'shards' / '00007.tar')
    assert rebuild_index(one) == 6
    reader = ShardReader(one)
    assert reader.shards.tolist() == [0, 0, 0, 1, 7, 7]
    assert [reader.read_record(i)['uid'] for i in range(6)] == [f'uid-{i}' for i in range(6)]
    (one / 'shards' / '00008.tar').write_bytes((one / 'shards' / '00007.tar').read_bytes())
    with pytest.raises(ValueError, match=r"2 objects more than once, the first 'uid-4'"):
        rebuild_index(one)


def edit_index(root: Path, edit) -> None:
    path = root / 'index.parquet'
    pq.write_table(edit(pq.read_table(path)), path)


def set_column(name: str, values):
    return lambda table: table.set_column(table.column_names.index(name), name, values)


@pytest.mark.parametrize('edit, message', [
    (lambda table: table.drop_columns('uid'), "column 'uid' is absent, expected string"),
    (set_column('uid', pa.array(range(7))), "column 'uid' is int64, expected string"),
    (set_column('gaussians_offset', pa.array([1.5] * 7)), "'gaussians_offset' is double"),
    (set_column('view_sizes', pa.array([3] * 7)), "'view_sizes' is int64"),
    (set_column('shard', pa.array([0] * 6 + [None], pa.int32())), "'shard' lacks values"),
    (set_column('view_sizes', pa.array([[1, 2, None]] * 7)), "'view_sizes' lacks values"),
    (set_column('record_offset', pa.array([-1] * 7)), "'record_offset' holds negative"),
    (set_column('view_offsets', pa.array([[1, 2, 3]] * 6 + [[1]])), "'view_offsets' has lists of different lengths"),
    (lambda table: pa.concat_tables([table] * 10_000), 'promises 210000 objects or views, the shards have room for')])
def test_an_index_of_another_kind_is_refused(tmp_path, random_cloud, edit, message):
    edit_index(make(tmp_path, random_cloud), edit)
    with pytest.raises(ValueError, match=rf'index\.parquet cannot be read \(it.*{message}.*rebuild_index'):
        ShardReader(tmp_path)


def test_an_index_that_is_damaged_or_cut_is_refused_with_the_remedy(tmp_path, random_cloud):
    path = make(tmp_path, random_cloud) / 'index.parquet'
    data = path.read_bytes()
    for damaged in (b'', data[:100], data[:-8], data[:60] + bytes(200) + data[260:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r'index\.parquet cannot be read .*rebuild_index'):
            ShardReader(tmp_path)


@pytest.mark.parametrize('edit, message', [
    (lambda record: b'[' * 100_000, 'nested deeper'), (lambda record: b'{"uid": NaN}', 'NaN is not a number'),
    (lambda record: json.dumps({**record, 'num_gaussians': 1.5}).encode(), 'num_gaussians is 1.5'),
    (lambda record: json.dumps({**record, 'captions': 'a chair'}).encode(), 'captions is'),
    (lambda record: json.dumps({**record, 'uid': 'uid-3'}).encode(), "is of object 'uid-3'"),
    (lambda record: json.dumps({**record, 'quality': {'psnr': 'high'}}).encode(), 'quality.psnr is')])
def test_a_record_of_another_kind_is_refused(tmp_path, random_cloud, edit, message):
    """By the scan, and by the reader, whose index still fits."""
    path = make(tmp_path, random_cloud, count=1) / 'shards' / '00000.tar'
    with tarfile.open(path) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar]
    with tarfile.open(path, 'w', format=tarfile.USTAR_FORMAT) as tar:
        for member, data in members:
            if member.name.endswith('.json'):
                data = edit(json.loads(data))
                member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with pytest.raises(ValueError, match=rf'00000\.tar: the record of uid-0.*{message}'):
        rebuild_index(tmp_path)
    edit_index(tmp_path, set_column('record_size', pa.array([member.size])))
    with pytest.raises(ValueError, match=rf'00000\.tar: the record of uid-0.*{message}'):
        ShardReader(tmp_path).read_record(0)


@pytest.mark.parametrize('settings, message', [
    (dict(sh_degree='3'), 'sh_degree is .3., expected an integer'), (dict(render=[]), 'render is a list'),
    (dict(counts=dict(objects=None, splits={})), 'counts.objects is None')])
def test_settings_of_other_types_are_refused(tmp_path, random_cloud, settings, message):
    path = make(tmp_path, random_cloud) / 'dataset.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    with pytest.raises(ValueError, match=rf'dataset\.json: {message}'):
        ShardReader(tmp_path)
