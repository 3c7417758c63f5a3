"""glTF as a container: what its counts, offsets, trees and names may say."""
import base64
import json
import struct

import numpy as np
import pytest

from clipgs_plugin.io.gltf import open_gltf, write_parts


def document(**changes):
    """Return a document of one accessor of two VEC3 in one buffer of 24 bytes."""
    return {'asset': {'version': '2.0'}, 'accessors': [dict(bufferView=0, componentType=5126, count=2, type='VEC3')],
            'bufferViews': [dict(buffer=0, byteLength=24)], **changes}


SIX = struct.pack('<6f', *range(6))


def written(path, changes=None, buffer=SIX):
    path.write_bytes(b''.join(write_parts(document(**(changes or {})), buffer, path.suffix == '.glb')))
    return path


@pytest.mark.parametrize('suffix', ['.glb', '.gltf'])
def test_an_accessor_is_read_from_both_kinds_of_file(tmp_path, suffix):
    values = open_gltf(written(tmp_path / f'a{suffix}')).numbers(0)
    assert values.tolist() == [[0, 1, 2], [3, 4, 5]] and values.dtype == np.float32


def test_a_buffer_beside_the_document_is_read_and_one_elsewhere_is_not(tmp_path):
    (tmp_path / 'in').mkdir()
    for folder in (tmp_path, tmp_path / 'in'):
        (folder / 'a b.bin').write_bytes(SIX)
    for uri, allowed in (('a%20b.bin', True), ('../a b.bin', False), ('..%2Fa b.bin', False),
                         (f'{tmp_path}/a b.bin', False), ('file:a b.bin', False), ('', False), ('data:,abc', False),
                         ('data:;base64,a', False), ('absent.bin', False)):
        path = tmp_path / 'in' / 'a.gltf'
        path.write_text(json.dumps(document(buffers=[dict(byteLength=24, uri=uri)])))
        if allowed:
            assert open_gltf(path).numbers(0)[1, 2] == 5
        else:
            with pytest.raises(ValueError, match=r'a\.gltf: (a buffer|its buffer)'):
                open_gltf(path).numbers(0)


@pytest.mark.parametrize('component, values, expected', [
    (5120, [-128, -127, 127], [-1, -1, 1]), (5121, [0, 51, 255], [0, 0.2, 1]),
    (5122, [-32768, 0, 32767], [-1, 0, 1]), (5123, [0, 13107, 65535], [0, 0.2, 1])])
def test_normalised_integers_are_scaled_as_the_specification_says(tmp_path, component, values, expected):
    buffer = np.array(values, {5120: 'i1', 5121: 'u1', 5122: '<i2', 5123: '<u2'}[component]).tobytes()
    for normalized in (True, False):
        accessor = dict(bufferView=0, componentType=component, count=3, type='SCALAR', normalized=normalized)
        views = [dict(buffer=0, byteLength=len(buffer))]
        path = written(tmp_path / 'a.glb', dict(accessors=[accessor], bufferViews=views), buffer)
        assert open_gltf(path).numbers(0)[:, 0] == pytest.approx(expected if normalized else values)


def test_interleaved_elements_are_read_with_their_stride_and_offset(tmp_path):
    table = np.arange(12, dtype='<f4')  # two rows of six
    accessors = [dict(bufferView=0, byteOffset=8, componentType=5126, count=2, type='VEC4')]
    views = [dict(buffer=0, byteLength=48, byteStride=24)]
    path = written(tmp_path / 'a.glb', dict(accessors=accessors, bufferViews=views), table.tobytes())
    assert open_gltf(path).numbers(0).tolist() == [[2, 3, 4, 5], [8, 9, 10, 11]]


@pytest.mark.parametrize('accessor', [
    dict(count=3), dict(count=2 ** 62), dict(count=0), dict(count=-1), dict(byteOffset=4), dict(byteOffset=-4),
    dict(bufferView=1), dict(bufferView=-1), dict(bufferView=True), dict(componentType=5124), dict(type='MAT4'),
    dict(sparse={})])
def test_an_accessor_that_its_view_does_not_hold_is_refused(tmp_path, accessor):
    whole = dict(bufferView=0, componentType=5126, count=2, type='VEC3')
    path = tmp_path / 'a.glb'
    with pytest.raises(ValueError, match=r'a\.glb: '):
        open_gltf(written(path, dict(accessors=[{**whole, **accessor}]))).numbers(0)


@pytest.mark.parametrize('view', [
    dict(byteLength=25 + 4), dict(byteOffset=1), dict(byteOffset=-1), dict(byteLength=-24), dict(buffer=1),
    dict(byteStride=4), dict(byteStride=-24)])
def test_a_view_that_its_buffer_does_not_hold_is_refused(tmp_path, view):
    path = tmp_path / 'a.glb'
    with pytest.raises(ValueError, match=r'a\.glb: '):
        open_gltf(written(path, dict(bufferViews=[dict(buffer=0, byteLength=24) | view]))).numbers(0)


@pytest.mark.parametrize('change, message', [
    (lambda data: data[:10], 'header of 12'), (lambda data: data[:-1], 'promises version 2'),
    (lambda data: data + b'\0', 'promises version 2'), (lambda data: data[:4] + b'\1' + data[5:], 'promises version 1'),
    (lambda data: data[:12] + struct.pack('<I', 2 ** 31) + data[16:], 'a chunk promises 2147483648'),
    (lambda data: data[:16] + b'NOSJ' + data[20:], 'no JSON chunk')])
def test_a_damaged_glb_is_named(tmp_path, change, message):
    path = written(tmp_path / 'a.glb')
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=rf'a\.glb: .*{message}'):
        open_gltf(path)


def test_a_document_of_another_version_or_type_is_refused(tmp_path):
    for changes, message in ((dict(asset=dict(version='1.0')), 'version'), (dict(nodes={}), 'nodes'),
                             (dict(nodes=[dict(matrix=[1] * 15)]), r'nodes\[0\]\.matrix')):
        with pytest.raises(ValueError, match=rf'a\.gltf: .*{message}'):
            open_gltf(written(tmp_path / 'a.gltf', changes))


def instances(tmp_path, **changes):
    return list(open_gltf(written(tmp_path / 'a.glb', changes)).instances())


def test_matrices_of_nodes_are_composed_from_the_root(tmp_path):
    half = 0.5 ** 0.5
    nodes = [dict(children=[1], translation=[1, 2, 3]), dict(children=[2], rotation=[0, 0, half, half]),
             dict(mesh=7, scale=[2, 3, 4]), dict(mesh=8, matrix=[*range(12), 9, 9, 9, 1])]
    (node, mesh, matrix), (_, other, given) = instances(tmp_path, nodes=nodes)
    assert (node, mesh, other) == (2, 7, 8)
    # A quarter turn about z takes x to y and y to -x.
    assert matrix == pytest.approx(np.array([[0, -3, 0, 1], [2, 0, 0, 2], [0, 0, 4, 3], [0, 0, 0, 1]]))
    assert given[:3, 0].tolist() == [0, 1, 2] and given[:3, 3].tolist() == [9, 9, 9]


def test_only_the_default_scene_is_read(tmp_path):
    nodes, scenes = [dict(mesh=0), dict(mesh=1), dict(mesh=2)], [dict(nodes=[0]), dict(nodes=[2, 1])]
    assert [mesh for _, mesh, _ in instances(tmp_path, nodes=nodes, scenes=scenes)] == [0]
    assert [mesh for _, mesh, _ in instances(tmp_path, nodes=nodes, scenes=scenes, scene=1)] == [2, 1]


@pytest.mark.parametrize('nodes', [
    [dict(children=[0])], [dict(children=[1]), dict(children=[0])], [dict(children=[1, 1]), {}], [dict(children=[5])],
    [dict(scale=[1e308, 1, 1], children=[1]), dict(translation=[1e308, 0, 0])], [dict(rotation=[0, 0, 0, 0])]])
def test_trees_with_loops_or_infinite_matrices_are_refused(tmp_path, nodes):
    with pytest.raises(ValueError, match=r'a\.glb: '):
        instances(tmp_path, nodes=nodes, scenes=[dict(nodes=[0])])


def test_long_chains_of_nodes_need_no_recursion(tmp_path):
    nodes = [*(dict(children=[i + 1], translation=[1, 0, 0]) for i in range(3000)), dict(mesh=0)]
    (_, _, matrix), = instances(tmp_path, nodes=nodes)
    assert matrix[0, 3] == 3000


def test_a_document_with_its_buffer_in_base64_is_json(tmp_path):
    content = json.loads(written(tmp_path / 'a.gltf').read_text())
    assert base64.b64decode(content['buffers'][0]['uri'].partition(',')[2]) == SIX
