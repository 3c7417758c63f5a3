import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.structures import BaseDataElement
from torch.nn.functional import normalize

from clipgs_plugin.evaluation import (
    ClassEmbeddings,
    ClassificationAccuracy,
    FewShotAccuracy,
    RetrievalRecall,
    ZeroShotAccuracy,
    class_embeddings,
)
from clipgs_plugin.registry import MODELS

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
    ClassEmbeddings(tuple(CLASSES[i] for i in order), torch.eye(8)[order]).save(tmp_path / 'classes.npz')
    predictions = samples()
    from_file = ZeroShotAccuracy(class_embeddings=tmp_path / 'classes.npz', classes=CLASSES)
    from_teacher = ZeroShotAccuracy(teacher=Names(), classes=CLASSES)
    assert evaluate(from_file, predictions) == evaluate(from_teacher, predictions)
    with pytest.raises(ValueError, match=r'lack 1 of 2 names \(dragon\)'):
        evaluate(ZeroShotAccuracy(class_embeddings=tmp_path / 'classes.npz', classes=['cup', 'dragon']), predictions)


def test_zero_shot_builds_its_teacher_from_a_config(tmp_path):
    with pytest.raises(ValueError, match='neither'):
        ZeroShotAccuracy()
    with pytest.raises(ValueError, match='both'):
        ZeroShotAccuracy(teacher=dict(type='OpenCLIPTeacher', model='toy-clip'), class_embeddings='x.npz')
    with pytest.raises(ValueError, match='classes'):
        evaluate(ZeroShotAccuracy(teacher=Names()), samples(4))
    unlabelled = BaseDataElement(uid='o9', embedding=torch.ones(8))
    with pytest.raises(ValueError, match="'o9' has no label"):
        evaluate(ZeroShotAccuracy(teacher=Names(), classes=CLASSES), [unlabelled])


def unlabelled(predictions, every=3):
    """Return copies of predictions of which every third has no class, as TripletDataset labels it."""
    copies = [sample.new() for sample in predictions]
    for sample in copies[1::every]:
        sample.label, sample.category = torch.tensor(-1), ''
    return copies


def test_objects_without_a_class_are_left_out_and_counted_once(caplog):
    predictions = unlabelled(samples())
    metric = ZeroShotAccuracy(teacher=Names(), classes=CLASSES, per_class=True)
    with caplog.at_level('WARNING'):
        logger = MMLogger.get_current_instance()
        logger.addHandler(caplog.handler)
        try:
            found = [evaluate(metric, predictions) for _ in range(2)]
        finally:
            logger.removeHandler(caplog.handler)
    labelled = [sample for sample in predictions if sample.label >= 0]
    expected = evaluate(ZeroShotAccuracy(teacher=Names(), classes=CLASSES, per_class=True), labelled)
    assert found == [expected] * 2 and len(labelled) == 27
    assert [record.message for record in caplog.records] == [
        'ZeroShotAccuracy leaves out 13 of 40 objects, which have no class']


def test_objects_that_all_have_no_class_are_refused():
    with pytest.raises(ValueError, match=r'none of the 5 objects has a class.*remove ZeroShotAccuracy'):
        evaluate(ZeroShotAccuracy(teacher=Names(), classes=CLASSES), unlabelled(samples(6), every=1)[1:])


def test_zero_shot_with_a_teacher_from_a_config_equals_that_with_the_teacher():
    config = dict(type='clipgs_plugin.OpenCLIPTeacher', model='toy-clip')
    teacher = MODELS.build(config)
    expected = class_embeddings(teacher, CLASSES)
    noisy = normalize(expected + 0.05 * torch.randn(4, *expected.shape), dim=-1)
    predictions = [BaseDataElement(uid=f'{i} {k}', embedding=embedding.bfloat16(), label=i)
                   for k, copies in enumerate(noisy) for i, embedding in enumerate(copies)]
    metric = ZeroShotAccuracy(teacher=config, classes=CLASSES)
    metric.process(None, predictions[:1])
    assert metric.results[0][0].dtype == torch.float32
    assert evaluate(ZeroShotAccuracy(teacher=config, classes=CLASSES), predictions) == evaluate(
        ZeroShotAccuracy(teacher=teacher, classes=CLASSES), predictions)


def test_the_confusion_matrix_counts_every_labelled_object():
    predictions = unlabelled(samples())
    metric = ZeroShotAccuracy(teacher=Names(), classes=CLASSES)
    found = evaluate(metric, predictions)
    counts = np.zeros((6, 6), int)
    for sample in predictions:
        if sample.label >= 0:
            counts[int(sample.label), int(sample.embedding[:6].argmax())] += 1
    assert metric.confusion.counts.tolist() == counts.tolist()
    assert metric.confusion.accuracies['key'] is None  # the class without objects
    assert found['zero_shot/top1'] == pytest.approx(100 * np.trace(counts) / 27)


@pytest.mark.parametrize('batch_size', [1, 13, 40])  # 40 = 3 * 13 + 1, a last batch of one
def test_batches_do_not_matter(batch_size):
    predictions, metrics = samples(), lambda: [ZeroShotAccuracy(teacher=Names(), classes=CLASSES), RetrievalRecall()]
    assert evaluate(metrics(), predictions, batch_size) == evaluate(metrics(), predictions, 16)


def test_zero_shot_leaves_out_k_above_the_number_of_classes():
    found = evaluate(ZeroShotAccuracy(teacher=Names(), classes=CLASSES[:5], topk=(1, 5, 6)), samples())
    assert found.keys() == {'zero_shot/top1', 'zero_shot/top5', 'zero_shot/mean_class_top1'}
    assert found['zero_shot/top5'] == 100


@pytest.mark.parametrize('views', ['first', 'mean', 'each'])
def test_retrieval_equals_a_loop(views):
    predictions = samples()
    for sample in predictions:
        # Features need no unit length, and the mean must not weigh a view by it. Caches are float16.
        sample.views = (sample.views * torch.tensor([[0.1], [1.0], [30.0]])).half().float()
    found = evaluate(RetrievalRecall(views=views, topk=(1, 5, 10)), predictions)
    objects = np.stack([s.embedding.numpy() for s in predictions]).astype(np.float64)
    text = np.stack([s.text.numpy() for s in predictions]).astype(np.float64)
    pictures = np.stack([s.views.numpy() for s in predictions]).astype(np.float64)
    ids = np.array([int(s.caption_id) for s in predictions])
    assert len(set(ids)) < len(ids)
    same = ids[:, None] == ids
    ways = {'text_to_3d': [(text, objects, same)], '3d_to_text': [(objects, text, same)]}
    pictures /= np.linalg.norm(pictures, axis=-1, keepdims=True)
    slots = {'first': [pictures[:, 0]], 'mean': [pictures.mean(1)], 'each': list(pictures.swapaxes(0, 1))}[views]
    slots = [slot / np.linalg.norm(slot, axis=-1, keepdims=True) for slot in slots]
    ways['image_to_3d'] = [(slot, objects, np.eye(40, dtype=bool)) for slot in slots]
    ways['3d_to_image'] = [(objects, slot, np.eye(40, dtype=bool)) for slot in slots]
    for way, runs in ways.items():
        places = np.concatenate([numpy_recall(*run, (1,))[2] for run in runs])
        for k in (1, 5, 10):
            assert found[f'retrieval/{way}_R@{k}'] == pytest.approx(100 * np.mean(places <= k)), (way, k)
        assert found[f'retrieval/{way}_median_rank'] == np.median(places)


@pytest.mark.parametrize('views, expected', [('first', 3 * 8 * 4), ('mean', 3 * 8 * 4),
                                             ('each', 2 * 8 * 4 + 3 * 8 * 2)])
def test_retrieval_keeps_only_the_views_that_take_part(views, expected):
    """All views of all objects are gigabytes; rows of a batch must not keep the batch alive."""
    batch = {key: torch.stack([sample.get(key) for sample in samples(10)]) for key in ('embedding', 'text', 'views')}
    metric = RetrievalRecall(views=views)
    metric.process({}, [dict(uid=str(i), caption_id=i, **{key: value[i] for key, value in batch.items()})
                        for i in range(10)])
    tensors = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()
               for result in metric.results for value in result.values() if isinstance(value, torch.Tensor)}
    batch_storages = {value.untyped_storage().data_ptr() for value in batch.values()}
    assert sum(tensors.values()) == 10 * expected and not batch_storages & set(tensors)


@pytest.mark.parametrize('views', ['first', 'mean', 'each', 'all'])
def test_the_length_of_a_view_feature_does_not_matter(views):
    predictions = samples()
    expected = evaluate(RetrievalRecall(views=views), predictions)
    for i, sample in enumerate(predictions):
        sample.views = sample.views * 2.0 ** torch.tensor([[i % 5], [-2 * (i % 3)], [3]])
    assert evaluate(RetrievalRecall(views=views), predictions) == expected


def test_the_mean_average_precision_of_shared_captions_and_of_all_views_equals_a_loop():
    predictions = samples()
    for i, sample in enumerate(predictions):
        sample.views = sample.views[:1 + i % 3].half().float()  # objects of one, two and three views
    found = evaluate(RetrievalRecall(views='all'), predictions)
    unit = lambda rows: (x := np.stack(rows).astype(np.float64)) / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    objects, text = unit([s.embedding for s in predictions]), unit([s.text for s in predictions])
    views = unit([view for s in predictions for view in s.views])
    captions = np.array([int(s.caption_id) for s in predictions])
    owners = np.array([i for i, s in enumerate(predictions) for _ in s.views])
    ways = {'text_to_3d': (text, objects, captions, captions), '3d_to_text': (objects, text, captions, captions),
            'image_to_3d': (views, objects, owners, np.arange(40)),
            '3d_to_image': (objects, views, np.arange(40), owners)}
    for way, (queries, gallery, own, theirs) in ways.items():
        firsts, precisions = [], []
        for scores, right in zip((queries @ gallery.T).astype(np.float32), own[:, None] == theirs):
            order = np.lexsort((right, -scores))  # negatives first among equals
            places = 1 + np.flatnonzero(right[order])
            firsts.append(places[0])
            precisions.append(np.mean(np.arange(1, len(places) + 1) / places))
        assert found[f'retrieval/{way}_mAP'] == pytest.approx(100 * np.mean(precisions)), way
        assert found[f'retrieval/{way}_R@1'] == pytest.approx(100 * np.mean(np.array(firsts) == 1)), way


def test_each_view_slot_is_retrieved_among_the_objects_that_have_it():
    one, two = torch.eye(2)
    predictions = [BaseDataElement(uid='a', embedding=one, views=torch.stack([one, two])),
                   BaseDataElement(uid='b', embedding=two, views=two[None])]
    found = evaluate(RetrievalRecall(views='each', topk=(1,)), predictions)
    # Of three views, the second one of a looks like b. Alone in its slot, it is found by a.
    assert found['retrieval/image_to_3d_R@1'] == pytest.approx(200 / 3)
    assert found['retrieval/3d_to_image_R@1'] == 100


def test_retrieval_reports_the_usual_recalls_of_what_all_objects_have():
    ways = 'text_to_3d', '3d_to_text', 'image_to_3d', '3d_to_image'
    figures = 'R@1', 'R@5', 'R@10', 'mAP', 'median_rank'
    keys = lambda *ways: {f'retrieval/{way}_{figure}' for way in ways for figure in figures}  # noqa: E731
    predictions = samples()
    assert evaluate(RetrievalRecall(), predictions).keys() == keys(*ways)
    del predictions[3].text
    assert evaluate(RetrievalRecall(), predictions).keys() == keys(*ways[2:])
    del predictions[4].views
    with pytest.raises(ValueError, match='some objects have text features and others have views'):
        evaluate(RetrievalRecall(), predictions)
    with pytest.raises(ValueError, match="views='last', expected one of 'first', 'mean', 'each', 'all'"):
        RetrievalRecall(views='last')


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


def test_the_median_of_an_even_number_of_ranks_is_between_them():
    near, far = torch.eye(4)[0], normalize(torch.eye(4)[0] + torch.eye(4)[1], dim=0)
    predictions = [BaseDataElement(uid='a', embedding=near, text=near, caption_id=1),
                   BaseDataElement(uid='b', embedding=far, text=normalize(near + 0.1 * far, dim=0), caption_id=2)]
    found = evaluate(RetrievalRecall(topk=(1,)), predictions)  # both captions are nearest to the first object
    assert found['retrieval/text_to_3d_median_rank'] == 1.5


def test_retrieval_needs_something_to_retrieve_from():
    with pytest.raises(ValueError, match="'lone' has neither text nor views"):
        evaluate(RetrievalRecall(), [BaseDataElement(uid='lone', embedding=torch.ones(4))])
    with pytest.raises(ValueError, match='no caption_id'):
        evaluate(RetrievalRecall(), [BaseDataElement(uid='a', embedding=torch.ones(4), text=torch.ones(4))])


def of_the_space():
    return [ZeroShotAccuracy(teacher=Names()), RetrievalRecall(views='all')]


def of_the_labels():
    """The metrics whose objects all have a class and, in the second, a uid of their own."""
    return [ClassificationAccuracy(topk=(1, 3), per_class=True),
            FewShotAccuracy(heads={'mean': dict(type='PrototypeHead')}, settings=[dict(ways=None, shots=1)],
                            queries=None, trials=2, scarce='leave_out')]


def collect(rank, size, path, meta, *cases):
    torch.distributed.init_process_group('gloo', init_method=f'file://{path}/rendezvous', rank=rank, world_size=size)
    results = []
    for metrics, predictions in cases:
        evaluator = Evaluator(metrics())
        evaluator.dataset_meta = meta
        mine = [predictions[i % len(predictions)] for i in range(rank, -(-len(predictions) // size) * size, size)]
        for start in range(0, len(mine), 4):
            evaluator.process(mine[start:start + 4])
        results.append(evaluator.evaluate(len(predictions)))
    torch.save(results, f'{path}/{rank}.pth')
    torch.distributed.destroy_process_group()


def test_two_processes_give_what_one_gives(tmp_path):
    # Odd, so that the sampler repeats one object and the last batches have three; the processes have unequal numbers
    # of objects without a class.
    predictions, labelled, meta = unlabelled(samples(n=21), every=4), samples(n=21, seed=1), {'classes': CLASSES}
    for sample in labelled:
        sample.scores = sample.embedding[:len(CLASSES)]
    cases = (of_the_space, predictions), (of_the_labels, labelled)
    torch.multiprocessing.spawn(collect, args=(2, str(tmp_path), meta, *cases), nprocs=2)
    expected = [evaluate(metrics(), found, meta=meta) for metrics, found in cases]
    for rank in range(2):
        assert torch.load(tmp_path / f'{rank}.pth') == expected
    right = sum(int(sample.scores.argmax()) == int(sample.label) for sample in labelled)
    assert expected[1]['accuracy/top1'] == pytest.approx(100 * right / 21) and 0 < right < 21
    assert 0 < expected[1]['few_shot/mean/all1shot'] < 100
