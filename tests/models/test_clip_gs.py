import copy

import pytest
import torch
import torch.distributed as dist
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModule
from mmengine.runner.checkpoint import load_state_dict
from mmengine.structures import BaseDataElement
from torch import nn
from torch.distributed.fsdp import fully_shard

from clipgs_plugin import GaussianBatch
from clipgs_plugin.datasets import collate_gaussians
from clipgs_plugin.models import (
    CLIPGS,
    ContrastiveLoss,
    GaussianDataPreprocessor,
    GSEncoder,
    ImageVotingLoss,
    PointNet2,
)
from clipgs_plugin.registry import MODELS

WIDTH = 6


class MeanEncoder(nn.Module):
    """Linear layer over the mean position and colour of an object."""

    def __init__(self, embed_dim=WIDTH):
        super().__init__()
        self.embed_dim = embed_dim
        self.linear = nn.Linear(6, embed_dim)

    def forward(self, batch):
        channels = torch.cat([batch.means, batch.rgb], -1) * batch.mask[..., None]
        return self.linear(channels.sum(1) / batch.lengths[:, None])


class CountingTeacher(BaseModule):
    """Teacher with features from letters and grey levels, and weights that a student must not change."""

    def __init__(self, embed_dim=WIDTH):
        super().__init__()
        self.embed_dim = embed_dim
        self.table = nn.Linear(2, embed_dim)
        self.norm = nn.BatchNorm1d(embed_dim)

    def init_weights(self):
        raise AssertionError('a teacher is not initialised')

    def encode_text(self, texts):
        counts = torch.tensor([[len(t), t.count('a')] for t in texts], dtype=torch.float32)
        return nn.functional.normalize(self.norm(self.table(counts)), dim=-1)

    def encode_image(self, pixels):
        assert pixels.dtype == torch.uint8 and pixels.ndim == 4
        levels = torch.stack([pixels.float().mean((1, 2, 3)), pixels[:, 0].float().mean((1, 2))], -1) / 255
        return nn.functional.normalize(self.norm(self.table(levels)), dim=-1)


@pytest.fixture
def batch(random_cloud):
    return GaussianBatch.from_clouds([random_cloud(4 + i, i) for i in range(4)])


@pytest.fixture
def samples():
    generator = torch.Generator().manual_seed(0)
    return {'uid': list('abcd'), 'label': torch.tensor([0, 1, 0, 2]), 'caption': ['a cat', 'bird', 'banana', 'x'],
            'caption_id': torch.tensor([1, 2, 1, 3]), 'text': torch.randn(4, WIDTH, generator=generator),
            'views': torch.randn(4, 5, WIDTH, generator=generator)}


def test_loss_terms_use_the_scale_of_the_model(batch, samples):
    model = CLIPGS(MeanEncoder())
    losses = model(batch, samples, mode='loss')
    embeddings = model(batch)
    assert set(losses) == {'loss_text', 'loss_image', 'logit_scale'}
    assert losses['logit_scale'].item() == pytest.approx(1 / 0.07)
    assert torch.equal(losses['loss_text'], ContrastiveLoss()(embeddings, samples['text'], losses['logit_scale']))
    expected = ImageVotingLoss()(embeddings, samples['views'], samples['text'], losses['logit_scale'])
    assert torch.equal(losses['loss_image'], expected)
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    assert model.logit_scale.grad.abs() > 0 and model.encoder.linear.weight.grad.abs().sum() > 0


def test_scale_has_a_dimension_and_its_log_has_none(batch, samples):
    model = CLIPGS(MeanEncoder())
    assert all(parameter.ndim for parameter in model.parameters())  # FSDP2 refuses scalars
    assert model(batch, samples, mode='loss')['logit_scale'].ndim == 0


@pytest.mark.parametrize('load', [lambda model, state: model.load_state_dict(state), load_state_dict])
@pytest.mark.parametrize('wrap', [lambda model: model, lambda model: nn.ModuleDict({'model': model})])
def test_scalar_scale_of_older_checkpoints_loads(load, wrap):
    model = wrap(CLIPGS(MeanEncoder(), init_logit_scale=1.5))
    state = {key: value.squeeze() if key.endswith('logit_scale') else value
             for key, value in wrap(CLIPGS(MeanEncoder(), init_logit_scale=2.5)).state_dict().items()}
    load(model, state)
    found = next(value for key, value in model.state_dict().items() if key.endswith('logit_scale'))
    assert torch.equal(found, torch.tensor([2.5]))


def test_fsdp2_shards_the_model(batch, samples, tmp_path):
    expected = CLIPGS(MeanEncoder())
    model = copy.deepcopy(expected)
    dist.init_process_group('gloo', f'file://{tmp_path / "init"}', rank=0, world_size=1)
    try:
        model = fully_shard(model, mesh=dist.init_device_mesh('cpu', (1,)))
        for one in (model, expected):
            sum(value for key, value in one(batch, samples, mode='loss').items() if 'loss' in key).backward()
        assert torch.equal(model.logit_scale.grad.full_tensor(), expected.logit_scale.grad)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize('value, expected', [(9.0, 100.0), (-2.0, 1.0)])
def test_learned_scale_stays_between_1_and_100(batch, samples, value, expected):
    model = CLIPGS(MeanEncoder())
    with torch.no_grad():
        model.logit_scale.fill_(value)
    losses = model(batch, samples, mode='loss')
    assert losses['logit_scale'].item() == pytest.approx(expected)
    losses['loss_text'].backward()
    assert model.logit_scale.grad.abs() > 0  # a clamp inside the graph would have no gradient at the border


def test_disabled_terms_need_no_features(batch, samples):
    del samples['views']
    assert set(CLIPGS(MeanEncoder(), image_loss=None)(batch, samples, 'loss')) == {'loss_text', 'logit_scale'}
    model = CLIPGS(MeanEncoder(), text_loss=None, image_loss=dict(type='ImageVotingLoss', num_views=1))
    samples['views'] = torch.randn(4, 1, WIDTH)
    assert set(model(batch, samples, 'loss')) == {'loss_image', 'logit_scale'}


def test_caption_ids_reach_a_loss_that_needs_them(batch, samples):
    model = CLIPGS(MeanEncoder(), text_loss=dict(type='ContrastiveLoss', collisions='mask'), image_loss=None)
    expected = ContrastiveLoss('mask')(model(batch), samples['text'], 1 / 0.07, ids=samples['caption_id'])
    assert model(batch, samples, 'loss')['loss_text'].item() == pytest.approx(expected.item(), rel=1e-6)
    del samples['caption_id']
    with pytest.raises(KeyError, match=r"no 'caption_id'.*collisions='keep'"):
        model(batch, samples, 'loss')


def test_predict_returns_unit_embeddings_and_values_of_the_batch(batch, samples):
    model = CLIPGS(MeanEncoder())
    elements = model(batch, samples | {'view_pixels': torch.zeros(4, 1)}, mode='predict')
    assert len(elements) == 4 and all(isinstance(e, BaseDataElement) for e in elements)
    embedding = model(batch)[2]
    assert torch.allclose(elements[2].embedding, embedding / embedding.pow(2).sum().sqrt())
    assert (elements[2].uid, elements[2].caption, elements[2].label.item()) == ('c', 'banana', 0)
    assert torch.equal(elements[1].text, samples['text'][1]) and torch.equal(elements[1].views, samples['views'][1])
    assert 'category' not in elements[0] and 'view_pixels' not in elements[0]
    assert list(model(batch, mode='predict')[0].keys()) == ['embedding']


def test_live_teacher_replaces_cached_features(batch, samples):
    torch.manual_seed(0)
    teacher = CountingTeacher()
    model = CLIPGS(MeanEncoder(), teacher=teacher)
    pixels = torch.randint(0, 256, (4, 5, 3, 8, 8), dtype=torch.uint8)
    live = model(batch, {'caption': samples['caption'], 'view_pixels': pixels}, mode='loss')
    views = torch.stack([teacher.encode_image(pixels[:, k]) for k in range(5)], 1)
    cached = CLIPGS(model.encoder)(batch, {'text': teacher.encode_text(samples['caption']), 'views': views}, 'loss')
    assert torch.allclose(live['loss_text'], cached['loss_text'])
    assert torch.allclose(live['loss_image'], cached['loss_image'])


def test_a_live_teacher_names_the_space_of_the_encoder():
    teacher = CountingTeacher()
    teacher.name = 'toy-clip'
    encoders = [GSEncoder(None, PointNet2(), WIDTH, teacher=name) for name in (None, 'vit-b-32-openai')]
    assert [CLIPGS(encoder, teacher).encoder.teacher for encoder in encoders] == ['toy-clip', 'vit-b-32-openai']


def test_teacher_stays_frozen_and_out_of_the_model(batch, samples):
    teacher = CountingTeacher()
    before = copy.deepcopy(teacher.state_dict())
    model = CLIPGS(MeanEncoder(), teacher=teacher)
    model.train()
    model.init_weights()
    del samples['text']
    model(batch, samples, 'loss')['loss_text'].backward()
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    names = set(model.state_dict())
    assert names == {'logit_scale', 'encoder.linear.weight', 'encoder.linear.bias'}
    assert {name for name, _ in model.named_parameters()} == names
    CLIPGS(MeanEncoder()).load_state_dict(model.state_dict(), strict=True)
    model.load_state_dict(CLIPGS(MeanEncoder()).state_dict(), strict=True)


def test_teacher_follows_the_model():
    model = CLIPGS(MeanEncoder(), teacher=CountingTeacher()).to('meta')
    assert model.teacher.table.weight.is_meta and model.logit_scale.is_meta


@pytest.mark.parametrize('drop, keep_teacher, match', [
    ('text', False, "no 'text'.*cache_features.py"),
    ('views', False, "no 'views'.*cache_features.py"),
    ('text caption', True, "no 'caption'.*cache_features.py"),
    ('views', True, "no 'view_pixels'.*cache_features.py"),
])
def test_error_of_missing_features_names_the_remedy(batch, samples, drop, keep_teacher, match):
    for key in drop.split():
        del samples[key]
    model = CLIPGS(MeanEncoder(), teacher=CountingTeacher() if keep_teacher else None)
    with pytest.raises(KeyError, match=match):
        model(batch, samples, mode='loss')


def test_error_of_a_width_mismatch_names_both_widths(batch, samples):
    with pytest.raises(ValueError, match=r'CountingTeacher .* width 8, the encoder .* width 6'):
        CLIPGS(MeanEncoder(), teacher=CountingTeacher(8))
    with pytest.raises(ValueError, match=r"'text' .* width 6, embeddings of the encoder 5"):
        CLIPGS(MeanEncoder(5))(batch, samples, mode='loss')


def test_unknown_mode_is_refused(batch):
    with pytest.raises(RuntimeError, match='Invalid mode "train"'):
        CLIPGS(MeanEncoder())(batch, mode='train')


def test_builds_from_a_config_of_any_scope():
    MODELS.register_module(name='MeanEncoderForTest', module=MeanEncoder, force=True)
    from mmengine.registry import MODELS as ROOT
    from mmengine.registry import DefaultScope
    with DefaultScope.overwrite_default_scope('mmengine'):
        model = ROOT.build(dict(type='clipgs_plugin.CLIPGS', encoder=dict(type='clipgs_plugin.MeanEncoderForTest'),
                                init_logit_scale=1.0))
    assert isinstance(model.text_loss, ContrastiveLoss) and isinstance(model.image_loss, ImageVotingLoss)
    assert isinstance(model.data_preprocessor, GaussianDataPreprocessor)
    assert model.logit_scale.item() == 1.0


def test_preprocessor_pads_and_stacks_lists(random_cloud):
    items = [{'inputs': random_cloud(3 + i, i), 'data_samples': {'uid': str(i), 'label': i, 'score': 0.5 * i,
                                                                  'text': torch.full((4,), float(i))}}
             for i in range(3)]
    data = GaussianDataPreprocessor()(pseudo_collate(items))
    assert data['inputs'].lengths.tolist() == [3, 4, 5]
    assert torch.equal(data['inputs'][1].means, items[1]['inputs'].means)
    samples = data['data_samples']
    assert samples['uid'] == ['0', '1', '2'] and samples['label'].tolist() == [0, 1, 2]
    assert samples['label'].dtype == torch.int64 and samples['text'].tolist() == [[i] * 4 for i in range(3)]
    collated = collate_gaussians(items)['data_samples']
    assert {key: getattr(value, 'dtype', list) for key, value in samples.items()} == {
        key: getattr(value, 'dtype', list) for key, value in collated.items()}


def test_preprocessor_moves_everything(batch, samples):
    preprocessor = GaussianDataPreprocessor().to('meta')
    data = preprocessor({'inputs': batch, 'data_samples': samples})
    assert data['inputs'].means.is_meta and data['inputs'].lengths.is_meta and data['data_samples']['text'].is_meta
    assert data['data_samples']['uid'] == samples['uid']
    assert preprocessor({'inputs': batch})['data_samples'] == {}


def test_preprocessor_refuses_other_inputs():
    with pytest.raises(TypeError, match=r'list of GaussianClouds.*collate_gaussians'):
        GaussianDataPreprocessor()({'inputs': [torch.zeros(3, 14)]})


def test_train_step_lowers_the_loss(batch, samples):
    from mmengine.optim import OptimWrapper
    torch.manual_seed(0)
    model = CLIPGS(MeanEncoder())
    wrapper = OptimWrapper(torch.optim.Adam(model.parameters(), lr=0.05))
    data = {'inputs': batch, 'data_samples': samples}
    logs = [model.train_step(data, wrapper) for _ in range(30)]
    assert logs[-1]['loss'] < 0.5 * logs[0]['loss'] and logs[-1]['loss_image'].isfinite()
    assert logs[0]['loss'].item() == pytest.approx((logs[0]['loss_text'] + logs[0]['loss_image']).item())
