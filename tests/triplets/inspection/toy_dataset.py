"""A valid dataset of toys, and tools to damage it."""
import io
import json
import tarfile
from pathlib import Path

import numpy as np

from clipgs_plugin import ops
from clipgs_plugin.toy_world.specs import object_specs
from clipgs_plugin.toy_world.world import make_object
from clipgs_plugin.triplets import FeatureWriter, ShardReader, ShardWriter

SIZE, VIEWS, OBJECTS, PER_SHARD = 32, 4, 7, 3
BACKGROUND = (1.0, 0.9, 0.8)
PSNR = [31.0, 28.5, 35.0, 40.0, 27.0, 33.0, 36.0]
UNMEASURED, OWN_CAMERAS = 3, 5  # objects without quality, and with cameras of their own


def render_views(cloud, viewmats, intrinsics):
    """Render an object, (V, SIZE, SIZE, 3) uint8."""
    images, _ = ops.render(cloud, viewmats, intrinsics.expand(len(viewmats), 3, 3), SIZE, SIZE, BACKGROUND)
    return (images.clamp(0, 1) * 255).round().byte().numpy()


def write_toys(root: Path) -> None:
    """Write toys in three shards, with cached features, cameras as generation writes them, and lossless views."""
    viewmats, intrinsics = ops.sphere_cameras(VIEWS, 4.0), ops.intrinsics(40.0, SIZE, SIZE)
    own = ops.sphere_cameras(VIEWS + 3, 5.0)[:VIEWS]
    settings = dict(size=SIZE, background=BACKGROUND, viewmats=viewmats.tolist(), intrinsics=intrinsics.tolist())
    with ShardWriter(root, render=settings, generator=dict(name='test'), webp_quality=None,
                     objects_per_shard=PER_SHARD) as writer:
        for i, spec in enumerate(object_specs(OBJECTS)):
            toy, source = make_object(spec, 300), dict(file=f'{i}.ply')
            if i == OWN_CAMERAS:
                source['cameras'] = dict(viewmats=own.tolist(), intrinsics=intrinsics.expand(VIEWS, 3, 3).tolist())
            cloud = toy.gaussians.normalise()
            writer.write(f'uid-{i}', cloud, render_views(cloud, own if i == OWN_CAMERAS else viewmats, intrinsics),
                         captions=[dict(text=f'<toy> & caption {i}', source='name'), f'other {i}'],
                         category=toy.category, split='train' if i < 5 else 'test', source=source,
                         cameras='own' if i == OWN_CAMERAS else 'dataset',
                         quality=dict(psnr=PSNR[i] + 5, psnr_foreground=PSNR[i], ssim=0.9) if i != UNMEASURED else {})
    features = FeatureWriter(ShardReader(root), 'clip', width=4, weights='none')
    for shard, rows in features.pending():
        features.write(shard, np.ones((len(rows), VIEWS, 4)), np.ones((len(rows), 2, 4)))
    (root / 'failed.jsonl').write_text(''.join(
        json.dumps(dict(uid=uid, path=f'in/{uid}.obj', error=error, message=f'in/{uid}.obj: <failed>')) + '\n'
        for uid, error in (('a', 'ValueError'), ('b', 'OSError'), ('c', 'ValueError'))) + '{"uid": "cut')


def shard_file(root: Path, shard: int = 1) -> Path:
    return root / 'shards' / f'{shard:05d}.tar'


def member(path: Path, name: str) -> tuple[int, int]:
    """Return the offset and size of a tar member."""
    with tarfile.open(path) as tar:
        info = tar.getmember(name)
    return info.offset_data, info.size


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open('rb+') as file:
        file.seek(offset)
        file.write(data)


def replace_member(path: Path, name: str, change) -> None:
    """Rewrite a tar file with other bytes in one member."""
    with tarfile.open(path) as tar:
        members = [(info.name, tar.extractfile(info).read()) for info in tar]
    with tarfile.open(path, 'w', format=tarfile.USTAR_FORMAT) as tar:
        for found, data in members:
            info = tarfile.TarInfo(found)
            data = change(data) if found == name else data
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
