"""An object as a torch-geometric graph: lossless, and batched field by field."""
import pytest
import torch

from clipgs_plugin import read_gaussians

pytest.importorskip('torch_geometric')
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader

from clipgs_plugin.geometric import GaussianData


def assert_equal(found, expected):
    for name, value in expected.fields():
        other = getattr(found, name)
        assert other.dtype == value.dtype and torch.equal(other, value), name


@pytest.mark.parametrize('degree', range(4))
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.float16])
def test_round_trip_keeps_every_bit(random_cloud, degree, dtype):
    cloud = random_cloud(50, sh_degree=degree).to(dtype)
    assert_equal(GaussianData.from_cloud(cloud).to_cloud(), cloud)


@pytest.mark.parametrize('name', ['camera.ply', 'potted_plant.splat', 'camera.spz', 'fruit_drops_sh3.ply'])
def test_round_trip_of_real_files_through_a_batch(splats, name):
    cloud, other = read_gaussians(splats / name), read_gaussians(splats / 'three_points.ply')
    other = other.with_sh_degree(cloud.sh_degree)
    batch = Batch.from_data_list([GaussianData.from_cloud(cloud), GaussianData.from_cloud(other)])
    first, second = batch.to_data_list()
    assert_equal(first.to_cloud(), cloud)
    assert_equal(second.to_cloud(), other)


def test_activated_values_are_those_of_the_cloud(random_cloud):
    cloud = random_cloud(20, sh_degree=1)
    data = GaussianData.from_cloud(cloud)
    assert data.num_nodes == 20
    for name, expected in dict(pos=cloud.means, rotation=cloud.quats, scale=cloud.scales, opacity=cloud.opacities,
                               rgb=cloud.rgb, sh=cloud.sh).items():
        assert torch.equal(getattr(data, name), expected) and torch.equal(data[name], expected), name


def test_setting_an_activated_value_sets_its_parameter(random_cloud):
    data = GaussianData.from_cloud(random_cloud(20, sh_degree=1))
    higher = data.sh[:, 1:].clone()
    data.scale, data['opacity'], data.rgb = torch.full((20, 3), 0.5), torch.full((20,), 0.25), torch.full((20, 3), 0.7)
    cloud = data.to_cloud()
    assert torch.allclose(cloud.scales, torch.tensor(0.5)) and torch.allclose(cloud.opacities, torch.tensor(0.25))
    assert torch.allclose(cloud.rgb, torch.tensor(0.7)) and torch.equal(cloud.sh[:, 1:], higher)
    assert set(data.keys()) == {'pos', 'rotation', 'log_scale', 'opacity_logit', 'sh'}


def test_graph_attributes_are_batched_by_object(random_cloud):
    text, views = torch.randn(3, 8), torch.randn(3, 2, 8)
    objects = [GaussianData.from_cloud(random_cloud(4 + i, seed=i), y=i, text=text[i], views=views[i],
                                       caption=f'object {i}', words=['a', str(i)], weight=i / 2) for i in range(3)]
    batch = next(iter(DataLoader(objects, batch_size=3)))
    assert isinstance(batch, GaussianData) and batch.num_graphs == 3
    assert torch.equal(batch.batch, torch.tensor([0] * 4 + [1] * 5 + [2] * 6))
    assert torch.equal(batch.y, torch.arange(3)) and torch.equal(batch.weight, torch.tensor([0.0, 0.5, 1.0]))
    assert torch.equal(batch.text, text) and torch.equal(batch.views, views)
    assert batch.caption == ['object 0', 'object 1', 'object 2']
    assert batch.words == [['a', '0'], ['a', '1'], ['a', '2']]
    assert torch.equal(batch.rgb, torch.cat([data.rgb for data in objects]))
    assert torch.equal(batch[1].views[0], views[1])


@pytest.mark.parametrize('name', ['view_index', 'batch_of_views'])
def test_names_that_batching_would_shift_are_refused(random_cloud, name):
    with pytest.raises(ValueError, match=f'{name}.*choose another name'):
        GaussianData.from_cloud(random_cloud(3), **{name: torch.arange(2)})


def test_errors_say_what_a_cloud_needs(random_cloud):
    data = GaussianData.from_cloud(random_cloud(3))
    with pytest.raises(ValueError, match='batch of 2 objects'):
        Batch.from_data_list([data, data]).to_cloud()
    del data.sh
    with pytest.raises(ValueError, match='lacks sh'):
        data.to_cloud()


def test_repr_shows_the_parameters(random_cloud):
    assert repr(GaussianData.from_cloud(random_cloud(3), y=1)) == (
        'GaussianData(pos=[3, 3], rotation=[3, 4], log_scale=[3, 3], opacity_logit=[3], sh=[3, 1, 3], y=[1])')
