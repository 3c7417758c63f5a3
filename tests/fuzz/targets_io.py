"""Readers of splat files."""
import gzip
import importlib.util
import io
import json
import struct
from pathlib import Path
from random import Random

import torch
from harness import Target
from mutations import damage, damage_json

from clipgs_plugin import GaussianCloud, read_gaussians, write_gaussians


def cloud(count: int = 60, sh_degree: int = 1) -> GaussianCloud:
    """Return random Gaussians near a sphere."""
    g = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    return GaussianCloud(torch.nn.functional.normalize(draw(count, 3), dim=1), draw(count, 4),
                         draw(count, 3) * 0.4 - 3, draw(count) * 2, draw(count, (sh_degree + 1) ** 2, 3) * 0.4)


def written(name: str, sh_degree: int = 1, **options):
    """Return a writer of one splat file."""
    def files(folder: Path) -> Path:
        write_gaussians(cloud(sh_degree=sh_degree), folder / name, **options)
        return folder / name
    return files


def text_ply(folder: Path) -> Path:
    """Write an INRIA .ply in ASCII."""
    import plyfile

    path = written('cloud.ply')(folder)
    table = plyfile.PlyData.read(path, mmap=False)
    table.text = True
    table.write(path)
    return path


def spz_1(folder: Path) -> Path:
    """Write the header of version 1, which is refused, over a small body."""
    path = folder / 'cloud.spz'
    path.write_bytes(gzip.compress(struct.pack('<4sIIBBBB', b'NGSP', 1, 4, 0, 12, 0, 0) + bytes(4 * 16), mtime=0))
    return path


def ksplat(level: int):
    """Return a writer of a .ksplat of two sections with SH degree 1."""
    def files(folder: Path) -> Path:
        g = Random(0)
        sections, headers = [], []
        for count in (8, 7):
            data = b''
            if level:
                data += struct.pack('<I', count % 4) if count % 4 else b''
                data += b''.join(struct.pack('<3f', i, 0, 0) for i in range(-(-count // 4)))
            for _ in range(count):
                quat = [g.gauss(0, 1) for _ in range(4)]
                bands = [g.gauss(0, 0.3) for _ in range(9)]
                data += (struct.pack('<10f', g.random(), g.random(), g.random(), 0.1, 0.2, 0.3, *quat) if level == 0
                         else struct.pack('<3H7e', *(g.randrange(65535) for _ in range(3)), 0.1, 0.2, 0.3, *quat))
                data += g.randbytes(4)
                data += [struct.pack('<9f', *bands), struct.pack('<9e', *bands), g.randbytes(9)][level]
            bucketed = level > 0
            headers.append(struct.pack('<IIIIfHxxIIIIH', count, count, 4 * bucketed, -(-count // 4) * bucketed,
                                       5.0 * bucketed, 12 * bucketed, 32767 * bucketed, len(data),
                                       count // 4 * bucketed, bool(count % 4) * bucketed, 1).ljust(1024, b'\0'))
            sections.append(data)
        head = struct.pack('<BBxxIIIIH2x3fff', 0, 1, 2, 2, 15, 15, level, 0, 0, 0, -1.0, 1.0).ljust(4096, b'\0')
        (folder / 'cloud.ksplat').write_bytes(head + b''.join(headers) + b''.join(sections))
        return folder / 'cloud.ksplat'
    return files


def ksplat_header(data: bytes, rng: Random) -> bytes:
    """Change one field of a header, of the file or of a section."""
    offset = rng.choice([4, 8, 12, 16, 20, 36, 40, *(4096 + 1024 * s + 4 * i for s in range(2) for i in range(11))])
    value = rng.choice([0, 1, 3, 2 ** 16, 2 ** 31, 2 ** 32 - 1, 0x7fc00000, 0x7f800000])
    return data[:offset] + struct.pack('<I', value) + data[offset + 4:]


def spz_count(data: bytes, rng: Random) -> bytes:
    """Declare another count, and for zstd the sizes that it needs."""
    count = rng.choice([0, 1, 59, 61, 2 ** 24, 2 ** 28, 2 ** 32 - 1])
    if data.startswith(b'\x1f\x8b'):
        content = gzip.decompress(data)
        return gzip.compress(content[:8] + struct.pack('<I', count) + content[12:], mtime=0)
    streams = data[15]
    head = data[:8] + struct.pack('<I', count) + data[12:32]
    table = bytearray(data[32:32 + 16 * streams])
    for index in range(streams):
        _, unpacked = struct.unpack_from('<QQ', table, 16 * index)
        struct.pack_into('<Q', table, 16 * index + 8, unpacked // 60 * count)
    return head + bytes(table) + data[32 + 16 * streams:]


def spz_planes(data: bytes, rng: Random) -> bytes:
    """Damage one plane, and compress it again."""
    import pyarrow

    if data.startswith(b'\x1f\x8b'):
        return gzip.compress(damage(gzip.decompress(data), rng), mtime=0)
    codec, streams, start = pyarrow.Codec('zstd'), data[15], 32 + 16 * data[15]
    parts, chosen = [], rng.randrange(streams)
    for index in range(streams):
        packed, unpacked = struct.unpack_from('<QQ', data, 32 + 16 * index)
        part = data[start:start + packed]
        if index == chosen:
            plane = rng.choice([lambda d: damage(d, rng), lambda d: bytes(2 ** 27), lambda d: d + b'\0'])(
                codec.decompress(part, unpacked, asbytes=True))
            part = codec.compress(plane, asbytes=True)
            unpacked = rng.choice([unpacked, len(plane)])
        parts.append((part, unpacked))
        start += packed
    table = b''.join(struct.pack('<QQ', len(part), unpacked) for part, unpacked in parts)
    return data[:32] + table + b''.join(part for part, _ in parts)


def webp_size(data: bytes, rng: Random) -> bytes:
    """Declare another size in the header of a WebP image, or replace the image by one of another size."""
    if not data.startswith(b'RIFF'):
        return damage(data, rng)
    if rng.random() < 0.5:
        size = rng.choice([(1, 1), (16384, 16384), (16384, 1), (1, 16384), (13000, 13000)])
        bits = (size[0] - 1) | (size[1] - 1) << 14 | 1 << 28
        return data[:21] + struct.pack('<I', bits) + data[25:]
    from PIL import Image

    buffer = io.BytesIO()
    size = rng.choice([(1, 1), (64, 64), (192, 1), (3000, 3000)])
    Image.new(rng.choice(['RGBA', 'RGB']), size).save(buffer, rng.choice(['WEBP', 'PNG']), lossless=True)
    return buffer.getvalue()


def glb_json(data: bytes, rng: Random) -> bytes:
    """Damage the JSON of a .glb, and adapt the lengths of its chunks."""
    size, = struct.unpack_from('<I', data, 12)
    text = damage_json(data[20:20 + size], rng)
    text += b' ' * (-len(text) % 4)
    rest = data[20 + size:]
    return data[:8] + struct.pack('<II', 20 + len(text) + len(rest), len(text)) + data[16:20] + text + rest


def glb_tree(folder: Path) -> Path:
    """Write two instances of a mesh below a node, one stretched."""
    path = written('cloud.gltf')(folder)
    document = json.loads(path.read_text())
    document['nodes'] = [dict(children=[1, 2], rotation=[0.1, 0.2, 0.3, 0.9]), dict(mesh=0, scale=[1, 2, 3]),
                         dict(mesh=0, translation=[1, 0, 0])]
    path.write_text(json.dumps(document))
    return path


def trained(folder: Path) -> Path:
    """Write a checkpoint of gsplat's trainer."""
    fields = cloud()
    torch.save(dict(step=1, splats=dict(
        means=fields.means, scales=fields.log_scales, quats=fields.quats, opacities=fields.opacity_logits,
        sh0=fields.sh[:, :1], shN=fields.sh[:, 1:])), folder / 'ckpt_1_rank0.pt')
    return folder / 'ckpt_1_rank0.pt'


def usd(folder: Path) -> Path:
    """Write an OpenUSD scene of one prim in binary."""
    from pxr import Gf, Sdf, Usd, Vt

    fields, kinds = cloud(), Sdf.ValueTypeNames
    stage = Usd.Stage.CreateInMemory()
    prim = stage.DefinePrim('/Splat', 'ParticleField3DGaussianSplat')
    vectors = lambda values: Vt.Vec3fArray.FromNumpy(values.reshape(-1, 3).contiguous().numpy())  # noqa: E731
    for name, kind, value in [
            ('positions', kinds.Point3fArray, vectors(fields.means)),
            ('scales', kinds.Float3Array, vectors(fields.scales)),
            ('orientations', kinds.QuatfArray, Vt.QuatfArray([Gf.Quatf(*row) for row in fields.quats.tolist()])),
            ('opacities', kinds.FloatArray, Vt.FloatArray.FromNumpy(fields.opacities.numpy())),
            ('radiance:sphericalHarmonicsCoefficients', kinds.Float3Array, vectors(fields.sh)),
            ('radiance:sphericalHarmonicsDegree', kinds.Int, 1)]:
        prim.CreateAttribute(name, kind).Set(value)
    stage.GetRootLayer().Export(str(folder / 'cloud.usdc'))
    return folder / 'cloud.usdc'


def check(result: GaussianCloud) -> str | None:
    """Return a sentence if the values are not finite, also after the quaternions are normalised."""
    if not len(result):
        return 'a cloud without Gaussians'
    for name, value in result.fields():
        if not value.isfinite().all():
            return f'{name} is not finite'
    if not torch.nn.functional.normalize(result.quats, dim=1).isfinite().all():
        return 'quats are not finite once normalised'
    if not result.means.square().sum(1).isfinite().all():
        return 'means whose squared norm is not finite'
    return None


def sog_folder(folder: Path) -> Path:
    written('meta.json')(folder)
    return folder


# A process of its own takes a second a case.
USD = [Target('usdc', usd, read_gaussians, check, share=0.3)] if importlib.util.find_spec('pxr') else []
TARGETS = [
    Target('inria-ply', written('cloud.ply'), read_gaussians, check),
    Target('inria-ply-text', text_ply, read_gaussians, check),
    Target('compressed-ply', written('cloud.compressed.ply'), read_gaussians, check),
    Target('splat', written('cloud.splat'), read_gaussians, check),
    *(Target(f'spz-{v}', written('cloud.spz', version=v), read_gaussians, check, damage=(spz_count, spz_planes))
      for v in (2, 3, 4)),
    *(Target(f'ksplat-{level}', ksplat(level), read_gaussians, check, damage=(ksplat_header,)) for level in (0, 1, 2)),
    *(Target(f'glb-{encoding}', written('cloud.glb', encoding=encoding), read_gaussians, check, damage=(glb_json,))
      for encoding in ('float', 'integer', 'spz')),
    Target('gsplat-checkpoint', trained, read_gaussians, check),
    *USD,
    Target('gltf-tree', glb_tree, read_gaussians, check),
    Target('sog', written('cloud.sog'), read_gaussians, check),
    Target('sog-folder', sog_folder, read_gaussians, check, damage=(webp_size,)),
]
