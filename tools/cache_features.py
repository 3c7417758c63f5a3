"""Encode the views and captions of a triplet dataset with a teacher, so that training reads cached features."""
from __future__ import annotations

import sys
import time
from pathlib import Path

from clipgs_plugin.tools._program import FEATURES, WORLD, parser, progress_bar, run, usable_device


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__, WORLD, FEATURES)
    args.add_argument('triplets', type=Path, help='folder of the dataset')
    args.add_argument('--teacher', default='toy-clip',
                      help='name in registry/catalogue/teachers.yml or open_clip.list_models() (%(default)s)')
    args.add_argument('--pretrained', default=None, metavar='TAG_OR_FILE',
                      help="tag of open_clip or a local weight file (default: the catalogue's)")
    args.add_argument('--batch-size', type=int, default=256, help='number of views per batch (%(default)s)')
    args.add_argument('--precision', default='fp32', choices=['fp32', 'fp16', 'bf16'],
                      help='precision of the teacher (%(default)s)')
    args.add_argument('--device', default='cpu', help='torch device of the teacher (%(default)s)')
    args = args.parse_args(argv)

    from clipgs_plugin.io.lock import folder_lock
    from clipgs_plugin.models.teachers import OpenCLIPTeacher
    from clipgs_plugin.triplets import FeatureWriter, ShardReader
    reader = ShardReader(args.triplets)
    teacher = OpenCLIPTeacher(args.teacher, args.pretrained, args.precision, args.batch_size).require_weights()
    teacher.to(usable_device(args.device))
    writer = FeatureWriter(reader, teacher.name, width=teacher.embed_dim, weights=teacher.fingerprint,
                           precision=args.precision)
    with folder_lock(writer.folder):
        encode(teacher, reader, writer)
    print(writer.folder)
    return 0


def encode(teacher, reader, writer) -> None:
    """Write the features of all shards that lack them, with progress on standard error."""
    pending = list(writer.pending())
    count = sum(len(rows) for _, rows in pending)
    print(f'{reader.root}: {len(reader)} objects of {reader.num_views} views; {count} to encode with {teacher.name} '
          f'into {writer.folder}', file=sys.stderr)

    started = time.perf_counter()
    with progress_bar() as bar:
        task = bar.add_task('encoding', total=count)
        for shard, rows in pending:
            image = encode_views(teacher, reader, rows, lambda: bar.advance(task))
            writer.write(shard, image, encode_captions(teacher, [writer.captions(row) for row in rows]))
    if count:
        seconds = time.perf_counter() - started
        print(f'{count * reader.num_views} views and their captions in {seconds:.1f} s '
              f'({count * reader.num_views / seconds:.0f} views/s)', file=sys.stderr)


def encode_views(teacher, reader, rows, advance):
    """Encode all views of some objects, (n, V, E) float32; call ``advance`` after each object."""
    import torch
    per_batch = max(1, teacher.batch_size // max(1, reader.num_views))
    features = []
    for start in range(0, len(rows), per_batch):
        views = [torch.from_numpy(reader.read_views(row)) for row in rows[start:start + per_batch]]
        encoded = teacher.encode_image(torch.cat(views).permute(0, 3, 1, 2))
        features.append(encoded.reshape(len(views), reader.num_views, teacher.embed_dim).cpu())
        for _ in views:
            advance()
    return torch.cat(features)


def encode_captions(teacher, captions):
    """Encode the captions of n objects to n arrays (T_i, E) float32; equal captions are encoded once."""
    texts = list(dict.fromkeys(text for sentences in captions for text in sentences))
    features = dict(zip(texts, teacher.encode_text(texts).cpu().numpy()))
    return [[features[text] for text in sentences] for sentences in captions]


def cli() -> None:
    """Run as the installed program ``clipgs-features``."""
    run(main)


if __name__ == '__main__':
    cli()
