"""Objects become triplets by what their files hold; a run is the same however it went."""
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from itertools import count

import numpy as np
import pytest
import torch
from conftest import random_cloud

from clipgs_plugin import ops, write_gaussians
from clipgs_plugin.datasets import TripletDataset
from clipgs_plugin.generation import (
    FitSettings,
    GenerationSettings,
    Listed,
    Mesh,
    MeshPart,
    Points,
    PosedImages,
    ViewRule,
    generate,
    join_parts,
    make_triplet,
    run,
    worker,
)
from clipgs_plugin.generation.captions import CaptionRules
from clipgs_plugin.generation.rendering import NoRenderer, render_mesh
from clipgs_plugin.generation.sources.manifest import ManifestSource
from clipgs_plugin.generation.sources.points import PointSource
from clipgs_plugin.generation.sources.splats import SplatSource
from clipgs_plugin.registry import TASK_UTILS
from clipgs_plugin.triplets import ShardReader

RULE = ViewRule(num_views=3, num_test=2, size=24)
SMALL = GenerationSettings(views=RULE, fit=FitSettings(num_gaussians=150, iterations=20, check_every=0),
                           renderer='raycast', webp_quality=None, objects_per_shard=2, dtype='float32')


class Given:
    """A source of one object that is there already."""

    suffixes = ()

    def __init__(self, content, up='y'):
        self._content, self.up = content, up

    def list(self, root):
        return [Listed('given', root / 'given')]

    def load(self, listed):
        return self._content


class Deadly(SplatSource):
    """One whose process dies at some objects, and hangs at others."""

    def load(self, listed):
        if 'deadly' in listed.uid:
            os._exit(9)
        if 'endless' in listed.uid:
            time.sleep(600)
        return super().load(listed)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A folder of five splat files."""
    folder = tmp_path_factory.mktemp('files')
    for i in range(5):
        write_gaussians(random_cloud(30 + i, seed=i), folder / f'chair_{i}.ply')
    return folder


@pytest.fixture(scope='module')
def whole(files, tmp_path_factory):
    """The dataset of an uninterrupted run in this process; compiles what processes with a limit of time load."""
    out = tmp_path_factory.mktemp('whole')
    progress = generate(SplatSource(), files, out, SMALL, workers=0)
    assert (progress.listed, progress.made, progress.failed, progress.left) == (5, 5, 0, 0)
    return out


def contents(out):
    """Every file of a dataset but the log of times."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob('*')
            if path.is_file() and path.name not in ('timings.jsonl', 'failed.jsonl')}


def failures(out):
    return [json.loads(line) for line in (out / 'failed.jsonl').read_text().splitlines()]


# A run

def test_two_processes_a_death_and_a_hang_give_the_bytes_of_none(files, whole, tmp_path):
    folder = tmp_path / 'files'
    folder.mkdir()
    for path in files.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    bad = dict(chair_2_deadly='ProcessDied', chair_3_endless='TimedOut')
    for name in bad:
        write_gaussians(random_cloud(5), folder / f'{name}.ply')
    seen = []
    progress = generate(Deadly(), folder, tmp_path / 'out', SMALL, workers=2, report=lambda p: seen.append(p.left),
                        batch_size=3, time_limit=1.5)
    assert (progress.made, progress.failed, progress.reasons) == (5, 2, dict.fromkeys(bad.values(), 1))
    assert seen == [7, 6, 5, 4, 3, 2, 1, 0]
    assert {failure['uid']: failure['error'] for failure in failures(tmp_path / 'out')} == bad
    assert 'over 1.5 s' in failures(tmp_path / 'out')[1]['message']
    assert failures(tmp_path / 'out')[0]['path'] == str(folder / 'chair_2_deadly.ply')
    made, expected = contents(tmp_path / 'out'), contents(whole)
    cards = [json.loads(files.pop('dataset.json')) for files in (made, expected)]
    assert cards[0].pop('generator')['source'].pop('type') == 'Deadly' and cards[1].pop('generator')
    assert made == expected and cards[0] == cards[1]


def test_killed_and_started_again_gives_the_same_bytes(files, whole, tmp_path):
    code = f"""
import os, signal, sys
sys.path[:0] = {[os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))]}
from test_run import SMALL, SplatSource, generate
def report(progress):
    if progress.made == 3:
        os.kill(os.getpid(), signal.SIGKILL)
generate(SplatSource(), {str(files)!r}, {str(tmp_path)!r}, SMALL, workers=1, report=report, batch_size=2)
"""
    killed = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [path.name for path in (tmp_path / 'shards').glob('*.tar')] == ['00000.tar']
    assert not (tmp_path / 'index.parquet').exists()
    progress = generate(SplatSource(), files, tmp_path, SMALL, workers=0)
    assert (progress.there, progress.made) == (2, 3)
    assert contents(tmp_path) == contents(whole)


def test_a_bad_file_is_recorded_and_leaves_no_trace_in_the_shards(files, whole, tmp_path):
    folder, out = tmp_path / 'files', tmp_path / 'out'
    folder.mkdir()
    for path in files.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    good = (files / 'chair_0.ply').read_bytes()
    (folder / 'chair_0_truncated.ply').write_bytes(good[:-40])
    (folder / 'chair_1_empty.ply').write_bytes(b'')
    (folder / 'chair_3_text.ply').write_text('not a splat')
    bad = ['chair_0_truncated', 'chair_1_empty', 'chair_3_text']
    progress = generate(SplatSource(), folder, out, SMALL, workers=0)
    assert (progress.made, progress.failed, progress.reasons['ValueError']) == (5, 3, 3)
    assert [failure['uid'] for failure in failures(out)] == bad
    for failure, name in zip(failures(out), bad):
        assert failure['path'] == str(folder / f'{name}.ply') and failure['path'] in failure['message']
    assert contents(out) == contents(whole)

    progress = generate(SplatSource(), folder, out, SMALL, workers=0)
    assert (progress.there, progress.skipped, progress.made, progress.failed) == (5, 3, 0, 0)
    with (out / 'failed.jsonl').open('a') as file:
        file.write('{"uid": "chair_')  # what a kill leaves
    (folder / 'chair_1_empty.ply').write_bytes(good)
    progress = generate(SplatSource(), folder, out, SMALL, workers=0, retry_failed=True)
    assert (progress.there, progress.skipped, progress.made, progress.failed) == (5, 0, 1, 2)
    assert [failure['uid'] for failure in failures(out)] == ['chair_0_truncated', 'chair_3_text']
    assert set(ShardReader(out).uids) == {*ShardReader(whole).uids, 'chair_1_empty'}


# Of torch's error of a lost context older releases have only the text.
@pytest.mark.parametrize('error', [ImportError('needs nothing'), NoRenderer('no libEGL'), RuntimeError('CUDA error: x'),
                                   getattr(torch, 'AcceleratorError', NoRenderer)('device is lost')],
                         ids=lambda error: type(error).__name__)
@pytest.mark.parametrize('step', ['load', 'fit'])
def test_what_fails_on_this_machine_for_every_object_stops_the_run(files, tmp_path, monkeypatch, error, step):
    def fail(*args):
        raise error
    if step == 'load':
        monkeypatch.setattr(SplatSource, 'load', fail)
    else:
        monkeypatch.setattr(worker, 'fit_together', fail)
    source = SplatSource() if step == 'load' else Given(cube())
    with pytest.raises(type(error), match=str(error)):
        generate(source, files, tmp_path, SMALL, workers=0)
    assert failures(tmp_path) == []


@pytest.mark.parametrize('error', [torch.OutOfMemoryError('CUDA out of memory'), RuntimeError('a CUDA error in words')])
def test_what_fails_for_one_object_does_not(files, tmp_path, monkeypatch, error):
    def load(self, listed):
        raise error
    monkeypatch.setattr(SplatSource, 'load', load)
    assert generate(SplatSource(), files, tmp_path, SMALL, workers=0).reasons == {type(error).__name__: 5}


def test_names_that_are_no_unicode_are_escaped(tmp_path):
    folder = tmp_path / 'files'
    strange = os.path.join(os.fsencode(folder), b'caf\xe9')  # Latin-1
    try:
        os.makedirs(strange)
    except OSError:
        pytest.skip('this file system refuses such names')
    positions = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    for name in (b'cr\xe8me.npy', b'plain.npy'):
        with open(os.path.join(strange, name), 'wb') as file:
            np.save(file, positions)
    with open(os.path.join(strange, b'vid\xe9.npy'), 'wb') as file:
        file.write(b'no array')
    progress = generate(PointSource(), folder, tmp_path / 'out', SMALL, workers=0)
    assert (progress.made, progress.failed) == (2, 1)
    reader = ShardReader(tmp_path / 'out')
    assert reader.categories == ['caf\\udce9'] * 2 and reader.read_record(0)['category'] == 'caf\\udce9'
    assert [reader.read_record(i)['source']['file'] for i in range(2)] == ['caf\\udce9/cr\\udce8me.npy',
                                                                         'caf\\udce9/plain.npy']
    (failure,) = failures(tmp_path / 'out')
    assert failure['path'] == f'{folder}/caf\\udce9/vid\\udce9.npy' and failure['path'] in failure['message']
    assert generate(PointSource(), folder, tmp_path / 'out', SMALL, workers=0).skipped == 1


def test_parts_of_an_array_join_to_the_same_objects(files, whole, tmp_path):
    for i in (1, 0, 2):
        generate(SplatSource(), files, tmp_path, SMALL, workers=0, shard_index=i, num_shards=3)
    assert join_parts(tmp_path) == 5
    ours, expected = ShardReader(tmp_path), ShardReader(whole)
    assert ours.uids == [f'chair_{i}' for i in (0, 3, 1, 4, 2)]
    for i, uid in enumerate(ours.uids):
        j = expected.uids.index(uid)
        assert ours.read_record(i) == expected.read_record(j)
        assert torch.equal(ours.read_gaussians(i).means, expected.read_gaussians(j).means)
    assert not (tmp_path / 'parts').exists() and len((tmp_path / 'timings.jsonl').read_text().splitlines()) == 5


class Chairs(SplatSource):
    """Some of the chairs; x is one that is not there."""

    def __init__(self, numbers):
        super().__init__()
        self._numbers = numbers

    def list(self, root):
        return [Listed(f'chair_{i}', root / f'chair_{i}.ply') for i in self._numbers]


def set_with_parts(files, out, numbers=('12', '3', '4x')):
    """A dataset of the first chair, and parts of the others, in shards of one."""
    for i, part in enumerate(['', '00000-of-00003', '00001-of-00003', '00002-of-00003']):
        generate(Chairs(['0', *numbers][i]), files, out / 'parts' / part if part else out,
                 replace(SMALL, objects_per_shard=1), workers=0)


class Killed(BaseException):
    """What ends a join at some place."""


def killed(function, at):
    """A function whose call of number ``at`` is not carried out."""
    calls = count()

    def called(*args, **options):
        if next(calls) == at:
            raise Killed
        return function(*args, **options)
    return called


def remove(folder, unlink):
    """A folder, file by file."""
    for path in sorted(folder.rglob('*'), reverse=True):
        path.rmdir() if path.is_dir() else unlink(path)
    folder.rmdir()


@pytest.mark.parametrize('step', ['replace', 'rmtree'])
def test_a_join_that_is_killed_anywhere_goes_on(files, tmp_path, monkeypatch, step):
    set_with_parts(files, tmp_path / 'parts')
    (tmp_path / 'parts' / 'failed.jsonl').write_text('{"uid": "old"}\n{"uid": "cut')
    shutil.copytree(tmp_path / 'parts', tmp_path / 'joined')
    assert join_parts(tmp_path / 'joined') == 5
    expected = contents(tmp_path / 'joined')
    assert sorted(expected) == ['dataset.json', 'index.parquet', *(f'shards/0000{i}.tar' for i in range(5))]
    finished = None
    for kill in count():
        out = tmp_path / f'killed_{kill}'
        shutil.copytree(tmp_path / 'parts', out)
        with monkeypatch.context() as patch:
            if step == 'replace':
                patch.setattr(run.os, 'replace', killed(os.replace, kill))
            else:
                patch.setattr(run.shutil, 'rmtree', partial(remove, unlink=killed(os.unlink, kill)))
            with contextlib.suppress(Killed):
                finished = join_parts(out)
        assert join_parts(out) == 5 and join_parts(out) == 5
        assert contents(out) == expected
        for name, uids in (('failed', ['chair_x', 'old']), ('timings', [f'chair_{i}' for i in range(5)])):
            lines = (out / f'{name}.jsonl').read_text().splitlines()
            assert sorted(json.loads(line)['uid'] for line in lines) == uids
        if finished:
            break
    assert finished == 5 and kill > 6


def test_a_dataset_of_other_settings_takes_no_parts(files, tmp_path):
    set_with_parts(files, tmp_path)
    card = json.loads((tmp_path / 'dataset.json').read_text())
    (tmp_path / 'dataset.json').write_text(json.dumps({**card, 'dtype': 'float16'}))
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path} was made with other .* dtype: 'float16' there, 'float32' wanted; "
                                         f'move {tmp_path}/parts into another folder'):
        join_parts(tmp_path)
    assert contents(tmp_path) == before
    (tmp_path / 'dataset.json').unlink()
    before.pop('dataset.json')
    with pytest.raises(FileNotFoundError, match=r'dataset\.json not found'):
        join_parts(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize('last, places', [('40', ("'chair_0'", 'parts/00002-of-00003', '')),
                                          ('41', ("'chair_1'", 'parts/00000-of-00003', 'parts/00002-of-00003'))])
def test_an_object_that_is_there_twice_is_found_before_anything_is_moved(files, tmp_path, last, places):
    set_with_parts(files, tmp_path, ('12', '3', last))
    before = contents(tmp_path)
    uid, one, other = places
    with pytest.raises(ValueError, match=f'{uid} is in {tmp_path / one} and in {tmp_path / other}; '):
        join_parts(tmp_path)
    assert contents(tmp_path) == before


def test_an_unfinished_part_is_not_joined(files, tmp_path):
    with pytest.raises(FileNotFoundError, match='no parts'):
        join_parts(tmp_path)
    generate(SplatSource(), files, tmp_path, SMALL, workers=0, shard_index=0, num_shards=2)
    with pytest.raises(FileNotFoundError, match='00001-of-00002 is not finished'):  # it never began
        join_parts(tmp_path)
    (tmp_path / 'parts' / '00001-of-00002').mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match='00001-of-00002 is not finished'):
        join_parts(tmp_path)
    (tmp_path / 'parts' / '00001-of-00003').mkdir(parents=True)
    with pytest.raises(ValueError, match='00000-of-00002 and 00001-of-00003, parts of different arrays'):
        join_parts(tmp_path)


def test_parts_of_other_settings_are_not_joined(files, tmp_path):
    for i, renderer in enumerate(['raycast', 'raycast', 'egl']):
        generate(SplatSource(), files, tmp_path, SMALL, workers=0, shard_index=i, num_shards=3)
        card = tmp_path / 'parts' / f'0000{i}-of-00003' / 'dataset.json'
        card.write_text(card.read_text().replace('"renderer": "raycast"', f'"renderer": "{renderer}"'))
    with pytest.raises(ValueError, match=r"00002-of-00003 .* generator\.renderer: 'egl' there, 'raycast' wanted;"):
        join_parts(tmp_path)


@pytest.mark.parametrize('there', ['egl', 'raycast'])
def test_auto_goes_on_with_the_renderer_of_the_folder(files, tmp_path, monkeypatch, there):
    monkeypatch.setattr(run, 'choose_renderer', lambda name: there if name == 'auto' else name)
    auto = replace(SMALL, renderer='auto')
    generate(SplatSource(), files, tmp_path, auto, workers=0, limit=1)
    assert json.loads((tmp_path / 'dataset.json').read_text())['generator']['renderer'] == there

    def choose_renderer(name):
        raise RuntimeError('no libEGL')
    monkeypatch.setattr(run, 'choose_renderer', choose_renderer)
    with pytest.raises(ValueError, match=f"{tmp_path} was begun with renderer='{there}': no libEGL"):
        generate(SplatSource(), files, tmp_path, auto, workers=0)
    monkeypatch.setattr(run, 'choose_renderer', lambda name: 'other' if name == 'auto' else name)
    assert generate(SplatSource(), files, tmp_path, auto, workers=0).there == 1


@pytest.mark.parametrize('wrong', [dict(workers=-1), dict(limit=0), dict(shard_index=2, num_shards=2),
                                   dict(engine='spark'), dict(batch_size=0), dict(time_limit=-1)])
def test_numbers_out_of_range_are_refused(files, tmp_path, wrong):
    with pytest.raises(ValueError, match=f'{next(iter(wrong))}='):
        generate(SplatSource(), files, tmp_path / 'out', SMALL, **wrong)


def test_a_fit_that_fails_for_many_is_done_for_each(tmp_path, monkeypatch):
    """Without a GPU, with a fit that only counts."""
    calls, steps = [], []

    def fit_together(triplets, views, settings):
        calls.append([triplet.listed.uid for triplet in triplets])
        assert steps[-1] == len(triplets)  # each with its own time
        if any(triplet.listed.uid == 'bad' for triplet in triplets):
            raise RuntimeError('too bad')
        return triplets
    monkeypatch.setattr(worker, 'fit_together', fit_together)
    listed = [Listed(name, tmp_path / name) for name in ('a', 'bad', 'c')]
    for device, expected in (('cuda', [['a', 'bad', 'c'], ['a'], ['bad'], ['c']]), ('cpu', [['a'], ['bad'], ['c']])):
        calls.clear()
        steps.clear()
        outcomes = worker.make_chunk(listed, steps.append, Given(cube()), replace(SMALL, device=device), tmp_path)
        assert calls == expected and len(steps) == 3 + len(expected) + 2
        notes = ['fitted alone, as the fit of 3 together failed: RuntimeError: too bad'] * (device == 'cuda')
        assert [outcomes[i].timing['notes'] for i in (0, 2)] == [notes, notes]
        assert [outcome.failure and outcome.failure['uid'] for outcome in outcomes] == [None, 'bad', None]
        assert [outcome.sample is None for outcome in outcomes] == [False, True, False]


def test_a_manifest_lists_absolute_paths_for_whoever_loads_them(files, tmp_path, monkeypatch):
    (tmp_path / 'table.csv').write_text('path,caption\nchair_1.ply,a chair\n')
    monkeypatch.chdir(files.parent)
    for source in (ManifestSource(files=files.name), ManifestSource(files=files.name, only_present=True)):
        (listed,) = source.list(tmp_path / 'table.csv')
        assert listed.path == files / 'chair_1.ply'


def test_captions_are_ranked_by_what_the_config_names(files, tmp_path):
    @TASK_UTILS.register_module()
    class Shortest:
        def __init__(self, keep):
            self.keep = keep

        def __call__(self, captions, views):
            assert views.shape == (3, 24, 24, 3)
            return tuple(sorted(captions, key=lambda caption: len(caption['text'])))[:self.keep]
    try:
        settings = replace(SMALL, ranker=dict(type='Shortest', keep=1), captions=CaptionRules(
            templates=('a very long caption of {name}', '{name}!')))
        generate(SplatSource(), files, tmp_path, settings, workers=0)
    finally:
        TASK_UTILS._module_dict.pop('Shortest')
    reader = ShardReader(tmp_path)
    assert [caption['text'] for caption in reader.read_record(0)['captions']] == ['chair 0']
    assert reader.settings['generator']['ranker'] == dict(type='Shortest', keep=1)


def test_a_ranker_that_cannot_be_built_stops_the_run_before_it_begins(files, tmp_path):
    with pytest.raises((KeyError, ValueError), match='Nothing'):
        generate(SplatSource(), files, tmp_path / 'out', replace(SMALL, ranker=dict(type='Nothing')))
    assert not (tmp_path / 'out').exists()


def test_a_device_that_is_not_there_is_said(files, tmp_path):
    if torch.cuda.is_available():
        pytest.skip('there is one')
    with pytest.raises(ValueError, match="device='tpu': expected cpu or cuda"):
        replace(SMALL, device='tpu')
    with pytest.raises(ValueError, match="device='cuda:0': torch sees no GPU"):
        generate(SplatSource(), files, tmp_path, replace(SMALL, device='cuda:0'))


def test_nothing_listed_is_said(tmp_path):
    with pytest.raises(ValueError, match=r'holds nothing for SplatSource, which reads .*\.ply'):
        generate(dict(type='SplatSource'), tmp_path, tmp_path / 'out', SMALL)


def test_the_result_is_a_dataset(whole):
    dataset = TripletDataset(whole, num_views=2, load_views=True)
    assert len(dataset) == 5
    item = dataset[0]
    assert item['uid'] == 'chair_0' and item['caption'] and item['view_pixels'].shape == (2, 3, 24, 24)


# Cameras and frames

def test_stored_cameras_reproduce_stored_views(whole):
    reader = ShardReader(whole)
    card = reader.settings['render']
    viewmats = torch.tensor(card['viewmats'], dtype=torch.float64)
    intrinsics = torch.tensor(card['intrinsics'], dtype=torch.float64).expand(3, 3, 3)
    drawn, _ = ops.render(reader.read_gaussians(1).to(torch.float64), viewmats, intrinsics, card['size'], card['size'],
                          card['background'], backend='reference')
    stored = reader.read_views(1).astype(np.float64) / 255
    assert np.abs(drawn.clamp(0, 1).numpy() - stored).max() < 1.5 / 255
    assert stored.std() > 0.05  # not of an empty picture


def seen_by_opengl(cloud, camera_to_world, matrix, size):
    """Balls of Gaussians as a viewer in OpenGL's axes draws them on white: x right, y up, looking along -z; plainly."""
    to_eye = np.linalg.inv(camera_to_world)
    balls = sorted(zip((cloud.means.double().numpy() @ to_eye[:3, :3].T + to_eye[:3, 3]), cloud.scales[:, 0].tolist(),
                       cloud.opacities.tolist(), cloud.rgb.double().clamp_min(0).numpy()), key=lambda ball: -ball[0][2])
    rows, columns = np.mgrid[:size, :size] + 0.5
    picture, through = np.zeros((size, size, 3)), np.ones((size, size))
    for (x, y, z), sigma, opacity, color in balls:
        right, up = matrix[0, 0] * x / -z, matrix[1, 1] * y / -z  # in pixels from the principal point
        slope = np.array([[-matrix[0, 0] / z, 0, -right / z], [0, -matrix[1, 1] / z, -up / z]])
        spread = np.linalg.inv(sigma ** 2 * slope @ slope.T + 0.3 * np.eye(2))
        away = np.stack([columns - matrix[0, 2] - right, matrix[1, 2] - rows - up])
        alpha = np.minimum(opacity * np.exp(-0.5 * np.einsum('irc,ij,jrc->rc', away, spread, away)), 0.999)
        alpha[alpha < 1 / 255] = 0
        picture += (through * alpha)[..., None] * color
        through *= 1 - alpha
    return picture + through[..., None]


def test_a_viewer_in_the_axes_of_opengl_shows_the_stored_views(tmp_path):
    cloud = random_cloud(25, seed=3)
    balls = cloud.replace(log_scales=cloud.log_scales[:, :1].expand(-1, 3).contiguous())
    write_gaussians(balls, tmp_path / 'balls.ply')
    generate(SplatSource(), tmp_path / 'balls.ply', tmp_path / 'out', replace(SMALL, dtype='float32'), workers=0)
    reader = ShardReader(tmp_path / 'out')
    card, stored = reader.settings['render'], reader.read_views(0) / 255
    cameras = torch.linalg.inv(ops.flip_camera_axes(torch.tensor(card['viewmats'], dtype=torch.float64))).numpy()
    for camera, picture in zip(cameras, stored):
        drawn = seen_by_opengl(reader.read_gaussians(0), camera, np.array(card['intrinsics']), card['size'])
        assert np.abs(drawn.clip(0, 1) - picture).max() < 1.5 / 255
    assert stored.std() > 0.05


def test_splats_go_back_to_their_file_by_centre_and_radius(tmp_path):
    cloud = random_cloud(50).translate_scale(torch.tensor([1.0, -2.0, 3.0]), 2.5)
    triplet = make_triplet(Listed('given', tmp_path), Given(cloud, up='z'), SMALL)
    back = triplet.gaussians.means.double() * triplet.source['radius'] + torch.tensor(triplet.source['centre'])
    x, y, z = cloud.means.double().T
    upright = ops.axis_change('z', 'y').double() @ torch.stack([x, y, z])
    assert torch.allclose(back, upright.T, atol=1e-5) and triplet.source['up'] == 'z'
    assert torch.allclose(back[:, 1], z, atol=1e-5)  # what was up is y
    assert triplet.quality == {}  # nothing lost, nothing measured


def test_reduced_splats_are_those_that_cover_most_and_are_measured(tmp_path):
    cloud = random_cloud(60, sh_degree=1)
    settings = GenerationSettings(views=RULE, max_gaussians=20)
    triplet = make_triplet(Listed('given', tmp_path), Given(cloud), settings)
    weights = []
    for i in range(60):
        a, b, _ = sorted(np.exp(cloud.log_scales[i].double().numpy()), reverse=True)
        weights.append(a * b / (1 + np.exp(-float(cloud.opacity_logits[i]))))
    kept = np.sort(np.argsort(weights)[-20:])
    assert torch.equal(triplet.gaussians.opacity_logits, cloud.opacity_logits[kept])
    assert triplet.gaussians.sh_degree == 0 and '60 Gaussians reduced to 20' in triplet.source['made']
    # Against pictures of the cloud as it came, here with the other renderer.
    normalised, psnr = cloud.normalise(), []
    for viewmat in torch.from_numpy(RULE.test_cameras()):
        camera = viewmat[None].double(), torch.from_numpy(RULE.intrinsics())[None].double()
        a, b = (ops.render(c.to(torch.float64), *camera, 24, 24, (1.0, 1.0, 1.0), backend='reference')[0]
                for c in (normalised, triplet.gaussians))
        psnr.append(-10 * float(((a - b.clamp(0, 1)) ** 2).mean().log10()))
    assert triplet.quality['psnr'] == pytest.approx(np.mean(psnr), abs=0.02)


def test_points_become_discs_without_a_fit(tmp_path):
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(400, 3))
    sphere = (directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32)
    triplet = make_triplet(Listed('given', tmp_path), Given(Points(sphere * 3 + 1)), SMALL)
    cloud = triplet.gaussians
    assert len(cloud) == 150 and triplet.quality == {} and 'no fit' in triplet.source['made']
    assert torch.allclose(cloud.rgb, torch.tensor(0.4), atol=1e-6)
    thin = cloud.rotations[torch.arange(150), :, cloud.log_scales.argmin(-1)]
    outward = torch.nn.functional.normalize(cloud.means, dim=-1)
    assert (thin * outward).sum(-1).abs().median() > 0.97
    assert triplet.views.shape == (3, 24, 24, 3) and triplet.views.min() < 128


def cube():
    """A cube whose sides differ in colour, off the middle."""
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, -1], [1, 1], [-1, 1]], np.float32)
    parts = []
    for axis in range(3):
        for sign in (-1, 1):
            corners = np.insert(square, axis, sign, axis=1).reshape(2, 3, 3)
            normal = np.broadcast_to(np.eye(3, dtype=np.float32)[axis] * sign, (2, 3, 3))
            color = np.array([axis / 2, 0.5 + sign / 4, 1 - axis / 2, 1], np.float32)
            parts.append(MeshPart(corners * 4 + 2, normal, color))
    return Mesh(tuple(parts))


def psnr(a, b):
    """Of pictures in [0, 1], dB, plainly."""
    return -10 * np.log10(((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2).mean((1, 2, 3))).mean()


def test_a_mesh_is_fitted_and_judged_by_views_that_are_held_out(tmp_path):
    rule = ViewRule(num_views=12, num_test=2, size=24)
    settings = replace(SMALL, views=rule, fit=replace(SMALL.fit, iterations=60, num_gaussians=600))
    triplet = make_triplet(Listed('given', tmp_path), Given(cube()), settings)
    assert triplet.source['centre'] == [2, 2, 2] and triplet.source['radius'] == pytest.approx(4 * 3 ** 0.5)
    assert triplet.source['kind'] == 'mesh' and 'fitted in 60 iterations' in triplet.source['made']
    small = Mesh(tuple(part._replace(triangles=(part.triangles - 2) / (4 * 3 ** 0.5)) for part in cube().parts))
    images = render_mesh(small, rule.test_cameras(), rule.intrinsics(), 24, 24)
    truth = images[..., :3] * images[..., 3:] + 1 - images[..., 3:]
    drawn, _ = ops.render(triplet.gaussians, torch.from_numpy(rule.test_cameras()),
                          torch.from_numpy(rule.intrinsics()).expand(2, 3, 3), 24, 24, (1.0, 1.0, 1.0))
    assert triplet.quality['psnr'] == pytest.approx(psnr(drawn.clamp(0, 1), truth), abs=0.01)
    begun = make_triplet(Listed('given', tmp_path), Given(cube()), replace(settings, fit=replace(settings.fit,
                                                                                                   iterations=1)))
    assert triplet.quality['psnr'] > begun.quality['psnr'] + 2
    again = make_triplet(Listed('given', tmp_path), Given(cube()), settings)
    other = make_triplet(Listed('other', tmp_path), Given(cube()), settings)
    assert torch.equal(again.gaussians.means, triplet.gaussians.means)
    assert not torch.equal(other.gaussians.means, triplet.gaussians.means)


@pytest.fixture
def posed():
    """Pictures with masks of a blob, 40 x 30 pixels, from 16 sides; no points."""
    cloud = random_cloud(200).normalise().translate_scale(torch.tensor([0.5, 0.0, 0.0]), 3.0)
    viewmats = ops.sphere_cameras(16, 12.0)
    viewmats[:, :3, 3] -= viewmats[:, :3, :3] @ torch.tensor([1.5, 0.0, 0.0])
    matrices = ops.intrinsics(40.0, 40, 30).repeat(16, 1, 1)
    colors, alphas = ops.render(cloud.replace(opacity_logits=cloud.opacity_logits + 5), viewmats, matrices, 40, 30)
    colors = torch.where(alphas[..., None] > 0, colors / alphas[..., None], 0.0).clamp(0, 1)
    return PosedImages(torch.cat([colors, alphas[..., None]], -1).numpy(), viewmats.numpy(), matrices.numpy())


def test_posed_images_keep_their_cameras_in_the_frame_of_the_dataset(tmp_path, posed):
    settings = replace(SMALL, views=ViewRule(num_views=5, size=40), fit=replace(SMALL.fit, num_gaussians=500))
    triplet = make_triplet(Listed('given', tmp_path), Given(posed), settings)
    assert 'hull of the masks' in triplet.source['made'] and triplet.source['held_out'] == 2
    assert triplet.views.shape == (5, 40, 40, 3) and triplet.viewmats.shape == (5, 4, 4)
    white = np.ones((16, 40, 40, 3))
    white[:, 5:35] = posed.images[..., :3] * posed.images[..., 3:] + 1 - posed.images[..., 3:]
    centre, radius = np.array(triplet.source['centre']), triplet.source['radius']
    point = np.array([0.1, -0.2, 0.3])  # of the dataset's frame
    used = []
    for view, viewmat, matrix in zip(triplet.views, triplet.viewmats, triplet.intrinsics):
        errors = np.abs(white * 255 - view).max((1, 2, 3))
        used.append(int(errors.argmin()))
        assert errors.min() <= 0.51
        there = posed.viewmats[used[-1]].astype(np.float64) @ [*(point * radius + centre), 1]
        column, row, depth = posed.intrinsics[used[-1]] @ there[:3]
        ours = matrix.astype(np.float64) @ (viewmat.astype(np.float64) @ [*point, 1])[:3]
        assert ours[:2] / ours[2] == pytest.approx([column / depth, row / depth + 5], abs=1e-3)
    assert len(set(used)) == 5 and not {0, 8} & set(used)  # the held-out ones are not among them
    assert triplet.quality['psnr'] > 15


def test_fewer_pictures_than_views_are_repeated(tmp_path, posed):
    few = PosedImages(posed.images[:5], posed.viewmats[:5], posed.intrinsics[:5])
    settings = replace(SMALL, views=ViewRule(num_views=6, size=20), fit=replace(SMALL.fit, iterations=2))
    triplet = make_triplet(Listed('given', tmp_path), Given(few), settings)
    assert len(np.unique(triplet.views.reshape(6, -1), axis=0)) == 4 and triplet.views.shape == (6, 20, 20, 3)
    assert triplet.intrinsics[0, 0, 0] == pytest.approx(posed.intrinsics[0, 0, 0] / 2)
    with pytest.raises(ValueError, match='one image alone'):
        make_triplet(Listed('given', tmp_path), Given(few._replace(images=few.images[:1])), settings)


def test_own_cameras_are_stored_with_the_object(tmp_path, posed):
    generate(Given(posed), tmp_path, tmp_path / 'out', replace(SMALL, views=ViewRule(num_views=3, size=20)), workers=0)
    record = ShardReader(tmp_path / 'out').read_record(0)
    assert record['cameras'] == 'own' and np.shape(record['source']['cameras']['viewmats']) == (3, 4, 4)


def test_other_content_is_named(tmp_path):
    with pytest.raises(TypeError, match='Given returned a str, expected one of Mesh'):
        make_triplet(Listed('given', tmp_path), Given('a mesh?'), SMALL)


# Settings

def test_settings_come_from_a_config():
    settings = GenerationSettings.from_config(dict(
        source=dict(type='MeshSource'), views=dict(size=32, background=[0, 0, 0]),
        fit=dict(preset='draft', sh_degree=1), captions=dict(limit=2, ranker=dict(type='CaptionRanker', teacher='a')),
        mesh=dict(light='soft', renderer='egl'), storage=dict(dtype='float32'), seed=3, device='cuda'))
    assert (settings.views.size, settings.views.background, settings.light) == (32, (0.0, 0.0, 0.0), 'soft')
    assert (settings.fit.num_gaussians, settings.fit.sh_degree) == (2000, 1)
    assert (settings.renderer, settings.device, settings.captions.limit) == ('egl', 'cuda', 2)
    assert settings.ranker == dict(type='CaptionRanker', teacher='a') and settings.captioner is None
    assert (settings.dtype, settings.webp_quality, settings.seed) == ('float32', 90, 3)


@pytest.mark.parametrize('part', ['views', 'fit', 'mesh', 'splats', 'storage'])
def test_an_unknown_setting_is_named(part):
    with pytest.raises(ValueError, match=f"{part} has no setting 'sise'; it takes"):
        GenerationSettings.from_config({part: dict(sise=3)})
    with pytest.raises(ValueError, match="generation has no setting 'veiws'"):
        GenerationSettings.from_config(dict(veiws=dict()))


def test_an_option_that_a_source_has_not_is_named():
    with pytest.raises(ValueError, match=r"source=\{'type': 'SplatSource', 'categories': True\}: .*'categories'"):
        run.build_source(dict(type='SplatSource', categories=True))


def test_the_documented_config_and_cameras_work(root, whole):
    page = (root / 'docs' / 'triplets.md').read_text(encoding='utf-8')
    config, captions, cameras, *_ = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
    names = {}
    exec(config, names)
    assert run.build_source(names['generation']['source']).up == 'z'
    exec(captions, names)
    settings = GenerationSettings.from_config(names['generation'])
    assert settings.views.size == 224 and settings.captioner['type'] == 'TransformersCaptioner'
    exec(cameras.replace('data/triplets', str(whole)), names)
    stored = torch.from_numpy(names['reader'].read_views(0)) / 255
    assert (names['pictures'].clamp(0, 1) - stored).abs().max() < 1.5 / 255
    # OpenGL: a camera looks along its -z, here at the origin, from 3 away; its y is upward.
    right, up, back, eye = names['camera_to_world'][:, :3].unbind(-1)
    assert torch.allclose(eye - 3 * back, torch.zeros(3), atol=1e-5) and (up[:, 1] > 0).all()
    assert torch.allclose(torch.linalg.cross(right, up), back, atol=1e-5)
