"""The encoder on padded batches and on lists of nodes."""
import pytest
import torch

from clipgs_plugin import GaussianBatch, read_gaussians

pytest.importorskip('torch_geometric')
from torch_geometric.data import Batch

from clipgs_plugin.geometric import (
    GaussianData,
    GaussianEncoder,
    GaussianTokenizer,
    channels_to_batch,
    from_gaussian_batch,
    node_channels,
    to_gaussian_batch,
)
from clipgs_plugin.models import GSTokenizer

OPTIONS = dict(num_groups=8, group_size=4, channels=16, patch_encoder=dict(widths=(8, 8, 16)), refine_widths=(8, 8, 8))


@pytest.fixture
def clouds(random_cloud):
    return [random_cloud(n, seed=n, sh_degree=1) for n in (30, 5, 60)]


@pytest.fixture
def batch(clouds):
    return Batch.from_data_list([GaussianData.from_cloud(cloud) for cloud in clouds])


def test_padding_is_exact_in_both_directions(clouds, batch):
    expected, found = GaussianBatch.from_clouds(clouds), to_gaussian_batch(batch)
    for name in ('means', 'quats', 'log_scales', 'opacity_logits', 'sh', 'lengths'):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    back = from_gaussian_batch(found)
    assert torch.equal(back.batch, batch.batch)
    assert all(torch.equal(back[name], batch[name]) for name in ('pos', 'rotation', 'log_scale', 'opacity_logit', 'sh'))


def test_a_single_object_needs_no_batch_vector(clouds):
    data = GaussianData.from_cloud(clouds[0])
    assert torch.equal(to_gaussian_batch(data).means, clouds[0].means[None])
    assert torch.equal(channels_to_batch(node_channels(clouds[0]), clouds[0].means).quats, clouds[0].quats[None])


def test_gradients_flow_to_the_nodes(batch):
    batch.pos.requires_grad_()
    (to_gaussian_batch(batch).means ** 2).sum().backward()
    assert torch.equal(batch.pos.grad, 2 * batch.pos.detach())


def test_wrong_nodes_are_refused(clouds, batch):
    x = node_channels(batch)
    with pytest.raises(ValueError, match=r'x has shape \(95, 10\).*expected \(N, 11\)'):
        channels_to_batch(x[:, 1:], batch.pos, batch.batch)
    with pytest.raises(ValueError, match='not sorted'):
        channels_to_batch(x, batch.pos, batch.batch.flip(0))
    with pytest.raises(ValueError, match='object 1 of the batch has no Gaussians'):
        channels_to_batch(x, batch.pos, torch.where(batch.batch == 1, 2, batch.batch))


@pytest.mark.filterwarnings('ignore:clipgs_toy')
def test_dense_and_graph_paths_embed_alike(splats):
    names = ('camera.ply', 'train_1000_sh3.ply', 'three_points.ply')
    clouds = [read_gaussians(splats / name).with_sh_degree(3).normalise() for name in names]
    batch = Batch.from_data_list([GaussianData.from_cloud(cloud) for cloud in clouds])
    model = GaussianEncoder('clipgs_toy').eval()
    assert repr(model) == 'GaussianEncoder(PointBERT, 128)'
    with torch.no_grad():
        expected = torch.cat([model.encoder(GaussianBatch.from_clouds([cloud])) for cloud in clouds])
        assert torch.allclose(model(batch), expected, atol=1e-5)
        assert torch.allclose(model(node_channels(batch), batch.pos, batch.batch), expected, atol=1e-5)
        assert torch.allclose(model(GaussianData.from_cloud(clouds[1])), expected[1:2], atol=1e-5)


def test_the_tokenizer_returns_nodes(clouds, batch):
    tokenizer = GaussianTokenizer(**OPTIONS).eval()
    assert isinstance(tokenizer.tokenizer, GSTokenizer)
    assert repr(tokenizer) == 'GaussianTokenizer(16, num_groups=8, group_size=4)'
    x, pos, nodes = tokenizer(batch)
    assert nodes.tolist() == [0] * 8 + [1] * 5 + [2] * 8
    dense = tokenizer.tokenizer(GaussianBatch.from_clouds(clouds))
    for i, count in enumerate((8, 5, 8)):
        assert torch.equal(x[nodes == i], dense.features[i, :count])
        assert torch.equal(pos[nodes == i], dense.centers[i, :count])


def test_channels_without_positions_are_refused(batch):
    with pytest.raises(TypeError, match='without pos'):
        GaussianTokenizer(**OPTIONS)(node_channels(batch))
