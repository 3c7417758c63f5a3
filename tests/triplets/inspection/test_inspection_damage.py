"""Inspection of damaged datasets: every kind of damage is found and located."""
import io
import json
import math
import re
import shutil
import struct
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from toy_dataset import OBJECTS, PER_SHARD, SIZE, member, overwrite, replace_member, shard_file, write_toys

from clipgs_plugin.triplets import ShardWriter
from clipgs_plugin.triplets.inspection import inspect


@pytest.fixture(scope='module')
def whole(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('inspection') / 'whole'
    write_toys(root)
    return root


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / 'copy'))


def found_problems(root: Path) -> list[tuple]:
    return [(problem.shard, problem.uid, problem.reason) for problem in inspect(root, worst=0, random=0).problems]


def only(root: Path, shard, uid, reason: str) -> None:
    """Check that the inspection finds this problem alone."""
    problems = found_problems(root)
    assert [(s, u) for s, u, _ in problems] == [(shard, uid)], problems
    assert re.search(reason, problems[0][2]), problems


def test_a_damaged_tar_header_is_found_although_tar_readers_stop_silently(copy):
    path = shard_file(copy)
    offset, _ = member(path, 'uid-4.gaussians.safetensors')
    overwrite(path, offset - 512 + 100, b'\xff')
    problems = found_problems(copy)
    assert (1, None) in {(shard, uid) for shard, uid, _ in problems} and all(s in (1, None) for s, *_ in problems)
    assert any(re.search(r'00001\.tar continues after byte \d+', reason) for *_, reason in problems)
    assert any('index.parquet lists 2 objects missing from the shard, the first uid-4' in r for *_, r in problems)


def test_a_damaged_record_does_not_hide_other_damage(copy):
    path = shard_file(copy)
    overwrite(path, member(path, 'uid-3.json')[0], b'[')
    overwrite(path, member(path, 'uid-5.001.webp')[0], b'X')
    problems = found_problems(copy)
    assert [(shard, uid) for shard, uid, _ in problems] == [(1, None), (1, 'uid-3'), (1, 'uid-5')]
    assert problems[1][2].startswith('record: ') and problems[2][2].startswith('view 1: cannot be decoded')


def test_a_changed_byte_that_decodes_is_found_by_the_hash(copy):
    path = shard_file(copy)
    offset, size = member(path, 'uid-4.gaussians.safetensors')
    at = offset + size - 2  # the low byte of a half
    overwrite(path, at, bytes([path.read_bytes()[at] ^ 1]))
    only(copy, 1, 'uid-4', '^sha256 of Gaussians and views is [0-9a-f]{64}, the record has [0-9a-f]{64}: bytes have')


@pytest.mark.parametrize('cut', ['within the last record', 'end mark'])
def test_a_truncated_shard_is_found(copy, cut):
    path = shard_file(copy)
    offset, size = member(path, 'uid-5.json')
    with path.open('rb+') as file:
        file.truncate(offset + size // 2 if cut.startswith('within') else -(-(offset + size) // 512) * 512)
    problems = found_problems(copy)
    assert problems[0][:2] == (1, None) and re.search(r'00001\.tar is (truncated|not a complete tar)', problems[0][2])
    if cut.startswith('within'):
        assert [p[:2] for p in problems] == [(1, None), (1, 'uid-5')] and 'truncated' in problems[1][2]
    else:
        assert len(problems) == 1


def test_an_empty_file_in_place_of_a_shard_is_found(copy):
    shard_file(copy).write_bytes(b'')
    assert found_problems(copy)[0][:2] == (1, None)


def test_an_index_of_another_dataset_is_found(copy, tmp_path, random_cloud):
    with ShardWriter(tmp_path / 'other', objects_per_shard=PER_SHARD) as writer:
        for i in range(OBJECTS):
            writer.write(f'other-{i}', random_cloud(5), captions=['x'])
    shutil.copy(tmp_path / 'other' / 'index.parquet', copy)
    problems = found_problems(copy)
    assert [shard for shard, *_ in problems] == [0, 0, 1, 1, 2, 2]
    assert 'lists 3 objects missing from the shard, the first other-0' in problems[0][2]
    assert 'lacks 3 objects of the shard, the first uid-0' in problems[1][2]


def test_an_index_with_wrong_offsets_is_found(copy):
    import pyarrow as pa
    import pyarrow.parquet as pq
    table = pq.read_table(copy / 'index.parquet')
    rows = table.to_pylist()
    rows[4]['gaussians_offset'] += 512
    pq.write_table(pa.Table.from_pylist(rows, table.schema), copy / 'index.parquet')
    only(copy, 1, 'uid-4', 'index.parquet has gaussians_offset')


@pytest.mark.parametrize('damage, reason', [
    (lambda path: path.unlink(), 'has not finished'), (lambda path: path.write_bytes(b'PAR1'), 'cannot be read')])
def test_a_missing_or_broken_index_is_found(copy, damage, reason):
    damage(copy / 'index.parquet')
    only(copy, None, None, reason)


def test_a_missing_shard_is_found(copy):
    shard_file(copy).unlink()
    problems = found_problems(copy)
    assert problems[0][0] == 1 and 'the file is missing' in problems[0][2]
    counts = {'objects 7, the shards contain 4', 'shards 3, the shards contain 2', 'captions 14, the shards contain 8'}
    assert counts <= {reason.removeprefix('dataset.json counts ') for *_, reason in problems}


def test_gaussians_with_nan_are_found(copy):
    def spoil(data):
        tensors = load_safetensors(data)
        tensors['opacity_logits'][7] = math.nan
        return save_safetensors(tensors)
    size = shard_file(copy).stat().st_size
    replace_member(shard_file(copy), 'uid-4.gaussians.safetensors', spoil)
    assert shard_file(copy).stat().st_size == size
    problems = [p for p in found_problems(copy) if not p[2].startswith('index.parquet')]
    assert len(problems) == 1 and problems[0][:2] == (1, 'uid-4')
    assert 'opacity_logits is NaN or infinite in 1 of 300' in problems[0][2]


def test_gaussians_that_are_not_a_safetensors_file_are_found(copy):
    path = shard_file(copy)
    overwrite(path, member(path, 'uid-4.gaussians.safetensors')[0], struct.pack('<Q', 1 << 60))
    only(copy, 1, 'uid-4', '^Gaussians: ')


def test_a_view_of_another_size_is_found(copy):
    def grow(data):
        buffer = io.BytesIO()
        Image.new('RGB', (SIZE, SIZE + 1)).save(buffer, 'WEBP')
        return buffer.getvalue()
    replace_member(shard_file(copy), 'uid-3.002.webp', grow)
    problems = [p for p in found_problems(copy) if not p[2].startswith('index.parquet')]
    assert problems == [(1, 'uid-3', f'view 2: {SIZE} x {SIZE + 1} pixels, expected {SIZE} x {SIZE}')]


@pytest.mark.parametrize('change, expected', [
    (lambda r: r.update(captions=[]), 'no captions'),
    (lambda r: r['captions'][1].update(text='  '), 'caption 1 is empty'),
    (lambda r: r.pop('quality'), 'lacks quality'),
    (lambda r: r.update(num_gaussians=299), 'num_gaussians is 299, the shard contains 300'),
    (lambda r: r.update(uid='uid-9'), "uid is 'uid-9'"),
    (lambda r: r.update(category=['a']), "record: category is ['a']"),
    (lambda r: r.update(num_gaussians='x'), "record: num_gaussians is 'x'"),
    (lambda r: r.update(cameras='own', source=dict(cameras=3)), 'cameras: 3 are not matrices'),
    (lambda r: r.update(num_views=3), 'num_views is 3'),
    (lambda r: (r['quality'].update(ssim=math.inf), r['source'].clear()), 'ssim is inf'),
    (lambda r: r.update(cameras='own', source=dict(cameras=dict(viewmats=[[1]], intrinsics=[[1]]))), 'have shape')])
def test_an_inconsistent_record_is_found(copy, change, expected):
    def edit(data):
        record = json.loads(data)
        change(record)
        return json.dumps(record).encode().ljust(len(data))  # keeps the offsets of the index valid
    replace_member(shard_file(copy, 2), 'uid-6.json', edit)
    reasons = [reason for shard, uid, reason in found_problems(copy) if (shard, uid) == (2, 'uid-6')
               and not reason.startswith(('index.parquet', 'features'))]
    assert len(reasons) == 1 and expected in reasons[0]


def test_wrong_counts_are_found(copy):
    path = copy / 'dataset.json'
    settings = json.loads(path.read_text())
    settings['counts']['captions'] += 1
    path.write_text(json.dumps(settings))
    only(copy, None, None, 'counts captions 15, the shards contain 14')
    del settings['counts']
    path.write_text(json.dumps(settings))
    only(copy, None, None, 'no counts')


def test_a_repeated_object_is_found(copy):
    shutil.copy(shard_file(copy, 2), shard_file(copy, 3))
    assert (3, 'uid-6', 'the uid occurs more than once in the dataset') in found_problems(copy)


def test_features_of_other_objects_are_found(copy):
    folder = copy / 'features' / 'clip'
    shutil.copy(folder / '00000.safetensors', folder / '00001.safetensors')
    only(copy, 1, None, 'features of clip: belong to other objects')
    (folder / '00001.safetensors').unlink()
    only(copy, 1, None, 'features of clip: missing')
    (folder / '00001.safetensors').write_bytes(b'short')
    only(copy, 1, None, 'features of clip: cannot be read')
    (folder / 'teacher.json').unlink()
    only(copy, None, None, 'features of clip: teacher.json')


def test_infinite_features_and_features_of_other_captions_are_found(copy):
    import safetensors
    path = copy / 'features' / 'clip' / '00001.safetensors'
    with safetensors.safe_open(path, 'pt') as file:
        metadata = file.metadata()
    tensors = load_safetensors(path.read_bytes())
    tensors['image'][1, 2, 3] = torch.inf
    tensors['caption_ids'][2, 1] += 1
    path.write_bytes(save_safetensors(tensors, metadata))
    assert found_problems(copy) == [(1, 'uid-4', 'features of clip: NaN or infinite'),
                                    (1, 'uid-5', 'features of clip: belong to other captions than the record')]


def test_a_folder_without_dataset_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'dataset\.json'):
        inspect(tmp_path)


def test_other_files_and_tar_members_are_found(copy):
    shards = copy / 'shards'
    (shards / 'notes.txt').write_text('mine')
    (shards / '7.tar').write_bytes(b'')
    (shards / '00005.tar').mkdir()
    (copy / 'parts' / '00000').mkdir(parents=True)
    with tarfile.open(shard_file(copy), 'a', format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo('uid-3.000.png')
        info.size = 5
        tar.addfile(info, io.BytesIO(b'01234'))
    problems = found_problems(copy)
    assert [(shard, uid) for shard, uid, _ in problems] == [(None, None)] * 4 + [(1, None)]
    reasons = [reason for *_, reason in problems]
    for name, reason in zip(('00005.tar', '7.tar', 'notes.txt'), reasons):
        assert reason.startswith(f'shards/{name} is not a shard')
    assert 'make_triplets.py --join' in reasons[3]
    assert 'contains 1 file without an object, the first uid-3.000.png' in reasons[4]


def test_an_unfinished_run_is_found_with_its_open_shard(tmp_path, random_cloud):
    writer = ShardWriter(tmp_path, objects_per_shard=2)
    for i in range(3):
        writer.write(f'uid-{i}', random_cloud(5), captions=['x'])
    reasons = [str(problem) for problem in inspect(tmp_path).problems]
    assert len(reasons) == 3
    assert reasons[0].startswith('shards/00001.tar.tmp: the open shard of a run that has not finished')
    assert reasons[1].startswith('index.parquet is missing') and reasons[2].startswith('dataset.json has no counts')
    writer.abort()


@pytest.mark.parametrize('change, reason', [
    (lambda settings: settings.pop('render'), 'dataset.json: render is None, expected an object'),
    (lambda settings: settings.update(sh_degree='0'), "dataset.json: sh_degree is '0', expected a whole number"),
    (lambda settings: settings.update(counts=3), 'dataset.json has no counts'),
    (lambda settings: settings['render'].update(viewmats=[[1.0]]), 'dataset.json: cameras: viewmats have shape (1, 1)'),
    (lambda settings: settings['render'].update(intrinsics=dict(f=1)), 'dataset.json: cameras: '),
    (lambda settings: settings['render'].pop('intrinsics'), 'dataset.json: cameras: viewmats but no intrinsics')])
def test_invalid_settings_are_found_once(copy, change, reason):
    path = copy / 'dataset.json'
    settings = json.loads(path.read_text())
    change(settings)
    path.write_text(json.dumps(settings))
    problems = found_problems(copy)
    assert [(shard, uid) for shard, uid, _ in problems] == [(None, None)] and problems[0][2].startswith(reason)
    inspect(copy)  # drawing the strips does not stop it either


def test_settings_that_are_not_json_are_refused_by_name(copy):
    path = copy / 'dataset.json'
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match=r'dataset\.json: not valid JSON'):
        inspect(copy)


def test_objects_that_cannot_be_rendered_are_shown_without_gaussians(copy):
    path = copy / 'dataset.json'
    settings = json.loads(path.read_text())
    settings['render']['background'] = 'white'
    path.write_text(json.dumps(settings))
    found = inspect(copy, worst=1, random=1)
    strips = found.worst + found.random
    assert len(strips) == 2 and all(strip.splats is None for strip in strips)
    assert [problem.uid for problem in found.problems] == [strip.uid for strip in strips]
    assert all(problem.reason.startswith('cannot be drawn') for problem in found.problems)


def test_features_under_the_name_of_another_teacher_are_found(copy):
    shutil.copytree(copy / 'features' / 'clip', copy / 'features' / 'other')
    only(copy, None, None, "features of other: teacher.json names 'clip'")
