import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement
from PIL import Image

from clipgs_plugin.evaluation import RetrievalRecall
from clipgs_plugin.evaluation.photos import embed_photos, find_photos


class Colours(torch.nn.Module):
    """A teacher whose image vector is the mean colour."""

    def preprocess(self, image):
        return torch.from_numpy(np.asarray(image, np.float32) / 255).permute(2, 0, 1)

    def encode_image(self, pixels):
        return pixels.mean((2, 3))


def photograph(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (4, 3), colour).save(path)


@pytest.fixture
def photos(tmp_path):
    """Two photographs of one object, one of another, none of a third, and one of an object that is not evaluated."""
    photograph(tmp_path / 'apple' / '0.ply.png', (255, 0, 0))
    photograph(tmp_path / 'apple' / '1.ply' / 'left.png', (0, 255, 0))
    photograph(tmp_path / 'apple' / '1.ply' / 'right.PNG', (255, 40, 0))  # looks like the other object
    photograph(tmp_path / 'pear' / '9.ply.png', (0, 0, 255))
    (tmp_path / 'notes.txt').write_text('no photograph')
    return tmp_path


UIDS = 'apple/0.ply', 'apple/1.ply', 'apple/2.ply'


def objects():
    return [BaseDataElement(uid=uid, embedding=row) for uid, row in zip(UIDS, torch.eye(3))]


def evaluate(metric):
    metric.process(None, objects())
    return metric.evaluate(3)


def test_photographs_belong_to_objects_by_their_paths(photos):
    found = [(path.relative_to(photos).as_posix(), uid) for path, uid in find_photos(photos, UIDS)]
    assert found == [('apple/0.ply.png', 'apple/0.ply'), ('apple/1.ply/left.png', 'apple/1.ply'),
                     ('apple/1.ply/right.PNG', 'apple/1.ply')]
    with pytest.raises(ValueError, match='no photograph of the 1 objects, such as mug'):
        find_photos(photos, ['mug'])
    with pytest.raises(FileNotFoundError, match='nowhere'):
        find_photos(photos / 'nowhere', UIDS)


def test_photographs_are_upright_and_do_not_depend_on_the_batch(photos):
    paths = [path for path, _ in find_photos(photos, UIDS)]
    found = [embed_photos(Colours(), paths, batch_size) for batch_size in (2, 64)]
    assert torch.equal(*found) and found[0][1].tolist() == [0, 1, 0]


def test_photographs_as_queries_by_hand(photos):
    found = evaluate(RetrievalRecall(topk=(1, 2), photos=photos, teacher=Colours()))
    # The photographs have their objects at 1, 1 and 2. The first object has its photograph at 1, the second its two at
    # 1 and 2, and the third has none and is no query.
    assert found['retrieval/photo_to_3d_R@1'] == pytest.approx(200 / 3)
    assert found['retrieval/photo_to_3d_R@2'] == 100
    assert found['retrieval/photo_to_3d_mAP'] == pytest.approx(100 * (1 + 1 + 1 / 2) / 3)
    assert found['retrieval/3d_to_photo_R@1'] == 100 and found['retrieval/3d_to_photo_mAP'] == 100
    assert found['retrieval/photo_to_3d_median_rank'] == 1


def test_the_teacher_embeds_once_a_run_with_its_image_tower(photos, monkeypatch):
    towers = []
    monkeypatch.setattr('clipgs_plugin.evaluation.retrieval.build_tower',
                        lambda teacher, tower, device: towers.append((teacher, tower, device)) or Colours())
    metric = RetrievalRecall(photos=photos, teacher={'type': 'T'}, device='cpu')
    assert evaluate(metric) == evaluate(metric)
    assert towers == [({'type': 'T'}, 'image', 'cpu')] and metric.teacher is None


def test_photographs_need_a_teacher(photos):
    with pytest.raises(ValueError, match='photographs need the teacher'):
        RetrievalRecall(photos=photos)
