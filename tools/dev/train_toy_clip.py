"""Train toy-clip, the small CLIP of the toy world, on images and captions of its training looks."""
from __future__ import annotations

import gzip
import json
import os
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from clipgs_plugin.tools._program import parser, progress_bar, run

NAME = 'toy-clip'
SEED = 2412      # of objects, weights and batches; no other program uses it
GREY = 0.93      # background of the toy world's views

CONFIG = {
    'embed_dim': 128,
    'vision_cfg': {'image_size': 64, 'layers': [1, 2, 2, 1], 'width': 16},
    'text_cfg': {'context_length': 20, 'width': 128, 'heads': 4, 'layers': 2},
}
GROUP = 8        # objects of one category in a batch, so that the model learns to distinguish looks


# Words

def learn_merges(texts: list[str]) -> list[tuple[str, str]]:
    """Learn byte-pair merges that make every word of the texts one token, most frequent pairs first.

    Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units", 2016. Ties are broken
    alphabetically, so that the table is a function of the texts.
    """
    import regex
    words = Counter(word for text in texts for word in regex.findall(r'\p{L}+', text.lower()))
    pieces = {word: (*word[:-1], word[-1] + '</w>') for word in words}
    merges = []
    while True:
        pairs = Counter()
        for word, parts in pieces.items():
            for pair in pairwise(parts):
                pairs[pair] += words[word]
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        pieces = {word: _merged(parts, best) for word, parts in pieces.items()}


def _merged(parts: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    result, i = [], 0
    while i < len(parts):
        joined = tuple(parts[i:i + 2]) == pair
        result.append(''.join(pair) if joined else parts[i])
        i += 2 if joined else 1
    return tuple(result)


def write_architecture(out: Path, texts: list[str]) -> None:
    """Write ``toy-clip.json`` and ``merges.txt.gz``, from which open_clip builds network and tokenizer."""
    merges = learn_merges(texts)
    table = '\n'.join(['#version: 0.2', *map(' '.join, merges)])
    (out / 'merges.txt.gz').write_bytes(gzip.compress(table.encode(), mtime=0))
    # 256 bytes, each alone and at the end of a word; the merges; start and end of text.
    config = {**CONFIG, 'text_cfg': {**CONFIG['text_cfg'], 'vocab_size': 512 + len(merges) + 2}}
    (out / f'{NAME}.json').write_text(json.dumps(config, indent=4) + '\n')


# Images

def make_pictures(specs: list, views: int, workers: int) -> tuple[Tensor, list[list[str]]]:
    """Render views as triplets store them, (n, V, 3, 64, 64) uint8, and return them with each object's captions."""
    from multiprocessing import get_context
    with get_context('spawn').Pool(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool, \
            progress_bar() as bar:
        made = list(bar.track(pool.imap(_make_pictures, [(spec, views) for spec in specs], chunksize=16),
                              total=len(specs), description='rendering'))
    return torch.from_numpy(np.stack([pictures for pictures, _ in made])), [captions for _, captions in made]


def _make_pictures(job: tuple) -> tuple[np.ndarray, list[str]]:
    from clipgs_plugin.toy_world import make_object, render_views
    from clipgs_plugin.triplets.codecs import decode_view, encode_view
    spec, views = job
    pictures = np.stack([decode_view(encode_view(view)) for view in render_views(spec, views, 64)])
    return pictures.transpose(0, 3, 1, 2), make_object(spec, num_gaussians=8).captions


def augment(pictures: Tensor, rng: torch.Generator) -> Tensor:
    """Augment images, (n, 3, 64, 64) uint8 to floats in [0, 1].

    Each is mirrored, shifted, zoomed and changed in brightness; a quarter has another background, a quarter is blurred.
    """
    n = len(pictures)
    draw = lambda low, high, *shape: torch.rand(n, *shape, generator=rng) * (high - low) + low  # noqa: E731
    x = pictures.float() / 255
    ground = (x - GREY).abs().amax(1, keepdim=True) < 0.012
    other = torch.where(draw(0, 1, 1, 1, 1) < 0.5, draw(0, 1, 3, 1, 1), draw(0, 1, 1, 1, 1).expand(n, 3, 1, 1))
    ground = ground & (draw(0, 1, 1, 1, 1) < 0.25)
    x = torch.where(ground, other, x)

    zoom, shift = draw(0.8, 1.25), draw(-0.15, 0.15, 2)
    mirror = torch.where(draw(0, 1) < 0.5, -1.0, 1.0)
    turn = torch.zeros(n, 2, 3)
    turn[:, 0, 0], turn[:, 1, 1], turn[:, :, 2] = mirror * zoom, zoom, shift
    grid = nn.functional.affine_grid(turn, x.shape, align_corners=False)
    x = nn.functional.grid_sample(x, grid, padding_mode='border', align_corners=False)

    small = nn.functional.interpolate(x, scale_factor=0.5, mode='bilinear', antialias=True)
    blurred = nn.functional.interpolate(small, x.shape[-2:], mode='bilinear')
    share = torch.where(draw(0, 1) < 0.25, draw(0, 1), torch.zeros(n))[:, None, None, None]
    x = x + share * (blurred - x)
    return (x * draw(0.95, 1.05, 1, 1, 1) + draw(-0.02, 0.02, 3, 1, 1)).clamp(0, 1)


# Training

def contrastive_loss(image: Tensor, text: Tensor, fits: Tensor, scale: Tensor) -> Tensor:
    """Compute the cross-entropy in both directions, with every fitting caption as a positive.

    Args:
        image: Unit image features, (n, E).
        text: Unit text features, (m, E).
        fits: Pairs that fit, (n, m) bool, at least one a row; captions without a fitting image are negatives only.
        scale: Inverse temperature, a scalar.
    """
    logits = scale * image @ text.T
    loss = 0.0
    for scores, right in ((logits, fits.float()), (logits.T, fits.T.float())):
        asked = right.sum(-1) > 0
        loss = loss - ((right * scores.log_softmax(-1)).sum(-1)[asked] / right.sum(-1)[asked]).mean()
    return loss / 2


class Batches:
    """Endless batches of groups of one category, each object with one view, in an order set by the seed.

    Args:
        specs: Specs of all objects.
        views: Number of views of an object.
        size: Number of objects in a batch, a multiple of ``GROUP``.
    """

    def __init__(self, specs: list, views: int, size: int) -> None:
        self.views, self.size = views, size
        self.members: dict[str, list[int]] = {}
        for i, spec in enumerate(specs):
            self.members.setdefault(spec.category, []).append(i)
        self.rng = np.random.default_rng(SEED)
        self.left = {name: [] for name in self.members}

    def next(self) -> list[tuple[int, int]]:
        """Draw pairs of object and view."""
        names = self.rng.choice(list(self.members), self.size // GROUP, replace=False)
        return [pair for name in names for pair in self._take(name)]

    def _take(self, name: str) -> list[tuple[int, int]]:
        """Take the next views of a category; all are shown once before any is repeated."""
        if len(self.left[name]) < GROUP:
            pairs = [(i, view) for i in self.members[name] for view in range(self.views)]
            self.left[name] = [pairs[j] for j in self.rng.permutation(len(pairs))]
        taken, self.left[name] = self.left[name][:GROUP], self.left[name][GROUP:]
        return taken


def train(network: nn.Module, tokenizer, specs: list, pictures: Tensor, captions: list[list[str]], epochs: int,
          batch_size: int, rate: float) -> None:
    """Optimise a network in place.

    A step uses a batch of images and two lists of captions: a full description of each image, and for each category a
    sentence with its name alone.
    """
    from clipgs_plugin.toy_world.captions import describe
    mean, std = (torch.tensor(value)[:, None, None] for value in (network.visual.image_mean, network.visual.image_std))
    names = sorted({spec.category for spec in specs})
    nouns = [[captions[i][-1] for i, spec in enumerate(specs) if spec.category == name] for name in names]
    labels = [names.index(spec.category) for spec in specs]
    looks = {text: k for k, text in enumerate(sorted({describe(spec.look, spec.category) for spec in specs}))}
    looks = [looks[describe(spec.look, spec.category)] for spec in specs]

    views = pictures.shape[1]
    steps = epochs * len(specs) * views // batch_size
    weights = [dict(params=[p for p in network.parameters() if p.dim() > 1], weight_decay=0.1),
               dict(params=[p for p in network.parameters() if p.dim() <= 1], weight_decay=0.0)]
    optimiser = torch.optim.AdamW(weights, rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps, pct_start=0.1)
    batches, torch_rng = Batches(specs, views, batch_size), torch.Generator().manual_seed(SEED)
    network.train().to(memory_format=torch.channels_last)
    started, means = time.perf_counter(), np.zeros(2)
    with progress_bar() as bar:
        task = bar.add_task('training', total=steps)
        for step in range(1, steps + 1):
            chosen, view = map(list, zip(*batches.next()))
            full = [captions[i][int(batches.rng.integers(len(captions[i]) - 1))] for i in chosen]
            noun = [choices[int(batches.rng.integers(len(choices)))] for choices in nouns]
            pixels = (augment(pictures[chosen, view], torch_rng) - mean) / std
            with torch.autocast('cpu', torch.bfloat16):  # twice as fast for convolutions
                image = network.encode_image(pixels.contiguous(memory_format=torch.channels_last))
            image = nn.functional.normalize(image.float(), dim=-1)
            text = network.encode_text(tokenizer(full + noun), normalize=True)
            look, label = torch.tensor([looks[i] for i in chosen]), torch.tensor([labels[i] for i in chosen])
            scale = network.logit_scale.exp()
            fits_noun = label[:, None] == torch.arange(len(names))
            loss = (contrastive_loss(image, text[:len(full)], look[:, None] == look, scale)
                    + contrastive_loss(image, text[len(full):], fits_noun, scale))
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            with torch.no_grad():
                network.logit_scale.clamp_(max=float(np.log(100)))
                right = (image @ text[len(full):].T).argmax(-1) == label
            means += (np.array([float(loss.detach()), float(right.float().mean())]) - means) * max(1 / step, 0.02)
            bar.advance(task)
            if step % max(1, steps // 20) == 0:
                print(f'step {step} of {steps}: loss {means[0]:.3f}, category {100 * means[1]:.1f} %, '
                      f'{time.perf_counter() - started:.0f} s', file=sys.stderr, flush=True)
    network.eval().to(memory_format=torch.contiguous_format)


@torch.no_grad()
def held_out_accuracy(teacher, specs: list, pictures: Tensor) -> dict[str, float]:
    """Compute zero-shot accuracy in percent on views of held-out looks.

    Returns:
        ``single_view`` and ``mean_view``, accuracy of the category by the prompts ``'toy'`` from one view and from all
        views of an object; ``look``, accuracy of the full description among all held-out looks of the category, from
        one view.
    """
    from clipgs_plugin.evaluation import class_embeddings, teacher_zero_shot
    from clipgs_plugin.toy_world import CATEGORIES
    from clipgs_plugin.toy_world.captions import article, describe
    from clipgs_plugin.toy_world.specs import looks
    names = list(CATEGORIES)
    n, views = pictures.shape[:2]
    features = teacher.encode_image(pictures.flatten(0, 1)).reshape(n, views, -1)
    labels = torch.tensor([names.index(spec.category) for spec in specs])
    found = teacher_zero_shot(features, labels, class_embeddings(teacher, names, 'toy'))
    right = []
    for name in names:
        descriptions = [describe(look, name) for look in looks(name, 'test')]
        text = teacher.encode_text([f'{article(words)} {words}' for words in descriptions])
        for i in (labels == names.index(name)).nonzero()[:, 0].tolist():
            guesses = (features[i] @ text.T).argmax(-1).tolist()
            right += [descriptions[guess] == describe(specs[i].look, name) for guess in guesses]
    each = {name: teacher_zero_shot(features[labels == i], labels[labels == i],
                                    class_embeddings(teacher, names, 'toy'))['single_view'][1]
            for i, name in enumerate(names) if (labels == i).any()}
    worst = sorted(each.items(), key=lambda item: item[1])[:6]
    print('weakest categories: ' + ', '.join(f'{name} {value:.0f} %' for name, value in worst), file=sys.stderr)
    return {'single_view': found['single_view'][1], 'mean_view': found['mean_view'][1],
            'look': 100 * float(np.mean(right))}


CARD = """# toy-clip

A CLIP of {parameters:.1f} M parameters for the toy world of clipgs_plugin: a small ResNet over 64 x 64 images and a
text transformer over {vocabulary} tokens, {width} numbers wide. It was trained on the toy world's {categories}
categories, colours, patterns, tones and wears alone. It is the teacher of the quickstart and of tests, where a real
CLIP would need a download; open_clip loads it like any other model (`OpenCLIPTeacher('toy-clip')`).

- Data: {objects} objects of the split `train` of `clipgs_plugin.toy_world` with seed {seed}, {views} views
  each, and their captions. The looks of the split `test` are held out.
- Command: `{command}`
- Duration: {minutes:.0f} min, {used:.0f} min of CPU time, rendering included.
- Licence: Apache-2.0

| on {held_out} held-out views ({held_out_objects} objects of unseen looks) | top-1 |
|---|---|
| category among {categories}, one view | {single_view:.1f} % |
| category among {categories}, mean of {views} views | {mean_view:.1f} % |
| full description among the unseen looks of the category, one view | {look:.1f} % |

Files: `toy-clip.json` (architecture, for open_clip), `merges.txt.gz` (byte pairs of its tokenizer),
`weights.safetensors` (float16).
"""


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__, 'python tools/dev/train_toy_clip.py -o work_dirs/toy-clip')
    args.add_argument('-o', '--out', type=Path, required=True, help='folder for weights, tokenizer and card')
    args.add_argument('--num-objects', type=int, default=4032, help='training objects (%(default)s)')
    args.add_argument('--num-test', type=int, default=504, help='held-out objects (%(default)s)')
    args.add_argument('--views', type=int, default=8, help='views of an object (%(default)s)')
    args.add_argument('--epochs', type=int, default=12, help='epochs over all views (%(default)s)')
    args.add_argument('--batch-size', type=int, default=128, help='%(default)s')
    args.add_argument('--rate', type=float, default=1.5e-3, help='peak learning rate (%(default)s)')
    args.add_argument('--workers', type=int, default=os.cpu_count(), help='rendering processes (%(default)s)')
    args = args.parse_args(argv)

    import open_clip
    import safetensors.torch

    from clipgs_plugin.models.teachers import OpenCLIPTeacher
    from clipgs_plugin.toy_world import CATEGORIES, object_specs
    started = time.perf_counter()
    specs = object_specs(args.num_objects, seed=SEED, split='train')
    held_out = object_specs(args.num_test, seed=SEED, split='test')
    print(f'Training {NAME} on {len(specs)} objects, {args.views} views each, into {args.out}', file=sys.stderr)
    pictures, captions = make_pictures(specs, args.views, args.workers)
    held_out_pictures, _ = make_pictures(held_out, args.views, args.workers)
    print(f'views rendered in {time.perf_counter() - started:.0f} s', file=sys.stderr)

    args.out.mkdir(parents=True, exist_ok=True)
    write_architecture(args.out, [text for sentences in captions for text in sentences])
    open_clip.add_model_config(args.out / f'{NAME}.json')
    torch.manual_seed(SEED)
    network = open_clip.create_model(NAME)
    tokenizer = open_clip.get_tokenizer(NAME, bpe_path=str(args.out / 'merges.txt.gz'))
    train(network, tokenizer, specs, pictures, captions, args.epochs, args.batch_size, args.rate)
    minutes, used = (time.perf_counter() - started) / 60, sum(os.times()[:4]) / 60
    weights = args.out / 'weights.safetensors'
    weights.write_bytes(safetensors.torch.save({name: value.half() if value.is_floating_point() else value
                                                for name, value in network.state_dict().items()}))

    teacher = OpenCLIPTeacher(str(args.out))
    accuracy = held_out_accuracy(teacher, held_out, held_out_pictures)
    print(json.dumps(accuracy))
    words = ' '.join(sys.argv[1:] if argv is None else argv)
    (args.out / 'README.md').write_text(CARD.format(
        parameters=sum(p.numel() for p in network.parameters()) / 1e6, vocabulary=tokenizer.vocab_size,
        width=CONFIG['embed_dim'], categories=len(CATEGORIES), objects=len(specs), seed=SEED, views=args.views,
        command=f'python tools/dev/train_toy_clip.py {words}', minutes=minutes, used=used,
        held_out=held_out_pictures.shape[0] * args.views, held_out_objects=len(held_out), **accuracy))
    print(f'{weights} ({weights.stat().st_size / 1e6:.1f} MB)', file=sys.stderr)
    return 0


if __name__ == '__main__':
    run(main)
