"""Few-shot episodes: counts, disjointness, seeds, files, and errors that name the class; files of features."""
import json
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clipgs_plugin.datasets import FewShotEpisodes, FrozenFeatures, load_episodes
from clipgs_plugin.registry import DATASETS


def labelled(counts, prefix='train', order=None):
    """Objects of classes a, b, ... with some counts, in some order."""
    classes = [chr(ord('a') + i) for i in range(len(counts))]
    labels = np.repeat(np.arange(len(counts)), counts)
    uids = np.array([f'{prefix}-{classes[label]}-{i:03d}' for i, label in enumerate(labels)])
    order = np.arange(len(labels)) if order is None else order
    return SimpleNamespace(labels=labels[order].tolist(), uids=uids[order].tolist(), classes=classes)


TRAIN, TEST = labelled([12] * 7), labelled([25] * 7, 'test')


@pytest.mark.parametrize('ways, shots', [(5, 10), (2, 1), (None, 4)])
def test_counts_classes_and_sources(ways, shots):
    episodes = FewShotEpisodes(TRAIN, TEST, ways=ways, shots=shots, queries=20, trials=6)
    assert len(episodes) == len(list(episodes)) == 6
    for episode in episodes:
        assert len(set(episode.classes)) == len(episode.classes) == len(episode.support) == (ways or 7)
        for name, support, query in zip(episode.classes, episode.support, episode.query, strict=True):
            assert len(set(support)) == shots and len(set(query)) == 20
            assert all(uid.startswith(f'train-{name}-') for uid in support)
            assert all(uid.startswith(f'test-{name}-') for uid in query)
    assert len({episode.support for episode in episodes}) == 6
    assert len({episode.classes for episode in episodes}) == (1 if ways is None else 5 if ways == 2 else 6)


def test_one_set_gives_disjoint_support_and_queries():
    episodes = FewShotEpisodes(TRAIN, ways=7, shots=5, queries=7)
    for episode in episodes:
        for support, query in zip(episode.support, episode.query):
            assert len(set(support) | set(query)) == 12
    rest = FewShotEpisodes(TRAIN, ways=3, shots=5, queries=None)[0]
    assert [len(query) for query in rest.query] == [7, 7, 7]


def test_a_task_depends_on_seed_and_number_alone():
    episodes = FewShotEpisodes(TRAIN, TEST, ways=5, shots=2, seed=3)
    order = np.random.default_rng(0).permutation(len(TRAIN.labels))
    shuffled = FewShotEpisodes(labelled([12] * 7, order=order), TEST, ways=5, shots=2, seed=3, trials=20)
    assert list(episodes) == list(shuffled)[:10]
    assert FewShotEpisodes(TRAIN, TEST, ways=5, shots=2, seed=4)[0] != episodes[0]
    with pytest.raises(IndexError, match='trial 10: expected 0 to 9'):
        episodes[10]


def test_the_tasks_of_a_seed_are_these():
    """The stream of numpy's PCG64 is the same on every machine."""
    first = FewShotEpisodes(TRAIN, TEST, ways=3, shots=2, queries=1, seed=0)[0]
    assert first.classes == ('c', 'e', 'd')
    assert first.support == (('train-c-026', 'train-c-034'), ('train-e-052', 'train-e-054'),
                             ('train-d-043', 'train-d-046'))
    assert first.query == (('test-c-060',), ('test-e-106',), ('test-d-097',))


def test_every_object_is_drawn_about_equally_often():
    episodes = FewShotEpisodes(TRAIN, TEST, ways=5, shots=3, queries=1, trials=600)
    counts = np.zeros(84)
    rows = {uid: i for i, uid in enumerate(TRAIN.uids)}
    for episode in episodes:
        counts[[rows[uid] for group in episode.support for uid in group]] += 1
    expected = 600 * 15 / 84
    assert counts.min() > 0.65 * expected and counts.max() < 1.35 * expected


def test_the_file_has_the_same_tasks(tmp_path):
    episodes = FewShotEpisodes(TRAIN, TEST, ways=4, shots=3, trials=3)
    episodes.save(tmp_path / '4way3shot.json')
    assert load_episodes(tmp_path / '4way3shot.json') == list(episodes)


def test_damaged_files_are_refused_by_name(tmp_path):
    file = tmp_path / 'folds.json'
    with pytest.raises(FileNotFoundError, match=r'folds .*folds\.json do not exist'):
        load_episodes(file)
    FewShotEpisodes(TRAIN, TEST, ways=2, shots=2, queries=2, trials=2).save(file)
    content = json.loads(file.read_text())
    for change, message in ((dict(format=9), 'folds of format 9, expected 1'), (dict(folds=[3]), r'folds\[0\]')):
        file.write_text(json.dumps({**content, **change}))
        with pytest.raises(ValueError, match=f'folds.json: {message}'):
            load_episodes(file)
    content['folds'][1]['query'][0][0] = content['folds'][1]['support'][0][0]
    file.write_text(json.dumps(content))
    assert len(load_episodes(file)) == 2  # two sets may use the same uids
    content['one_set'] = True
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match='fold 1 repeats an object'):
        load_episodes(file)


def test_errors_name_the_class():
    few = labelled([12, 12, 3, 12])
    with pytest.raises(ValueError, match=r"class 'c' has 3 objects to learn from, expected at least 5 \(5 shots\)"):
        FewShotEpisodes(few, TEST, ways=2, shots=5)
    with pytest.raises(ValueError, match=r"class 'c' has 3 objects to learn from, expected at least 4 \(2 shots and 2"):
        FewShotEpisodes(few, ways=2, shots=2, queries=2)
    with pytest.raises(ValueError, match="class 'b' has 4 objects to classify, expected at least 20"):
        FewShotEpisodes(TRAIN, labelled([20, 4, 30], 'test'), ways=2, shots=1)
    with pytest.raises(ValueError, match=r'7 of 7 classes in .* have enough objects, expected at least 8 for ways=8'):
        FewShotEpisodes(TRAIN, TEST, ways=8)
    with pytest.raises(ValueError, match='support and query are the same objects'):
        FewShotEpisodes(TRAIN, TRAIN)
    with pytest.raises(ValueError, match='shots=0: expected at least 1'):
        FewShotEpisodes(TRAIN, TEST, shots=0)


def drawn(**options):
    """One task over classes a to d with 6, 2, 5 and 4 objects to learn from, and 3, 3, 0 and 1 to classify."""
    found = FewShotEpisodes(labelled([6, 2, 5, 4]), labelled([3, 3, 0, 1], 'test'), ways=None, shots=4, trials=1,
                            **options)[0]
    return found.classes, [len(group) for group in found.support], [len(group) for group in found.query]


def test_scarce_classes_are_refused_or_left_out_or_give_what_they_have():
    with pytest.raises(ValueError, match=r"class 'b' has 2 objects to learn from, expected at least 4 \(4 shots\)"):
        drawn(queries=2)
    assert drawn(queries=1, scarce='leave_out') == (('a', 'd'), [4, 4], [1, 1])
    assert drawn(queries=2, scarce='take_all') == (tuple('abcd'), [4, 2, 4, 4], [2, 2, 0, 1])
    assert drawn(queries=None, scarce='take_all') == (tuple('abcd'), [4, 2, 4, 4], [3, 3, 0, 1])
    with pytest.raises(ValueError, match='1 of 4 classes in support and query have enough objects'):
        drawn(queries=3, scarce='leave_out')
    with pytest.raises(ValueError, match="scarce='drop': expected one of"):
        drawn(scarce='drop')


def test_a_scarce_class_of_one_set_gives_its_objects_to_the_support_first():
    found, = FewShotEpisodes(labelled([6, 3, 2]), ways=None, shots=2, queries=3, trials=1, scarce='take_all')
    assert [(len(a), len(b)) for a, b in zip(found.support, found.query)] == [(2, 3), (2, 1), (2, 0)]
    assert not any(set(a) & set(b) for a, b in zip(found.support, found.query))


@pytest.mark.parametrize('query', [None, TEST])
def test_the_support_of_more_shots_contains_that_of_fewer(query):
    tasks = [FewShotEpisodes(TRAIN, query, ways=None, shots=shots, queries=2, trials=1)[0] for shots in (1, 2, 4)]
    for few, many in pairwise(tasks):
        assert all(b[:len(a)] == a for a, b in zip(few.support, many.support))
    assert query is None or len({task.query for task in tasks}) == 1


def test_it_is_registered():
    found = DATASETS.build(dict(type='FewShotEpisodes', support=TRAIN, query=TEST, ways=2, shots=1))
    assert found[0] == FewShotEpisodes(TRAIN, TEST, ways=2, shots=1)[0]


def features(n=6):
    return FrozenFeatures(torch.randn(n, 4), torch.arange(n) % 2, [f'o{i}' for i in range(n)], ['mug', 'chair'], 'abc')


def test_features_survive_their_file_and_are_unit_vectors(tmp_path):
    first = features()
    torch.testing.assert_close(first.embeddings.norm(dim=1), torch.ones(6))
    first.save(tmp_path / 'f.npz')
    second = FrozenFeatures.load(tmp_path / 'f.npz')
    assert torch.allclose(first.embeddings, second.embeddings, atol=1e-7) and torch.equal(first.labels, second.labels)
    assert (second.uids, second.classes, second.fingerprint) == (first.uids, first.classes, 'abc')


def test_wrong_features_are_refused(tmp_path):
    e, labels = torch.randn(3, 4), torch.tensor([0, 1, 1])
    with pytest.raises(ValueError, match="the uid 'a' is that of several objects"):
        FrozenFeatures(e, labels, ['a', 'b', 'a'], ['x', 'y'])
    with pytest.raises(ValueError, match='labels run from 0 to 1, expected 0 to 0 for 1 classes'):
        FrozenFeatures(e, labels, 'abc', ['x'])
    with pytest.raises(ValueError, match="the embedding of 'b' is zero, NaN or infinite"):
        FrozenFeatures(e * torch.tensor([[1.0], [0.0], [1.0]]), labels, 'abc', ['x', 'y'])
    (tmp_path / 'f.npz').write_bytes(b'PK no')
    with pytest.raises(ValueError, match=r'f\.npz: not an .npz archive'):
        FrozenFeatures.load(tmp_path / 'f.npz')
    with pytest.raises(FileNotFoundError, match=r'features .*g\.npz do not exist'):
        FrozenFeatures.load(tmp_path / 'g.npz')
