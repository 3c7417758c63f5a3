import gc
import hashlib
import itertools
import os
import signal
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_safetensors

from clipgs_plugin.io.lock import FolderInUse
from clipgs_plugin.triplets import ShardReader, ShardWriter, rebuild_index


def write_object(writer: ShardWriter, i: int, random_cloud, **changes) -> None:
    views = np.random.default_rng(i).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    fields = dict(captions=[f'object {i}', dict(text=f'thing {i}', source='model')], category='ab'[i % 2],
                  split='train' if i < 5 else 'test', source=dict(file=f'{i}.glb'), attributes=dict(red=True))
    writer.write(f'uid-{i}', random_cloud(20 + i, seed=i), views, **{**fields, **changes})


def make(root, random_cloud, count: int = 7, **settings) -> Path:
    with ShardWriter(root, **{'objects_per_shard': 3, 'webp_quality': None, **settings}) as writer:
        for i in range(count):
            if f'uid-{i}' not in writer:
                write_object(writer, i, random_cloud)
    return root


def digests(root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(root.rglob('*')) if path.is_file()}


def test_the_reader_returns_the_written_objects(tmp_path, random_cloud):
    reader = ShardReader(make(tmp_path, random_cloud, dtype='float32', render=dict(size=8)))
    assert len(reader) == 7 and reader.uids == [f'uid-{i}' for i in range(7)]
    assert reader.categories == list('abababa') and reader.splits == ['train'] * 5 + ['test'] * 2
    assert reader.shards.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert reader.settings['counts'] == dict(objects=7, shards=3, gaussians=sum(range(20, 27)), captions=14,
                                             views_per_object=3, splits=dict(train=5, test=2), categories=2)
    assert reader.settings['render'] == dict(size=8)
    for i in (6, 0, 4):
        for name, value in random_cloud(20 + i, seed=i).fields():
            assert torch.equal(getattr(reader.read_gaussians(i), name), value)
        views = np.random.default_rng(i).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
        assert np.array_equal(reader.read_views(i), views)
        assert np.array_equal(reader.read_views(i, [2, 0]), views[[2, 0]])
        record = reader.read_record(i)
        assert [c['text'] for c in record['captions']] == [f'object {i}', f'thing {i}']
        assert record['source'] == dict(file=f'{i}.glb') and record['attributes'] == dict(red=True)


def test_shards_are_webdataset_samples_and_the_index_has_the_tar_offsets(tmp_path, random_cloud):
    """Webdataset groups neighbours with the same name up to the first dot."""
    import pyarrow.parquet as pq
    table = {row['uid']: row for row in pq.read_table(make(tmp_path, random_cloud) / 'index.parquet').to_pylist()}
    seen = []
    for path in sorted((tmp_path / 'shards').iterdir()):
        with tarfile.open(path) as tar:
            members = tar.getmembers()
            for member in members:
                assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, '', '')
            for uid, group in itertools.groupby(members, lambda m: m.name.split('.', 1)[0]):
                sample = {m.name.split('.', 1)[1]: m for m in group}
                assert list(sample) == ['gaussians.safetensors', '000.webp', '001.webp', '002.webp', 'json']
                assert set(load_safetensors(tar.extractfile(sample['gaussians.safetensors']).read())) >= {'means', 'sh'}
                row = table[uid]
                assert (row['record_offset'], row['record_size']) == (sample['json'].offset_data, sample['json'].size)
                assert row['view_offsets'] == [sample[f'{i:03d}.webp'].offset_data for i in range(3)]
                assert row['view_sizes'] == [sample[f'{i:03d}.webp'].size for i in range(3)]
                seen.append(uid)
    assert seen == [f'uid-{i}' for i in range(7)]


def test_the_same_input_gives_the_same_bytes(tmp_path, random_cloud):
    assert digests(make(tmp_path / 'a', random_cloud)) == digests(make(tmp_path / 'b', random_cloud))


def test_an_exception_drops_the_open_shard_alone_and_the_run_can_resume(tmp_path, random_cloud):
    whole = digests(make(tmp_path / 'whole', random_cloud))
    broken = tmp_path / 'broken'
    with pytest.raises(RuntimeError), ShardWriter(broken, objects_per_shard=3, webp_quality=None) as writer:
        for i in range(5):
            write_object(writer, i, random_cloud)
        raise RuntimeError
    assert sorted(path.name for path in (broken / 'shards').iterdir()) == ['00000.tar']
    with pytest.raises(FileNotFoundError, match='has not finished'):
        ShardReader(broken)
    assert digests(make(broken, random_cloud)) == whole


@pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='needs SIGKILL')
def test_a_killed_run_resumes_and_gives_the_same_bytes(tmp_path, random_cloud, root):
    whole = digests(make(tmp_path / 'whole', random_cloud))
    killed = tmp_path / 'killed'
    program = textwrap.dedent(f"""
        import os, signal, sys
        sys.path[:0] = [{str(root / 'tests')!r}, {str(Path(__file__).parent)!r}]
        from conftest import random_cloud
        from test_shards import ShardWriter, write_object
        writer = ShardWriter({str(killed)!r}, objects_per_shard=3, webp_quality=None)
        for i in range(5):
            write_object(writer, i, random_cloud)
        os.kill(os.getpid(), signal.SIGKILL)
        """)
    assert subprocess.run([sys.executable, '-c', program], cwd=tmp_path).returncode == -signal.SIGKILL
    assert sorted(path.name for path in (killed / 'shards').iterdir()) == ['00000.tar', '00001.tar.tmp']
    assert not (killed / 'index.parquet').exists()
    writer = ShardWriter(killed, objects_per_shard=3, webp_quality=None)
    assert [f'uid-{i}' in writer for i in range(5)] == [True, True, True, False, False]
    writer.abort()
    assert digests(make(killed, random_cloud)) == whole


def test_a_dataset_is_incomplete_while_a_run_appends_to_it(tmp_path, random_cloud):
    make(tmp_path, random_cloud, count=3)
    ShardWriter(tmp_path, objects_per_shard=3, webp_quality=None)
    with pytest.raises(FileNotFoundError, match='rebuild_index'):
        ShardReader(tmp_path)
    assert rebuild_index(tmp_path) == 3 and len(ShardReader(tmp_path)) == 3


@pytest.mark.parametrize('keep', ['half of a member', 'whole members'])
def test_a_truncated_shard_is_named_by_the_reader_and_by_rebuild_index(tmp_path, random_cloud, keep):
    reader = ShardReader(make(tmp_path, random_cloud))
    path = tmp_path / 'shards' / '00001.tar'
    with tarfile.open(path) as tar:
        members = tar.getmembers()
    last = members[-1]
    ends = last.offset_data + (last.size // 2 if keep.startswith('half') else -(-last.size // 512) * 512)
    os.truncate(path, ends)
    with pytest.raises(ValueError, match=r'00001\.tar is (truncated|not a complete tar)'):
        rebuild_index(tmp_path)
    if keep.startswith('half'):
        with pytest.raises(ValueError, match=r'00001\.tar is truncated: uid-5 lies at'):
            reader.read_record(5)
    assert reader.read_record(3)['uid'] == 'uid-3'


def test_settings_do_not_mix_in_a_dataset(tmp_path, random_cloud):
    make(tmp_path, random_cloud, count=1)
    with pytest.raises(ValueError, match=r"sh_degree: found 0, expected 3"):
        ShardWriter(tmp_path, objects_per_shard=3, webp_quality=None, sh_degree=3)


@pytest.mark.parametrize('changes, message', [
    (dict(captions=[]), 'at least one'), (dict(captions=['']), 'empty'),
    (dict(quality=dict(psnr=float('nan'))), 'JSON'),
    (dict(quality=dict(ssim='high')), r"quality \{'ssim': 'high'\}, expected numbers")])
def test_a_refused_object_leaves_no_traces(tmp_path, random_cloud, changes, message):
    with ShardWriter(tmp_path / 'with', objects_per_shard=3, webp_quality=None) as writer:
        write_object(writer, 0, random_cloud)
        with pytest.raises(ValueError, match=message):
            write_object(writer, 1, random_cloud, **changes)
        write_object(writer, 2, random_cloud)
    with ShardWriter(tmp_path / 'without', objects_per_shard=3, webp_quality=None) as writer:
        write_object(writer, 0, random_cloud)
        write_object(writer, 2, random_cloud)
    assert digests(tmp_path / 'with') == digests(tmp_path / 'without')


@pytest.mark.parametrize('uid', ['', 'a.b', 'a/b', 'a b', 'x' * 79])
def test_uids_that_do_not_fit_a_tar_member_are_refused(tmp_path, random_cloud, uid):
    writer = ShardWriter(tmp_path)
    with pytest.raises(ValueError, match='expected 1 to 78 letters'):
        writer.write(uid, random_cloud(2), captions=['x'])
    writer.write('x' * 78, random_cloud(2), captions=['x'])
    writer.close()
    assert ShardReader(tmp_path).read_record(0)['uid'] == 'x' * 78


def test_repeated_uids_and_other_numbers_of_views_are_refused(tmp_path, random_cloud):
    writer = ShardWriter(tmp_path)
    write_object(writer, 0, random_cloud)
    with pytest.raises(ValueError, match='already'):
        write_object(writer, 0, random_cloud)
    with pytest.raises(ValueError, match='2 views, the objects before it have 3'):
        writer.write('b', random_cloud(2), np.zeros((2, 8, 8, 3), np.uint8), captions=['x'])
    with pytest.raises(ValueError, match='expected \\(V, H, W, 3\\) uint8'):
        writer.write('c', random_cloud(2), np.zeros((3, 8, 8, 3), np.float32), captions=['x'])
    writer.abort()


def test_the_reader_limits_its_open_files(tmp_path, random_cloud, monkeypatch):
    monkeypatch.setattr(ShardReader, 'max_open_files', 2)
    reader = ShardReader(make(tmp_path, random_cloud))
    for i in (0, 3, 6, 0, 6, 3):
        assert reader.read_record(i)['uid'] == f'uid-{i}'
    assert len(reader._files) == 2


def test_a_closed_reader_reopens_its_files_and_a_deleted_one_closes_them(tmp_path, random_cloud, recwarn):
    reader = ShardReader(make(tmp_path, random_cloud))
    reader.read_record(0), reader.read_record(3)
    first = list(reader._files.values())
    reader.close()
    assert len(first) == 2 and all(file.closed for file in first)
    assert reader.read_record(3)['uid'] == 'uid-3'
    again = list(reader._files.values())
    del reader
    gc.collect()
    assert len(again) == 1 and again[0].closed
    assert not [warning for warning in recwarn if issubclass(warning.category, ResourceWarning)]


def test_a_folder_without_a_readable_dataset_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='ShardWriter'):
        ShardReader(tmp_path)
    (tmp_path / 'dataset.json').write_text('{"format": "clipgs-triplets", "version": 99}')
    with pytest.raises(ValueError, match='version 99'):
        ShardReader(tmp_path)


def overwrite(root: Path, member: str, edit) -> None:
    """Change bytes of a member of the first shard in place."""
    path = root / 'shards' / '00000.tar'
    with tarfile.open(path) as tar:
        info = tar.getmember(member)
        data = edit(tar.extractfile(info).read())
    assert len(data) == info.size
    with path.open('r+b') as file:
        file.seek(info.offset_data)
        file.write(data)


def nan_means(data: bytes) -> bytes:
    start = 8 + int.from_bytes(data[:8], 'little')
    return data[:start] + np.full((len(data) - start) // 4, np.nan, np.float32).tobytes()


@pytest.mark.parametrize('edit, message', [
    (nan_means, 'Gaussians of uid-0 cannot be read .*NaN or infinite'),
    (lambda data: bytes(len(data)), 'Gaussians of uid-0 cannot be read'),
    (lambda data: data.replace(b'log_scales', b'log_scalez'), 'Gaussians of uid-0 cannot be read .*log_scales'),
    (lambda data: data.replace(b'"shape":[20,3]', b'"shape":[3,20]'), 'Gaussians of uid-0 cannot be read .*shape')])
def test_gaussians_that_are_damaged_are_refused(tmp_path, random_cloud, edit, message):
    reader = ShardReader(make(tmp_path, random_cloud, dtype='float32'))
    overwrite(tmp_path, 'uid-0.gaussians.safetensors', edit)
    with pytest.raises(ValueError, match=rf'00000\.tar: the {message}.*download it again'):
        reader.read_gaussians(0)
    assert len(reader.read_gaussians(1)) == 21


def test_views_that_are_damaged_are_refused(tmp_path, random_cloud):
    reader = ShardReader(make(tmp_path, random_cloud))
    overwrite(tmp_path, 'uid-0.001.webp', lambda data: bytes(len(data)))
    with pytest.raises(ValueError, match=r'00000\.tar: the views of uid-0 cannot be read .*download it again'):
        reader.read_views(0)


def test_tar_headers_that_promise_too_much_or_name_no_object_are_refused(tmp_path, random_cloud):
    path = make(tmp_path, random_cloud, count=1) / 'shards' / '00000.tar'
    data = path.read_bytes()
    for name, size in (('uid-0.json', 2 ** 40), ('uid 0.json', 100), ('caf\udce9.json', 100)):
        info = tarfile.TarInfo(name)
        info.size = size
        path.write_bytes(info.tobuf(tarfile.GNU_FORMAT, errors='surrogateescape') + data)
        with pytest.raises(ValueError, match=r'00000\.tar is not a complete tar') as caught:
            rebuild_index(tmp_path)
        str(caught.value).encode()


def test_a_dataset_takes_one_writer_at_a_time(tmp_path, random_cloud):
    with ShardWriter(tmp_path) as writer:
        writer.write('a', random_cloud(2), captions=['x'])
        with pytest.raises(FolderInUse, match='in use by this process'):
            ShardWriter(tmp_path)
    with ShardWriter(tmp_path) as writer:
        assert 'a' in writer
    with pytest.raises(ValueError, match='other settings'):
        ShardWriter(tmp_path, sh_degree=2)
    ShardWriter(tmp_path).abort()
    assert not (tmp_path / '.lock').exists()
