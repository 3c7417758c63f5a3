"""A stream gives the embeddings of one object at a time, whatever batches, processes and files it meets."""
import multiprocessing
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import random_cloud
from stream_stand_in import MeanColour, dangerous, identity

from clipgs_plugin import CLIPGSInferencer, write_gaussians
from clipgs_plugin.apis import Embedded, Failed, stream_embeddings

pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture(scope='module')
def clipgs():
    return CLIPGSInferencer('clipgs_toy')


def files(folder, sizes):
    """Write a cloud of each size."""
    paths = [str(folder / f'{i:02d}.ply') for i in range(len(sizes))]
    for i, (path, size) in enumerate(zip(paths, sizes)):
        write_gaussians(random_cloud(size, seed=i), path)
    return paths


def check_outcomes(outcomes, paths, clipgs, turns):
    """Compare the outcomes of files, the third of which is broken and the sixth absent, with embeddings one by one."""
    assert [found.path for found in outcomes] == list(map(str, paths))
    assert {i: found.error for i, found in enumerate(outcomes[:7]) if isinstance(found, Failed)} == {
        2: 'ValueError', 5: 'FileNotFoundError'}
    assert str(paths[2]) in outcomes[2].message and outcomes[4].notes['gaussians'] == 4721
    for path, found in zip(paths, outcomes):
        if isinstance(found, Embedded):
            alone = clipgs.embed_gaussians(path, turns=turns)[0]
            assert (found.embedding - alone).abs().max() <= 1e-5 and found.notes['sh_degree'] in (0, 3)


@pytest.fixture
def mixed(splats, tmp_path):
    (tmp_path / 'broken.ply').write_text('no splat')
    return [splats / 'camera.spz', splats / 'three_points.ply', tmp_path / 'broken.ply',
            splats / 'potted_plant.splat', splats / 'fruit_drops_sh3.ply', tmp_path / 'absent.ply',
            splats / 'train_1000_sh3.ply']


def test_embeddings_are_those_of_one_object_at_a_time(mixed, clipgs):
    check_outcomes(list(stream_embeddings(clipgs, mixed, batch_size=9, turns=3, workers=0)), mixed, clipgs, 3)


def test_processes_change_nothing_and_a_file_that_crashes_one_fails_alone(mixed, tmp_path, clipgs):
    deadly = tmp_path / 'deadly.ply'
    outcomes = list(stream_embeddings(clipgs, [*mixed, deadly], dangerous, batch_size=3, workers=1))
    assert (outcomes[-1].path, outcomes[-1].error) == (str(deadly), 'ProcessDied')
    assert outcomes[-1].message.startswith(f'{deadly}: the process that worked on it died, twice')
    assert os.getpid() not in {found.notes['pid'] for found in outcomes if isinstance(found, Embedded)}
    check_outcomes(outcomes[:-1], mixed, clipgs, 1)


def test_the_end_of_the_consumer_ends_processes_and_taking_of_files(tmp_path):
    paths = files(tmp_path, [20] * 4) * 100
    taken = []
    outcomes = stream_embeddings(MeanColour(), (taken.append(path) or path for path in paths), workers=1, batch_size=2)
    assert next(outcomes).path == paths[0] and multiprocessing.active_children()
    outcomes.close()
    assert not multiprocessing.active_children() and len(taken) < 60


def test_objects_that_the_encoder_refuses_fail_alone(tmp_path):
    model, paths = MeanColour(), files(tmp_path, [20, 13, 20, 20])
    outcomes = list(stream_embeddings(model, paths, workers=0, batch_size=3))
    assert [type(found) for found in outcomes] == [Embedded, Failed, Embedded, Embedded]
    assert outcomes[1].message == f'{paths[1]}: 13 Gaussians bring bad luck' and model.batches == [3, 1, 1, 1, 1]
    odd, = stream_embeddings(model, files(tmp_path, [14]), workers=0)
    assert isinstance(odd, Failed) and 'is not finite' in odd.message


@pytest.mark.parametrize('wrong', [dict(engine='there'), dict(batch_size=0), dict(turns=0), dict(workers=-1)])
def test_wrong_arguments_are_named_at_once(wrong):
    with pytest.raises(ValueError, match=f'{next(iter(wrong))}=.*expected'):
        stream_embeddings(MeanColour(), [], **wrong)


def test_a_built_model_is_not_sent_to_a_cluster(clipgs):
    with pytest.raises(ValueError, match='give the inferencer a name'):
        stream_embeddings(CLIPGSInferencer(clipgs.model), [], engine='ray')


def test_bf16_agrees_with_fp32_on_real_splats(splats, clipgs):
    half, paths = clipgs.with_precision('bf16'), sorted(splats.glob('*_*.ply')) + [splats / 'camera.spz']
    cosines = (half.embed_gaussians(paths) * clipgs.embed_gaussians(paths)).sum(1)
    assert 0.999 < cosines.min() < 1 - 1e-7 and clipgs.precision == 'fp32' and half.precision == 'bf16'
    assert clipgs.with_precision('fp32') is clipgs
    with pytest.raises(ValueError, match=r'fp16.*expected one of fp32, bf16'):
        clipgs.with_precision('fp16')


def test_the_digest_of_weights_sees_every_value(clipgs):
    other, value = CLIPGSInferencer('clipgs_toy'), clipgs.weights_sha256()
    assert other.weights_sha256() == value and len(value) == 64 and clipgs.embed_dim == 128
    with torch.no_grad():
        other.model.logit_scale += 1e-6
    assert other.weights_sha256() != value


def test_the_origin_of_a_model_serves_in_any_folder(tmp_path, monkeypatch, clipgs):
    assert clipgs.origin == ('clipgs_toy', None)
    monkeypatch.chdir(tmp_path)
    Path('mine.py').write_text("_base_ = 'clipgs_plugin::quickstart/clipgs_pointbert-nano_15e_toy-world.py'")
    assert CLIPGSInferencer('mine.py').origin == (str(tmp_path / 'mine.py'), None)


def test_the_reason_names_the_file_once(tmp_path):
    def read(path):
        raise KeyError('odd')
    path, = files(tmp_path, [20])
    failure, = stream_embeddings(SimpleNamespace(
        require_embeddings=lambda: None, origin=(), transform=identity), [path], read, workers=0)
    assert failure == Failed(path, 'KeyError', f"{path}: 'odd'")
