"""Few-shot accuracy: a plain loop, ties, both protocols, and the metric in a run of the evaluator."""
import statistics

import pytest
import torch
from mmengine.structures import BaseDataElement

from clipgs_plugin.datasets import FewShotEpisodes, FrozenFeatures
from clipgs_plugin.evaluation import ClassEmbeddings, FewShotAccuracy, few_shot_score
from clipgs_plugin.evaluation.few_shot import mean_and_std, setting_name
from clipgs_plugin.models.heads import CLAP, LinearProbe, PrototypeHead, ZeroShotLinear
from clipgs_plugin.registry import METRICS

CLASSES = ('mug', 'chair', 'lamp', 'sofa')
CENTERS = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
TEXT = ClassEmbeddings(CLASSES, CENTERS + 0.5 * torch.randn(4, 16, generator=torch.Generator().manual_seed(1)))


def clusters(per_class, prefix, seed, spread=1.5):
    labels = torch.arange(4).repeat_interleave(per_class)
    noise = torch.randn(len(labels), 16, generator=torch.Generator().manual_seed(seed))
    return FrozenFeatures(CENTERS[labels] + spread * noise, labels, [f'{prefix}{i}' for i in range(len(labels))],
                          CLASSES)


TRAIN, TEST = clusters(8, 'train', 2), clusters(12, 'test', 3)


def test_the_accuracy_is_that_of_a_plain_loop():
    episodes = FewShotEpisodes(TRAIN, TEST, ways=3, shots=2, queries=10, trials=4)
    expected = []
    for episode in episodes:
        means = [sum(TRAIN.embeddings[TRAIN.uids.index(uid)] for uid in group) for group in episode.support]
        hits = [max(range(3), key=lambda c: float(torch.cosine_similarity(x, means[c], dim=0))) == label
                for label, group in enumerate(episode.query)
                for x in (TEST.embeddings[TEST.uids.index(uid)] for uid in group)]
        expected.append(100 * statistics.mean(hits))
    score = few_shot_score(PrototypeHead(), episodes, TRAIN, TEST)
    assert score.accuracies == pytest.approx(expected) and 40 < statistics.mean(expected) < 99
    assert score.to_dict()['mean'] == pytest.approx(statistics.mean(expected))
    assert score.to_dict()['std'] == pytest.approx(statistics.stdev(expected))


def test_class_embeddings_follow_the_classes_of_the_task():
    """Texts that are the features themselves answer every query, in whatever order the classes are drawn."""
    exact = clusters(3, 'o', 0, spread=0.0)
    episodes = FewShotEpisodes(exact, ways=3, shots=1, queries=2, trials=8)
    score = few_shot_score(CLAP(epochs=0), episodes, exact, None, ClassEmbeddings(CLASSES, CENTERS))
    assert score.accuracies == (100.0,) * 8


def test_ties_count_against_the_true_class():
    same = FrozenFeatures(torch.ones(8, 3), torch.arange(8) % 2, [f'o{i}' for i in range(8)], ('mug', 'chair'))
    assert few_shot_score(PrototypeHead(), FewShotEpisodes(same, ways=2, shots=1, queries=2), same).accuracies[0] == 0


AXES = FrozenFeatures(torch.eye(4)[[0, 0, 1, 1, 2, 3]], torch.tensor([0, 0, 1, 1, 2, 3]), [f's{i}' for i in range(6)],
                      CLASSES)  # objects to learn from: 2, 2, 1, 1


def test_a_class_with_fewer_objects_than_shots_and_one_without_test_objects():
    """By hand, queries of mug (right, wrong), chair (right) and sofa (a tie, so wrong): 2 of 4. Lamp has none."""
    rows = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1.0, 0], [0, 1.0, 0, 0], [0, 1.0, 0, 1.0]])
    query = FrozenFeatures(rows, torch.tensor([0, 0, 1, 3]), [f'q{i}' for i in range(4)], CLASSES)
    episodes = FewShotEpisodes(AXES, query, ways=None, shots=2, queries=None, trials=2, scarce='take_all')
    assert few_shot_score(PrototypeHead(), episodes, AXES, query).accuracies == (50.0, 50.0)


def test_a_last_class_without_support_is_never_right():
    support = FrozenFeatures(torch.eye(4)[:3], torch.arange(3), ['s0', 's1', 's2'], CLASSES)
    query = FrozenFeatures(torch.eye(4), torch.arange(4), [f'q{i}' for i in range(4)], CLASSES)
    episodes = FewShotEpisodes(support, query, ways=None, shots=1, queries=None, trials=1, scarce='take_all')
    for head in (PrototypeHead(), LinearProbe()):
        assert few_shot_score(head, episodes, support, query, None, 'published').accuracies == (75.0,)


def test_the_published_protocol_names_what_it_chooses_on_the_test_set():
    train, test = clusters(8, 'train', 2, spread=5.0), clusters(12, 'test', 3, spread=5.0)
    episodes = list(FewShotEpisodes(train, test, ways=4, shots=2, queries=12, trials=3))
    score = few_shot_score(ZeroShotLinear(epochs=40), episodes, train, test, TEXT, 'published')
    assert score.leak == 'the epoch' and len(score.published) == 3
    assert all(best >= fixed for best, fixed in zip(score.published, score.accuracies))
    assert sum(score.published) > sum(score.accuracies)
    assert score.accuracies == few_shot_score(ZeroShotLinear(epochs=40), episodes, train, test, TEXT).accuracies
    clap = few_shot_score(CLAP(epochs=5), episodes, train, test, TEXT, 'published')
    assert clap.published == clap.accuracies and not clap.leak
    with pytest.raises(ValueError, match="protocol='best': expected one of"):
        few_shot_score(PrototypeHead(), episodes, TRAIN, TEST, protocol='best')


def test_folds_of_other_objects_are_refused():
    episodes = list(FewShotEpisodes(TRAIN, TEST, ways=4, shots=2, queries=2))
    with pytest.raises(ValueError, match="48 objects, such as 'test0', are in support and query"):
        few_shot_score(PrototypeHead(), episodes, TEST, clusters(12, 'test', 3))
    with pytest.raises(ValueError, match=r"object 'train\d+' of the folds is not among the 48 features"):
        few_shot_score(PrototypeHead(), episodes, TEST, TRAIN)


def test_names_and_statistics():
    assert (setting_name(5, 10), setting_name(None, 16)) == ('5way10shot', 'all16shot')
    assert mean_and_std([1.0, 3.0]) == (2.0, pytest.approx(2 ** 0.5)) and mean_and_std([4.0]) == (4.0, 0.0)


def metric_of(tmp_path, **options):
    TEXT.save(tmp_path / 'text.npz')
    metric = METRICS.build(dict(
        type='FewShotAccuracy', heads=dict(clap=dict(type='CLAP', epochs=5), mean=dict(type='PrototypeHead')),
        settings=[dict(ways=3, shots=2), dict(ways=None, shots=1)], class_embeddings=tmp_path / 'text.npz', queries=6,
        trials=2, **options))
    assert isinstance(metric, FewShotAccuracy)
    metric.dataset_meta = dict(classes=list(CLASSES))
    samples = [BaseDataElement(uid=uid, label=label, embedding=embedding).to_dict()
               for uid, label, embedding in zip(TEST.uids, TEST.labels, TEST.embeddings)]
    metric.process({}, [*samples, dict(uid='none', label=-1, embedding=torch.ones(16))])
    return metric.evaluate(len(samples) + 1)


@pytest.mark.parametrize('separate', [True, False])
def test_the_metric_reports_what_the_function_does(tmp_path, separate):
    TRAIN.save(tmp_path / 'train.npz')
    found = metric_of(tmp_path, support=tmp_path / 'train.npz' if separate else None)
    sets = (TRAIN, TEST) if separate else (TEST, None)
    episodes = FewShotEpisodes(*sets, ways=3, shots=2, queries=6, trials=2)
    expected = few_shot_score(CLAP(epochs=5), episodes, *sets, TEXT)
    assert found['few_shot/clap/3way2shot'] == pytest.approx(mean_and_std(expected.accuracies)[0])
    assert found['few_shot/clap/3way2shot_std'] == pytest.approx(mean_and_std(expected.accuracies)[1])
    assert len(found) == 8 and 'few_shot/mean/all1shot' in found


def test_the_metric_needs_labels():
    metric = FewShotAccuracy(heads={}, settings=[])
    with pytest.raises(ValueError, match="object 'x' has no label, which FewShotAccuracy needs"):
        metric.process({}, [dict(uid='x', embedding=torch.ones(3))])
