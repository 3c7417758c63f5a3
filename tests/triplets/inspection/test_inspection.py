"""Inspection of valid datasets: statistics, shown objects and the page."""
import hashlib
import math
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from toy_dataset import OBJECTS, PSNR, SIZE, member, overwrite, shard_file, write_toys

from clipgs_plugin.generation import Execution, GenerationSettings, generate
from clipgs_plugin.generation.rendering import ViewRule
from clipgs_plugin.toy_world.writing import export_files
from clipgs_plugin.triplets import ShardWriter
from clipgs_plugin.triplets.inspection import inspect, write_page
from clipgs_plugin.triplets.inspection.page import render_page
from clipgs_plugin.triplets.inspection.strips import AMPLIFIED


@pytest.fixture(scope='module')
def whole(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('inspection') / 'whole'
    write_toys(root)
    return root


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / 'copy'))


def test_a_valid_dataset_has_no_problems_and_is_summarised(whole):
    steps = []
    found = inspect(whole, report=lambda done, total: steps.append((done, total)))
    assert found.problems == [] and steps == [(i + 1, OBJECTS) for i in range(OBJECTS)]
    assert found.objects == OBJECTS and found.splits == dict(train=5, test=2) and found.features == dict(clip=3)
    assert found.failed == {('ValueError', 'FILE: <failed>'): 2, ('OSError', 'FILE: <failed>'): 1}
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


def test_the_worst_objects_come_first_and_random_ones_differ_from_them(whole):
    found = inspect(whole, worst=2, random=3, seed=1)
    assert [strip.uid for strip in found.worst] == ['uid-4', 'uid-1']
    chosen = {strip.uid for strip in found.random}
    assert len(chosen) == 3 and not chosen & {'uid-4', 'uid-1'}
    assert [s.uid for s in inspect(whole, worst=2, random=3, seed=1).random] == [s.uid for s in found.random]
    others = {frozenset(s.uid for s in inspect(whole, worst=0, random=3, seed=seed).random) for seed in range(4)}
    assert len(others) > 1


def test_renders_from_the_stored_cameras_match_the_stored_views(whole):
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
        assert strip.views.std() > 10  # not background alone


def test_generated_datasets_are_valid(tmp_path):
    export_files(tmp_path / 'files', 3, num_gaussians=200)
    settings = GenerationSettings(views=ViewRule(num_views=3, num_test=1, size=SIZE), webp_quality=None)
    generate(dict(type='SplatSource'), tmp_path / 'files', tmp_path / 'out', settings, Execution(workers=0))
    found = inspect(tmp_path / 'out')
    assert found.problems == [] and found.worst == [] and len(found.random) == 3
    assert min(min(strip.psnr()) for strip in found.random) > 40


def test_a_dataset_without_cameras_shows_its_views_alone(tmp_path, random_cloud):
    with ShardWriter(tmp_path, render=dict(size=8)) as writer:
        writer.write('a', random_cloud(5), np.zeros((2, 8, 8, 3), np.uint8), captions=['x'])
    found = inspect(tmp_path)
    assert found.problems == [] and found.random[0].splats is None
    assert 'does not store its cameras' in render_page(found)


def test_an_empty_dataset_has_a_problem_and_a_page(tmp_path):
    ShardWriter(tmp_path).close()
    found = inspect(tmp_path)
    assert [problem.reason for problem in found.problems] == ['no shards'] and found.statistics() == {}
    assert 'Objects: 0.' in render_page(found)


def test_point_clouds_have_no_quality_and_no_problem(tmp_path):
    (tmp_path / 'points').mkdir()
    sphere = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    np.save(tmp_path / 'points' / 'ball.npy', sphere / np.linalg.norm(sphere, axis=1, keepdims=True))
    settings = GenerationSettings(views=ViewRule(num_views=2, num_test=1, size=SIZE))
    generate(dict(type='PointSource'), tmp_path / 'points', tmp_path / 'out', settings, Execution(workers=0))
    found = inspect(tmp_path / 'out')
    assert found.problems == [] and found.worst == [] and [strip.uid for strip in found.random] == ['ball']
    assert not found.statistics().keys() & {'psnr', 'psnr_foreground', 'ssim'}
    page = render_page(found)
    assert 'No sound object has a measured quality' in page and 'no fit' in page


def test_the_page_needs_no_other_file_and_shows_captions_failures_and_problems(copy, tmp_path):
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
