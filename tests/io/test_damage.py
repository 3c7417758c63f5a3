"""Small damaged files that once took gigabytes, ended in another error, or were read as wrong numbers."""
import gzip
import io
import json
import os
import struct
import tracemalloc
import zipfile
from contextlib import contextmanager

import numpy as np
import plyfile
import pytest
import torch
from PIL import Image

from clipgs_plugin import read_gaussians, write_gaussians
from clipgs_plugin.io import files, sog
from clipgs_plugin.io.files import refuse_damage

MEBIBYTE = 2 ** 20


@contextmanager
def little_memory():
    """Fail if Python and numpy held more than 200 MiB at once."""
    tracemalloc.start()
    try:
        yield
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 200 * MEBIBYTE


def ksplat(**fields) -> bytes:
    """Return a level 1 file of one section of four Gaussians, with some fields of the section changed."""
    section = dict(count=4, capacity=4, bucket_size=4, buckets=1, block=5.0, bucket_bytes=12, steps=32767, storage=0,
                   full=1, partial=0, degree=0, **{})
    section.update(fields)
    head = struct.pack('<BBxxIIIIH2x3fff', 0, 1, 1, 1, 4, 4, 1, 0, 0, 0, -1.0, 1.0).ljust(4096, b'\0')
    body = struct.pack('<3f', 0, 0, 0) + 4 * struct.pack('<3H7e4B', 1, 2, 3, .1, .1, .1, 1, 0, 0, 0, 1, 2, 3, 4)
    return head + struct.pack('<IIIIfHxxIIIIH', *section.values()).ljust(1024, b'\0') + body


@pytest.mark.parametrize('fields', [
    dict(bucket_size=2 ** 32 - 1), dict(full=2 ** 32 - 1), dict(full=0, partial=2 ** 32 - 1),
    dict(buckets=2 ** 32 - 1, full=2 ** 32 - 1, bucket_bytes=0), dict(bucket_bytes=0), dict(count=2 ** 32 - 1)])
def test_the_fields_of_a_ksplat_section_allocate_nothing(tmp_path, fields):
    path = tmp_path / 'a.ksplat'
    path.write_bytes(ksplat())
    assert len(read_gaussians(path)) == 4
    path.write_bytes(ksplat(**fields))
    if 'bucket_size' in fields:  # a bucket may have room for more than it holds
        with little_memory():
            assert len(read_gaussians(path)) == 4
        return
    with little_memory(), pytest.raises(ValueError, match=r'a\.ksplat: '):
        read_gaussians(path)


@pytest.mark.parametrize('version', [3, 4])
def test_a_count_beyond_what_a_spz_can_hold_allocates_nothing(random_cloud, tmp_path, version):
    path = tmp_path / 'a.spz'
    write_gaussians(random_cloud(60), path, version=version)
    data, count = path.read_bytes(), 2 ** 28
    if version == 3:
        content = gzip.decompress(data)
        path.write_bytes(gzip.compress(content[:8] + struct.pack('<I', count) + content[12:]))
    else:
        table = bytearray(data[32:32 + 16 * data[15]])
        for at in range(8, len(table), 16):
            struct.pack_into('<Q', table, at, struct.unpack_from('<Q', table, at)[0] // 60 * count)
        path.write_bytes(data[:8] + struct.pack('<I', count) + data[12:32] + table + data[32 + len(table):])
    with little_memory(), pytest.raises(ValueError, match=rf'a\.spz: .*promises {count} Gaussians'):
        read_gaussians(path)


def test_a_zstd_stream_larger_than_it_promises_is_not_inflated(random_cloud, tmp_path):
    import pyarrow

    path = tmp_path / 'a.spz'
    write_gaussians(random_cloud(60), path, version=4)
    data = path.read_bytes()
    streams = data[15]
    packed, _ = struct.unpack_from('<QQ', data, 32)
    bomb = pyarrow.Codec('zstd').compress(bytes(2 ** 29), asbytes=True)
    start = 32 + 16 * streams
    path.write_bytes(data[:32] + struct.pack('<Q', len(bomb)) + data[40:start] + bomb + data[start + packed:])
    with little_memory(), pytest.raises(ValueError, match=r'a\.spz: stream 0 '):
        read_gaussians(path)


def rebuild(path, change) -> None:
    """Write a SOG bundle again with changed members, compressed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize('name', ['meta.json', 'quats.webp'])
def test_a_member_of_a_bundle_is_not_inflated_without_bound(random_cloud, tmp_path, name):
    path = tmp_path / 'a.sog'
    write_gaussians(random_cloud(20), path)
    rebuild(path, lambda members: members.update({name: bytes(2 ** 28)}))
    with little_memory(), pytest.raises(ValueError, match=rf'a\.sog: {name} .*268435456 bytes'):
        read_gaussians(path)


@pytest.mark.parametrize('honest', [False, True])
def test_planes_of_a_size_that_nothing_needs_are_not_decoded(random_cloud, tmp_path, honest):
    """Neither planes much larger than the count, nor a count that no real positions could compress to."""
    path, side = tmp_path / 'a.sog', 3000
    write_gaussians(random_cloud(20), path)
    buffer = io.BytesIO()
    Image.new('RGBA', (side, side)).save(buffer, 'WEBP', lossless=True, method=0)

    def change(members):
        members['means_l.webp'] = buffer.getvalue()
        if honest:
            members['meta.json'] = json.dumps({**json.loads(members['meta.json']), 'count': side ** 2}).encode()

    rebuild(path, change)
    message = r'a\.sog: means_l\.webp .*(3000 x 3000 pixels|9000000 Gaussians, 72000000 bytes)'
    with little_memory(), pytest.raises(ValueError, match=message):
        read_gaussians(path)


@pytest.mark.parametrize('change, message', [
    (lambda m: '[' * 100_000, 'nested deeper'),
    (lambda m: json.dumps({**m, 'count': 0}), 'no Gaussians'),
    (lambda m: json.dumps({**m, 'count': -5}), 'count of -5'),
    (lambda m: json.dumps({**m, 'count': 2.5}), r'count is 2\.5, expected an integer'),
    (lambda m: json.dumps(m).replace('"count": 20', '"count": ' + '1' * 5000), 'not valid JSON'),
    (lambda m: json.dumps({**m, 'scales': {**m['scales'], 'codebook': ['../secret']}}), r'scales\.codebook\[0\] is'),
    (lambda m: json.dumps({**m, 'scales': {**m['scales'], 'codebook': [None]}}), 'codebook'),
    (lambda m: json.dumps({**m, 'scales': {**m['scales'], 'codebook': [[1], 2]}}), r'scales\.codebook\[0\] is'),
    (lambda m: json.dumps({**m, 'quats': {'files': ['x' * 5000]}}), 'lacks|cannot be read'),
    (lambda m: json.dumps({**m, 'quats': {'files': ['\ud800']}}), 'surrogate'),
    (lambda m: json.dumps([m]), 'a list of 1, expected an object')])
@pytest.mark.parametrize('bundled', [True, False])
def test_damaged_metadata_of_a_sog_is_refused_by_name(random_cloud, tmp_path, change, message, bundled):
    path = tmp_path / ('a.sog' if bundled else 'meta.json')
    write_gaussians(random_cloud(20), path)
    if bundled:
        rebuild(path, lambda members: members.update({sog.META: change(json.loads(members[sog.META]))}))
    else:
        path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(ValueError, match=message) as caught:
        read_gaussians(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 1000


def test_images_of_another_kind_and_damaged_headers_are_refused(random_cloud, tmp_path):
    write_gaussians(random_cloud(20), tmp_path / 'meta.json')
    good = (tmp_path / 'quats.webp').read_bytes()
    png = io.BytesIO()
    Image.new('RGBA', (8, 8)).save(png, 'PNG')
    for content in (png.getvalue(), good[:20], good[:12] + b'XXXX' + good[16:], b''):
        (tmp_path / 'quats.webp').write_bytes(content)
        with pytest.raises(ValueError, match=r'quats\.webp is not a (readable|WebP) image'):
            read_gaussians(tmp_path)


def header(*elements: str) -> bytes:
    return '\n'.join(['ply', 'format binary_little_endian 1.0', *elements, 'end_header', '']).encode()


@pytest.mark.parametrize('elements, message', [
    (['element vertex 3', 'element vertex 1', 'property float x'], 'two elements with same name'),
    (['element vertex 5'], 'not Gaussians'),
    (['element x 999999999999999999', 'element vertex 1', 'property float x'], 'not Gaussians'),
    (['element vertex 1', *(f'property float property_{i}' for i in range(9000))], 'not Gaussians')])
def test_elements_twice_or_without_properties_give_one_sentence(tmp_path, elements, message):
    (tmp_path / 'a.ply').write_bytes(header(*elements) + bytes(4))
    with pytest.raises(ValueError, match=rf'a\.ply: .*{message}') as caught:
        read_gaussians(tmp_path / 'a.ply')
    assert len(str(caught.value)) < 1000


def test_a_long_line_of_a_header_is_quoted_in_part(tmp_path):
    (tmp_path / 'a.ply').write_bytes(header('element vertex ' + '1' * 5000))
    with pytest.raises(ValueError, match=r"header line 'element vertex 1+\.\.\.'") as caught:
        read_gaussians(tmp_path / 'a.ply')
    assert len(str(caught.value)) < 400


def test_properties_of_another_type_are_refused(random_cloud, tmp_path):
    """The types have one size, so that the file still fits its header."""
    write_gaussians(random_cloud(4), tmp_path / 'a.ply')
    data = (tmp_path / 'a.ply').read_bytes()
    (tmp_path / 'a.ply').write_bytes(data.replace(b'property float opacity', b'property uint opacity'))
    with pytest.raises(ValueError, match=r'a\.ply: vertex property opacity is not .*float'):
        read_gaussians(tmp_path / 'a.ply')
    write_gaussians(random_cloud(4, sh_degree=1), tmp_path / 'b.compressed.ply')
    data = (tmp_path / 'b.compressed.ply').read_bytes()
    (tmp_path / 'b.compressed.ply').write_bytes(data.replace(b'property uchar f_rest_3', b'property char f_rest_3'))
    with pytest.raises(ValueError, match=r'b\.compressed\.ply: sh property f_rest_3 is not of type uchar'):
        read_gaussians(tmp_path / 'b.compressed.ply')


@pytest.mark.parametrize('word', [b'-1', b'4294967296', b'nan', b'1.5'])
def test_words_that_an_integer_property_cannot_hold_are_refused(random_cloud, tmp_path, word):
    path = tmp_path / 'a.compressed.ply'
    write_gaussians(random_cloud(1), path)
    file = plyfile.PlyData.read(path, mmap=False)
    file.text = True
    file.write(path)
    assert len(read_gaussians(path)) == 1
    words = path.read_bytes().rsplit(None, 1)
    path.write_bytes(words[0] + b' ' + word + b'\n')
    with pytest.raises(ValueError, match=r"a\.compressed\.ply: .*'vertex' .*packed_color"):
        read_gaussians(path)


@pytest.mark.parametrize('column, field', [('x', 'means'), ('rot_2', 'quats'), ('f_dc_0', 'sh'),
                                           ('scale_1', 'log_scales')])
def test_values_that_overflow_in_use_are_refused_by_name_and_dropped_by_clean(random_cloud, tmp_path, column, field):
    path = tmp_path / 'a.ply'
    write_gaussians(random_cloud(5), path)
    file = plyfile.PlyData.read(path, mmap=False)
    file['vertex'].data[column][3] = -3e38 if field != 'log_scales' else 90
    file.write(path)
    with pytest.raises(ValueError, match=rf'a\.ply: {field} .* beyond .* in 1 of 5 Gaussians'):
        read_gaussians(path)
    with pytest.warns(UserWarning, match=r'a\.ply: dropped 1 of 5'):
        assert len(read_gaussians(path, clean=True)) == 4


def test_whatever_a_parser_raises_names_the_file(tmp_path):
    def deep(n):
        return deep(n + 1)

    acts = [lambda: struct.unpack('<I', b'1'), lambda: [][0], lambda: {}['a'], lambda: int(None), lambda: None.a,
            lambda: np.zeros(3, np.int64)[0] + int('x'), lambda: float(10 ** 400), lambda: 1 // 0,
            lambda: b'\xff'.decode(), lambda: gzip.decompress(b'\x1f\x8b'), lambda: zipfile.ZipFile(io.BytesIO(b'1')),
            lambda: deep(0), lambda: Image.open(io.BytesIO(b'x')), lambda: torch.zeros(2).view(3),
            lambda: np.frombuffer(b'123', '<f4')]
    path = tmp_path / 'a.bin'
    for act in acts:
        with pytest.raises(ValueError, match=rf'^{path}: damaged or not a test file \(') as caught, \
                refuse_damage(path, 'test file'):
            act()
        assert type(caught.value) is ValueError and caught.value.__cause__ is not None
    for error in (ValueError(f'{path}: known'), FileNotFoundError(2, 'gone', str(path)), MemoryError(),
                  AssertionError()):
        with pytest.raises(type(error)) as caught, refuse_damage(path, 'test file'):
            raise error
        assert caught.value is error


def test_a_name_that_the_file_system_refuses_gives_one_sentence(random_cloud, tmp_path):
    longest = os.pathconf(tmp_path, 'PC_NAME_MAX')
    name = 'n' * (longest - 4) + '.ply'
    write_gaussians(random_cloud(3), tmp_path / name)  # as long as the file system allows
    assert len(read_gaussians(tmp_path / name)) == 3
    with pytest.raises(OSError, match=rf'n\.ply: a name of {longest + 1} bytes, .* at most {longest}; shorten it'):
        write_gaussians(random_cloud(3), tmp_path / f'n{name}')
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize('name, options', [('a.sog', {}), ('a.spz', {}), ('a.spz', dict(version=4))])
def test_equal_gaussians_at_different_positions_are_no_bomb(random_cloud, tmp_path, monkeypatch, name, options):
    """Their other attributes compress to nothing, whatever their number."""
    monkeypatch.setattr(files, 'FREE_BYTES', 0)
    cloud = random_cloud(20_000, sh_degree=2)
    cloud = cloud.replace(**{field: value[:1].expand_as(value) for field, value in cloud.fields() if field != 'means'})
    write_gaussians(cloud, tmp_path / name, **options)
    assert len(read_gaussians(tmp_path / name)) == 20_000
