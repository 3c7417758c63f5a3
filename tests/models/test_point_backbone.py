"""The encoder as a point backbone of mmdet3d, in a stub of its point detectors."""
import pytest
import torch
from conftest import random_cloud, run_python
from mmengine.model import BaseModel
from torch import nn

from clipgs_plugin import GaussianBatch, ops
from clipgs_plugin.models import GSEncoder, GSPointBackbone
from clipgs_plugin.models.point_backbone import interpolate
from clipgs_plugin.structures.attributes import pack, unpack

TOKENIZER = dict(type='clipgs_plugin.GSTokenizer', num_groups=8, group_size=4, channels=16,
                 patch_encoder=dict(widths=(8, 8, 16)), refine_widths=(8, 8, 8))
BACKBONE = dict(type='clipgs_plugin.PointBERT', embed_dims=64, depth=1, num_heads=1, in_channels=16)
ENCODER = dict(type='clipgs_plugin.GSEncoder', tokenizer=TOKENIZER, backbone=BACKBONE)
PLAIN = dict(ENCODER, tokenizer=dict(TOKENIZER, refine=False))


class StubDetector(BaseModel):
    """A detector that stacks the clouds and reads the last levels, as VoteNet and 3DSSD of mmdet3d."""

    def __init__(self, backbone, level, channels):
        super().__init__()
        self.backbone, self.level = backbone, level
        self.vote = nn.Conv1d(channels, 3, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        levels = self.backbone(torch.stack(inputs['points']))
        xyz, features, indices = (levels[f'{self.level}_{name}'][-1] for name in ('xyz', 'features', 'indices'))
        votes = xyz + self.vote(features).transpose(1, 2)
        mask = torch.gather(data_samples['in_box'], 1, indices)  # as vote targets are gathered
        return dict(vote_loss=(votes - data_samples['center'][:, None]).norm(dim=-1)[mask].mean())


def clouds(n=40, count=2):
    return torch.stack([pack(random_cloud(n, seed)) for seed in range(count)])


@pytest.mark.parametrize(('level', 'channels'), [('fp', 32), ('sa', 64)])
def test_the_gradient_of_a_detectors_votes_reaches_the_encoder(level, channels):
    detector = StubDetector(GSPointBackbone(ENCODER, fp_channels=(32,)), level, channels)
    optimiser = torch.optim.AdamW(detector.parameters(), lr=1e-2)
    points = clouds()
    samples = dict(in_box=torch.ones(2, 40, dtype=torch.bool), center=points[..., :3].mean(1))
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        losses.append(detector(dict(points=list(points)), samples)['vote_loss'])
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < 0.8 * losses[0]
    without = {name for name, value in detector.named_parameters() if value.grad is None}
    assert without == (set() if level == 'fp' else {name for name, _ in detector.named_parameters()
                                                    if name.startswith('backbone.mlp')})


@pytest.mark.parametrize('num_seeds', [None, 20])
def test_shapes_and_indices_are_those_of_pointnet2(num_seeds):
    points, seeds = clouds(), num_seeds or 40
    levels = GSPointBackbone(ENCODER, fp_channels=(48, 32), num_seeds=num_seeds).eval()(points)
    shapes = {name: [tuple(value.shape) for value in values] for name, values in levels.items()}
    assert shapes == dict(
        sa_xyz=[(2, 40, 3), (2, 8, 3)], sa_features=[(2, 11, 40), (2, 64, 8)], sa_indices=[(2, 40), (2, 8)],
        fp_xyz=[(2, 8, 3), (2, seeds, 3)], fp_features=[(2, 64, 8), (2, 32, seeds)], fp_indices=[(2, 8), (2, seeds)])
    for level in ('sa', 'fp'):
        for xyz, index in zip(levels[f'{level}_xyz'], levels[f'{level}_indices']):
            assert index.dtype == torch.int64
            assert torch.equal(xyz, torch.take_along_dim(points[..., :3], index[..., None], dim=1))
            assert all(len(set(row.tolist())) == len(row) for row in index)
    assert torch.equal(levels['sa_features'][0], points[..., 3:].transpose(1, 2))
    assert levels['fp_features'][0] is levels['sa_features'][1]


def test_the_features_of_centers_are_the_encoders_tokens_and_points_at_centers_have_them_too():
    backbone, points = GSPointBackbone(ENCODER, fp_channels=(), up='y').eval(), clouds()
    levels = backbone(points)
    batch = GaussianBatch.from_clouds([cloud.normalise() for cloud in unpack(points).to_clouds()])
    tokens = backbone.encoder.tokenizer(batch)
    expected = backbone.encoder.backbone.forward_features(tokens)[:, 1:]  # without the class token
    torch.testing.assert_close(levels['sa_features'][1].transpose(1, 2), expected)
    at_centers = torch.take_along_dim(levels['fp_features'][1], levels['sa_indices'][1][:, None], dim=2)
    torch.testing.assert_close(at_centers, levels['sa_features'][1], rtol=1e-4, atol=1e-4)


def test_interpolation_against_a_case_by_hand():
    centers = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [9, 9, 9]]])
    features = torch.tensor([[[1.0], [10], [100], [1000]]])
    queries = torch.tensor([[[0.5, 0, 0], [0, 1, 0], [1, 0, 0]]])
    # (0.5, 0, 0): distances 0.5, 0.5, sqrt(4.25); (0, 1, 0): 1, sqrt(2), 1; (1, 0, 0) is a centre.
    far, diagonal = 4.25 ** -0.5, 2 ** -0.5
    expected = [(2 * 1 + 2 * 10 + far * 100) / (4 + far), (1 + diagonal * 10 + 100) / (2 + diagonal), 10]
    found = interpolate(centers, features, queries, torch.tensor([4]))
    torch.testing.assert_close(found[0, :, 0], torch.tensor(expected))
    of_two = interpolate(centers, features, queries[:, :1], torch.tensor([2]))  # the other centres are padding
    torch.testing.assert_close(of_two[0, 0, 0], torch.tensor(5.5))


@pytest.mark.parametrize('training', [False, True])
def test_padding_changes_nothing_and_repeats_real_points(training):
    backbone = GSPointBackbone(ENCODER, fp_channels=(32,)).train(training)
    short = clouds(6, 1)
    padded = torch.cat([short, torch.full((1, 34, 14), 5.0)], dim=1)
    alone, levels = backbone(short), backbone(padded, lengths=torch.tensor([6]))
    for name, values in alone.items():
        for value, other in zip(values, levels[name]):
            axis = 2 if 'features' in name else 1
            count = other.shape[axis]
            torch.testing.assert_close(other.narrow(axis, 0, 6), value)
            assert torch.equal(other, other.narrow(axis, 0, 6).index_select(axis, torch.arange(count) % 6))
    beside = GSPointBackbone(ENCODER, fp_channels=(32,)).eval()
    both = beside(torch.cat([padded, clouds(40, 1)]), lengths=torch.tensor([6, 40]))
    torch.testing.assert_close(both['fp_features'][1][:1, :, :6], beside(short)['fp_features'][1])


def test_features_do_not_depend_on_the_order_place_and_unit_of_the_points():
    backbone, points = GSPointBackbone(PLAIN, in_channels=6).eval(), clouds()[..., :6]
    expected, order = backbone(points), torch.randperm(40)
    moved = points.clone()
    moved[..., :3] = 4 * points[..., :3] + torch.tensor([3.0, -2, 8])
    found = backbone(moved[:, order])
    torch.testing.assert_close(found['fp_features'][1], expected['fp_features'][1][..., order], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found['sa_xyz'][1], 4 * expected['sa_xyz'][1] + torch.tensor([3.0, -2, 8]))


def test_z_up_points_are_turned_to_the_frame_of_the_encoder():
    turned = torch.stack([pack(random_cloud(40, seed).transform(ops.axis_change('y', 'z'))) for seed in range(2)])
    backbone = GSPointBackbone(ENCODER, up='y').eval()
    expected = backbone(clouds())['sa_features'][1]
    backbone.upright = ops.axis_change('z', 'y')
    torch.testing.assert_close(backbone(turned)['sa_features'][1], expected, rtol=1e-3, atol=1e-3)


def test_points_without_colours_are_grey():
    backbone = GSPointBackbone(PLAIN, in_channels=3, fp_channels=()).eval()
    levels = backbone(clouds()[..., :3])
    colored = GSPointBackbone(GSEncoder(backbone.encoder.tokenizer, backbone.encoder.backbone), 6, ()).eval()
    grey = torch.cat([clouds()[..., :3], torch.full((2, 40, 3), 0.4)], dim=-1)
    assert levels['sa_features'][0] is None
    torch.testing.assert_close(colored(grey)['fp_features'][1], levels['fp_features'][1])


def test_tokens_before_the_patches_are_left_out():
    recon = dict(type='clipgs_plugin.ReCon', embed_dims=16, depth=1, num_heads=1)
    backbone = GSPointBackbone(dict(ENCODER, backbone=recon)).eval()
    points = clouds()
    tokens = backbone.encoder.tokenizer(backbone.to_gaussians(points, torch.tensor([40, 40])))
    features = backbone.encoder.backbone.forward_features(tokens)
    assert features.shape[1] == 3 + 8
    assert torch.equal(backbone(points)['sa_features'][1].transpose(1, 2), features[:, -8:])


def test_weights_come_from_a_checkpoint_and_frozen_parts_stay(tmp_path):
    source = GSEncoder(TOKENIZER, BACKBONE, embed_dim=24)
    state = {f'encoder.{name}': value for name, value in source.state_dict().items()}
    torch.save(dict(state_dict=state, meta={}), tmp_path / 'epoch_1.pth')
    backbone = GSPointBackbone(dict(
        ENCODER, frozen=('patch_encoder', 'refinement', 'position', 'blocks', 'norm'),
        init_cfg=dict(type='clipgs_plugin.CLIPGSPretrained', checkpoint=str(tmp_path / 'epoch_1.pth'))))
    backbone.init_weights()
    loaded = backbone.encoder.state_dict()
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in loaded.items())
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone.train()(clouds())['fp_features'][-1].sum().backward()
    changed = {name for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith('mlp.') for name in changed)  # no batch norm of the encoder counts
    assert {name for name, value in backbone.named_parameters() if value.grad is not None} == {
        name for name, _ in backbone.named_parameters() if name.startswith('mlp.')}


def test_a_registry_of_another_package_finds_it_by_its_name():
    code = f"""
from mmengine.registry import MODELS, DefaultScope, Registry
theirs = Registry('model', parent=MODELS, scope='mmdet3d_stand_in')
DefaultScope.get_instance('detector', scope_name='mmdet3d_stand_in')
print(type(theirs.build(dict(type='clipgs_plugin.GSPointBackbone', encoder={ENCODER}))).__name__)
"""
    assert run_python(code).splitlines()[-1] == 'GSPointBackbone'


@pytest.mark.parametrize(('options', 'message'), [
    (dict(in_channels=4), 'in_channels=4: expected 3'),
    (dict(in_channels=6), 'needs opacity, rotation, scale; set in_channels=14'),
    (dict(num_seeds=0), 'num_seeds=0'),
    (dict(encoder=dict(type='clipgs_plugin.GSEncoder', tokenizer=None, backbone=dict(type='clipgs_plugin.DGCNN'))),
     'a DGCNN and no tokenizer')])
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GSPointBackbone(**{'encoder': ENCODER, **options})


def test_wrong_points_are_refused():
    backbone = GSPointBackbone(PLAIN, in_channels=6)
    with pytest.raises(ValueError, match=r'shape \(2, 40, 14\), expected \(B, N, 6\)'):
        backbone(clouds())
    with pytest.raises(ValueError, match='NormalizePointsColor'):
        backbone(255 * clouds()[..., :6])


def test_unpack_inverts_pack():
    cloud = random_cloud(20).replace(sh=0.1 * random_cloud(20).sh)  # colours within [0, 1]
    batch = unpack(pack(cloud)[None], torch.tensor([15]))
    for name, value in batch[0].fields():
        torch.testing.assert_close(value, getattr(cloud, name)[:15])
    assert torch.equal(batch.quats[0, 15:], torch.tensor([[1.0, 0, 0, 0]]).expand(5, 4))
    with pytest.raises(ValueError, match=r'expected \(B, N, 14\) of xyz 3, rgb 3'):
        unpack(pack(cloud))
