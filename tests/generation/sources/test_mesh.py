import base64
import io
import json
import struct

import numpy as np
import pytest
from PIL import Image

from clipgs_plugin.generation.objects import Listed, Mesh
from clipgs_plugin.generation.rendering.surfaces import colors_at
from clipgs_plugin.generation.sources import materials
from clipgs_plugin.generation.sources.mesh import MeshSource
from clipgs_plugin.registry import TASK_UTILS

trimesh = pytest.importorskip('trimesh')

FORMATS = ('glb', 'gltf', 'obj', 'ply', 'off', 'stl')
QUAD = np.array([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)], np.float32)
QUAD_UV = QUAD[:, :2].copy()  # v up
QUAD_FACES = np.array([(0, 1, 2), (0, 2, 3)], np.uint16)
# Rows from the top: red green / blue white.
PIXELS = np.array([[(255, 0, 0), (0, 255, 0)], [(0, 0, 255), (255, 255, 255)]], np.uint8)
# Centres of the texels on the quad.
TEXELS = {(0.25, 0.75): (1, 0, 0), (0.75, 0.75): (0, 1, 0), (0.25, 0.25): (0, 0, 1), (0.75, 0.25): (1, 1, 1)}


def load(path, **options) -> Mesh:
    return MeshSource(**options).load(Listed('x', path))


def joined(mesh: Mesh) -> np.ndarray:
    return np.concatenate([part.triangles for part in mesh.parts]).astype(np.float64)


def volume(triangles: np.ndarray) -> float:
    """Enclosed volume, positive if the triangles face outward (divergence theorem)."""
    return np.linalg.det(triangles).sum() / 6


def color_at(mesh: Mesh, point, axes=(0, 1)) -> np.ndarray:
    """Find the triangle around a point, both projected to two axes, and return its colour there."""
    for face, triangle in enumerate(joined(mesh)[:, :, list(axes)]):
        matrix = np.vstack([triangle.T, np.ones(3)])
        if abs(np.linalg.det(matrix)) > 1e-9:
            weights = np.linalg.solve(matrix, np.array([*point, 1.0]))
            if (weights > -1e-6).all():
                return colors_at(mesh, np.array([face]), weights[None])[0]
    raise AssertionError(f'no triangle at {point}')


def png(pixels: np.ndarray = PIXELS) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, 'PNG')
    return buffer.getvalue()


def srgb(linear: float) -> float:
    return 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055


def write_gltf(path, attributes: dict, material: dict | None = None, images=(), faces=QUAD_FACES, **extra):
    """Write a quad in glTF."""
    kinds = {np.dtype(np.float32): 5126, np.dtype(np.uint16): 5123, np.dtype(np.uint8): 5121}
    header = dict(asset=dict(version='2.0'), scene=0, scenes=[dict(nodes=[0])], nodes=[dict(mesh=0)], buffers=[],
                  bufferViews=[], accessors=[], **extra)

    def accessor(array, kind: str, **options) -> int:
        data = array.tobytes()
        header['buffers'].append(dict(byteLength=len(data), uri='data:application/octet-stream;base64,'
                                      + base64.b64encode(data).decode()))
        header['bufferViews'].append(dict(buffer=len(header['buffers']) - 1, byteLength=len(data)))
        header['accessors'].append(dict(bufferView=len(header['bufferViews']) - 1, count=len(array), type=kind,
                                        componentType=kinds[array.dtype], **options))
        return len(header['accessors']) - 1

    primitive = dict(attributes={}, indices=accessor(faces.reshape(-1), 'SCALAR'))
    for name, array in dict(POSITION=QUAD, **attributes).items():
        options = dict(normalized=True) if array.dtype != np.float32 else {}
        primitive['attributes'][name] = accessor(array, f'VEC{array.shape[1]}', **options)
    if material is not None:
        primitive['material'], header['materials'] = 0, [material]
    if images:
        header['images'] = [dict(uri=uri) for uri in images]
        header['textures'] = [dict(source=index) for index in range(len(images))]
    header['meshes'] = [dict(primitives=[primitive])]
    path.write_text(json.dumps(header))
    return path


def data_uri(data: bytes) -> str:
    return 'data:image/png;base64,' + base64.b64encode(data).decode()


# Formats

@pytest.mark.parametrize('kind', FORMATS)
def test_meshes_without_colour_are_grey_in_every_format(kind, tmp_path):
    path = tmp_path / f'box.{kind}'
    solid = trimesh.creation.box((1.0, 2.0, 3.0))
    if kind == 'gltf':
        for name, data in trimesh.exchange.gltf.export_gltf(trimesh.Scene(solid)).items():
            (tmp_path / name.replace('model', 'box')).write_bytes(data)
    else:
        solid.export(path)
    mesh = load(path)
    triangles = joined(mesh)
    assert triangles.shape == (12, 3, 3)
    np.testing.assert_allclose(np.ptp(triangles.reshape(-1, 3), axis=0), (1, 2, 3), atol=1e-6)
    assert volume(triangles) == pytest.approx(6, abs=1e-5)
    color = colors_at(mesh, np.arange(12), np.full((12, 3), 1 / 3))
    np.testing.assert_allclose(color, np.tile((0.4, 0.4, 0.4, 1), (12, 1)), atol=1e-6)
    for part in mesh.parts:
        np.testing.assert_allclose(np.linalg.norm(part.normals, axis=-1), 1, atol=1e-5)
        outward = (part.normals * part.triangles).sum(-1)  # the box is about the origin
        assert (outward > 0).all()


def test_scenes_are_flattened_with_their_transforms(tmp_path):
    scene = trimesh.Scene()
    red, green = trimesh.creation.box((1, 1, 1)), trimesh.creation.box((2, 1, 1))
    red.visual = trimesh.visual.TextureVisuals(material=trimesh.visual.material.PBRMaterial(
        name='red', baseColorFactor=[255, 0, 0, 255]))
    green.visual = trimesh.visual.TextureVisuals(material=trimesh.visual.material.PBRMaterial(
        name='green', baseColorFactor=[0, 255, 0, 255]))
    moved, mirror, quarter = np.eye(4), np.diag([-1.0, 1, 1, 1]), np.eye(4)
    moved[:3, 3] = (10, 0, 0)
    mirror[:3, 3] = (0, 0, 20)
    quarter[:3, :3] = [(0, -2, 0), (2, 0, 0), (0, 0, 2)]  # a quarter turn about z, scaled by 2
    scene.add_geometry(red, node_name='a', geom_name='red', transform=moved)
    scene.add_geometry(green, node_name='b', geom_name='green', parent_node_name='a', transform=quarter)
    scene.add_geometry(red, node_name='c', geom_name='red', transform=mirror)
    path = tmp_path / 'scene.glb'
    scene.export(path)
    mesh = load(path)
    triangles = joined(mesh)
    colors = colors_at(mesh, np.arange(len(triangles)), np.full((len(triangles), 3), 1 / 3))
    of_green = colors[:, 1] > 0.5
    np.testing.assert_array_equal(colors[of_green], np.tile((0, 1, 0, 1), (12, 1)))
    np.testing.assert_array_equal(colors[~of_green], np.tile((1, 0, 0, 1), (24, 1)))
    low, high = triangles[of_green].min((0, 1)), triangles[of_green].max((0, 1))
    np.testing.assert_allclose([low, high], [(9, -2, -1), (11, 2, 1)], atol=1e-5)
    reds = triangles[~of_green]
    far = reds[:, :, 2].min(1) > 10
    np.testing.assert_allclose([reds[far].min((0, 1)), reds[far].max((0, 1))], [(-0.5, -0.5, 19.5), (0.5, 0.5, 20.5)])
    # Triangles and normals face outward even if mirrored.
    assert volume(reds[far]) == pytest.approx(1, abs=1e-4)
    assert volume(triangles[of_green]) == pytest.approx(16, abs=1e-3)
    normals = np.concatenate([part.normals for part in mesh.parts])
    planes = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    assert (np.einsum('fkc,fc->fk', normals, planes) > 0).all()


def test_normals_of_the_file_are_kept_and_stay_normal_under_shear(tmp_path):
    normals = np.array([(0.6, 0, 0.8), (0, 0.6, 0.8), (0, 0, 2), (0, 0, 0)], np.float32)
    path = write_gltf(tmp_path / 'quad.gltf', dict(NORMAL=normals))
    header = json.loads(path.read_text())
    linear = np.array([(2.0, 0.5, 0.3), (0, 1, 0), (0, 0, 0.5)])
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    header['nodes'][0]['matrix'] = matrix.T.reshape(-1).tolist()  # column by column
    path.write_text(json.dumps(header))
    found = load(path).parts[0].normals[0]
    for corner, normal in enumerate(normals[:3]):
        expected = np.linalg.inv(linear).T @ normal
        np.testing.assert_allclose(found[corner], expected / np.linalg.norm(expected), atol=1e-5)
    # A zero normal is replaced by the plane's.
    plane = np.linalg.inv(linear).T @ (0, 0, 1)
    np.testing.assert_allclose(load(path).parts[0].normals[1, 2], plane / np.linalg.norm(plane), atol=1e-5)


@pytest.mark.parametrize('kind', ['glb', 'obj', 'ply'])
def test_colours_of_vertices_and_faces(kind, tmp_path):
    colors = np.array([(255, 0, 0, 255), (0, 255, 0, 255), (0, 0, 255, 255), (255, 255, 255, 255)], np.uint8)
    mesh = trimesh.Trimesh(QUAD, QUAD_FACES, vertex_colors=colors, process=False)
    mesh.export(tmp_path / f'corners.{kind}')
    found = color_at(load(tmp_path / f'corners.{kind}'), (0.75, 0.5))  # in the first triangle, weights 1/4, 1/4, 1/2
    np.testing.assert_allclose(found, (0.25, 0.25, 0.5, 1), atol=1e-3)
    if kind == 'ply':
        mesh = trimesh.Trimesh(QUAD, QUAD_FACES, face_colors=colors[1:3], process=False)
        mesh.export(tmp_path / 'faces.ply')
        found = load(tmp_path / 'faces.ply')
        np.testing.assert_allclose(color_at(found, (0.8, 0.2)), (0, 1, 0, 1))
        np.testing.assert_allclose(color_at(found, (0.2, 0.8)), (0, 0, 1, 1))


@pytest.mark.parametrize('kind', ['glb', 'obj'])
def test_textures_are_upright(kind, tmp_path):
    image = Image.fromarray(PIXELS)
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=image) if kind == 'glb' else \
        trimesh.visual.material.SimpleMaterial(image=image, diffuse=[255, 255, 255, 255])
    visual = trimesh.visual.TextureVisuals(uv=QUAD_UV, material=material)
    trimesh.Trimesh(QUAD, QUAD_FACES, visual=visual, process=False).export(tmp_path / f'quad.{kind}')
    mesh = load(tmp_path / f'quad.{kind}')
    for place, color in TEXELS.items():
        np.testing.assert_allclose(color_at(mesh, place), (*color, 1), atol=1e-5)


# Colours of the vertices and faces of the quad.
CORNERS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
SIDES = [(255, 0, 0), (0, 255, 0)]


def off(header: str, colors: list[str], faces: list[str]) -> str:
    rows = [f'{x} {y} {z} {color}' for (x, y, z), color in zip(QUAD, colors)]
    return '\n'.join([header, '# of a quad', f'4 {len(faces)} 0', '', *rows, *faces]) + '\n'


def format_color(color, top: int) -> str:
    return ' '.join(str(value if top == 255 else value / 255) for value in color)


@pytest.mark.parametrize('header, before, top, alpha', [
    ('COFF', '', 255, ' 255'), ('COFF', '', 1, ' 1.0'), ('COFF', '', 255, ''), ('CNOFF', '0 0 1 ', 1, ''),
    ('COFF', '', 255, ' 127')])
def test_colours_of_vertices_in_off(header, before, top, alpha, tmp_path):
    path = tmp_path / 'a.off'
    colors = [before + format_color(color, top) + alpha for color in CORNERS]
    path.write_text(off(header, colors, ['4 0 1 2 3']))  # a polygon, that is two triangles
    opacity = 127 / 255 if '127' in alpha else 1
    np.testing.assert_allclose(color_at(load(path), (0.75, 0.5)), (0.25, 0.25, 0.5, opacity), atol=1e-5)
    np.testing.assert_allclose(color_at(load(path), (0.25, 0.5)), (0.75, 0.25, 0.5, opacity), atol=1e-5)


@pytest.mark.parametrize('top', [1, 255])
def test_colours_of_faces_in_off(top, tmp_path):
    path = tmp_path / 'a.off'
    far = ['2 0 1 9 9 9', '4 0 1 2 3']  # a line, which is no face, and a polygon without colour
    path.write_text(off('OFF', [''] * 4, [
        f'3 0 1 2  {format_color(SIDES[0], top)}', f'3 0 2 3  {format_color(SIDES[1], top)}', *far[1:]]))
    mesh = load(path)
    assert joined(mesh).shape == (4, 3, 3)
    found = colors_at(mesh, np.arange(4), np.full((4, 3), 1 / 3))
    np.testing.assert_allclose(found, [(1, 0, 0, 1), (0, 1, 0, 1), *[(0.4, 0.4, 0.4, 1)] * 2], atol=1e-5)
    path.write_text(off('OFF', [''] * 4, ['3 0 1 2 7', '3 0 2 3 5']))  # indices into a colour table
    np.testing.assert_allclose(color_at(load(path), (0.6, 0.3)), (0.4, 0.4, 0.4, 1), atol=1e-6)


def test_counts_of_off_may_follow_the_keyword(tmp_path):
    """As in many files of ModelNet40."""
    path = tmp_path / 'a.off'
    path.write_text('OFF4 2 0\n' + ''.join(f'{x} {y} {z}\n' for x, y, z in QUAD) + '3 0 1 2\n3 0 2 3\n')
    np.testing.assert_array_equal(joined(load(path)), QUAD[QUAD_FACES])


@pytest.mark.parametrize('header, bits', [
    (b'solid made by VisCAM', lambda r, g, b: 1 << 15 | r << 10 | g << 5 | b),
    (b'COLOR=\x33\x66\x99\xff,MATERIAL=', lambda r, g, b: b << 10 | g << 5 | r)])
def test_colours_of_faces_in_stl(header, bits, tmp_path):
    """One of three faces has no colour of its own; bit 15 marks it, inverted if the header has COLOR=."""
    magics = header.startswith(b'COLOR')
    triangles = [*QUAD[QUAD_FACES], QUAD[QUAD_FACES[0]] + np.float32((3, 0, 0))]
    body = b''.join(struct.pack('<3f', 0, 0, 1) + triangle.astype('<f4').tobytes() + struct.pack('<H', value)
                    for triangle, value in zip(triangles, [bits(31, 0, 0), bits(0, 31, 15), magics << 15]))
    path = tmp_path / 'a.stl'
    path.write_bytes(header.ljust(80, b'\0') + struct.pack('<I', 3) + body)
    mesh = load(path)
    for place, color in (((0.75, 0.5), (1, 0, 0)), ((0.25, 0.5), (0, 1, 15 / 31)),
                         ((3.75, 0.5), (0.2, 0.4, 0.6) if magics else (0.4, 0.4, 0.4))):
        np.testing.assert_allclose(color_at(mesh, place), (*color, 1), atol=1e-5)


def test_text_stl_and_binary_stl_that_begins_with_solid(tmp_path):
    facet = 'facet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 1 1 0\nendloop\nendfacet\n'
    (tmp_path / 'a.stl').write_text(f'solid x\n{facet}endsolid x\n')
    body = struct.pack('<12fH', 0, 0, 1, 0, 0, 0, 1, 0, 0, 1, 1, 0, 0)
    (tmp_path / 'b.stl').write_bytes(b'solid binary'.ljust(80, b'\0') + struct.pack('<I', 1) + body)
    for name in 'ab':
        mesh = load(tmp_path / f'{name}.stl')
        np.testing.assert_array_equal(joined(mesh), [[(0, 0, 0), (1, 0, 0), (1, 1, 0)]])
        np.testing.assert_allclose(color_at(mesh, (0.6, 0.3)), (0.4, 0.4, 0.4, 1), atol=1e-6)


@pytest.mark.parametrize('kind, top', [('uchar', 255), ('float', 1)])
def test_colours_of_ply_without_alpha(kind, top, tmp_path):
    lines = ['ply', 'format ascii 1.0', 'element vertex 4', *(f'property float {name}' for name in 'xyz'),
             *(f'property {kind} {name}' for name in ('red', 'green', 'blue')), 'element face 2',
             'property list uchar int vertex_indices', 'end_header']
    lines += [f'{x} {y} {z} {format_color(color, top)}' for (x, y, z), color in zip(QUAD, CORNERS)]
    (tmp_path / 'a.ply').write_text('\n'.join([*lines, '3 0 1 2', '3 0 2 3']) + '\n')
    np.testing.assert_allclose(color_at(load(tmp_path / 'a.ply'), (0.75, 0.5)), (0.25, 0.25, 0.5, 1), atol=1e-3)


def test_obj_of_several_materials_polygons_and_counts_from_the_end(tmp_path):
    (tmp_path / 'skin.png').write_bytes(png())
    (tmp_path / 'a.mtl').write_text('newmtl a\nKd 1 0 0\nnewmtl b\nKd 1 1 1\nmap_Kd skin.png\nnewmtl c\nKd 0 1 0\n')
    corners = [*QUAD, *(QUAD + (2, 0, 0))[:3], *(QUAD + (4, 0, 0))[:3], *(QUAD + (6, 0, 0))[:3]]
    (tmp_path / 'a.obj').write_text('mtllib a.mtl\n' + ''.join(f'v {x} {y} {z}\n' for x, y, z in corners)
                                    + ''.join(f'vt {u} {v}\n' for u, v in QUAD_UV)
                                    + 'o one\nusemtl a\nf 5 6 7\no two\nusemtl b\nf -13/1 -12/2 -11/3 -10/4\n'
                                      'usemtl c\nf 8 9 10\nusemtl unheard\nf 11 12 13\n')
    mesh = load(tmp_path / 'a.obj')
    for place, color in {**TEXELS, (2.8, 0.3): (1, 0, 0), (4.8, 0.3): (0, 1, 0), (6.8, 0.3): (0.4, 0.4, 0.4)}.items():
        np.testing.assert_allclose(color_at(mesh, place), (*color, 1), atol=1e-5)


def test_gltf_with_its_buffers_and_images_in_files(tmp_path):
    material = dict(pbrMetallicRoughness=dict(baseColorTexture=dict(index=0)))
    uv = np.stack([QUAD_UV[:, 0], 1 - QUAD_UV[:, 1]], 1)
    path = write_gltf(tmp_path / 'a.gltf', dict(TEXCOORD_0=uv), material, ['textures/the%20skin.png'])
    header = json.loads(path.read_text())
    for index, buffer in enumerate(header['buffers']):
        (tmp_path / f'part {index}.bin').write_bytes(base64.b64decode(buffer['uri'].partition(',')[2]))
        buffer['uri'] = f'part%20{index}.bin'
    path.write_text(json.dumps(header))
    (tmp_path / 'textures').mkdir()
    (tmp_path / 'textures' / 'the skin.png').write_bytes(png())
    mesh = load(path)
    for place, color in TEXELS.items():
        np.testing.assert_allclose(color_at(mesh, place), (*color, 1), atol=1e-5)
    (tmp_path / 'part 1.bin').unlink()
    with pytest.raises(ValueError, match=r'a\.gltf cannot be read as \.gltf'):
        load(path)


# Materials of glTF

def test_linear_colours_of_gltf_become_srgb(tmp_path):
    factor = dict(pbrMetallicRoughness=dict(baseColorFactor=[0.5, 0.2, 0.002, 0.3]))
    opaque = color_at(load(write_gltf(tmp_path / 'a.gltf', {}, factor)), (0.6, 0.3))
    np.testing.assert_allclose(opaque, (srgb(0.5), srgb(0.2), srgb(0.002), 1), atol=1e-6)
    blended = color_at(load(write_gltf(tmp_path / 'b.gltf', {}, dict(factor, alphaMode='BLEND'))), (0.6, 0.3))
    assert blended[3] == pytest.approx(0.3)
    for cutoff, alpha in [(0.29, 1), (0.31, 0)]:
        masked = dict(factor, alphaMode='MASK', alphaCutoff=cutoff)
        assert color_at(load(write_gltf(tmp_path / 'm.gltf', {}, masked)), (0.6, 0.3))[3] == alpha
    for scale, dtype in [(1.0, np.float32), (255, np.uint8), (65535, np.uint16)]:
        for channels in (3, 4):
            colors = (np.tile((0.4, 0.6, 0.8, 0.2)[:channels], (4, 1)) * scale).astype(dtype)
            found = color_at(load(write_gltf(tmp_path / 'c.gltf', dict(COLOR_0=colors))), (0.6, 0.3))
            np.testing.assert_allclose(found, (srgb(0.4), srgb(0.6), srgb(0.8), 1), atol=1e-5)


def test_a_factor_multiplies_the_texture_in_linear_light(tmp_path):
    pixels = np.full((1, 1, 3), 188, np.uint8)  # 0.503 in linear light
    material = dict(pbrMetallicRoughness=dict(baseColorFactor=[0.5, 1, 0, 1], baseColorTexture=dict(index=0)))
    found = color_at(load(write_gltf(tmp_path / 'a.gltf', dict(TEXCOORD_0=QUAD_UV), material,
                                     [data_uri(png(pixels))])), (0.6, 0.3))
    linear = ((188 / 255 + 0.055) / 1.055) ** 2.4
    np.testing.assert_allclose(found, (srgb(0.5 * linear), 188 / 255, 0, 1), atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize('mode, alphas', [('OPAQUE', (1, 1)), ('MASK', (0, 1)), ('BLEND', (0.25, 0.5))])
def test_alpha_follows_the_mode(mode, alphas, tmp_path):
    pixels = np.array([[(255, 255, 255, 127.5), (255, 255, 255, 255)]]).astype(np.uint8)
    material = dict(pbrMetallicRoughness=dict(baseColorFactor=[1, 1, 1, 0.5], baseColorTexture=dict(index=0)),
                    alphaMode=mode, alphaCutoff=0.3)
    mesh = load(write_gltf(tmp_path / 'a.gltf', dict(TEXCOORD_0=QUAD_UV), material, [data_uri(png(pixels))]))
    found = [color_at(mesh, (x, 0.5))[3] for x in (0.25, 0.75)]
    np.testing.assert_allclose(found, alphas, atol=2 / 255)


def test_specular_glossiness_materials_use_their_diffuse_colour(tmp_path):
    gloss = dict(diffuseFactor=[1, 0, 1, 1], diffuseTexture=dict(index=0), specularFactor=[0.5] * 3)
    material = dict(extensions=dict(KHR_materials_pbrSpecularGlossiness=gloss))
    mesh = load(write_gltf(tmp_path / 'a.gltf', dict(TEXCOORD_0=np.stack([QUAD_UV[:, 0], 1 - QUAD_UV[:, 1]], 1)),
                           material, [data_uri(png())], extensionsUsed=['KHR_materials_pbrSpecularGlossiness']))
    for place, (red, _, blue) in TEXELS.items():
        np.testing.assert_allclose(color_at(mesh, place), (red, 0, blue, 1), atol=1e-5)


def test_textures_use_their_own_transformed_coordinates(tmp_path):
    """Take the second set of coordinates, then scale, rotate (90 degrees counter-clockwise, v down) and offset."""
    place = dict(offset=[0.0, 1.0], rotation=np.pi / 2, scale=[1.0, 2.0])
    texture = dict(index=0, texCoord=1, extensions=dict(KHR_texture_transform=place))
    uv = np.stack([QUAD_UV[:, 0], 1 - QUAD_UV[:, 1]], 1)
    mesh = load(write_gltf(tmp_path / 'a.gltf', dict(TEXCOORD_0=np.zeros_like(uv), TEXCOORD_1=uv),
                           dict(pbrMetallicRoughness=dict(baseColorTexture=texture)), [data_uri(png())]))
    for x, y in [(0.25, 0.875), (0.25, 0.625), (0.75, 0.375), (0.75, 0.125)]:
        u, v = x, 2 * (1 - y)
        u, v = v, 1 - u  # (1, 0) rotates to (0, -1), which is up
        row, column = int(v * 2 % 2), int(u * 2 % 2)
        np.testing.assert_allclose(color_at(mesh, (x, y))[:3], PIXELS[row, column] / 255, atol=1e-5)


def test_parts_with_one_texture_or_none_are_joined(tmp_path):
    scene = trimesh.Scene()
    for index in range(6):
        solid = trimesh.creation.box((1, 1, 1))
        solid.visual = trimesh.visual.TextureVisuals(material=trimesh.visual.material.PBRMaterial(
            name=f'{index}', baseColorFactor=[255 * (index % 2), 255 * (index // 2 % 2), 255 * (index // 4), 255]))
        transform = np.eye(4)
        transform[0, 3] = 2 * index
        scene.add_geometry(solid, geom_name=f'{index}', transform=transform)
    scene.export(tmp_path / 'many.glb')
    mesh = load(tmp_path / 'many.glb')
    assert len(mesh.parts) == 1
    for index in range(6):
        expected = (index % 2, index // 2 % 2, index // 4, 1)
        np.testing.assert_array_equal(color_at(mesh, (2 * index + 0.1, 0.3)), expected)


# Files beside the mesh

OBJ = '''mtllib {mtl}
v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1
usemtl paint
f 1/1 2/2 3/3 4/4
'''


def write_obj(path, texture: str, kd: str = '1 1 1', mtl: str = 'paint.mtl'):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(OBJ.format(mtl=mtl))
    path.with_name('paint.mtl').write_text(f'newmtl paint\nKd {kd}\n' + (f'map_Kd {texture}\n' if texture else ''))
    return path


@pytest.mark.parametrize('written, where', [
    ('skin.png', 'meshes/skin.png'), ('skin.png', 'materials/textures/skin.png'),
    ('../images/skin.png', 'images/skin.png'), ('C:\\Users\\me\\skin.png', 'meshes/skin.png'),
    ('-s 1 1 1 skin.png', 'meshes/skin.png'), ('two%20words.png', 'textures/two words.png'),
    ('maps\\skin.png', 'meshes/maps/skin.png'),
])
def test_textures_are_found_where_exporters_put_them(written, where, tmp_path):
    path = write_obj(tmp_path / 'thing' / 'meshes' / 'model.obj', written)
    (tmp_path / 'thing' / where).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / 'thing' / where).write_bytes(png())
    mesh = load(path)
    for place, color in TEXELS.items():
        np.testing.assert_allclose(color_at(mesh, place), (*color, 1), atol=1e-5)


def test_materials_of_obj(tmp_path):
    (tmp_path / 'skin.png').write_bytes(png())
    plain = color_at(load(write_obj(tmp_path / 'a.obj', '', kd='0.2 0.4 0.6')), (0.6, 0.3))
    np.testing.assert_allclose(plain, (0.2, 0.4, 0.6, 1), atol=1e-6)
    tinted = color_at(load(write_obj(tmp_path / 'a.obj', 'skin.png', kd='0.5 1 0.25')), (0.75, 0.25))
    np.testing.assert_allclose(tinted, (0.5, 1, 0.25, 1), atol=1e-6)
    black = color_at(load(write_obj(tmp_path / 'a.obj', 'skin.png', kd='0 0 0')), (0.75, 0.25))
    np.testing.assert_allclose(black, (1, 1, 1, 1), atol=1e-6)


def test_missing_textures_cause_a_warning_or_an_error(tmp_path):
    (tmp_path / 'broken.png').write_bytes(b'not an image')
    (tmp_path.parent / 'secret.png').write_bytes(png())
    for texture, mtl, reason in [('gone.png', 'paint.mtl', 'gone.png, which was not found'),
                                 ('broken.png', 'paint.mtl', 'broken.png, which cannot be opened'),
                                 ('../../secret.png', 'paint.mtl', 'not found'),
                                 ('', 'gone.mtl', 'gone.mtl, which was')]:
        path = write_obj(tmp_path / 'thing' / 'a.obj', texture, kd='0.2 0.4 0.6', mtl=mtl)
        (tmp_path / 'thing' / 'broken.png').write_bytes(b'not an image')
        with pytest.raises(ValueError, match=f"{reason}.* set missing_textures='warn'"):
            load(path, missing_textures='refuse')
        expected = (0.2, 0.4, 0.6, 1) if mtl == 'paint.mtl' else (0.4, 0.4, 0.4, 1)
        with pytest.warns(UserWarning, match=f'a.obj refers to .*{reason}.*; it is left out'):
            mesh = load(path)
        np.testing.assert_allclose(color_at(mesh, (0.6, 0.3)), expected, atol=1e-6)
    base = dict(baseColorFactor=[1, 0, 0, 1], baseColorTexture=dict(index=0))
    path = write_gltf(tmp_path / 'a.gltf', dict(TEXCOORD_0=QUAD_UV), dict(name='skin', pbrMetallicRoughness=base),
                      ['gone.png'])
    with pytest.raises(ValueError, match="'skin': the texture is missing"):
        load(path, missing_textures='refuse')
    with pytest.warns(UserWarning, match="a.gltf: material 'skin': the texture is missing"):
        mesh = load(path)
    np.testing.assert_allclose(color_at(mesh, (0.6, 0.3)), (1, 0, 0, 1))


def test_ply_with_a_texture_file(tmp_path):
    lines = ['ply', 'format ascii 1.0', 'comment TextureFile skin.png', 'element vertex 4', 'property float x',
             'property float y', 'property float z', 'property float s', 'property float t', 'element face 2',
             'property list uchar int vertex_indices', 'end_header']
    lines += [f'{x} {y} {z} {u} {v}' for (x, y, z), (u, v) in zip(QUAD, QUAD_UV)] + ['3 0 1 2', '3 0 2 3']
    path = tmp_path / 'a.ply'
    path.write_text('\n'.join(lines) + '\n')
    with pytest.raises(ValueError, match='skin'):
        load(path, missing_textures='refuse')
    with pytest.warns(UserWarning, match='skin.png, which was not found'):
        np.testing.assert_allclose(color_at(load(path), (0.75, 0.25)), (0.4, 0.4, 0.4, 1), atol=1e-6)
    (tmp_path / 'skin.png').write_bytes(png())
    for place, color in TEXELS.items():
        np.testing.assert_allclose(color_at(load(path), place), (*color, 1), atol=1e-5)


def test_large_textures_are_reduced(tmp_path, monkeypatch):
    monkeypatch.setattr(materials, '_MAX_TEXTURE', 10)
    (tmp_path / 'skin.png').write_bytes(png(np.repeat(np.repeat(PIXELS, 32, 0), 32, 1)))
    mesh = load(write_obj(tmp_path / 'a.obj', 'skin.png'))
    assert max(mesh.parts[0].texture.shape[:2]) <= 10
    for place, color in TEXELS.items():
        np.testing.assert_allclose(color_at(mesh, place), (*color, 1), atol=0.02)


# Bad files

def whole(kind: str) -> bytes:
    solid = trimesh.creation.icosphere(subdivisions=2)
    data = solid.export(file_type=kind)
    return data.encode() if isinstance(data, str) else data


def points_ply(tmp_path) -> bytes:
    return trimesh.PointCloud(QUAD).export(file_type='ply')


def ascii_ply(last: str) -> bytes:
    lines = ['ply', 'format ascii 1.0', 'element vertex 3', *(f'property float {name}' for name in 'xyz'),
             'element face 1', 'property list uchar int vertex_indices', 'end_header', '0 0 0', '0 1 0', last,
             '3 0 1 2']
    return '\n'.join(lines).encode() + b'\n'


def gltf_requiring(name: str):
    def write(tmp_path) -> bytes:
        return write_gltf(tmp_path / 'x', {}, extensionsUsed=[name], extensionsRequired=[name]).read_bytes()
    return write


def gltf_integer_coordinates(tmp_path) -> bytes:
    material = dict(pbrMetallicRoughness=dict(baseColorTexture=dict(index=0)))
    return write_gltf(tmp_path / 'x', dict(TEXCOORD_0=(QUAD_UV * 65535).astype(np.uint16)), material,
                      [data_uri(png())]).read_bytes()


def stl_nan(tmp_path) -> bytes:
    corners = np.array([0, 0, 1, 0, 0, 0, 1, 0, 0, np.nan, 1, 0], '<f4')
    return bytes(80) + struct.pack('<I', 1) + corners.tobytes() + bytes(2)


BAD = [(kind, lambda tmp_path: b'', 'is empty') for kind in FORMATS]
BAD += [(kind, lambda tmp_path: b'\x00\x01 no mesh at all \xff' * 20, 'its ending|broken|no faces')
        for kind in FORMATS]
BAD += [(kind, lambda tmp_path, kind=kind: whole(kind)[:-len(whole(kind)) // 3], 'truncated')
        for kind in ('glb', 'ply', 'off', 'stl')]
BAD += [
    ('glb', lambda tmp_path: whole('glb')[:10], 'truncated'),
    ('gltf', lambda tmp_path: b'{"asset": {"version": "2.0"', 'broken'),
    ('gltf', lambda tmp_path: b'[1, 2]', 'broken'),
    ('gltf', gltf_requiring('EXT_meshopt_compression'), 'EXT_meshopt_compression'),
    ('gltf', gltf_integer_coordinates, 'integers'),
    ('ply', points_ply, '4 points and no faces: it is a point cloud'),
    ('obj', lambda tmp_path: b'v 0 0 0\nv 1 0 0\nv 0 1 0\n', '3 points and no faces'),
    ('obj', lambda tmp_path: b'v 0 0 0\nv 1 0 0\nv 0 nan 0\nf 1 2 3\n', 'NaN'),
    ('obj', lambda tmp_path: b'v 0 0\nv 1 0\nv 0 1\nf 1 2 3\n', 'three numbers each|cannot be read'),
    ('obj', lambda tmp_path: b'v 0 0 0\nv 1 0 0\nv 0 1e300 0\nf 1 2 3\n', 'infinite'),
    ('obj', lambda tmp_path: b'v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\nf 1 1 2\n', 'without area'),
    ('obj', lambda tmp_path: b'v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 7\n', 'cannot be read|broken'),
    ('off', lambda tmp_path: b'OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 9\n', 'range'),
    ('off', lambda tmp_path: b'OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n', 'no faces'),
    ('off', lambda tmp_path: b'OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 nan\n3 0 1 2\n', 'NaN'),
    ('off', lambda tmp_path: b'OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 up\n3 0 1 2\n', 'up'),
    ('off', lambda tmp_path: b'OFF\n3 1 0\n0 0 0\n1 0 0\n0 1\n3 0 1 2\n', 'cannot be read as .off'),
    ('off', lambda tmp_path: b'OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1\n', 'fewer corners than it promises'),
    ('off', lambda tmp_path: b'OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n', 'promises 3 vertices and 1 faces, .* 3 and 0'),
    ('off', lambda tmp_path: b'OFF\nmany 1 0\n', 'many'),
    ('off', lambda tmp_path: b'OFF\n', 'cannot be read as .off'),
    ('off', lambda tmp_path: b'COFF\n3 1 0\n0 0 0 red\n1 0 0 red\n0 1 0 red\n3 0 1 2 a b c\n', 'cannot be read'),
    ('off', lambda tmp_path: b'OFF BINARY\n\0\0', 'a kind of OFF that is not supported'),
    ('off', lambda tmp_path: b'4OFF\n3 1 0\n', 'a kind of OFF that is not supported'),
    ('stl', lambda tmp_path: bytes(84), 'no faces'),
    ('stl', lambda tmp_path: b'solid x\nfacet normal 0 0 1\nouter loop\nvertex 0 0', 'cannot be read|no faces'),
    ('ply', lambda tmp_path: ascii_ply('1 0 nan'), 'NaN'),
    ('stl', stl_nan, 'NaN'),
]


@pytest.mark.parametrize('kind', FORMATS)
def test_files_of_another_kind_are_refused(kind, tmp_path):
    for other in FORMATS:
        path = tmp_path / f'{other}.{kind}'
        path.write_bytes(write_gltf(tmp_path / 'x', {}).read_bytes() if other == 'gltf' else whole(other))
        if other != kind:
            with pytest.raises(ValueError, match=r'its ending|broken|no faces') as caught:
                load(path)
            assert str(path) in str(caught.value)


@pytest.mark.parametrize('kind, write, reason', BAD)
def test_bad_files_are_refused_with_path_and_reason(kind, write, reason, tmp_path):
    path = tmp_path / f'bad.{kind}'
    path.write_bytes(write(tmp_path))
    with pytest.raises(ValueError, match=reason) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_triangles_without_area_are_dropped(tmp_path):
    path = tmp_path / 'a.obj'
    path.write_text('v 0 0 0\nv 1 0 0\nv 0 1 0\nv 2 0 0\nf 1 2 3\nf 1 2 4\nf 1 1 2\n')
    np.testing.assert_array_equal(joined(load(path)), [[(0, 0, 0), (1, 0, 0), (0, 1, 0)]])


def test_options_out_of_range_are_refused():
    for wrong in (dict(up='up'), dict(missing_textures='ignore')):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            MeshSource(**wrong)


# Listing

def test_objects_are_named_by_their_files_or_their_folders(tmp_path):
    names = ['Red_Shoe/model_0.obj', 'Lamp 2.5W/meshes/model.obj', 'lamp.v2.glb', 'pair/left.stl', 'pair/right.STL',
             'cups/mesh_1.ply', 'cups/mesh_2.ply', 'both/model.obj', 'both/model.off', '.hidden/model.obj', 'notes.txt']
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b'')
    listed = MeshSource().list(tmp_path)
    found = {item.path.relative_to(tmp_path).as_posix(): item.uid for item in listed}
    assert found == {
        'Red_Shoe/model_0.obj': 'Red_Shoe', 'Lamp 2.5W/meshes/model.obj': 'Lamp_2_5W', 'lamp.v2.glb': 'lamp_v2',
        'pair/left.stl': 'pair-left', 'pair/right.STL': 'pair-right', 'cups/mesh_1.ply': 'cups-mesh_1',
        'cups/mesh_2.ply': 'cups-mesh_2', 'both/model.obj': 'both-model_obj', 'both/model.off': 'both-model_off'}
    assert listed == MeshSource().list(tmp_path)


def test_a_file_or_an_object_folder_alone_is_one_object(tmp_path):
    (tmp_path / 'Red_Shoe').mkdir()
    path = tmp_path / 'Red_Shoe' / 'model_0.obj'
    path.write_bytes(b'')
    assert [(item.uid, item.path) for item in MeshSource().list(tmp_path / 'Red_Shoe')] == [('Red_Shoe', path)]
    assert [item.path for item in MeshSource().list(path)] == [path]
    with pytest.raises(FileNotFoundError, match='nowhere'):
        MeshSource().list(tmp_path / 'nowhere')
    (tmp_path / 'notes.txt').write_bytes(b'')
    with pytest.raises(ValueError, match=r'notes\.txt'):
        MeshSource().list(tmp_path / 'notes.txt')


def test_scanned_objects_are_listed_and_read(data):
    source = TASK_UTILS.build(dict(type='MeshSource', up='z'))
    listed = source.list(data / 'gso')
    assert len(listed) == 141 == len({item.uid for item in listed})
    assert all(item.uid[-20:] == item.path.parent.name[-20:] for item in listed if item.path.parent.name.isascii())
    mesh = source.load(listed[3])
    lines = listed[3].path.read_text().splitlines()
    corners = [list(map(float, line.split()[1:4])) for line in lines if line.startswith('v ')]
    faces = sum(line.startswith('f ') for line in lines)
    assert abs(len(joined(mesh)) - faces) <= 5 and mesh.parts[0].texture.shape == (256, 256, 4)
    np.testing.assert_allclose(joined(mesh).min((0, 1)), np.min(corners, 0), atol=1e-6)
    np.testing.assert_allclose(joined(mesh).max((0, 1)), np.max(corners, 0), atol=1e-6)


@pytest.mark.parametrize('colors', [[], ['red', 'green', 'blue']])
def test_faces_on_missing_vertices_are_refused(tmp_path, colors):
    import plyfile
    vertices = np.zeros(3, [*((name, 'f4') for name in 'xyz'), *((name, 'u1') for name in colors)])
    faces = np.empty(1, [('vertex_indices', 'O')])
    faces['vertex_indices'] = [np.array([0, 1, 48627], np.int32)]
    plyfile.PlyData([plyfile.PlyElement.describe(vertices, 'vertex'), plyfile.PlyElement.describe(faces, 'face')],
                    byte_order='<').write(tmp_path / 'a.ply')
    with pytest.raises(ValueError, match=r'a\.ply has faces of shape \(1, 3\) on vertex 48627 of 3; it is broken'):
        load(tmp_path / 'a.ply')


@pytest.mark.parametrize('text', ['[' * 100_000, '{"asset": ' + '1' * 5000 + '}'])
def test_gltf_whose_json_is_no_gltf_is_refused(tmp_path, text):
    (tmp_path / 'a.gltf').write_text(text)
    with pytest.raises(ValueError, match=r'a\.gltf cannot be read as glTF \(.*; it is broken') as caught:
        load(tmp_path / 'a.gltf')
    assert len(str(caught.value)) < 400


def test_a_material_whose_colour_is_not_finite_is_refused(tmp_path):
    (tmp_path / 'a.mtl').write_text('newmtl m\nKd 0.5 0.6 nan\n')
    (tmp_path / 'a.obj').write_text('mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nusemtl m\nf 1/1 2/1 3/1\n')
    with pytest.raises(ValueError, match=r'a\.obj has a material or vertices with NaN or infinite colours'):
        MeshSource().load(Listed('a', tmp_path / 'a.obj'))
