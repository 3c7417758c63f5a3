"""Transforms of torch-geometric: the steps of the pipeline, and nodes whose attributes stay together."""
import numpy as np
import pytest
import torch

from clipgs_plugin.datasets import transforms as pipeline
from clipgs_plugin.ops import quaternion_to_matrix, rotate_sh

pytest.importorskip('torch_geometric')
import torch_geometric.transforms as T

from clipgs_plugin.geometric import (
    DropOpacity,
    GaussianData,
    GaussianFeatures,
    NormalizeGaussians,
    RandomRotateGaussians,
    SampleGaussians,
)

PAIRS = [
    (NormalizeGaussians(), pipeline.NormaliseGaussians()),
    (RandomRotateGaussians('any'), pipeline.RotateGaussians('any')),
    (SampleGaussians(20), pipeline.SampleGaussians(20)),
    (SampleGaussians(20, 'fps'), pipeline.SampleGaussians(20, 'fps')),
    (DropOpacity(0.4), pipeline.FilterOpacity(0.4)),
]


@pytest.mark.parametrize(('transform', 'step'), PAIRS)
def test_transforms_equal_the_steps_of_the_pipeline(random_cloud, transform, step):
    cloud = random_cloud(60, sh_degree=2)
    data = GaussianData.from_cloud(cloud, y=3, caption='a cloud')
    torch.manual_seed(5)
    found = transform(data)
    torch.manual_seed(5)
    rng = np.random.default_rng(torch.randint(2 ** 63 - 1, ()).item())
    expected = step(dict(gaussians=cloud, rng=rng))['gaussians']
    for name, value in expected.fields():
        assert torch.equal(getattr(found.to_cloud(), name), value), name
    assert found.y.tolist() == [3] and found.caption == 'a cloud'
    assert torch.equal(data.pos, cloud.means)  # the input is left as it was


def test_rotation_turns_quaternions_and_sh_and_leaves_scales(random_cloud):
    cloud = random_cloud(40, sh_degree=3)
    turned = RandomRotateGaussians('z', 90)(GaussianData.from_cloud(cloud)).to_cloud()
    matrix = torch.linalg.lstsq(cloud.means.double(), turned.means.double()).solution.T
    assert torch.allclose(matrix @ matrix.T, torch.eye(3).double(), atol=1e-5) and matrix[2, 2] == pytest.approx(1)
    assert not torch.allclose(turned.means, cloud.means, atol=1e-2)
    assert torch.allclose(turned.rotations.double(), matrix @ quaternion_to_matrix(cloud.quats).double(), atol=1e-5)
    assert torch.allclose(turned.sh, rotate_sh(cloud.sh, matrix), atol=1e-4)
    assert torch.allclose(turned.covariances.double(), matrix @ cloud.covariances.double() @ matrix.T, atol=1e-5)


def test_they_compose_with_those_of_torch_geometric(random_cloud):
    transform = T.Compose([T.Center(), DropOpacity(0.1), SampleGaussians(16), RandomRotateGaussians(),
                           NormalizeGaussians(), GaussianFeatures('gauge_free')])
    data = transform(GaussianData.from_cloud(random_cloud(80)))
    assert data.x.shape == (16, 13) and data.num_nodes == 16
    assert float(data.pos.norm(dim=1).max()) == pytest.approx(1, abs=1e-5)


def test_selection_takes_other_attributes_and_edges_along(random_cloud):
    data = GaussianData.from_cloud(random_cloud(30))
    data.number = torch.arange(30)
    data.edge_index = torch.stack([torch.arange(29), torch.arange(1, 30)])
    kept = SampleGaussians(12)(data)
    assert torch.equal(kept.pos, data.pos[kept.number]) and torch.equal(kept.number, kept.number.sort().values)
    ends = kept.number[kept.edge_index]
    assert torch.equal(ends[1] - ends[0], torch.ones(kept.num_edges, dtype=torch.long))


def test_seeds_of_torch_decide(random_cloud):
    data = GaussianData.from_cloud(random_cloud(50))

    def draw(seed):
        torch.manual_seed(seed)
        return SampleGaussians(10)(data).pos
    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))


@pytest.mark.parametrize(('transform', 'shown'), [
    (NormalizeGaussians(), 'NormalizeGaussians()'),
    (RandomRotateGaussians('y', 30), "RandomRotateGaussians(axis='y', max_angle=30)"),
    (SampleGaussians(5, 'fps'), "SampleGaussians(num=5, method='fps')"),
    (DropOpacity(0.1), 'DropOpacity(threshold=0.1, minimum=1)'),
    (GaussianFeatures(('rgb', 'opacity')), "GaussianFeatures(('rgb', 'opacity'), scale='sigmoid')"),
])
def test_representations(transform, shown):
    assert repr(transform) == shown


def test_functional_names(random_cloud):
    from torch_geometric.data.datapipes import DatasetAdapter
    pipe = DatasetAdapter([GaussianData.from_cloud(random_cloud(50))] * 2)
    pipe = pipe.drop_opacity(0.0).sample_gaussians(7).random_rotate_gaussians().normalize_gaussians()
    assert [data.x.shape for data in pipe.gaussian_features()] == [(7, 19), (7, 19)]


def test_other_data_is_refused():
    from torch_geometric.data import Data
    with pytest.raises(TypeError, match='SampleGaussians takes a GaussianData, got Data'):
        SampleGaussians(5)(Data(pos=torch.zeros(9, 3)))
