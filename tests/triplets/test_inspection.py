import hashlib
import io
import json
import math
import re
import shutil
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from clipgs_plugin import ops
from clipgs_plugin.generation import Execution, GenerationSettings, generate
from clipgs_plugin.generation.rendering import ViewRule
from clipgs_plugin.toy_world.specs import object_specs
from clipgs_plugin.toy_world.world import make_object
from clipgs_plugin.toy_world.writing import export_files
from clipgs_plugin.triplets import FeatureWriter, ShardReader, ShardWriter
from clipgs_plugin.triplets.inspection.checks import inspect
from clipgs_plugin.triplets.inspection.page import render_page, write_page
from clipgs_plugin.triplets.inspection.pictures import AMPLIFIED

SIZE, VIEWS, OBJECTS, PER_SHARD = 32, 4, 7, 3
BACKGROUND = (1.0, 0.9, 0.8)
PSNR = [31.0, 28.5, 35.0, 40.0, 27.0, 33.0, 36.0]
OWN = 5  # the object that has cameras of its own


def pictures(cloud, viewmats, intrinsics):
    drawn, _ = ops.render(cloud, viewmats, intrinsics.expand(len(viewmats), 3, 3), SIZE, SIZE, BACKGROUND)
    return (drawn.clamp(0, 1) * 255).round().byte().numpy()


@pytest.fixture(scope='module')
def whole(tmp_path_factory) -> Path:
    """A set of toys in three shards with cached features, cameras as generation writes them, pictures without loss."""
    root = tmp_path_factory.mktemp('inspection') / 'whole'
    viewmats, intrinsics = ops.sphere_cameras(VIEWS, 4.0), ops.intrinsics(40.0, SIZE, SIZE)
    own = ops.sphere_cameras(VIEWS + 3, 5.0)[:VIEWS]
    card = dict(size=SIZE, background=BACKGROUND, viewmats=viewmats.tolist(), intrinsics=intrinsics.tolist())
    with ShardWriter(root, render=card, generator=dict(name='test'), webp_quality=None,
                     objects_per_shard=PER_SHARD) as writer:
        for i, spec in enumerate(object_specs(OBJECTS)):
            toy = make_object(spec, 300)
            cloud, cameras = toy.gaussians.normalise(), 'own' if i == OWN else 'dataset'
            source = dict(file=f'{i}.ply')
            if i == OWN:
                source['cameras'] = dict(viewmats=own.tolist(), intrinsics=intrinsics.expand(VIEWS, 3, 3).tolist())
            writer.write(f'uid-{i}', cloud, pictures(cloud, own if i == OWN else viewmats, intrinsics),
                         captions=[dict(text=f'<toy> & caption {i}', source='name'), f'other {i}'],
                         category=toy.category, split='train' if i < 5 else 'test', source=source, cameras=cameras,
                         quality=dict(psnr=PSNR[i] + 5, psnr_foreground=PSNR[i], ssim=0.9) if i != 3 else {})
    features = FeatureWriter(ShardReader(root), 'clip', width=4, weights='none')
    for shard, rows in features.pending():
        features.write(shard, np.ones((len(rows), VIEWS, 4)), np.ones((len(rows), 2, 4)))
    (root / 'failed.jsonl').write_text(''.join(
        json.dumps(dict(uid=uid, path=f'in/{uid}.obj', error=error, message=f'in/{uid}.obj: <failed>')) + '\n'
        for uid, error in (('a', 'ValueError'), ('b', 'OSError'), ('c', 'ValueError'))) + '{"uid": "cut')
    return root


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / 'copy'))


def shard_file(root: Path, shard: int = 1) -> Path:
    return root / 'shards' / f'{shard:05d}.tar'


def member(path: Path, name: str) -> tuple[int, int]:
    with tarfile.open(path) as tar:
        info = tar.getmember(name)
    return info.offset_data, info.size


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open('rb+') as file:
        file.seek(offset)
        file.write(data)


def replace_member(path: Path, name: str, change) -> None:
    """The tar again with other bytes in one member."""
    with tarfile.open(path) as tar:
        members = [(info.name, tar.extractfile(info).read()) for info in tar]
    with tarfile.open(path, 'w', format=tarfile.USTAR_FORMAT) as tar:
        for found, data in members:
            info = tarfile.TarInfo(found)
            data = change(data) if found == name else data
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def found_problems(root: Path) -> list[tuple]:
    return [(problem.shard, problem.uid, problem.reason) for problem in inspect(root, worst=0, random=0).problems]


def only(root: Path, shard, uid, reason: str) -> None:
    """There is one problem, this."""
    problems = found_problems(root)
    assert [(s, u) for s, u, _ in problems] == [(shard, uid)], problems
    assert re.search(reason, problems[0][2]), problems


def test_a_whole_set_has_no_problems_and_its_numbers_are_told(whole):
    steps = []
    found = inspect(whole, report=lambda done, total: steps.append((done, total)))
    assert found.problems == [] and steps == [(i + 1, OBJECTS) for i in range(OBJECTS)]
    assert found.objects == OBJECTS and found.splits == dict(train=5, test=2) and found.features == dict(clip=3)
    assert found.failed == {('ValueError', 'FILE: <failed>'): 2, ('OSError', 'FILE: <failed>'): 1}
    # Shares of the files, and numbers that the fixture wrote.
    measured = sorted(PSNR[:3] + PSNR[4:])
    assert found.statistics()['psnr_foreground'] == dict(measured=6, median=(measured[2] + measured[3]) / 2, worst=27.0)
    assert found.statistics()['gaussians'] == dict(measured=7, median=300, worst=300)
    sizes = {}
    for shard, path in enumerate(sorted((whole / 'shards').iterdir())):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert (found.shards[shard].sha256, found.shards[shard].bytes) == (digest, path.stat().st_size)
        with tarfile.open(path) as tar:
            for info in tar:
                uid = info.name.split('.')[0]
                sizes[uid] = sizes.get(uid, 0) + info.size
    assert found.columns['bytes'].tolist() == [sizes[f'uid-{i}'] for i in range(OBJECTS)]


def test_the_worst_come_first_and_random_ones_are_others(whole):
    found = inspect(whole, worst=2, random=3, seed=1)
    assert [strip.uid for strip in found.worst] == ['uid-4', 'uid-1']
    chosen = {strip.uid for strip in found.random}
    assert len(chosen) == 3 and not chosen & {'uid-4', 'uid-1'}
    assert [s.uid for s in inspect(whole, worst=2, random=3, seed=1).random] == [s.uid for s in found.random]
    others = {frozenset(s.uid for s in inspect(whole, worst=0, random=3, seed=seed).random) for seed in range(4)}
    assert len(others) > 1


def test_splats_at_the_stored_cameras_are_the_stored_views(whole):
    found = inspect(whole, worst=OBJECTS, random=OBJECTS, views=2)
    strips = found.worst + found.random
    assert {strip.uid for strip in strips} == {f'uid-{i}' for i in range(OBJECTS)} and len(strips) == OBJECTS
    for strip in strips:
        assert strip.numbers == (1, 3) and strip.splats.shape == strip.views.shape == (2, SIZE, SIZE, 3)
        for i, view in enumerate(strip.numbers):
            a, b = strip.views[i].astype(float), strip.splats[i].astype(float)
            expected = 10 * math.log10(255 ** 2 / ((a - b) ** 2).mean())
            assert strip.psnr()[i] == pytest.approx(expected) and expected > 40, (strip.uid, view)
            assert np.array_equal(strip.difference()[i], np.minimum(AMPLIFIED * abs(a - b), 255))
        assert strip.views.std() > 10  # and it is not that all is background


def test_what_generation_writes_is_whole_and_reproduced(tmp_path):
    export_files(tmp_path / 'files', 3, num_gaussians=200)
    settings = GenerationSettings(views=ViewRule(num_views=3, num_test=1, size=SIZE), webp_quality=None)
    generate(dict(type='SplatSource'), tmp_path / 'files', tmp_path / 'out', settings, Execution(workers=0))
    found = inspect(tmp_path / 'out')
    assert found.problems == [] and found.worst == [] and len(found.random) == 3
    assert min(min(strip.psnr()) for strip in found.random) > 40


def test_a_set_that_names_no_cameras_shows_its_views_alone(tmp_path, random_cloud):
    with ShardWriter(tmp_path, render=dict(size=8)) as writer:
        writer.write('a', random_cloud(5), np.zeros((2, 8, 8, 3), np.uint8), captions=['x'])
    found = inspect(tmp_path)
    assert found.problems == [] and found.random[0].splats is None
    assert 'does not hold its cameras' in render_page(found)


# Damage

def test_a_flipped_byte_of_a_tar_header_is_found_though_readers_of_tar_just_stop(copy):
    path = shard_file(copy)
    offset, _ = member(path, 'uid-4.gaussians.safetensors')
    overwrite(path, offset - 512 + 100, b'\xff')
    problems = found_problems(copy)
    assert (1, None) in {(shard, uid) for shard, uid, _ in problems} and all(s in (1, None) for s, *_ in problems)
    assert any(re.search(r'00001\.tar goes on after byte \d+', reason) for *_, reason in problems)
    assert any('index.parquet has 2 objects that the shard does not hold, the first uid-4' in r for *_, r in problems)


def test_a_flipped_byte_of_a_record_names_the_object_and_hides_no_other(copy):
    path = shard_file(copy)
    overwrite(path, member(path, 'uid-3.json')[0], b'[')
    overwrite(path, member(path, 'uid-5.001.webp')[0], b'X')
    problems = found_problems(copy)
    assert [(shard, uid) for shard, uid, _ in problems] == [(1, None), (1, 'uid-3'), (1, 'uid-5')]
    assert problems[1][2].startswith('record: ') and problems[2][2].startswith('view 1: cannot be decoded')


def test_a_changed_byte_that_still_decodes_is_found_by_the_hash(copy):
    path = shard_file(copy)
    offset, size = member(path, 'uid-4.gaussians.safetensors')
    at = offset + size - 2  # the low byte of a half
    overwrite(path, at, bytes([path.read_bytes()[at] ^ 1]))
    only(copy, 1, 'uid-4', '^sha256 of Gaussians and views is [0-9a-f]{64}, the record says [0-9a-f]{64}: bytes have')


@pytest.mark.parametrize('cut', ['within the last record', 'end mark'])
def test_a_truncated_shard_is_found(copy, cut):
    path = shard_file(copy)
    offset, size = member(path, 'uid-5.json')
    with path.open('rb+') as file:
        file.truncate(offset + size // 2 if cut.startswith('within') else -(-(offset + size) // 512) * 512)
    problems = found_problems(copy)
    assert problems[0][:2] == (1, None) and re.search(r'00001\.tar is (truncated|not a whole tar)', problems[0][2])
    if cut.startswith('within'):
        assert [p[:2] for p in problems] == [(1, None), (1, 'uid-5')] and 'truncated' in problems[1][2]
    else:
        assert len(problems) == 1


def test_an_empty_file_in_place_of_a_shard_is_found(copy):
    shard_file(copy).write_bytes(b'')
    assert found_problems(copy)[0][:2] == (1, None)


def test_an_index_of_another_set_is_found(copy, tmp_path, random_cloud):
    with ShardWriter(tmp_path / 'other', objects_per_shard=PER_SHARD) as writer:
        for i in range(OBJECTS):
            writer.write(f'other-{i}', random_cloud(5), captions=['x'])
    shutil.copy(tmp_path / 'other' / 'index.parquet', copy)
    problems = found_problems(copy)
    assert [shard for shard, *_ in problems] == [0, 0, 1, 1, 2, 2]
    assert 'has 3 objects that the shard does not hold, the first other-0' in problems[0][2]
    assert 'lacks 3 objects of the shard, the first uid-0' in problems[1][2]


def test_an_index_of_the_same_names_and_other_bytes_is_found(copy):
    import pyarrow as pa
    import pyarrow.parquet as pq
    table = pq.read_table(copy / 'index.parquet')
    rows = table.to_pylist()
    rows[4]['gaussians_offset'] += 512
    pq.write_table(pa.Table.from_pylist(rows, table.schema), copy / 'index.parquet')
    only(copy, 1, 'uid-4', 'index.parquet has gaussians_offset')


@pytest.mark.parametrize('damage, reason', [
    (lambda path: path.unlink(), 'has not ended'), (lambda path: path.write_bytes(b'PAR1'), 'cannot be read')])
def test_a_missing_or_broken_index_is_found(copy, damage, reason):
    damage(copy / 'index.parquet')
    only(copy, None, None, reason)


def test_a_shard_that_only_the_index_names_is_found(copy):
    shard_file(copy).unlink()
    problems = found_problems(copy)
    assert problems[0][0] == 1 and 'no such file' in problems[0][2]
    counts = {'objects 7, the shards hold 4', 'shards 3, the shards hold 2', 'captions 14, the shards hold 8'}
    assert counts <= {reason.removeprefix('dataset.json counts ') for *_, reason in problems}


def test_a_cloud_with_nan_is_found(copy):
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


def test_a_cloud_that_is_no_safetensors_file_is_found(copy):
    path = shard_file(copy)
    overwrite(path, member(path, 'uid-4.gaussians.safetensors')[0], struct.pack('<Q', 1 << 60))
    only(copy, 1, 'uid-4', '^Gaussians: ')


def test_a_picture_of_another_size_is_found(copy):
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
    (lambda r: r.update(num_gaussians=299), 'num_gaussians is 299, the shard holds 300'),
    (lambda r: r.update(uid='uid-9'), "uid is 'uid-9'"),
    (lambda r: r.update(category=['a']), "record: category is ['a']"),
    (lambda r: r.update(num_gaussians='x'), "record: num_gaussians is 'x'"),
    (lambda r: r.update(cameras='own', source=dict(cameras=3)), 'cameras: 3 are no matrices'),
    (lambda r: r.update(num_views=3), 'num_views is 3'),
    (lambda r: r['quality'].update(ssim=math.inf), 'ssim is inf'),
    (lambda r: r.update(cameras='own', source=dict(cameras=dict(viewmats=[[1]], intrinsics=[[1]]))), 'have shape')])
def test_a_record_that_does_not_fit_is_found(copy, change, expected):
    def edit(data):
        record = json.loads(data)
        change(record)
        return json.dumps(record).encode().ljust(len(data))  # so that the index fits where the tar cannot be scanned
    replace_member(shard_file(copy, 2), 'uid-6.json', edit)
    reasons = [reason for shard, uid, reason in found_problems(copy) if (shard, uid) == (2, 'uid-6')
               and not reason.startswith(('index.parquet', 'features'))]
    assert len(reasons) == 1 and expected in reasons[0]


def test_counts_that_are_not_those_of_the_shards_are_found(copy):
    path = copy / 'dataset.json'
    card = json.loads(path.read_text())
    card['counts']['captions'] += 1
    path.write_text(json.dumps(card))
    only(copy, None, None, 'counts captions 15, the shards hold 14')
    del card['counts']
    path.write_text(json.dumps(card))
    only(copy, None, None, 'no counts')


def test_an_object_that_is_there_twice_is_found(copy):
    shutil.copy(shard_file(copy, 2), shard_file(copy, 3))
    assert (3, 'uid-6', 'the uid is in the set more than once') in found_problems(copy)


def test_features_of_others_are_found(copy):
    folder = copy / 'features' / 'clip'
    shutil.copy(folder / '00000.safetensors', folder / '00001.safetensors')
    only(copy, 1, None, 'features of clip: of other objects')
    (folder / '00001.safetensors').unlink()
    only(copy, 1, None, 'features of clip: missing')
    (folder / '00001.safetensors').write_bytes(b'short')
    only(copy, 1, None, 'features of clip: cannot be read')
    (folder / 'teacher.json').unlink()
    only(copy, None, None, 'features of clip: teacher.json')


def test_features_that_are_not_finite_or_of_other_captions_are_found(copy):
    import safetensors
    path = copy / 'features' / 'clip' / '00001.safetensors'
    with safetensors.safe_open(path, 'pt') as file:
        metadata = file.metadata()
    tensors = load_safetensors(path.read_bytes())
    tensors['image'][1, 2, 3] = torch.inf
    tensors['caption_ids'][2, 1] += 1
    path.write_bytes(save_safetensors(tensors, metadata))
    assert found_problems(copy) == [(1, 'uid-4', 'features of clip: NaN or infinite'),
                                    (1, 'uid-5', 'features of clip: of other captions than those of the record')]


def test_a_folder_that_is_no_set_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'dataset\.json'):
        inspect(tmp_path)


def test_what_is_neither_shard_nor_object_is_found(copy):
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
    told = [reason for *_, reason in problems]
    assert [name for name in ('00005.tar', '7.tar', 'notes.txt') if f'shards/{name} is no shard' in ''.join(told)] == [
        '00005.tar', '7.tar', 'notes.txt']
    assert 'make_triplets.py --join' in told[3] and 'holds 1 file of no object, the first uid-3.000.png' in told[4]


def test_a_run_that_has_not_ended_is_told_with_its_open_shard(tmp_path, random_cloud):
    writer = ShardWriter(tmp_path, objects_per_shard=2)
    for i in range(3):
        writer.write(f'uid-{i}', random_cloud(5), captions=['x'])
    told = [str(problem) for problem in inspect(tmp_path).problems]
    assert len(told) == 3 and told[0].startswith('shards/00001.tar.tmp: the open shard of a run that has not ended')
    assert told[1].startswith('index.parquet is missing') and told[2].startswith('dataset.json has no counts')
    writer.abort()


def test_a_set_of_nothing_is_told_and_has_a_page(tmp_path):
    ShardWriter(tmp_path).close()
    found = inspect(tmp_path)
    assert [problem.reason for problem in found.problems] == ['no shards'] and found.statistics() == {}
    assert 'Objects: 0.' in render_page(found)


def test_points_have_no_quality_and_no_problem(tmp_path):
    (tmp_path / 'points').mkdir()
    sphere = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    np.save(tmp_path / 'points' / 'ball.npy', sphere / np.linalg.norm(sphere, axis=1, keepdims=True))
    settings = GenerationSettings(views=ViewRule(num_views=2, num_test=1, size=SIZE))
    generate(dict(type='PointSource'), tmp_path / 'points', tmp_path / 'out', settings, Execution(workers=0))
    found = inspect(tmp_path / 'out')
    assert found.problems == [] and found.worst == [] and [strip.uid for strip in found.random] == ['ball']
    assert not found.statistics().keys() & {'psnr', 'psnr_foreground', 'ssim'}
    page = render_page(found)
    assert 'No object that can be shown has a quality' in page and 'no fit' in page


@pytest.mark.parametrize('change, reason', [
    (lambda card: card.pop('render'), 'dataset.json: render is None, expected an object'),
    (lambda card: card.update(sh_degree='0'), "dataset.json: sh_degree is '0', expected a whole number"),
    (lambda card: card.update(counts=3), 'dataset.json has no counts'),
    (lambda card: card['render'].update(viewmats=[[1.0]]), 'dataset.json: cameras: viewmats have shape (1, 1)'),
    (lambda card: card['render'].update(intrinsics=dict(f=1)), 'dataset.json: cameras: '),
    (lambda card: card['render'].pop('intrinsics'), 'dataset.json: cameras: viewmats but no intrinsics')])
def test_a_card_that_does_not_fit_is_told_once(copy, change, reason):
    path = copy / 'dataset.json'
    card = json.loads(path.read_text())
    change(card)
    path.write_text(json.dumps(card))
    problems = found_problems(copy)
    assert [(shard, uid) for shard, uid, _ in problems] == [(None, None)] and problems[0][2].startswith(reason)
    inspect(copy)  # nor do its strips stop it


def test_a_card_that_is_no_json_is_refused_by_name(copy):
    path = copy / 'dataset.json'
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match=r'dataset\.json cannot be read'):
        inspect(copy)


def test_objects_that_cannot_be_drawn_are_shown_without(copy):
    path = copy / 'dataset.json'
    card = json.loads(path.read_text())
    card['render']['background'] = 'white'
    path.write_text(json.dumps(card))
    found = inspect(copy, worst=1, random=1)
    strips = found.worst + found.random
    assert len(strips) == 2 and all(strip.splats is None for strip in strips)
    assert [problem.uid for problem in found.problems] == [strip.uid for strip in strips]
    assert all(problem.reason.startswith('cannot be drawn') for problem in found.problems)


def test_features_under_the_name_of_another_teacher_are_found(copy):
    shutil.copytree(copy / 'features' / 'clip', copy / 'features' / 'other')
    only(copy, None, None, "features of other: teacher.json names 'clip'")


# The page

def test_the_page_needs_no_other_file_and_holds_captions_failures_and_problems(copy, tmp_path):
    path = shard_file(copy)
    overwrite(path, member(path, 'uid-5.001.webp')[0], b'X')
    found = inspect(copy, worst=3, random=3)
    write_page(found, tmp_path / 'page.html')
    page = (tmp_path / 'page.html').read_text(encoding='utf-8')
    references = re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', page)
    assert references and all(reference.startswith('data:image/png;base64,') for reference in references)
    assert not re.search(r'https?://|@import|url\(|<script', page)
    for strip in found.worst + found.random:
        i = int(strip.uid[-1])
        assert f'&lt;toy&gt; &amp; caption {i}' in page and f'other {i}' in page and f'{i}.ply' in page
    assert 'view 1: cannot be decoded' in page and 'FILE: &lt;failed&gt;' in page and '<toy>' not in page
    assert page.count('<figure') == 18 and 'uid-5' not in {strip.uid for strip in found.worst + found.random}
    assert f'times {AMPLIFIED}' in page and all(shard.sha256 in page for shard in found.shards)
