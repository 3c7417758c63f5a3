import pytest
import torch

from clipgs_plugin.generation.sources.splats import SplatSource
from clipgs_plugin.io import FORMATS, read_gaussians, write_gaussians

WRITTEN = [format for format in FORMATS.values() if format.write is not None and not format.shared]


@pytest.mark.parametrize('format', WRITTEN, ids=lambda format: format.name)
def test_every_written_format_is_listed_and_loaded(tmp_path, random_cloud, format):
    cloud = random_cloud(300)
    folder = format.suffix == 'meta.json'
    path = tmp_path / 'chairs' / ('left one' if folder else f'left one{format.suffix}')
    (path if folder else path.parent).mkdir(parents=True)
    write_gaussians(cloud, path / 'meta.json' if folder else path)
    listed, = SplatSource().list(tmp_path)
    assert (listed.uid, listed.path) == ('chairs-left_one', path)
    loaded = SplatSource().load(listed)
    assert len(loaded) == 300
    # Formats may reorder and quantise.
    assert float(torch.cdist(loaded.means, cloud.means).min(1).values.max()) < 0.01


def test_a_sog_folder_or_a_file_is_one_object(tmp_path, random_cloud):
    (tmp_path / 'vase').mkdir()
    write_gaussians(random_cloud(20), tmp_path / 'vase' / 'meta.json')
    write_gaussians(random_cloud(20), tmp_path / 'cup.ply')
    (tmp_path / 'other_meta.json').write_text('{}')
    source = SplatSource(up='-y')
    for root, uid in ((tmp_path / 'vase', 'vase'), (tmp_path / 'cup.ply', 'cup')):
        listed, = source.list(root)
        assert (listed.uid, listed.path) == (uid, root)
        assert len(source.load(listed)) == 20
    assert [x.uid for x in source.list(tmp_path)] == ['cup', 'vase'] and source.up == '-y'


def test_clean_drops_invalid_gaussians(tmp_path, random_cloud):
    cloud = random_cloud(10)
    table = cloud.means.clone()
    write_gaussians(cloud, tmp_path / 'a.ply')
    data = (tmp_path / 'a.ply').read_bytes()
    first = table[0].numpy().tobytes()
    (tmp_path / 'a.ply').write_bytes(data.replace(first, b'\xff\xff\xff\x7f' * 3))  # NaN
    listed, = SplatSource().list(tmp_path)
    with pytest.raises(ValueError, match=r'a\.ply'):
        SplatSource().load(listed)
    with pytest.warns(UserWarning, match='dropped 1 of 10'):
        assert torch.equal(SplatSource(clean=True).load(listed).means, table[1:])


@pytest.mark.parametrize('name, content', [
    ('a.ply', b''), ('a.ply', b'ply\nnonsense'), ('a.splat', b'123'), ('a.spz', b'\x1f\x8bnothing'), ('a.sog', b'PK'),
    ('a.ksplat', b'123'), ('b/meta.json', b'{}'),
    ('a.ply', b'ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n'
              b'end_header\n1 2 3\n')])
def test_bad_files_are_listed_and_refused_by_name(tmp_path, name, content):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    listed, = SplatSource().list(tmp_path)
    with pytest.raises(ValueError, match=path.parent.name if path.name == 'meta.json' else path.name):
        SplatSource().load(listed)


def test_real_splats(splats):
    source = SplatSource()
    listed = source.list(splats)
    assert len(listed) == len({x.uid for x in listed}) == len(list(splats.iterdir())) == 20
    assert {'angel_sog', 'angel_compressed_ply', 'camera_spz', 'guitar', 'minimal_v4'} <= {x.uid for x in listed}
    for x in listed:
        if x.path.stat().st_size < 500_000:
            cloud = source.load(x)
            assert len(cloud) > 0 and torch.equal(cloud.means, read_gaussians(x.path).means)
