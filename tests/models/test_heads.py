"""Few-shot heads: the formulas of their papers, ties, one shot, absent classes, determinism."""
import math

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize, one_hot

from clipgs_plugin.models.heads import (
    CLAP,
    CLIPAdapter,
    FewShotHead,
    LinearProbe,
    PrototypeHead,
    TipAdapter,
    TipAdapterF,
    ZeroShotHead,
    ZeroShotLinear,
    class_multipliers,
)
from clipgs_plugin.registry import MODELS

ALL = {name: head for name, head in MODELS.module_dict.items() if isinstance(head, type)
       and issubclass(head, FewShotHead)}
HEADS = sorted(name for name, head in ALL.items() if head.takes == 'features')
# Fewer epochs than the defaults, so that the tests are quick.
QUICK = dict(CLAP=dict(epochs=30), CLIPAdapter=dict(epochs=30), ZeroShotLinear=dict(epochs=30))
TEXT = [name for name in HEADS if MODELS.get(name).needs_text]


def build(name):
    return MODELS.build(dict(type=name, **QUICK.get(name, {})))


def support(counts=(3, 2, 4), width=12, seed=0, spread=0.5):
    """Unit features around random class embeddings, labels, and the class embeddings."""
    g = torch.Generator().manual_seed(seed)
    text = normalize(torch.randn(len(counts), width, generator=g), dim=-1)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    noise = torch.randn(len(labels), width, generator=g) / math.sqrt(width)
    return normalize(text[labels] + spread * noise, dim=-1), labels, text


def test_every_head_is_registered():
    assert ALL.keys() - set(HEADS) == {'FineTuned'}  # which has a file of tests of its own
    assert HEADS == ['CLAP', 'CLIPAdapter', 'LinearProbe', 'PrototypeHead', 'TipAdapter', 'TipAdapterF',
                     'ZeroShotHead', 'ZeroShotLinear']


@pytest.mark.parametrize('name', HEADS)
@pytest.mark.parametrize('counts', [(5, 5, 5, 5), (1, 1, 1, 1), (7, 1, 3, 2), (4, 0, 4, 4)],
                         ids=['equal', 'one shot', 'unequal', 'a class absent'])
def test_queries_of_seen_classes_are_found(name, counts):
    features, labels, text = support(counts, width=32, spread=0.3)
    queries, expected, _ = support(counts, width=32, spread=0.3)
    head = build(name)
    logits = head.fit(features, labels, text)(queries)
    assert logits.shape == (len(queries), 4) and logits.isfinite().all()
    assert torch.equal(logits.argmax(-1), expected)


@pytest.mark.parametrize('name', HEADS)
def test_two_fits_agree_and_a_head_can_be_fitted_again(name):
    features, labels, text = support()
    queries = torch.randn(6, 12)
    first = build(name).fit(features, labels, text)(queries)
    torch.manual_seed(99)  # of the caller, without effect
    head = build(name).fit(*support((2, 2, 2, 2), seed=5))
    assert torch.equal(head.fit(features, labels, text)(queries), first)


@pytest.mark.parametrize('name', HEADS)
def test_wrong_arguments_are_named(name):
    features, labels, text = support()
    head = build(name)
    with pytest.raises(ValueError, match=fr'{name}: features \(9, 12\) and labels \(8,\) do not fit'):
        head.fit(features, labels[:-1], text)
    with pytest.raises(ValueError, match=f'{name}: labels run from 0 to 2, expected 0 to 1'):
        head.fit(features, labels, text[:2])
    with pytest.raises(ValueError, match=fr'{name}: class embeddings \(3, 11\) for features of width 12'):
        head.fit(features, labels, text[:, 1:])


@pytest.mark.parametrize('name', TEXT)
def test_heads_of_texts_need_them(name):
    features, labels, _ = support()
    with pytest.raises(ValueError, match=f'{name} starts from class embeddings, and none are given'):
        build(name).fit(features, labels)


def test_prototypes_are_normalised_class_means():
    features, labels, _ = support((3, 1, 4))
    head = PrototypeHead(logit_scale=10.0).fit(features, labels)
    for c in range(3):
        mean = features[labels == c].mean(0)
        torch.testing.assert_close(head.prototypes[c], mean / mean.norm())
    queries = torch.randn(5, 12)
    expected = 10 * normalize(queries, dim=-1) @ head.prototypes.T
    torch.testing.assert_close(head(queries), expected)


def test_prototypes_by_hand_and_a_tie():
    head = PrototypeHead(logit_scale=1.0).fit(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]),
                                              torch.tensor([0, 0, 2]), torch.eye(3)[:, :2])
    torch.testing.assert_close(head.prototypes[0], torch.full((2,), math.sqrt(0.5)))
    logits = head(torch.tensor([[0.0, 5.0]]))[0]
    torch.testing.assert_close(logits, torch.tensor([math.sqrt(0.5), -1.0, 0.0]))  # class 1 has no support
    tied = PrototypeHead().fit(torch.eye(2), torch.tensor([0, 1]))(torch.ones(1, 2))[0]
    assert tied[0] == tied[1]


def test_zero_shot_is_a_scaled_cosine():
    _, _, text = support()
    queries = torch.randn(4, 12)
    logits = ZeroShotHead(50.0).fit(torch.randn(1, 12), torch.tensor([0]), 3 * text)(queries)
    torch.testing.assert_close(logits, 50 * torch.cosine_similarity(queries[:, None], text, dim=-1))


@pytest.mark.parametrize('head', [ZeroShotLinear, CLAP])
def test_before_the_first_step_it_is_the_zero_shot_classifier(head):
    features, labels, text = support()
    queries = torch.randn(4, 12)
    expected = ZeroShotHead().fit(features, labels, text)(queries)
    torch.testing.assert_close(head(epochs=0).fit(features, labels, text)(queries), expected)


def test_zs_lp_takes_the_steps_of_sgd_with_momentum():
    """Four steps on the whole support, by an autograd-free gradient of the cosine classifier in float64."""
    features, labels, text = support()
    s, lr, epochs = 20.0, 0.1, 4
    head = ZeroShotLinear(lr=lr, epochs=epochs, logit_scale=s, text_norm=3.0).fit(features, labels, text)
    w, velocity = 3.0 * text.double(), torch.zeros(3, 12, dtype=torch.float64)
    f, y = features.double(), one_hot(labels, 3).double()
    for epoch in range(epochs):
        length = w.norm(dim=-1, keepdim=True)
        u = w / length
        error = (s * f @ u.T).softmax(-1) - y                                     # (n, C)
        grad_u = s * error.T @ f / len(f)
        velocity = 0.9 * velocity + (grad_u - (grad_u * u).sum(-1, keepdim=True) * u) / length
        w = w - (1e-5 if epoch == 0 else lr / 2 * (1 + math.cos(math.pi * epoch / epochs))) * velocity
    torch.testing.assert_close(head.weight.detach().double(), w, rtol=1e-5, atol=1e-6)


def test_multipliers_are_the_mean_probability_of_the_own_class():
    logits = torch.tensor([[0.0, 0.0, 0.0], [math.log(2.0), 0.0, 0.0], [0.0, math.log(3.0), 0.0]])
    found = class_multipliers(logits, torch.tensor([0, 0, 1]))
    own = [(1 / 3 + 1 / 2) / 2, 3 / 5]
    torch.testing.assert_close(found, torch.tensor([*own, sum(own) / 2]))  # class 2 has no support


def test_the_pull_of_clap_is_the_class_wise_squared_distance_and_keeps_the_weights_near_the_text():
    features, labels, text = support(spread=2.0)
    head = CLAP(epochs=0).fit(features, labels, text)
    shifted = head.weight.detach() + torch.tensor([[1.0], [2.0], [0.0]])
    start, head.weight.data = head.weight.detach().clone(), shifted
    expected = (head.multipliers[0] * 12 * 1 + head.multipliers[1] * 12 * 4) / 3
    torch.testing.assert_close(head.penalty(start).detach(), expected)
    moved = {kind: (kind(epochs=60).fit(features, labels, text).weight - start).norm()
             for kind in (ZeroShotLinear, CLAP)}
    assert moved[CLAP] < 0.5 * moved[ZeroShotLinear]


def test_tip_adapter_follows_its_formula():
    features, labels, text = support()
    queries = normalize(torch.randn(5, 12), dim=-1)
    logits = TipAdapter(alpha=2.0, beta=3.0, logit_scale=7.0).fit(features, labels, text)(queries)
    for i, f in enumerate(queries):
        for c in range(3):
            cache = sum(math.exp(-3 * (1 - float(f @ k))) for k, label in zip(features, labels) if label == c)
            assert float(logits[i, c]) == pytest.approx(7 * float(f @ text[c]) + 2 * cache, rel=1e-4, abs=1e-4)


def test_tip_adapter_f_starts_as_tip_adapter_and_lowers_the_loss():
    features, labels, text = support((6, 6, 6), spread=1.5)
    plain = TipAdapter().fit(features, labels, text)
    assert torch.equal(TipAdapterF(epochs=0).fit(features, labels, text)(features), plain(features))
    trained = TipAdapterF().fit(features, labels, text)
    assert cross_entropy(trained(features), labels) < cross_entropy(plain(features), labels)
    step = TipAdapterF(epochs=1, lr=0.01).fit(features, labels, text)  # one step of Adam moves by about the rate
    assert 0.005 < (step.keys - plain.keys).abs().max() < 0.0102


def test_clip_adapter_without_its_share_is_zero_shot_and_follows_its_formula():
    features, labels, text = support()
    queries = torch.randn(4, 12)
    expected = ZeroShotHead().fit(features, labels, text)(queries)
    torch.testing.assert_close(CLIPAdapter(ratio=0.0, epochs=5).fit(features, labels, text)(queries), expected)
    head = CLIPAdapter(ratio=0.4, logit_scale=5.0, epochs=5).fit(features, labels, text)
    assert head.down.shape == (3, 12) and head.up.shape == (12, 3)
    f = normalize(queries, dim=-1)
    adapted = 0.4 * ((f @ head.down.T).clamp(min=0) @ head.up.T).clamp(min=0) + 0.6 * f
    torch.testing.assert_close(head(queries), 5 * torch.cosine_similarity(adapted[:, None], text, dim=-1))


def test_the_linear_probe_is_at_the_minimum_of_its_objective():
    """The gradient, written out in float64, is zero."""
    features, labels, _ = support((6, 3, 5), spread=2.0)
    head = LinearProbe(weight_decay=0.5, max_iter=1000).fit(features, labels)
    x = (features.double() - features.double().mean(0)) / features.double().std(0)
    error = (x @ head.weight.T + head.bias).softmax(-1) - one_hot(labels, 3).double()
    assert (error.T @ x + 0.5 * head.weight).abs().max() < 1e-4 and error.sum(0).abs().max() < 1e-4
    torch.testing.assert_close(head(features), x @ head.weight.T + head.bias)


def test_a_class_that_is_absent_is_never_answered_by_the_linear_probe():
    features, labels, text = support((4, 0, 4))
    assert set(LinearProbe().fit(features, labels, text)(torch.randn(50, 12)).argmax(-1).tolist()) <= {0, 2}


@pytest.mark.parametrize('name', HEADS)
def test_the_best_of_the_published_choices_is_at_least_the_fixed_one(name):
    features, labels, text = support((4, 4, 4), spread=1.5)
    queries, expected, _ = support((9, 9, 9), spread=1.5)
    scores = []

    def score(logits):
        scores.append(float((logits.argmax(-1) == expected).float().mean()))
        return scores[-1]
    head = build(name)
    best = head.best_score(features, labels, text, queries, score)
    fixed = score(build(name).fit(features, labels, text)(queries))
    assert best == max(scores) >= fixed
    choices = dict(LinearProbe=8, TipAdapter=4001, TipAdapterF=4020, ZeroShotLinear=30, CLIPAdapter=30)
    assert len(scores) - 1 == choices.get(name, 1) and bool(head.leak) == (name in choices)


@pytest.mark.parametrize('name', ['CLIPAdapter', 'TipAdapterF', 'ZeroShotLinear'])
def test_the_best_of_no_epochs_is_that_of_the_start(name):
    features, labels, text = support((4, 4, 4), spread=1.5)

    def score(logits):
        return float((logits.argmax(-1) == labels).float().mean())
    start = score(MODELS.build(dict(type=name, epochs=0)).fit(features, labels, text)(features))
    best = MODELS.build(dict(type=name, epochs=0)).best_score(features, labels, text, features, score)
    assert best >= start and (best == start or name == 'TipAdapterF')
    with pytest.raises(ValueError, match='epochs=-1: expected at least 0'):
        MODELS.build(dict(type=name, epochs=-1)).fit(features, labels, text)
