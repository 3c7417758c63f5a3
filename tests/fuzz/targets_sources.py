"""Sources of objects to make triplets of: meshes, points, posed images and manifests."""
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from harness import Target
from PIL import Image
from targets_triplets import repacked

from clipgs_plugin.generation.objects import Mesh, Points, PosedImages
from clipgs_plugin.generation.sources import ColmapSource, ManifestSource, MeshSource, NerfSource, PointSource

XYZ = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
RGB = np.random.default_rng(1).integers(0, 256, (12, 3), dtype=np.uint8)
CORNERS = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
FACES = [(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)]
PCD = ('VERSION 0.7\nFIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F U\nCOUNT 1 1 1 1\nWIDTH 12\nHEIGHT 1\n'
       'VIEWPOINT 0 0 0 1 0 0 0\nPOINTS 12\nDATA {}\n')


def text(name: str, content: str):
    """Return a writer of one text file."""
    def files(folder: Path) -> Path:
        (folder / name).write_text(content)
        return folder / name
    return files


def rows(table) -> str:
    return '\n'.join(' '.join(map(str, row)) for row in table)


def pcd(encoding: str):
    def files(folder: Path) -> Path:
        packed = RGB.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
        table = np.concatenate([XYZ, packed.astype('<u4')[:, None].view('<f4')], 1)
        body = rows([*map(str, x), c] for x, c in zip(XYZ, packed)).encode() if encoding == 'ascii' else table.tobytes()
        if encoding == 'binary_compressed':
            import lzf
            data = table.T.tobytes()
            body = lzf.compress(data, 2 * len(data))
            body = struct.pack('<II', len(body), len(data)) + body
        (folder / 'a.pcd').write_bytes(PCD.format(encoding).encode() + body)
        return folder / 'a.pcd'
    return files


def arrays(**content):
    def files(folder: Path) -> Path:
        np.savez(folder / 'a.npz', **content)
        return folder / 'a.npz'
    return files


def npy(folder: Path) -> Path:
    np.save(folder / 'a.npy', np.concatenate([XYZ, RGB / 255], 1))
    return folder / 'a.npy'


def ply(encoding: str, faces: bool):
    """Return a writer of coloured points or of a mesh."""
    def files(folder: Path) -> Path:
        import plyfile
        vertices = np.array([(*x, *c) for x, c in zip(CORNERS, RGB.tolist())], [
            *((name, 'f4') for name in 'xyz'), *((name, 'u1') for name in ('red', 'green', 'blue'))])
        elements = [plyfile.PlyElement.describe(vertices, 'vertex')]
        if faces:
            table = np.empty(len(FACES), [('vertex_indices', 'O')])
            table['vertex_indices'] = [np.array(face, np.int32) for face in FACES]
            elements.append(plyfile.PlyElement.describe(table, 'face'))
        plyfile.PlyData(elements, text=encoding == 'ascii', byte_order='<').write(folder / 'a.ply')
        return folder / 'a.ply'
    return files


def exported(name: str, **options):
    """Return a writer of a textured mesh by trimesh."""
    def files(folder: Path) -> Path:
        import trimesh
        visual = trimesh.visual.TextureVisuals(
            uv=np.array(CORNERS)[:, :2] * 1.0,
            material=trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(RGB.reshape(3, 4, 3))))
        mesh = trimesh.Trimesh(CORNERS, FACES, visual=visual if options.get('textured') else None, process=False)
        mesh.export(folder / name)
        return folder / name
    return files


def obj(folder: Path) -> Path:
    Image.fromarray(RGB.reshape(3, 4, 3)).save(folder / 'a.png')
    (folder / 'a.mtl').write_text('newmtl m\nKd 0.5 0.6 0.7\nmap_Kd a.png\n')
    corners = '\n'.join('f ' + ' '.join(f'{i + 1}/{i + 1}' for i in face) for face in FACES)
    (folder / 'a.obj').write_text('mtllib a.mtl\n' + '\n'.join(f'v {x} {y} {z}\nvt {x} {y}' for x, y, z in CORNERS)
                                  + f'\nusemtl m\n{corners}\n')
    return folder / 'a.obj'


def images(folder: Path, count: int) -> list[str]:
    (folder / 'images').mkdir()
    for i in range(count):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (6, 8, 4), dtype=np.uint8)).save(
            folder / 'images' / f'{i}.png')
    return [f'{i}.png' for i in range(count)]


def transforms(folder: Path) -> Path:
    frames = [dict(file_path=f'images/{name}', transform_matrix=np.eye(4).tolist()) for name in images(folder, 2)]
    ply('binary', faces=False)(folder)
    (folder / 'transforms.json').write_text(json.dumps(dict(
        fl_x=10.0, fl_y=10, cx=4, cy=3, w=8, h=6, k1=0.01, camera_model='OPENCV', ply_file_path='a.ply',
        frames=frames)))
    return folder


def colmap(ending: str):
    def files(folder: Path) -> Path:
        names, model = images(folder, 2), folder / 'sparse' / '0'
        model.mkdir(parents=True)
        if ending == 'txt':
            (model / 'cameras.txt').write_text('# cameras\n1 PINHOLE 8 6 10 10 4 3\n')
            (model / 'images.txt').write_text(''.join(f'{i} 1 0 0 0 0 0 {i} 1 {name}\n1 2 -1\n'
                                                      for i, name in enumerate(names)))
            (model / 'points3D.txt').write_text('1 0 0 1 255 0 0 0.1 1 0\n2 0 1 1 255 0 0 0.1 1 0\n')
        else:
            (model / 'cameras.bin').write_bytes(struct.pack('<QIiQQ4d', 1, 1, 1, 8, 6, 10, 10, 4, 3))
            (model / 'images.bin').write_bytes(struct.pack('<Q', len(names)) + b''.join(
                struct.pack('<I7dI', i, 1, 0, 0, 0, 0, 0, i, 1) + name.encode() + b'\0'
                + struct.pack('<QddQ', 1, 1, 2, 7) for i, name in enumerate(names)))
            (model / 'points3D.bin').write_bytes(struct.pack('<Q', 2) + b''.join(
                struct.pack('<Q3d3BdQ2I', i, 0, i, 1, 255, 0, 0, 0.1, 1, 1, 0) for i in range(2)))
        return folder
    return files


def manifest(name: str, content: str):
    def files(folder: Path) -> Path:
        for i in range(2):
            np.save(folder / f'{i}.npy', XYZ)
        (folder / name).write_text(content)
        return folder / name
    return files


def parquet(folder: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq
    manifest('m.csv', '')(folder)
    pq.write_table(pa.table(dict(uid=['a', 'b'], path=['0.npy', '1.npy'], captions=[['x'], ['y', 'z']], n=[1, 2])),
                   folder / 'm.parquet')
    return folder / 'm.parquet'


def objects(source) -> Callable[[Path], list]:
    """Return a reader of all objects that a source lists; the listing may read a part of what damage has left."""
    return lambda path: [source.load(listed) for listed in source.list(path)]


def unsound(found: list) -> str | None:
    """Name what is not finite or does not fit in the objects of a source."""
    for content in found:
        parts = dict(zip(content._fields, content)) if not isinstance(content, Mesh) else {
            f'{name} {i}': value for i, part in enumerate(content.parts) for name, value in part._asdict().items()}
        for name, array in parts.items():
            if isinstance(array, np.ndarray) and not np.isfinite(array).all():
                return f'{type(content).__name__}: {name} not finite'
        if isinstance(content, Points) and content.colors is not None and not (
                0 <= content.colors.min() <= content.colors.max() <= 1):
            return 'colours out of range'
        if isinstance(content, PosedImages) and not content.images.max() <= 1:
            return 'images out of range'
    return None


def _target(name: str, files, source, **options) -> Target:
    return Target(name, files, objects(source), unsound, **options)


_MANY = dict(points=np.stack([XYZ] * 2), colors=np.stack([RGB] * 2), names=np.array(['a', 'b']),
             labels=np.array([1, 0]), classes=np.array(['cup', 'owl']))
_TABLE = 'uid,path,captions,size\na,0.npy,"[""one"", ""two""]",1\nb,1.npy,three,2\n'
TARGETS = [
    _target('points-npy', npy, PointSource()),
    _target('points-npz', arrays(points=XYZ, colors=RGB), PointSource(), damage=(repacked,)),
    _target('points-npz-set', arrays(**_MANY), PointSource(), damage=(repacked,)),
    _target('points-xyz', text('a.xyz', rows(XYZ)), PointSource()),
    *(_target(f'points-pcd-{encoding}', pcd(encoding), PointSource())
      for encoding in ('ascii', 'binary', 'binary_compressed')),
    *(_target(f'points-ply-{encoding}', ply(encoding, False), PointSource()) for encoding in ('ascii', 'binary')),
    *(_target(f'mesh-ply-{encoding}', ply(encoding, True), MeshSource()) for encoding in ('ascii', 'binary')),
    _target('mesh-off', text('a.off', f'COFF\n4 4 6\n{rows([*c, 9, 8, 7] for c in CORNERS)}\n'
                                      f'{rows([3, *f] for f in FACES)}\n'), MeshSource()),
    _target('mesh-stl', exported('a.stl'), MeshSource()),
    _target('mesh-obj', obj, MeshSource()),
    _target('mesh-glb', exported('a.glb', textured=True), MeshSource()),
    _target('mesh-gltf', exported('a.gltf', textured=True), MeshSource()),
    _target('nerf', transforms, NerfSource()),
    _target('colmap-txt', colmap('txt'), ColmapSource()),
    _target('colmap-bin', colmap('bin'), ColmapSource()),
    _target('manifest-csv', manifest('m.csv', _TABLE), ManifestSource()),
    _target('manifest-parquet', parquet, ManifestSource()),
]
