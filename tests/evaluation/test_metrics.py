import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import BaseDataElement
from torch.nn.functional import normalize

from clipgs_plugin.evaluation import RetrievalRecall, ZeroShotAccuracy, save_class_features
from clipgs_plugin.evaluation.zero_shot import load_class_features

CLASSES = ['cup', 'owl', 'boat', 'tree', 'lamp', 'key']


class Names(torch.nn.Module):
    """A teacher that counts its calls and knows each class by an axis."""

    calls = 0

    def encode_text(self, texts):
        self.calls += 1
        return torch.stack([torch.eye(8)[next(i for i, name in enumerate(CLASSES) if name in text)]
                            for text in texts])


def samples(n=40, seed=0):
    """Predictions as the aligner gives them, some captions shared."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: normalize(torch.randn(*shape, generator=generator), dim=-1)  # noqa: E731
    found = []
    for i in range(n):
        label = int(torch.randint(0, 5, (), generator=generator))  # class 5 has no objects
        caption_id = int(torch.randint(0, 25, (), generator=generator))
        text = draw(1, 8)[0] if all(s.caption_id != caption_id for s in found) else next(
            s.text for s in found if s.caption_id == caption_id)
        embedding = normalize(torch.eye(8)[label] * 0.5 + text * 0.5 + 0.7 * draw(8), dim=-1)
        found.append(BaseDataElement(uid=f'o{i}', label=torch.tensor(label), category=CLASSES[label],
                                     caption_id=torch.tensor(caption_id), embedding=embedding, text=text,
                                     views=normalize(embedding + 0.5 * draw(3, 8), dim=-1)))
    return found


def evaluate(metric, predictions, batch_size=16, meta=None):
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = meta
    for start in range(0, len(predictions), batch_size):
        evaluator.process(predictions[start:start + batch_size])
    return evaluator.evaluate(len(predictions))


def numpy_recall(queries, gallery, positives, ks):
    """Recall and median rank by a loop over queries; negatives first among equals."""
    places = []
    for q, row in zip(queries, positives):
        scores = (gallery @ q).astype(np.float32)
        best = scores[row].max()
        places.append(1 + sum(s >= best and not p for s, p in zip(scores, row)))
    return [100 * np.mean(np.array(places) <= k) for k in ks], np.median(places), places


def test_zero_shot_equals_a_loop_and_encodes_classes_once():
    predictions, teacher = samples(), Names()
    metric = ZeroShotAccuracy(teacher=teacher, templates='toy', per_class=True)
    found = evaluate(metric, predictions, meta={'classes': CLASSES})
    assert evaluate(metric, predictions, meta={'classes': CLASSES}) == found
    assert teacher.calls == 1 and metric.teacher is None

    hits = {k: [s.label in np.argsort(-s.embedding.numpy()[:6])[:k] for s in predictions] for k in (1, 3, 5)}
    for k in (1, 3, 5):
        assert found[f'zero_shot/top{k}'] == pytest.approx(100 * np.mean(hits[k]))
    each = {name: 100 * np.mean([h for h, s in zip(hits[1], predictions) if s.category == name])
            for name in CLASSES[:5]}
    assert {name: found[f'zero_shot/top1/{name}'] for name in each} == pytest.approx(each)
    assert 'zero_shot/top1/key' not in found
    assert found['zero_shot/mean_class_top1'] == pytest.approx(np.mean(list(each.values())))
    assert 5 < found['zero_shot/top1'] < 95


def test_zero_shot_from_a_file_in_any_order_of_classes(tmp_path):
    order = [4, 1, 5, 0, 3, 2]
    save_class_features(tmp_path / 'classes.npz', [CLASSES[i] for i in order], torch.eye(8)[order])
    predictions = samples()
    from_file = ZeroShotAccuracy(class_features=tmp_path / 'classes.npz', classes=CLASSES)
    from_teacher = ZeroShotAccuracy(teacher=Names(), classes=CLASSES)
    assert evaluate(from_file, predictions) == evaluate(from_teacher, predictions)
    with pytest.raises(ValueError, match='lacks 1 of 2 classes: dragon'):
        evaluate(ZeroShotAccuracy(class_features=tmp_path / 'classes.npz', classes=['cup', 'dragon']), predictions)


def test_zero_shot_builds_its_teacher_from_a_config(tmp_path):
    with pytest.raises(ValueError, match='neither'):
        ZeroShotAccuracy()
    with pytest.raises(ValueError, match='both'):
        ZeroShotAccuracy(teacher=dict(type='OpenCLIPTeacher', model='toy-clip'), class_features='x.npz')
    with pytest.raises(ValueError, match='classes'):
        evaluate(ZeroShotAccuracy(teacher=Names()), samples(4))
    unlabelled = BaseDataElement(uid='o9', embedding=torch.ones(8))
    with pytest.raises(ValueError, match="'o9' has no label"):
        evaluate(ZeroShotAccuracy(teacher=Names(), classes=CLASSES), [unlabelled])


@pytest.mark.parametrize('views', ['first', 'mean', 'each'])
def test_retrieval_equals_a_loop(views):
    predictions = samples()
    found = evaluate(RetrievalRecall(views=views, topk=(1, 5, 10)), predictions)
    objects = np.stack([s.embedding.numpy() for s in predictions]).astype(np.float64)
    text = np.stack([s.text.numpy() for s in predictions]).astype(np.float64)
    pictures = np.stack([s.views.numpy() for s in predictions]).astype(np.float64)
    ids = np.array([int(s.caption_id) for s in predictions])
    assert len(set(ids)) < len(ids)
    same = ids[:, None] == ids
    ways = {'text_to_3d': [(text, objects, same)], '3d_to_text': [(objects, text, same)]}
    slots = {'first': [pictures[:, 0]], 'mean': [pictures.mean(1)], 'each': list(pictures.swapaxes(0, 1))}[views]
    slots = [slot / np.linalg.norm(slot, axis=-1, keepdims=True) for slot in slots]
    ways['image_to_3d'] = [(slot, objects, np.eye(40, dtype=bool)) for slot in slots]
    ways['3d_to_image'] = [(objects, slot, np.eye(40, dtype=bool)) for slot in slots]
    for way, runs in ways.items():
        places = np.concatenate([numpy_recall(*run, (1,))[2] for run in runs])
        for k in (1, 5, 10):
            assert found[f'retrieval/{way}_R@{k}'] == pytest.approx(100 * np.mean(places <= k)), (way, k)
        assert found[f'retrieval/{way}_median_rank'] == np.median(places)


def test_objects_of_one_caption_are_all_right_answers():
    text, other = torch.eye(4)[0], torch.eye(4)[1]
    predictions = [BaseDataElement(uid='a', embedding=text, text=text, caption_id=1),
                   BaseDataElement(uid='b', embedding=normalize(text + other, dim=0), text=text, caption_id=1),
                   BaseDataElement(uid='c', embedding=other, text=other, caption_id=2)]
    found = evaluate(RetrievalRecall(topk=(1,)), predictions)
    assert found['retrieval/text_to_3d_R@1'] == 100
    assert not any('image' in key for key in found)


def test_collapsed_embeddings_do_not_look_good():
    predictions = [BaseDataElement(uid=str(i), embedding=torch.ones(4), text=torch.eye(4)[i], caption_id=i)
                   for i in range(4)]
    found = evaluate(RetrievalRecall(topk=(1,)), predictions)
    assert found['retrieval/text_to_3d_R@1'] == found['retrieval/3d_to_text_R@1'] == 0


def test_retrieval_needs_something_to_retrieve_from():
    with pytest.raises(ValueError, match="'lone' has neither text nor views"):
        evaluate(RetrievalRecall(), [BaseDataElement(uid='lone', embedding=torch.ones(4))])
    with pytest.raises(ValueError, match='no caption_id'):
        evaluate(RetrievalRecall(), [BaseDataElement(uid='a', embedding=torch.ones(4), text=torch.ones(4))])


def collect(rank, size, path, predictions, meta):
    torch.distributed.init_process_group('gloo', init_method=f'file://{path}/rendezvous', rank=rank, world_size=size)
    metrics = Evaluator([ZeroShotAccuracy(teacher=Names()), RetrievalRecall()])
    metrics.dataset_meta = meta
    mine = [predictions[i % len(predictions)] for i in range(rank, -(-len(predictions) // size) * size, size)]
    for start in range(0, len(mine), 4):
        metrics.process(mine[start:start + 4])
    found = metrics.evaluate(len(predictions))
    torch.save(found, f'{path}/{rank}.pth')
    torch.distributed.destroy_process_group()


def test_two_processes_give_what_one_gives(tmp_path):
    predictions, meta = samples(n=21), {'classes': CLASSES}  # odd: the sampler repeats one object
    torch.multiprocessing.spawn(collect, args=(2, str(tmp_path), predictions, meta), nprocs=2)
    expected = evaluate([ZeroShotAccuracy(teacher=Names()), RetrievalRecall()], predictions, meta=meta)
    for rank in range(2):
        assert torch.load(tmp_path / f'{rank}.pth') == expected


@pytest.mark.parametrize('changes, message', [
    (dict(features=np.eye(2, 4, dtype=np.float32) * np.nan), 'finite'), (dict(features=np.zeros((2, 4))), 'not zero'),
    (dict(features=np.eye(3)), '2 classes with features'), (dict(classes=np.array([b'a', b'b'])), "'classes' is |S1"),
    (dict(features=np.array('x')), "'features' is <U1 of 0 dimensions, expected floats of 2")])
def test_damaged_class_features_are_refused_with_the_path(tmp_path, changes, message):
    np.savez(tmp_path / 'c.npz', **{**dict(classes=np.array(['a', 'b']), features=np.eye(2, 4)), **changes})
    with pytest.raises(ValueError, match=rf'c\.npz.*{message}'):
        load_class_features(tmp_path / 'c.npz', ['a', 'b'])


def test_class_features_that_are_no_archive_are_refused_with_the_path(tmp_path):
    (tmp_path / 'c.npz').write_bytes(b'PK no archive')
    with pytest.raises(ValueError, match=r'c\.npz: not an \.npz archive'):
        load_class_features(tmp_path / 'c.npz', ['a'])
