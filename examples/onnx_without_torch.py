"""Embed a splat by an .onnx of tools/export.py with numpy, plyfile and onnxruntime alone.

    python examples/onnx_without_torch.py MODEL FILE

FILE is an INRIA .ply with y up. Patches are those of the library. Of its pipeline, floaters are not dropped here.
"""
import json
import sys

import numpy as np
import onnxruntime
import plyfile


def squared(a, b):
    d = a - b
    return (d[..., 0] * d[..., 0] + d[..., 1] * d[..., 1]) + d[..., 2] * d[..., 2]  # float32, in the library's order


def farthest(points, count, start):
    from_center = squared(points, points.mean(0, dtype=np.float64).astype(np.float32))
    picks = [int(from_center.argmax()) if start == 'farthest' else start]
    distance = np.full(len(points), np.inf, np.float32)
    while len(picks) < min(count, len(points)):
        distance = np.minimum(distance, squared(points, points[picks[-1]]))
        picks.append(int(distance.argmax()))
    return np.array(picks)


def curve_keys(points, curve, bits=10):  # points (G, K, 3), each patch in its own bounding box
    extent = np.ptp(points, 1, keepdims=True)
    cells = (points - points.min(1, keepdims=True)) / np.where(extent > 0, extent, 1) * 2 ** bits
    axes = np.moveaxis(np.minimum(cells.astype(np.int64), 2 ** bits - 1), -1, 0).copy()
    if curve == 'xyz':
        return axes[0] << 2 * bits | axes[1] << bits | axes[2]
    if curve == 'hilbert':  # Skilling, "Programming the Hilbert curve", 2004
        for bit in range(bits - 1, 0, -1):
            mask = (1 << bit) - 1
            for axis in axes:
                invert = (axis >> bit & 1) * mask
                exchange = (axes[0] ^ axis) & (invert ^ mask)
                axes[0] ^= invert | exchange
                axis ^= exchange
        axes = np.bitwise_xor.accumulate(axes)
        axes ^= np.bitwise_xor.reduce([(axes[2] >> bit & 1) * ((1 << bit) - 1) for bit in range(1, bits)])
    return sum((axis >> bit & 1) << 3 * bit + 2 - i for bit in range(bits) for i, axis in enumerate(axes))


def patches(rows, about):  # rows (N, 14) of one object, sampled and in the unit sphere
    start = about['start']
    if start in ('farthest', 'random'):  # sorted by position, so that the order of the file does not matter
        rows, start = rows[np.lexsort(rows[:, 2::-1].T)], 'farthest'
    centers = farthest(rows[:, :3], about['num_groups'], start)
    nearest = squared(rows[centers, None, :3], rows[:, :3]).argsort(1, kind='stable')
    neighbors = nearest[:, np.arange(about['group_size']) % len(rows)]
    inputs = dict(gaussians=rows, center_idx=centers, neighbor_idx=neighbors)
    local = rows[neighbors, :3] - rows[centers, None, :3]
    if about['orders']:
        inputs['orders'] = np.stack([curve_keys(local, curve).argsort(kind='stable') for curve in about['orders']], 1)
    return {name: value[None] for name, value in inputs.items()}


if __name__ == '__main__':
    session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])
    about = {key[7:]: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    steps = {step['type'].rpartition('.')[2]: step for step in about['pipeline']}
    if 'SampleGaussians' not in steps or about['radius'] or about['combine'] == 'turn' or about['rule'] != 'exact':
        raise SystemExit(f'{sys.argv[1]}: make its inputs with clipgs_plugin.models.encoder_inputs')
    vertices = plyfile.PlyData.read(sys.argv[2])['vertex']
    names = ['x', 'y', 'z', *(f'f_dc_{i}' for i in range(3)), 'opacity', *(f'scale_{i}' for i in range(3)),
             *(f'rot_{i}' for i in range(4))]
    rows = np.stack([vertices[name] for name in names], -1).astype(np.float32)
    rows[:, 3:6] = np.clip(0.5 + 0.28209479177387814 * rows[:, 3:6], 0, 1)   # the DC band of SH as sRGB
    rows = rows[1 / (1 + np.exp(-rows[:, 6])) >= steps['FilterOpacity']['threshold']]
    rows = rows[farthest(rows[:, :3], steps['SampleGaussians']['num'], 'farthest')]
    rows[:, :3] -= rows[:, :3].mean(0, dtype=np.float64)
    radius = np.sqrt(squared(rows[:, :3], np.float32(0)).max())
    rows[:, :3], rows[:, 7:10] = rows[:, :3] / radius, rows[:, 7:10] - np.log(radius)
    print(*session.run(None, patches(rows, about))[0][0])
