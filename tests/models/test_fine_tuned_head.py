"""Fine-tuning as a few-shot head: what it starts from, what it trains, what it leaves alone."""
import copy

import pytest
import torch
from conftest import random_cloud
from torch.nn.functional import normalize

from clipgs_plugin import GaussianBatch
from clipgs_plugin.datasets import Episode, FrozenFeatures
from clipgs_plugin.evaluation.few_shot import run_trial
from clipgs_plugin.models import GSClassifier, GSEncoder
from clipgs_plugin.models.backbones.pointnet2 import PointNet2
from clipgs_plugin.models.heads import FineTuned, LinearProbe, PrototypeHead, ZeroShotHead

TOKENIZER = dict(type='GSTokenizer', num_groups=4, group_size=4, channels=16, patch_encoder=dict(widths=(8, 8, 16)),
                 refine_widths=(8, 8, 8))
BACKBONE = dict(type='PointBERT', embed_dims=64, depth=2, num_heads=1, in_channels=16)
BODY = ('patch_encoder', 'refinement', 'position', 'blocks', 'norm', 'projection')
TUNINGS = {'full': {}, 'LoRA': dict(frozen=BODY, lora=dict(rank=2)), 'prompts': dict(frozen=BODY, num_prompts=2)}


def new_encoder(**options):
    torch.manual_seed(0)
    return GSEncoder(copy.deepcopy(TOKENIZER), {**BACKBONE, **options}, embed_dim=24).eval()


ENCODER = new_encoder()


def flat_and_tall(count, seed):
    """Objects of two classes, squeezed along y or along x; labels in turn."""
    clouds, labels = [], torch.arange(count) % 2
    for i, label in enumerate(labels.tolist()):
        cloud = random_cloud(20, seed=100 * seed + i)
        clouds.append(cloud.replace(means=cloud.means * torch.tensor([[1.0, 0.3, 1.0], [0.3, 1.0, 1.0]][label])))
    return clouds, labels


SUPPORT, LABELS = flat_and_tall(9, seed=1)
QUERIES, EXPECTED = flat_and_tall(12, seed=2)


def head_of(**options):
    return FineTuned(**{'epochs': 2, 'lr': 2e-3, 'encoder': ENCODER, **options})


def embed(clouds):
    with torch.no_grad():
        return normalize(ENCODER(GaussianBatch.from_clouds(clouds)), dim=-1)


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize('tuning', ['full', 'LoRA'])
@pytest.mark.parametrize('start', [LinearProbe, PrototypeHead, ZeroShotHead])
def test_without_epochs_it_is_the_head_on_frozen_features(tuning, start):
    text = torch.randn(3, 24, generator=torch.Generator().manual_seed(1))
    head = head_of(epochs=0, head=dict(type=start.__name__), **TUNINGS[tuning])
    assert head.needs_text == start.needs_text
    found = head.fit(SUPPORT, LABELS, text)(QUERIES)
    expected = start().fit(embed(SUPPORT), LABELS, text)(embed(QUERIES))
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('tuning', TUNINGS)
def test_a_fit_trains_what_is_named_on_a_copy_and_two_fits_agree(tuning):
    before, mode = state_of(ENCODER), ENCODER.training
    head = head_of(**TUNINGS[tuning])
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first = head.fit(SUPPORT, LABELS)(QUERIES)
    assert torch.equal(torch.get_rng_state(), state)
    tuned = head.model.encoder.state_dict()
    changed = {name for name in before if not torch.equal(tuned[name], before[name])}
    if tuning == 'full':
        assert {name.partition('.')[0] for name in changed} == {'tokenizer', 'backbone', 'projection'}
    else:  # the frozen parameters and the statistics of batch norms are equal bit by bit
        assert not changed
        new = tuned.keys() - before.keys()
        assert new and all('lora_' in name or 'prompt_tokens' in name for name in new)
        assert all(tuned[name].any() for name in new)
    assert all(torch.equal(value, before[name]) for name, value in ENCODER.state_dict().items())
    assert ENCODER.training == mode and all(each.requires_grad for each in ENCODER.parameters())

    torch.manual_seed(99)
    assert torch.equal(head.fit(SUPPORT, LABELS)(QUERIES), first)  # fitted again, from the start
    other = head_of(seed=1, **TUNINGS[tuning]).fit(SUPPORT, LABELS)(QUERIES)
    assert not torch.equal(other, first)


NEW = dict(type='ClassifierHead', widths=(16,), norm=False, dropout=0.0)


@pytest.mark.parametrize('options', [dict(), dict(head=NEW, feature='pooled', epochs=50)], ids=['probe', 'new'])
def test_it_learns_what_tells_the_classes_apart(options):
    head = head_of(**{'epochs': 25, **options})
    logits = head.fit(SUPPORT, LABELS)(QUERIES)
    assert logits.shape == (12, 2) and torch.equal(head(SUPPORT).argmax(1), LABELS)
    right = int((logits.argmax(1) == EXPECTED).sum())
    assert right >= 10 or options  # a new head on a random encoder knows the support alone
    assert isinstance(head.model, GSClassifier) and head.model.label_smoothing == 0.2
    fresh = head_of(**{**options, 'epochs': 0}).fit(SUPPORT, LABELS)
    losses = [each.model.eval()(GaussianBatch.from_clouds(SUPPORT), dict(label=LABELS), 'loss')['loss_cls']
              for each in (fresh, head)]
    assert losses[1] < 0.9 * losses[0]


def test_a_last_batch_of_one_joins_the_batch_before_and_a_support_of_one_is_learnt():
    norm = dict(type='ClassifierHead', widths=(8,))  # whose batch norm refuses a single object
    sizes = []
    head = head_of(epochs=1, batch_size=4, head=norm)
    batch = head._batch
    head._batch = lambda objects: sizes.append(len(objects)) or batch(objects)
    assert head.fit(SUPPORT, LABELS)(QUERIES).isfinite().all()
    assert sizes[:2] == [4, 5]
    assert head_of(epochs=1, head=norm).fit(SUPPORT[:1], LABELS[:1])(QUERIES).isfinite().all()


class Clouds:
    """Objects of tasks by uid."""

    def __init__(self, clouds):
        self.clouds = clouds

    def take(self, uids):
        return [self.clouds[int(uid)] for uid in uids]


def test_a_trial_alone_is_that_trial_among_others():
    support, query = Clouds(SUPPORT), Clouds(QUERIES)
    queries = ('0', '2', '4'), ('1', '3', '5')
    episodes = [Episode(('flat', 'tall'), (('0', f'{2 * i}'), ('1', f'{2 * i + 1}')), queries) for i in (1, 2, 3)]
    head = head_of(**TUNINGS['LoRA'])
    logits = []
    head.register_forward_hook(lambda module, inputs, output: logits.append(output))
    among = [run_trial(head, episode, support, query) for episode in episodes]
    alone = run_trial(head, episodes[2], support, query, None, 'published')
    assert alone.accuracy == among[2].accuracy and torch.equal(logits[3], logits[2])
    assert not torch.equal(logits[1], logits[2]) and alone.published >= alone.accuracy


def test_updates_and_prompts_of_the_model_are_kept():
    encoder = new_encoder(num_prompts=2).set_trained(lora=dict(rank=1))
    torch.nn.init.normal_(encoder.backbone.blocks.blocks[0].attn.qkv.lora_b)
    with torch.no_grad():
        expected = encoder(GaussianBatch.from_clouds(QUERIES))
    again = copy.deepcopy(encoder).set_trained(**TUNINGS['LoRA'])
    torch.testing.assert_close(again(GaussianBatch.from_clouds(QUERIES)), expected)
    with pytest.raises(ValueError, match='num_prompts=3: the PointBERT has prompts already; leave num_prompts out'):
        copy.deepcopy(encoder).set_trained(num_prompts=3)
    with pytest.raises(ValueError, match='num_prompts=3: the PointNet2 takes no prompts'):
        GSEncoder(None, PointNet2(), 8).set_trained(num_prompts=3)


def test_wrong_use_is_named():
    with pytest.raises(ValueError, match='FineTuned tunes a GSEncoder, got a Linear'):
        head_of(encoder=torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match='has no encoder to tune; give it one'):
        FineTuned().fit(SUPPORT, LABELS)
    with pytest.raises(ValueError, match=r'expected a list of n prepared GaussianClouds .* got 9 of Tensor'):
        head_of().fit(embed(SUPPORT), LABELS)
    with pytest.raises(ValueError, match='FineTuned: labels run from 0 to 1, expected 0 to 0'):
        head_of().fit(SUPPORT, LABELS, torch.ones(1, 24))
    with pytest.raises(ValueError, match="head='FineTuned' takes objects; name one that takes features"):
        head_of(head=dict(type='FineTuned'))
    with pytest.raises(ValueError, match=r"nothing is left to train with frozen=.* and head='PrototypeHead'"):
        head_of(frozen=BODY, head=dict(type='PrototypeHead')).fit(SUPPORT, LABELS)
    for options, match in ((dict(frozen='block'), "unknown part 'block'"), (dict(lora=dict(rank=0)), 'rank=0'),
                           (dict(num_prompts=-1), 'num_prompts=-1'), (dict(epochs=-1), 'epochs=-1, batch_size=32'),
                           (dict(batch_size=0), 'batch_size=0'), (dict(feature='cls'), "feature='cls'")):
        with pytest.raises(ValueError, match=match):
            head_of(**options)


def test_features_have_rows_by_uid():
    features = FrozenFeatures(torch.eye(3), torch.arange(3), ['a', 'b', 'c'], ['x', 'y', 'z'])
    assert torch.equal(features.take(['c', 'a']), torch.eye(3)[[2, 0]])
