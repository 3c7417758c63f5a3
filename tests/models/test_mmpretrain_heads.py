"""Heads with the interface of mmpretrain in a GSClassifier."""
import pytest
import torch
import torch.nn.functional as F
from conftest import random_cloud
from mmengine.model import BaseModule
from mmengine.registry import MODELS, Registry
from mmengine.structures import BaseDataElement
from torch import nn

from clipgs_plugin import GaussianBatch
from clipgs_plugin.models import GSClassifier

ENCODER = dict(
    type='clipgs_plugin.GSEncoder', embed_dim=24,
    tokenizer=dict(type='clipgs_plugin.GSTokenizer', num_groups=4, group_size=4, channels=16, refine=False,
                   patch_encoder=dict(widths=(8, 8, 16))),
    backbone=dict(type='clipgs_plugin.PointBERT', embed_dims=64, depth=1, num_heads=1, in_channels=16))

stub = Registry('model', parent=MODELS, scope='mmpretrain_stub')


@stub.register_module()
class WeightedLoss(nn.Module):
    """A loss that only its own package knows."""

    def forward(self, scores, labels):
        return 2 * F.cross_entropy(scores, labels)


@stub.register_module()
class LinearClsHead(BaseModule):
    """A head that unpacks the last feature, gathers labels and fills data samples, as those of mmpretrain."""

    def __init__(self, num_classes, in_channels, loss=None, init_cfg=None):
        super().__init__(init_cfg)
        self.fc = nn.Linear(in_channels, num_classes)
        self.loss_module = stub.build(loss or dict(type='WeightedLoss'))

    def forward(self, feats):
        return self.fc(feats[-1])

    def loss(self, feats, data_samples, **kwargs):
        assert 'gt_score' not in data_samples[0]
        return dict(loss=self.loss_module(self(feats), torch.cat([sample.gt_label for sample in data_samples])))

    def predict(self, feats, data_samples=None):
        return [BaseDataElement(pred_score=row, pred_label=row.argmax(keepdim=True)) for row in self(feats).softmax(1)]


@pytest.fixture
def batch():
    return dict(inputs=GaussianBatch.from_clouds([random_cloud(20 + i, i) for i in range(3)]),
                data_samples=dict(label=torch.tensor([0, 2, 1]), uid=list('abc')))


def check(model, batch, factor):
    """Compare losses and predictions with those of the logits, and the gradient's reach."""
    model.eval()
    features = model.encoder(batch['inputs'])
    logits = model.head.fc(features)
    assert features.shape == (3, 128) and torch.equal(model(batch['inputs']), logits)
    losses = model(**batch, mode='loss')
    expected = factor * F.cross_entropy(logits, batch['data_samples']['label'])
    torch.testing.assert_close(losses['loss'], expected)
    total, _ = model.parse_losses(losses)
    total.backward()
    assert all(value.grad is not None for value in model.parameters())
    predictions = model(**batch, mode='predict')
    torch.testing.assert_close(torch.stack([p.scores for p in predictions]), logits.softmax(1))
    assert [p.pred_label for p in predictions] == logits.argmax(1).tolist()
    assert [p.uid for p in predictions] == list('abc') and [int(p.label) for p in predictions] == [0, 2, 1]
    assert [p.pred_class for p in predictions] == ['xyz'[i] for i in logits.argmax(1)]


def test_a_head_with_a_loss_of_its_own_computes_it(batch):
    head = dict(type='mmpretrain_stub.LinearClsHead')
    check(GSClassifier(ENCODER, 3, head=head, classes='xyz'), batch, 2)
    built = stub.build(dict(head, _scope_='mmpretrain_stub', in_channels=128, num_classes=3))
    check(GSClassifier(ENCODER, 3, head=built, classes='xyz'), batch, 2)


def test_a_head_of_mmpretrain(batch):
    pytest.importorskip('mmpretrain', exc_type=ImportError)
    head = dict(type='mmpretrain.LinearClsHead', loss=dict(type='CrossEntropyLoss', loss_weight=3.0), cal_acc=True)
    model = GSClassifier(ENCODER, 3, head=head, classes='xyz')
    assert type(model.head).__module__ == 'mmpretrain.models.heads.linear_head'
    right = (model.eval()(batch['inputs']).argmax(1) == batch['data_samples']['label']).float().mean()
    _, logged = model.parse_losses(model(**batch, mode='loss'))
    assert float(logged['accuracy_top-1']) == pytest.approx(100 * float(right))
    check(model, batch, 3)


def test_what_such_a_head_ignores_or_lacks_is_refused(batch):
    head = dict(type='mmpretrain_stub.LinearClsHead')
    with pytest.raises(ValueError, match=r'label_smoothing=0\.2 has no effect on the loss of a LinearClsHead'):
        GSClassifier(ENCODER, 3, head=head, label_smoothing=0.2)
    with pytest.raises(ValueError, match='labels run from 0 to 2, expected 0 to 1'):
        GSClassifier(ENCODER, 2, head=head)(**batch, mode='loss')
    with pytest.raises(KeyError, match=r"head='absent_package\.LinearClsHead' is not registered; install"):
        GSClassifier(ENCODER, 3, head=dict(type='absent_package.LinearClsHead'))
