"""Objects as other fitters would have made them."""
import numpy as np
import pytest
import torch

from clipgs_plugin import read_gaussians
from clipgs_plugin.engine.table_spec import load_table
from clipgs_plugin.tools.benchmarks import refits
from clipgs_plugin.tools.benchmarks.refits import REFITS
from clipgs_plugin.toy_world import object_specs
from clipgs_plugin.toy_world.world import make_object


@pytest.fixture(scope='module')
def cloud():
    return make_object(object_specs(1)[0], num_gaussians=300).gaussians


def changed(cloud, kind: str):
    return REFITS[kind](cloud, np.random.default_rng(0))


def test_changes_have_the_statistics_they_name(cloud):
    assert changed(cloud, 'own') is cloud
    balls = changed(cloud, 'isotropic')
    assert torch.equal(balls.log_scales[:, 0], balls.log_scales[:, 2])
    assert torch.allclose(balls.log_scales[:, 0], cloud.log_scales.sort(1).values[:, 1:].mean(1))
    tiny, large = changed(cloud, 'tiny'), changed(cloud, 'large')
    assert len(tiny) == 1200 and torch.allclose(tiny.scales[::4], cloud.scales / 2)
    offsets = (tiny.means - cloud.means.repeat_interleave(4, 0))[..., None, :] @ cloud.rotations.repeat_interleave(4, 0)
    assert (offsets[:, 0] / cloud.scales.repeat_interleave(4, 0)).std(0).sub(1).abs().max() < 0.1
    assert len(large) == 256 and torch.isin(large.means[:, 0], cloud.means[:, 0]).all()
    assert float(large.log_scales.amax() - cloud.log_scales.amax()) <= 0.5 * np.log(300 / 256) + 1e-5
    assert len(changed(cloud, 'pruned')) == 150
    assert torch.allclose(changed(cloud, 'spz').means, cloud.means, atol=1e-3)


def test_a_fit_resembles_the_object_more_than_its_start(cloud):
    from clipgs_plugin.ops import intrinsics, psnr, render, sphere_cameras
    cameras = sphere_cameras(2)
    lens = intrinsics(40, 64, 64).expand(2, 3, 3)
    images = {}
    for name, shown in dict(own=cloud, short=changed(cloud, 'short'), start=changed(cloud, 'isotropic').replace(
            sh=torch.zeros_like(cloud.sh))).items():
        images[name], _ = render(shown, cameras, lens, 64, 64, refits.BACKGROUND)
    assert psnr(images['short'], images['own']).mean() > psnr(images['start'], images['own']).mean() + 3


def test_files_are_made_once_and_described(cloud, monkeypatch, tmp_path):
    monkeypatch.setattr(refits, 'objects', lambda *_: iter([('a', 'chair', cloud), ('b', 'mug', cloud[:200])]))
    rows = {(row.what, row.way): row.mean for row in refits.refits('', str(tmp_path), kinds='own,large')}
    assert rows['own', 'Gaussians'] == 250 and rows['large', 'Gaussians'] == 228
    assert rows['own', 'median opacity'] == pytest.approx(0.945, abs=0.01)
    file = tmp_path / 'large' / 'chair' / 'a.ply'
    assert len(read_gaussians(file)) == 256
    before = file.stat().st_mtime_ns
    refits.refits('', str(tmp_path), kinds='large')
    assert file.stat().st_mtime_ns == before
    with pytest.raises(ValueError, match='sideways'):
        refits.refits(kinds='sideways')


def test_a_model_is_asked_for_the_categories(cloud, monkeypatch):
    class Model:
        def __init__(self, *name):
            assert name == ('nano', None)

        def classify(self, clouds, names, templates):
            assert (names, templates) == (['chair', 'mug'], 'toy')
            sizes.append([len(cloud) for cloud in clouds])
            return [[('mug', 0.9), ('chair', 0.1)] for _ in clouds]

    sizes = []
    monkeypatch.setattr('clipgs_plugin.CLIPGSInferencer', Model)
    for points in (0, 100):
        assert refits.recognised([cloud, cloud], ['mug', 'chair'], 'nano', '', points) == [True, False]
    assert sizes == [[300, 300], [100, 100]]


def test_the_table_of_fitters_asks_for_every_kind():
    table = load_table('fitters')
    assert set(REFITS) <= set(table.tests)
    assert table.tests['volume']['test_dataloader.dataset']['root'].endswith('/volume')
    pipelines = {row.title: [step['type'].rpartition('.')[2] for step in
                             row.options['train_dataloader.dataset.pipeline']] for row in table.rows}
    assert pipelines['paper, both'][3:5] == ['VaryFitter', 'DropAttributes']
    assert pipelines['paper'] == pipelines['paper, both'][:3] + pipelines['paper, both'][5:]
