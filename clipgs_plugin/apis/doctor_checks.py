"""Checks of a splat object, one function each; docs/doctor.md has the source of each threshold."""
from __future__ import annotations

import numpy as np

from clipgs_plugin.apis.attributes import attribute_quantiles
from clipgs_plugin.apis.doctor_expectations import Expectations
from clipgs_plugin.apis.doctor_findings import check
from clipgs_plugin.apis.doctor_subject import FLOATERS, NEEDLE, OPAQUE, VISIBLE, Plane, Subject, nearest_axis
from clipgs_plugin.apis.upright import estimate_up
from clipgs_plugin.datasets.transforms import build_pipeline

FEW = 200                                # visible Gaussians that still show an object, without a model
TRANSPARENT = {'note': 0.4, 'warning': 0.7}
SATURATED = 0.5
NEEDLES, LEAVES = {'note': 0.4, 'warning': 0.7}, 0.95
GAMUT, OUTSIDE = 0.25, {'note': 0.02, 'warning': 0.1}
GREY, GREYS = 0.01, 0.99
COPIES = 0.1
PART = 0.05                              # share of the second part
PLANE_SHARE, PLANE_SIDE, OVERHANG = 0.15, 0.9, 1.4
FAR_ORIGIN = 1e4                         # extents; float32 then resolves 1e-3 extents
MARGIN = 0.1                             # of the range of a trained attribute
ENOUGH = 50                              # Gaussians below which neither floaters, parts nor planes are sought

Verdict = tuple[str, ...] | None


def _percent(share: float) -> str:
    return f'{100 * share:.3g} %'


def _grade(share: float, thresholds: dict[str, float]) -> str:
    """Return the worst grade whose threshold a share reaches."""
    return max((grade for grade, least in thresholds.items() if share >= least), key=thresholds.get, default='ok')


@check('count')
def count(subject: Subject, model: Expectations) -> Verdict:
    """Check for enough visible Gaussians to show an object and to fill the patches of the model."""
    found = int((subject.opacities >= VISIBLE).sum())
    least = max(model.num_groups or 0, model.group_size or 0) or FEW
    what = f'{found:,} visible Gaussians'
    if found < least:
        why = (f'{model.name} forms {model.num_groups} patches of {model.group_size}, so they repeat'
               if model.num_groups else 'they hardly show an object')
        return 'warning', f'{what}, expected at least {least}', why, 'fit the object again with more Gaussians'
    if model.num_points and found < model.num_points:
        return 'note', what, f'{model.name} was trained with {model.num_points:,}, so its patches overlap more'
    if model.num_points:
        return 'ok', f'{what}; {model.name} reads {model.num_points:,}'
    return 'ok', what


@check('position')
def position(subject: Subject, model: Expectations) -> Verdict:
    """Check that positions differ, and by more than the resolution of float32."""
    if len(subject.cloud) > 1 and not subject.distances.any():
        return 'warning', 'all positions coincide', 'the object has no shape', 'export it again'
    origin = float(np.abs(np.median(subject.visible.means.double().numpy(), axis=0)).max()) / subject.extent
    if origin > FAR_ORIGIN:
        return ('warning', f'the object lies {origin:.3g} of its extents from the origin',
                'float32 positions lose its shape', 'move it to the origin before it is exported')
    return 'ok', f'extent {subject.extent:.4g} in units of the file'


@check('floaters')
def floaters(subject: Subject, model: Expectations) -> Verdict:
    """Check for isolated Gaussians; a few are dropped by the pipelines of the configs."""
    if len(subject.visible) < ENOUGH:
        return None
    found, total = int(subject.isolated.sum()), len(subject.visible)
    if not found:
        return 'ok', 'none'
    farthest = float(subject.distances[subject.isolated].max()) / subject.extent
    return _dropped_or_not(
        subject, f'{found:,} of {total:,} Gaussians ({_percent(found / total)}) are isolated, up to {farthest:.3g} '
        'extents away', 'they shrink the object in the unit sphere')


@check('huge')
def huge(subject: Subject, model: Expectations) -> Verdict:
    """Check for Gaussians larger than the object."""
    found, total = int(subject.huge.sum()), len(subject.visible)
    largest = float(subject.sizes[:, 2].max())
    if not found or total < ENOUGH:
        return 'ok', f'largest standard deviation {largest:.2g} extents'
    return _dropped_or_not(
        subject, f'{found:,} of {total:,} Gaussians ({_percent(found / total)}) are larger than the object, up to '
        f'{largest:.3g} extents', 'they cover it in every view')


def _dropped_or_not(subject: Subject, what: str, why: str) -> Verdict:
    """Grade Gaussians by the rule of DropFloaters, which drops huge and isolated ones if both are few."""
    stray = int((subject.huge | subject.isolated).sum())
    if stray <= int(FLOATERS.max_share * len(subject.visible)):
        return 'note', what, why, 'nothing to do: DropFloaters of the configs drops them'
    return ('warning', what, f'{why}; they are too many for DropFloaters',
            '--crop X0,Y0,Z0,X1,Y1,Z1 or --largest-cluster of tools/embed.py')


@check('transparency')
def transparency(subject: Subject, model: Expectations) -> Verdict:
    """Check the share of nearly invisible Gaussians."""
    share = subject.transparent
    what = f'{_percent(share)} of the Gaussians are nearly invisible (opacity below {VISIBLE})'
    grade = _grade(share, TRANSPARENT)
    if grade == 'ok':
        return grade, what
    if grade == 'note':
        return grade, what, 'nothing to do: FilterOpacity of the configs drops them'
    return (grade, what, 'FilterOpacity of the configs drops them, and what is left may not show the object',
            'look at --sheet, and fit the object again if it misses parts')


@check('saturation')
def saturation(subject: Subject, model: Expectations) -> Verdict:
    """Check the share of opaque Gaussians."""
    share = subject.opaque
    what = f'{_percent(share)} of the Gaussians are opaque (opacity above {OPAQUE})'
    if share < SATURATED or model.points_only:
        return 'ok', what
    return 'note', what, 'opacity then says nothing, and an encoder of other splats may not know such values'


@check('shape')
def shape(subject: Subject, model: Expectations) -> Verdict:
    """Check the shares of needles and of leaves, which some fitters produce."""
    needles, leaves = subject.needles, subject.leaves
    what = f'{_percent(needles)} needles (longest axis over {NEEDLE} times the middle one), {_percent(leaves)} leaves'
    grade = _grade(needles, NEEDLES)
    if grade != 'ok':
        return (grade, what, 'positions of needles are far apart and say little of the surface',
                'fit the object again with a limit of anisotropy')
    if leaves >= LEAVES:
        return 'note', what, 'flat Gaussians of a surface fitter; an encoder of other splats may not know them'
    return 'ok', what


@check('duplicates')
def duplicates(subject: Subject, model: Expectations) -> Verdict:
    """Check for Gaussians with all values equal."""
    share = subject.copies / len(subject.cloud)
    if not subject.copies:
        return 'ok', 'none'
    return ('warning' if share >= COPIES else 'note',
            f'{subject.copies:,} Gaussians ({_percent(share)}) repeat another one exactly',
            'copies take the places of others in a sample',
            'export the file again; it may have been merged with itself')


@check('colour')
def colour(subject: Subject, model: Expectations) -> Verdict:
    """Check that colours exist and lie in the gamut."""
    if not model.reads_color:
        return 'ok', f'{model.name} reads no colour'
    colors = subject.colors
    outside = float(((colors < -GAMUT) | (colors > 1 + GAMUT)).any(1).mean())
    low, high = np.quantile(colors, (0.01, 0.99)).round(2)
    what = f'98 % of the values lie in {low + 0.0:.2f} to {high:.2f}'
    grade = _grade(outside, OUTSIDE)
    if grade != 'ok':
        return (grade, f'{what}, {_percent(outside)} of the Gaussians far outside of 0 to 1', 'they are clamped',
                'export colours as SH coefficients (RGB - 0.5) / 0.2821, not as logits or bytes')
    clamped = colors.clip(0, 1)
    grey = float((np.ptp(clamped, axis=1) < GREY).mean())
    if len(colors) >= ENOUGH and float(np.ptp(np.quantile(clamped, (0.01, 0.99), axis=0), axis=0).max()) < GREY:
        missing = grey >= GREYS
        rgb = ', '.join(f'{value:.2f}' for value in clamped.mean(0))
        return ('warning' if missing else 'note', f'all Gaussians have one colour, RGB {rgb}',
                'the colour is missing, or a placeholder' if missing else 'only the shape differs between its parts',
                'export the file again with f_dc' if missing else '')
    if grey >= GREYS:
        return ('note', f'{what}; {_percent(grey)} of the Gaussians are grey',
                'the object has no hue, or its file lost it')
    return 'ok', what


def _stands_on(plane: Plane) -> bool:
    """Tell a table or floor from a side of the object, by its width and by what lies on its two sides."""
    return plane.share >= PLANE_SHARE and plane.one_sided >= PLANE_SIDE and plane.overhang >= OVERHANG


@check('surroundings')
def surroundings(subject: Subject, model: Expectations) -> Verdict:
    """Check for a plane that the object stands on."""
    plane = subject.plane
    if plane is None:
        return None
    what = f'the largest plane holds {_percent(plane.share)} of the Gaussians'
    if not _stands_on(plane):
        return 'ok', f'{what} and is part of the object'
    return ('warning', f'{what}, with {_percent(plane.one_sided)} of the others on one side, and is '
            f'{plane.overhang:.2g} times as wide as they are', 'a table or floor is embedded with the object',
            '--remove-plane of tools/embed.py')


@check('parts')
def parts(subject: Subject, model: Expectations) -> Verdict:
    """Check for several separate objects."""
    if len(subject.visible) < ENOUGH:
        return None
    shares = subject.parts[subject.parts >= PART]
    if len(shares) < 2:
        return 'ok', 'one'
    return ('note', f'{len(shares)} separate parts of {", ".join(_percent(share) for share in shares[:5])}',
            'several objects get one embedding', '--largest-cluster of tools/embed.py keeps the first')


@check('up')
def up(subject: Subject, model: Expectations) -> Verdict:
    """Name the up axis by the plane that the object stands on, or by an estimate, which is often wrong."""
    plane = subject.plane
    if plane is None:
        return None
    why = 'models expect y, and the answers for a lying object differ'
    if not _stands_on(plane):
        axis, confidence, _ = estimate_up(subject.visible)
        return ('note', f'the file does not record the up axis, by its shape perhaps {axis} (confidence '
                f'{confidence:.2f})', why, 'look at --sheet, then embed with --up AXIS; --up auto takes the estimate, '
                'right for about half of the objects, and --turns 12 averages over turns about it')
    axis = nearest_axis(plane.normal)
    if axis == 'y':
        return 'ok', 'y, since the object stands on a plane'
    return 'warning', f'likely {axis}, since the object stands on a plane', why, f'--up {axis} of tools/embed.py'


@check('attributes')
def attributes(subject: Subject, model: Expectations) -> Verdict:
    """Compare the attributes with those of the objects that the model was trained on."""
    if not model.attributes or model.pipeline is None:
        return None
    # The reading step is done, and the generator fixed, so that the result depends on the object alone.
    prepare = build_pipeline(model.pipeline)
    results = {'gaussians': subject.cloud, 'rng': np.random.default_rng(0), 'index': 0, 'epoch': 0}
    found = attribute_quantiles(prepare(results)['inputs'])
    outside = [line for name, levels in model.attributes.items()
               if (line := _outside(name, found[name]['0.5'], levels['0.5']))]
    if not outside:
        return 'ok', f'medians lie within those of the objects {model.name} was trained on'
    return ('warning', '; '.join(outside), f'{model.name} was trained on other values, so its answers may mean little',
            'use a published model, which reads points only (python tools/list_models.py), or train on such splats')


def _outside(name: str, value: float, trained: tuple[float, float]) -> str:
    """Describe a value outside of the trained range and its margin, or return an empty string."""
    low, high = trained
    margin = max(MARGIN * (high - low), 1e-3)
    inside = low - margin <= value <= high + margin
    return '' if inside else f'median {name} {value:.3g}, trained {low:.3g} to {high:.3g}'
