"""A run gives the same bytes however it is executed; objects become triplets by the contents of their files."""
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import random_cloud

from clipgs_plugin import ops, write_gaussians
from clipgs_plugin.datasets import TripletDataset
from clipgs_plugin.generation import (
    Execution,
    FitSettings,
    GenerationSettings,
    Listed,
    Mesh,
    MeshPart,
    Points,
    PosedImages,
    ViewRule,
    generate,
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
HERE = Execution(workers=0)


class Given:
    """Source of one object in memory."""

    suffixes = ()

    def __init__(self, content, up='y'):
        self._content, self.up = content, up

    def list(self, root):
        return [Listed('given', root / 'given')]

    def load(self, listed):
        return self._content


class Deadly(SplatSource):
    """Source whose process dies on some objects and hangs on others."""

    def load(self, listed):
        if 'deadly' in listed.uid:
            os._exit(9)
        if 'endless' in listed.uid:
            time.sleep(600)
        return super().load(listed)


def write_chairs(folder):
    """Write five splat files."""
    for i in range(5):
        write_gaussians(random_cloud(30 + i, seed=i), folder / f'chair_{i}.ply')
    return folder


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A folder of five splat files."""
    return write_chairs(tmp_path_factory.mktemp('files'))


@pytest.fixture(scope='module')
def whole(files, tmp_path_factory):
    """Dataset of an uninterrupted run in this process; it compiles the kernels that runs with a time limit load."""
    out = tmp_path_factory.mktemp('whole')
    progress = generate(SplatSource(), files, out, SMALL, HERE)
    assert (progress.listed, progress.made, progress.failed, progress.left) == (5, 5, 0, 0)
    return out


def contents(out):
    """Return the bytes of every file of a dataset, except its logs."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob('*')
            if path.is_file() and path.name not in ('timings.jsonl', 'failed.jsonl')}


def failures(out):
    return [json.loads(line) for line in (out / 'failed.jsonl').read_text().splitlines()]


# A run

def test_a_death_and_a_hang_on_two_workers_do_not_change_the_bytes(files, whole, tmp_path):
    folder = tmp_path / 'files'
    folder.mkdir()
    for path in files.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    bad = dict(chair_2_deadly='ProcessDied', chair_3_endless='TimedOut')
    for name in bad:
        write_gaussians(random_cloud(5), folder / f'{name}.ply')
    seen = []
    progress = generate(Deadly(), folder, tmp_path / 'out', SMALL, Execution(2, batch_size=3, time_limit=5),
                        report=lambda p: seen.append(p.left))
    assert (progress.made, progress.failed, progress.reasons) == (5, 2, dict.fromkeys(bad.values(), 1))
    assert seen == [7, 6, 5, 4, 3, 2, 1, 0]
    assert {failure['uid']: failure['error'] for failure in failures(tmp_path / 'out')} == bad
    assert 'over 5 s' in failures(tmp_path / 'out')[1]['message']
    assert failures(tmp_path / 'out')[0]['path'] == str(folder / 'chair_2_deadly.ply')
    made, expected = contents(tmp_path / 'out'), contents(whole)
    cards = [json.loads(files.pop('dataset.json')) for files in (made, expected)]
    assert cards[0].pop('generator')['source'].pop('type') == 'Deadly' and cards[1].pop('generator')
    assert made == expected and cards[0] == cards[1]


def test_a_run_that_was_killed_continues_to_the_same_bytes(files, whole, tmp_path):
    code = f"""
import os, signal, sys
sys.path[:0] = {[os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))]}
from test_run import SMALL, Execution, SplatSource, generate
def report(progress):
    if progress.made == 3:
        os.kill(os.getpid(), signal.SIGKILL)
generate(SplatSource(), {str(files)!r}, {str(tmp_path)!r}, SMALL, Execution(batch_size=2), report=report)
"""
    killed = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [path.name for path in (tmp_path / 'shards').glob('*.tar')] == ['00000.tar']
    assert not (tmp_path / 'index.parquet').exists()
    progress = generate(SplatSource(), files, tmp_path, SMALL, HERE)
    assert (progress.there, progress.made) == (2, 3)
    assert contents(tmp_path) == contents(whole)


def test_a_bad_file_is_recorded_and_does_not_change_the_shards(files, whole, tmp_path):
    folder, out = tmp_path / 'files', tmp_path / 'out'
    folder.mkdir()
    for path in files.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    good = (files / 'chair_0.ply').read_bytes()
    (folder / 'chair_0_truncated.ply').write_bytes(good[:-40])
    (folder / 'chair_1_empty.ply').write_bytes(b'')
    (folder / 'chair_3_text.ply').write_text('not a splat')
    bad = ['chair_0_truncated', 'chair_1_empty', 'chair_3_text']
    progress = generate(SplatSource(), folder, out, SMALL, HERE)
    assert (progress.made, progress.failed, progress.reasons['ValueError']) == (5, 3, 3)
    assert [failure['uid'] for failure in failures(out)] == bad
    for failure, name in zip(failures(out), bad):
        assert failure['path'] == str(folder / f'{name}.ply') and failure['path'] in failure['message']
    assert contents(out) == contents(whole)

    progress = generate(SplatSource(), folder, out, SMALL, HERE)
    assert (progress.there, progress.skipped, progress.made, progress.failed) == (5, 3, 0, 0)
    with (out / 'failed.jsonl').open('a') as file:
        file.write('{"uid": "chair_')  # what a kill leaves
    (folder / 'chair_1_empty.ply').write_bytes(good)
    progress = generate(SplatSource(), folder, out, SMALL, HERE, retry_failed=True)
    assert (progress.there, progress.skipped, progress.made, progress.failed) == (5, 0, 1, 2)
    assert [failure['uid'] for failure in failures(out)] == ['chair_0_truncated', 'chair_3_text']
    assert set(ShardReader(out).uids) == {*ShardReader(whole).uids, 'chair_1_empty'}


# Older releases of torch mark a lost context by the text of the error only.
@pytest.mark.parametrize('error', [ImportError('needs nothing'), NoRenderer('no libEGL'), RuntimeError('CUDA error: x'),
                                   getattr(torch, 'AcceleratorError', NoRenderer)('device is lost')],
                         ids=lambda error: type(error).__name__)
@pytest.mark.parametrize('step', ['load', 'fit'])
def test_an_error_of_the_machine_stops_the_run(files, tmp_path, monkeypatch, error, step):
    def fail(*args):
        raise error
    if step == 'load':
        monkeypatch.setattr(SplatSource, 'load', fail)
    else:
        monkeypatch.setattr(worker, 'fit_together', fail)
    source = SplatSource() if step == 'load' else Given(cube())
    with pytest.raises(type(error), match=str(error)):
        generate(source, files, tmp_path, SMALL, HERE)
    assert failures(tmp_path) == []


@pytest.mark.parametrize('error', [torch.OutOfMemoryError('CUDA out of memory'), RuntimeError('a CUDA error in words')])
def test_an_error_of_an_object_does_not_stop_the_run(files, tmp_path, monkeypatch, error):
    def load(self, listed):
        raise error
    monkeypatch.setattr(SplatSource, 'load', load)
    assert generate(SplatSource(), files, tmp_path, SMALL, HERE).reasons == {type(error).__name__: 5}


def test_names_that_are_not_unicode_are_escaped(tmp_path):
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
    progress = generate(PointSource(), folder, tmp_path / 'out', SMALL, HERE)
    assert (progress.made, progress.failed) == (2, 1)
    reader = ShardReader(tmp_path / 'out')
    assert reader.categories == ['caf\\udce9'] * 2 and reader.read_record(0)['category'] == 'caf\\udce9'
    assert [reader.read_record(i)['source']['file'] for i in range(2)] == ['caf\\udce9/cr\\udce8me.npy',
                                                                         'caf\\udce9/plain.npy']
    (failure,) = failures(tmp_path / 'out')
    assert failure['path'] == f'{folder}/caf\\udce9/vid\\udce9.npy' and failure['path'] in failure['message']
    assert generate(PointSource(), folder, tmp_path / 'out', SMALL, HERE).skipped == 1


@pytest.mark.parametrize('renderer', ['egl', 'raycast'])
def test_auto_continues_with_the_renderer_of_the_dataset(files, tmp_path, monkeypatch, renderer):
    monkeypatch.setattr(run, 'choose_renderer', lambda name: renderer if name == 'auto' else name)
    auto = replace(SMALL, renderer='auto')
    generate(SplatSource(), files, tmp_path, auto, HERE, limit=1)
    assert json.loads((tmp_path / 'dataset.json').read_text())['generator']['renderer'] == renderer

    def choose_renderer(name):
        raise RuntimeError('no libEGL')
    monkeypatch.setattr(run, 'choose_renderer', choose_renderer)
    with pytest.raises(ValueError, match=f"{tmp_path} was begun with renderer='{renderer}': no libEGL"):
        generate(SplatSource(), files, tmp_path, auto, HERE)
    monkeypatch.setattr(run, 'choose_renderer', lambda name: 'other' if name == 'auto' else name)
    assert generate(SplatSource(), files, tmp_path, auto, HERE).there == 1


def test_a_limit_below_one_is_refused(files, tmp_path):
    with pytest.raises(ValueError, match='limit=0: expected at least 1'):
        generate(SplatSource(), files, tmp_path / 'out', SMALL, HERE, limit=0)


def test_a_fit_that_fails_for_a_batch_is_repeated_for_each_object(tmp_path, monkeypatch):
    """The fit is faked, so that no GPU is needed."""
    calls, steps = [], []

    def fit_together(triplets, views, settings):
        calls.append([triplet.listed.uid for triplet in triplets])
        assert steps[-1] == len(triplets)  # the time limit of each
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


def test_a_manifest_lists_absolute_paths(files, tmp_path, monkeypatch):
    (tmp_path / 'table.csv').write_text('path,caption\nchair_1.ply,a chair\n')
    monkeypatch.chdir(files.parent)
    for source in (ManifestSource(files=files.name), ManifestSource(files=files.name, only_present=True)):
        (listed,) = source.list(tmp_path / 'table.csv')
        assert listed.path == files / 'chair_1.ply'


def test_captions_are_ranked_by_the_ranker_of_the_config(files, tmp_path):
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
        generate(SplatSource(), files, tmp_path, settings, HERE)
    finally:
        TASK_UTILS._module_dict.pop('Shortest')
    reader = ShardReader(tmp_path)
    assert [caption['text'] for caption in reader.read_record(0)['captions']] == ['chair 0']
    assert reader.settings['generator']['ranker'] == dict(type='Shortest', keep=1)


def test_an_unknown_ranker_stops_the_run_before_it_begins(files, tmp_path):
    with pytest.raises((KeyError, ValueError), match='Nothing'):
        generate(SplatSource(), files, tmp_path / 'out', replace(SMALL, ranker=dict(type='Nothing')))
    assert not (tmp_path / 'out').exists()


def test_a_missing_device_is_named(files, tmp_path):
    if torch.cuda.is_available():
        pytest.skip('a GPU is present')
    with pytest.raises(ValueError, match="device='tpu': expected cpu or cuda"):
        replace(SMALL, device='tpu')
    with pytest.raises(ValueError, match="device='cuda:0': torch sees no GPU"):
        generate(SplatSource(), files, tmp_path, replace(SMALL, device='cuda:0'))


def test_an_empty_listing_is_refused(tmp_path):
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
    assert stored.std() > 0.05  # not an empty image


def seen_by_opengl(cloud, camera_to_world, matrix, size):
    """Draw round Gaussians on white as a viewer in OpenGL axes does: x right, y up, looking along -z."""
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


def test_a_viewer_in_opengl_axes_shows_the_stored_views(tmp_path):
    cloud = random_cloud(25, seed=3)
    balls = cloud.replace(log_scales=cloud.log_scales[:, :1].expand(-1, 3).contiguous())
    write_gaussians(balls, tmp_path / 'balls.ply')
    generate(SplatSource(), tmp_path / 'balls.ply', tmp_path / 'out', replace(SMALL, dtype='float32'), HERE)
    reader = ShardReader(tmp_path / 'out')
    card, stored = reader.settings['render'], reader.read_views(0) / 255
    cameras = torch.linalg.inv(ops.flip_camera_axes(torch.tensor(card['viewmats'], dtype=torch.float64))).numpy()
    for camera, picture in zip(cameras, stored):
        drawn = seen_by_opengl(reader.read_gaussians(0), camera, np.array(card['intrinsics']), card['size'])
        assert np.abs(drawn.clip(0, 1) - picture).max() < 1.5 / 255
    assert stored.std() > 0.05


def test_centre_and_radius_map_splats_back_to_their_file(tmp_path):
    cloud = random_cloud(50).translate_scale(torch.tensor([1.0, -2.0, 3.0]), 2.5)
    triplet = make_triplet(Listed('given', tmp_path), Given(cloud, up='z'), SMALL)
    back = triplet.gaussians.means.double() * triplet.source['radius'] + torch.tensor(triplet.source['centre'])
    x, y, z = cloud.means.double().T
    upright = ops.axis_change('z', 'y').double() @ torch.stack([x, y, z])
    assert torch.allclose(back, upright.T, atol=1e-5) and triplet.source['up'] == 'z'
    assert torch.allclose(back[:, 1], z, atol=1e-5)  # what was up is y
    assert triplet.quality == {}  # nothing lost, nothing measured


def test_reduced_splats_keep_the_largest_gaussians_and_are_measured(tmp_path):
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
    # Against images of the cloud before the reduction, here with the other renderer.
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


def test_points_without_colours_are_shaded_by_their_normals(tmp_path):
    """Their upper side is brighter in every view, their Gaussians are evenly grey, and the given colours stay."""
    sphere = torch.nn.functional.normalize(torch.randn(3000, 3), dim=1).numpy()
    settings = replace(SMALL, fit=replace(SMALL.fit, num_gaussians=3000))
    bare, coloured = (make_triplet(Listed('given', tmp_path), Given(points), settings) for points in (
        Points(sphere), Points(sphere, np.full_like(sphere, 0.4))))
    assert torch.equal(bare.gaussians.sh, coloured.gaussians.sh)
    assert 'shaded' in bare.source['made'] and 'shaded' not in coloured.source['made']
    assert coloured.views[:, 8:16, 8:16].std() < 1
    for view in bare.views:
        assert view[5:8, 9:15].mean() > view[16:19, 9:15].mean() + 15


def cube():
    """Return a cube off the origin, with a colour for each side."""
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
    """Return the mean PSNR of images in [0, 1], in dB."""
    return -10 * np.log10(((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2).mean((1, 2, 3))).mean()


def test_a_mesh_is_fitted_and_measured_on_held_out_views(tmp_path):
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


def test_held_out_views_are_stored_behind_the_fitted_ones_and_change_no_fit(tmp_path):
    rule = replace(RULE, keep_test=True)
    kept, plain = (make_triplet(Listed('given', tmp_path), Given(cube()), replace(SMALL, views=each))
                   for each in (rule, RULE))
    assert kept.views.shape == (5, 24, 24, 3) and np.array_equal(kept.views[:3], plain.views)
    assert kept.quality == plain.quality and torch.equal(kept.gaussians.sh, plain.gaussians.sh)
    small = Mesh(tuple(part._replace(triangles=(part.triangles - 2) / (4 * 3 ** 0.5)) for part in cube().parts))
    images = render_mesh(small, rule.test_cameras(), rule.intrinsics(), 24, 24, renderer='raycast')
    truth = 255 * (images[..., :3] * images[..., 3:] + 1 - images[..., 3:])
    assert np.abs(kept.views[3:] - truth).max() <= 0.51
    generate(Given(cube()), tmp_path, tmp_path / 'out', replace(SMALL, views=rule), HERE)
    reader = ShardReader(tmp_path / 'out')
    np.testing.assert_array_equal(reader.settings['render']['viewmats'][3:], rule.test_cameras())
    assert reader.num_views == 5


@pytest.fixture
def posed():
    """Images of a blob with masks, 40 x 30 pixels, from 16 sides; no points."""
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
    point = np.array([0.1, -0.2, 0.3])  # in the frame of the dataset
    used = []
    for view, viewmat, matrix in zip(triplet.views, triplet.viewmats, triplet.intrinsics):
        errors = np.abs(white * 255 - view).max((1, 2, 3))
        used.append(int(errors.argmin()))
        assert errors.min() <= 0.51
        there = posed.viewmats[used[-1]].astype(np.float64) @ [*(point * radius + centre), 1]
        column, row, depth = posed.intrinsics[used[-1]] @ there[:3]
        ours = matrix.astype(np.float64) @ (viewmat.astype(np.float64) @ [*point, 1])[:3]
        assert ours[:2] / ours[2] == pytest.approx([column / depth, row / depth + 5], abs=1e-3)
    assert len(set(used)) == 5 and not {0, 8} & set(used)  # none is held out
    with pytest.raises(ValueError, match='keep_test=True'):
        make_triplet(Listed('given', tmp_path), Given(posed), replace(SMALL, views=replace(RULE, keep_test=True)))
    assert triplet.quality['psnr'] > 15


def test_views_repeat_images_if_there_are_too_few(tmp_path, posed):
    few = PosedImages(posed.images[:5], posed.viewmats[:5], posed.intrinsics[:5])
    settings = replace(SMALL, views=ViewRule(num_views=6, size=20), fit=replace(SMALL.fit, iterations=2))
    triplet = make_triplet(Listed('given', tmp_path), Given(few), settings)
    assert len(np.unique(triplet.views.reshape(6, -1), axis=0)) == 4 and triplet.views.shape == (6, 20, 20, 3)
    assert triplet.intrinsics[0, 0, 0] == pytest.approx(posed.intrinsics[0, 0, 0] / 2)
    with pytest.raises(ValueError, match='one image alone'):
        make_triplet(Listed('given', tmp_path), Given(few._replace(images=few.images[:1])), settings)


def test_own_cameras_are_stored_with_the_object(tmp_path, posed):
    generate(Given(posed), tmp_path, tmp_path / 'out', replace(SMALL, views=ViewRule(num_views=3, size=20)), HERE)
    record = ShardReader(tmp_path / 'out').read_record(0)
    assert record['cameras'] == 'own' and np.shape(record['source']['cameras']['viewmats']) == (3, 4, 4)


def test_other_content_is_named(tmp_path):
    with pytest.raises(TypeError, match='Given returned a str, expected one of Mesh'):
        make_triplet(Listed('given', tmp_path), Given('a mesh?'), SMALL)


def test_an_unknown_option_of_a_source_is_named():
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
    assert (names['images'].clamp(0, 1) - stored).abs().max() < 1.5 / 255
    # OpenGL: a camera looks along its -z, here at the origin, from 3 away; its y is upward.
    right, up, back, eye = names['camera_to_world'][:, :3].unbind(-1)
    assert torch.allclose(eye - 3 * back, torch.zeros(3), atol=1e-5) and (up[:, 1] > 0).all()
    assert torch.allclose(torch.linalg.cross(right, up), back, atol=1e-5)
