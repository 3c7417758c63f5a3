"""Parts of the program that trains toy-clip: its words, its loss, its batches and its pictures."""
import math
from collections import Counter
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clipgs_plugin.tools.dev.train_toy_clip import GROUP, Batches, augment, contrastive_loss, learn_merges

TEXTS = ['a red chair', 'a red striped chair', 'an airplane', 'a toy chair on a light background', 'Red: chairs!']


def apply_merges(word: str, merges: list) -> list[str]:
    """Byte-pair encoding by its definition: the earliest merge that fits, everywhere, until none does."""
    parts = [*word[:-1], word[-1] + '</w>']
    while True:
        fitting = [pair for pair in merges if pair in pairwise(parts)]
        if not fitting:
            return parts
        i = next(i for i, pair in enumerate(pairwise(parts)) if pair == fitting[0])
        parts[i:i + 2] = [''.join(fitting[0])]


def test_every_word_becomes_one_token_whatever_the_order_of_the_texts():
    merges = learn_merges(TEXTS)
    for word in ('a', 'an', 'red', 'chair', 'chairs', 'striped', 'airplane', 'background'):
        assert apply_merges(word, merges) == [word + '</w>']
    assert len(set(merges)) == len(merges)
    assert learn_merges(TEXTS[::-1]) == merges


def test_loss_spreads_the_target_over_all_that_fits():
    rng = np.random.default_rng(0)
    unit = lambda *shape: (x := rng.normal(size=shape)) / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    image, text, scale = unit(4, 6), unit(5, 6), 7.0
    fits = np.array([[1, 0, 1, 0, 0], [1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 1, 1, 0, 0]], bool)  # nothing fits 3 and 4
    expected = 0.0
    for queries, answers, right in ((image, text, fits), (text, image, fits.T)):
        asked = [i for i in range(len(queries)) if right[i].any()]
        for i in asked:
            scores = [scale * float(queries[i] @ answer) for answer in answers]
            partition = math.log(sum(math.exp(s) for s in scores))
            expected += np.mean([partition - s for s, fit in zip(scores, right[i]) if fit]) / len(asked) / 2
    found = contrastive_loss(*(torch.from_numpy(x) for x in (image, text, fits)), torch.tensor(scale))
    assert found.item() == pytest.approx(expected, rel=1e-5)  # the targets are float32


def test_batches_hold_groups_of_a_category_and_show_every_picture_before_any_again():
    specs = [SimpleNamespace(category='abc'[i % 3]) for i in range(12)]
    batches, again = Batches(specs, views=4, size=2 * GROUP), Batches(specs, views=4, size=2 * GROUP)
    seen = {name: [] for name in 'abc'}
    for _ in range(12):
        batch = batches.next()
        assert batch == again.next() and len(batch) == 2 * GROUP
        groups = [{specs[i].category for i, _ in batch[start:start + GROUP]} for start in (0, GROUP)]
        assert all(len(group) == 1 for group in groups) and groups[0] != groups[1]
        for i, view in batch:
            seen[specs[i].category].append((i, view))
    for pairs in seen.values():  # 4 objects of 4 views: two groups
        for start in range(0, len(pairs) - 15, 16):
            assert set(Counter(pairs[start:start + 16]).values()) == {1}


def test_pictures_are_varied_stay_in_range_and_follow_the_seed():
    pictures = torch.full((200, 3, 64, 64), round(0.93 * 255), dtype=torch.uint8)  # background alone
    pictures[:, :, 24:40, 24:40] = torch.tensor([200, 30, 30], dtype=torch.uint8)[:, None, None]
    draw = lambda seed: augment(pictures, torch.Generator().manual_seed(seed))  # noqa: E731
    found = draw(1)
    assert found.shape == pictures.shape and found.min() >= 0 and found.max() <= 1
    assert torch.equal(found, draw(1)) and not torch.equal(found, draw(2))
    corner = found[:, :, 0, 0]
    same_ground = ((corner - 0.93).abs().amax(1) < 0.08).float().mean()  # brightness alone moves it by up to 0.07
    assert 0.6 < same_ground < 0.9
    red = (found[:, 0] - found[:, 1] > 0.4).sum((1, 2)).float() / 256  # the square's area, zoomed by 0.8 to 1.25
    assert 0.5 < red.median() < 1.6 and red.max() / red.min().clamp_min(0.1) > 1.5
