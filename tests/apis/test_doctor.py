"""Each fault has exactly its own finding, and healthy objects have none."""
import json

import numpy as np
import pytest
import torch
from conftest import random_cloud

from clipgs_plugin import GaussianCloud, read_gaussians, write_gaussians
from clipgs_plugin.apis import diagnose
from clipgs_plugin.apis.doctor_expectations import expectations
from clipgs_plugin.apis.doctor_findings import CHECKS, GRADES, Finding, check
from clipgs_plugin.apis.models import get_model_config
from clipgs_plugin.io import FORMATS
from clipgs_plugin.ops import axis_change
from clipgs_plugin.structures import surface_discs
from clipgs_plugin.tools.dev.record_attributes import measure
from clipgs_plugin.toy_world import make_object
from clipgs_plugin.toy_world.specs import object_specs


def toy(category: str) -> GaussianCloud:
    spec = next(spec for spec in object_specs(60, 1, 'test') if spec.category == category)
    return make_object(spec).gaussians


TEDDY = toy('teddy bear')


def joined(*clouds: GaussianCloud) -> GaussianCloud:
    return GaussianCloud(**{name: torch.cat([getattr(cloud, name) for cloud in clouds])
                            for name, _ in clouds[0].fields()})


def moved(count: int, distance: float) -> GaussianCloud:
    """Gaussians of the object, moved to random places."""
    offsets = torch.randn(count, 3, generator=torch.Generator().manual_seed(1)) * distance
    return TEDDY[:count].replace(means=TEDDY.means[:count] + offsets)


def enlarged(count: int) -> GaussianCloud:
    log_scales = TEDDY.log_scales.clone()
    log_scales[:count] = 1.0  # 2.7 radii
    return TEDDY.replace(log_scales=log_scales)


def shell() -> GaussianCloud:
    points = np.random.default_rng(0).normal(size=(4000, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return joined(TEDDY, surface_discs(1.2 * points, points, np.full((4000, 3), 0.6), opacity=0.02))


def table(up: str = 'y') -> GaussianCloud:
    """Object on a round table of twice its radius."""
    rng = np.random.default_rng(0)
    radius, angle = 2 * np.sqrt(rng.random(1500)), rng.uniform(0, 2 * np.pi, 1500)
    bottom = float(TEDDY.means[:, 1].min())
    top = np.stack([radius * np.cos(angle), np.full(1500, bottom), radius * np.sin(angle)], 1)
    normals, colors = np.tile([0.0, 1.0, 0.0], (1500, 1)), rng.uniform(0.3, 0.5, (1500, 3))
    return joined(TEDDY, surface_discs(top, normals, colors)).transform(axis_change('y', up))


def logits() -> GaussianCloud:
    colors = torch.rand(len(TEDDY), 3, generator=torch.Generator().manual_seed(0)).clamp(0.01, 0.99)
    return TEDDY.replace(sh=colors.logit()[:, None])


def stretched(axis: int, factor: float) -> GaussianCloud:
    log_scales = TEDDY.log_scales.clone()
    log_scales[:, axis] += float(np.log(factor))
    return TEDDY.replace(log_scales=log_scales)


UP = {'up': 'note'}  # no file records it
FAULTS = {
    'nothing': (TEDDY, UP),
    'five floaters': (joined(TEDDY, moved(5, 10.0)), {'floaters': 'note', **UP}),
    'sixty floaters': (joined(TEDDY, moved(60, 10.0)), {'floaters': 'warning', **UP}),
    'one huge Gaussian': (enlarged(1), {'huge': 'note', **UP}),
    'many huge Gaussians': (enlarged(40), {'huge': 'warning', **UP}),
    'a transparent shell': (shell(), {'transparency': 'warning', **UP}),
    'a half of nearly invisible Gaussians': (
        joined(TEDDY, moved(900, 0.1).replace(opacity_logits=torch.full((900,), -6.0))),
        {'transparency': 'note', **UP}),
    'saturated opacity': (TEDDY.replace(opacity_logits=torch.full_like(TEDDY.opacity_logits, 9.0)),
                          {'saturation': 'note', **UP}),
    'a table': (table(), {'surroundings': 'warning'}),
    'a table with z up': (table('z'), {'surroundings': 'warning', 'up': 'warning'}),
    'a table upside down': (table('-y'), {'surroundings': 'warning', 'up': 'warning'}),
    'too few Gaussians': (TEDDY[::10], {'count': 'warning', **UP}),
    'colours as logits': (logits(), {'colour': 'warning', **UP}),
    'colours as bytes': (TEDDY.replace(sh=255 * TEDDY.rgb[:, None]), {'colour': 'warning', **UP}),
    'no colours': (TEDDY.replace(sh=torch.zeros_like(TEDDY.sh)), {'colour': 'warning', **UP}),
    'grey': (TEDDY.replace(sh=TEDDY.sh.mean(2, keepdim=True).expand_as(TEDDY.sh)
                           + torch.linspace(-1, 1, len(TEDDY))[:, None, None]), {'colour': 'note', **UP}),
    'one colour': (TEDDY.replace(sh=torch.tensor([1.0, 0, 0]).expand_as(TEDDY.sh)), {'colour': 'note', **UP}),
    'every Gaussian twice': (joined(TEDDY, TEDDY), {'duplicates': 'warning', **UP}),
    'three copies': (joined(TEDDY, TEDDY[:3]), {'duplicates': 'note', **UP}),
    'needles': (stretched(0, 12.0), {'shape': 'warning', **UP}),
    'leaves': (stretched(2, 0.1), {'shape': 'note', **UP}),
    'two objects': (joined(TEDDY, TEDDY.replace(means=TEDDY.means + torch.tensor([2.5, 0, 0]))),
                    {'parts': 'note', **UP}),
    'an object far from the origin': (TEDDY.replace(means=TEDDY.means + 3e4), {'position': 'warning', **UP}),
    'one position': (TEDDY.replace(means=torch.ones_like(TEDDY.means)), {'position': 'warning'}),
}


def found(diagnosis) -> dict[str, str]:
    return {finding.check: finding.grade for finding in diagnosis.findings if finding.grade != 'ok'}


@pytest.mark.parametrize('fault', FAULTS)
def test_a_fault_has_exactly_its_finding(fault):
    cloud, expected = FAULTS[fault]
    assert found(diagnose(cloud)) == expected


def finding(cloud, name: str, model=None) -> Finding:
    return next(finding for finding in diagnose(cloud, model).findings if finding.check == name)


@pytest.mark.parametrize('fault, name, text', [
    ('five floaters', 'floaters', '5 of 1,029 Gaussians (0.486 %)'),
    ('sixty floaters', 'floaters', '--largest-cluster'),
    ('one huge Gaussian', 'huge', '1 of 1,024 Gaussians'),
    ('a transparent shell', 'transparency', '79.6 % of the Gaussians are nearly invisible'),
    ('a table', 'surroundings', '--remove-plane'),
    ('a table with z up', 'up', '--up z'),
    ('a table upside down', 'up', '--up -y'),
    ('too few Gaussians', 'count', '103 visible Gaussians, expected at least 200'),
    ('every Gaussian twice', 'duplicates', '1,024 Gaussians (50 %)'),
    ('two objects', 'parts', '2 separate parts of 50 %, 50 %'),
    ('nothing', 'up', '--up auto')])
def test_a_finding_names_amount_or_remedy(fault, name, text):
    assert text in str(finding(FAULTS[fault][0], name))


@pytest.mark.parametrize('scale', [1e-3, 1e3])
def test_findings_do_not_depend_on_the_unit(scale):
    for cloud, expected in (FAULTS['sixty floaters'], FAULTS['a table']):
        assert found(diagnose(cloud.translate_scale(torch.zeros(3), scale))) == expected


@pytest.mark.parametrize('field, value, reason', [
    ('means', float('nan'), 'means is NaN or infinite'), ('quats', 0.0, 'quats are zero'),
    ('log_scales', 200.0, 'log_scales is beyond')])
def test_invalid_gaussians_are_counted_and_the_others_examined(tmp_path, field, value, reason):
    raw = dict(TEDDY.fields())
    raw[field] = raw[field].clone()
    raw[field][[7, 20]] = value
    diagnosis = diagnose(GaussianCloud(**raw))
    assert diagnosis.grade == 'error' and diagnosis.facts['invalid'] == 2 and diagnosis.facts['visible'] == 1022
    text = str(next(finding for finding in diagnosis.findings if finding.check == 'values'))
    assert '2 of 1,024' in text and f'index 7: {reason}' in text and '--clean' in text


@pytest.mark.parametrize('name, content, text', [
    ('photo.ply', b'\x89PNG\r\n\x1a\n' + bytes(20), 'PNG picture'),
    ('chair.obj', b'v 0 0 0\n', 'mesh (.obj)'),
    ('chair.glb', b'glTF\x02\0\0\0', 'glTF binary'),
    ('empty.ply', b'', 'the file is empty'),
    ('mesh.ply', b'ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n0\n', 'a mesh'),
    ('half.splat', bytes(33), '33 bytes are not a whole number'),
    ('notes.spz', b'anything', 'Niantic .spz')])
def test_another_or_damaged_file_has_one_finding(tmp_path, name, content, text):
    (tmp_path / name).write_bytes(content)
    diagnosis = diagnose(tmp_path / name)
    assert [(item.check, item.grade) for item in diagnosis.findings] == [('file', 'error')]
    assert text in str(diagnosis.findings[0]) and str(tmp_path) not in str(diagnosis.findings[0])


def test_a_missing_file_is_a_finding(tmp_path):
    only, = diagnose(tmp_path / 'none.ply').findings
    assert only.grade == 'error' and 'does not exist' in only.what


@pytest.mark.parametrize('name, version', [
    ('ply', 'binary_little_endian 1.0'), ('compressed-ply', 'binary_little_endian 1.0'), ('splat', ''), ('spz', '3'),
    ('sog', '2'), ('sog-folder', '2'), ('glb', '2.0'), ('gltf', '2.0')])
def test_the_file_is_described(tmp_path, name, version):
    path = tmp_path / ('meta.json' if name == 'sog-folder' else f'bear{FORMATS[name].suffix}')
    write_gaussians(TEDDY, path)
    facts = diagnose(path).facts
    assert facts['format'] == FORMATS[name].description and facts['version'] == version
    files = tmp_path.iterdir() if name == 'sog-folder' else [path]
    assert facts['bytes'] == sum(file.stat().st_size for file in files) and facts['gaussians'] == 1024


@pytest.mark.filterwarnings('error')
def test_the_render_mode_is_named(tmp_path):
    write_gaussians(TEDDY, tmp_path / 'a.ply', comments=['SplatRenderMode: mip'])
    diagnosis = diagnose(tmp_path / 'a.ply')
    assert diagnosis.facts['render_mode'] == 'antialiased'
    assert '; trained with antialiasing' in str(diagnosis.findings[0])


def test_toy_objects_that_no_model_saw_are_healthy_and_known():
    model, black_and_white = expectations('clipgs_toy'), {'soccer ball', 'eight ball', 'clock'}
    for spec in object_specs(60, 1, 'test'):
        grades = found(diagnose(make_object(spec).gaussians, model))
        if spec.category in black_and_white:
            grades.pop('colour', None)
        assert grades == UP, spec.category


HEALTHY = ['angel.sog', 'camera.ply', 'camera.spz', 'fruit_drops_sh3.ply', 'monkey.sog', 'potted_plant.splat',
           'sneaker_white.splat', 'train_1000_sh3.ply']


@pytest.mark.parametrize('name', HEALTHY)
def test_real_files_give_no_warning(splats, name):
    assert diagnose(splats / name).grade == 'note'


def test_the_model_of_the_toy_world_does_not_know_a_real_camera(splats):
    assert found(diagnose(splats / 'camera.ply', 'clipgs_toy'))['attributes'] == 'warning'


def test_the_shipped_attributes_cover_objects_measured_again():
    model = expectations('clipgs_toy')
    for name, levels in measure(20, get_model_config('clipgs_toy')).items():
        for level, (low, high) in levels.items():
            trained = model.attributes[name][level]
            assert trained[0] - 1e-3 <= low <= high <= trained[1] + 1e-3, name


@pytest.mark.parametrize('model, count, grade', [
    ('uni3d-b', 400, 'warning'), ('uni3d-b', 1000, 'note'), ('uni3d-b', 10000, 'ok'),
    ('point-mae', 60, 'warning'), ('point-mae', 64, 'note'), ('clipgs_toy', 63, 'warning'), ('clipgs_toy', 64, 'note')])
def test_the_count_is_compared_with_the_patches_of_a_model(model, count, grade):
    cloud = random_cloud(count)
    assert finding(cloud.replace(opacity_logits=torch.ones(count)), 'count', model).grade == grade


def test_a_model_of_positions_needs_no_colour_and_one_of_points_no_opacity():
    assert finding(FAULTS['no colours'][0], 'colour', 'point-mae').grade == 'ok'
    assert finding(FAULTS['saturated opacity'][0], 'saturation', 'uni3d-b').grade == 'ok'


def test_an_unknown_model_is_an_error():
    with pytest.raises(FileNotFoundError, match='no-such-model'):
        diagnose(TEDDY, 'no-such-model')


def test_a_diagnosis_is_plain_data():
    data = json.loads(json.dumps(diagnose(FAULTS['a table'][0]).to_dict()))
    assert data['path'] == 'cloud' and data['grade'] == 'warning'
    assert data['findings'][0]['check'] == 'values'
    plane = data['facts']['plane']
    assert plane['share'] == pytest.approx(1500 / 2524, abs=0.03) and plane['one_sided'] == 1.0
    assert plane['normal'][1] == pytest.approx(1, abs=1e-3)


def test_measures_of_a_cloud_of_known_values(tmp_path):
    """A cube of eight Gaussians, one of them transparent, in units of its half diagonal."""
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
    logits = torch.tensor([-9.0] + [0.0] * 7)
    cloud = GaussianCloud(corners, torch.tensor([[1.0, 0, 0, 0]]).repeat(8, 1),
                          torch.tensor([0.1, 0.2, 0.4]).log().repeat(8, 1), logits, torch.zeros(8, 1, 3))
    facts = diagnose(cloud).facts
    assert facts['visible'] == 7 and facts['quantiles']['opacity']['0.5'] == 0.5
    # The median of the seven is the corner (1, 1, 1), since four of them have each coordinate 1.
    distances = np.linalg.norm(corners.numpy()[1:] - 1, axis=1)
    assert facts['extent'] == pytest.approx(np.quantile(distances, 0.9))
    assert facts['quantiles']['longest']['0.5'] == pytest.approx(0.4 / facts['extent'], rel=1e-5)


def test_a_check_is_one_function(monkeypatch):
    monkeypatch.setattr('clipgs_plugin.apis.doctor_findings.CHECKS', dict(CHECKS))
    with pytest.raises(ValueError, match="check 'up' is registered twice"):
        check('up')(lambda subject, model: None)
    monkeypatch.setitem(CHECKS, 'mine', lambda subject, model: ('warning', f'{len(subject.cloud)} seen', '', 'none'))
    assert str(finding(TEDDY, 'mine')) == 'mine: 1024 seen; none'


def test_a_grade_is_known():
    assert GRADES.index('note') < GRADES.index('warning')
    with pytest.raises(ValueError, match="grade='bad'"):
        Finding('up', 'bad', 'nothing')


def test_reading_for_the_doctor_equals_reading(tmp_path):
    write_gaussians(TEDDY, tmp_path / 'bear.spz')
    cloud = read_gaussians(tmp_path / 'bear.spz')
    assert diagnose(tmp_path / 'bear.spz').facts['extent'] == diagnose(cloud).facts['extent']
