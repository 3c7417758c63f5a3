"""Encoding of Gaussians, views and records as bytes, and decoding."""
from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor

from clipgs_plugin.structures import FIELDS, GaussianCloud

DTYPES = {'float16': torch.float16, 'float32': torch.float32}


def caption_id(caption: str) -> int:
    """Hash a caption to a number in [0, 2^63), the same on every machine and in every run."""
    return int.from_bytes(hashlib.blake2b(caption.encode(), digest_size=8).digest(), 'little') >> 1


def encode_gaussians(cloud: GaussianCloud, dtype: str = 'float16') -> bytes:
    """Encode an object as a safetensors file.

    ``'float32'`` keeps every bit. ``'float16'`` halves the size: positions are stored relative to their mean, in units
    of a power of two that covers the object (tensors ``means_offset`` and ``means_scale``), and quaternions are
    normalised. The decoded values have an error of at most

    - 2^-11 of the distance from the mean in each coordinate of a position,
    - 2^-10 rad in an orientation,
    - 2^-11 of the magnitude in a log scale, opacity logit or SH coefficient,

    plus a float32 rounding. Magnitudes under 2^-14 (of the object's size, for positions) have an error of at most
    2^-25.

    Args:
        cloud: Object of at least one Gaussian, finite.
        dtype: ``'float16'`` or ``'float32'``.

    Returns:
        The bytes of the file, with one tensor per field of the object.

    Raises:
        ValueError: Unknown dtype, an invalid object, or a value out of the range of float16.
    """
    if dtype not in DTYPES:
        raise ValueError(f'dtype={dtype!r}: expected one of {sorted(DTYPES)}')
    tensors = {name: value.detach().cpu() for name, value in cloud.validate().fields()}
    if dtype == 'float16':
        means = tensors['means'].double()
        offset = means.mean(0)
        extent = (means - offset).abs().max()
        scale = 2.0 ** extent.log2().ceil() if extent > 0 else torch.ones_like(extent)
        tensors['means'] = (means - offset) / scale
        tensors['quats'] = torch.nn.functional.normalize(tensors['quats'].double(), dim=-1, eps=0)
        for name, value in tensors.items():
            tensors[name] = value.to(torch.float16)
            if not tensors[name].isfinite().all():
                raise ValueError(f"{name} contains {float(value.abs().max()):.6g}, which is out of the range of "
                                 "float16; write with dtype='float32'")
        tensors.update(means_offset=offset, means_scale=scale)
    return safetensors.torch.save({name: value.contiguous() for name, value in tensors.items()})


def decode_gaussians(data: bytes) -> GaussianCloud:
    """Decode the bytes of :func:`encode_gaussians` to an object, float32 on the CPU."""
    arrays = safetensors.numpy.load(data)  # numpy: waking torch's threads costs more than they save
    if 'means_offset' in arrays:
        arrays['means'] = arrays['means'] * arrays['means_scale'] + arrays['means_offset']  # in float64
    return GaussianCloud(**{name: torch.from_numpy(arrays[name].astype(np.float32)) for name in FIELDS})


def encode_view(view: np.ndarray, quality: int | None = 90) -> bytes:
    """Encode an image as WebP.

    Args:
        view: sRGB image, (H, W, 3) uint8.
        quality: WebP quality, 0 to 100; None is lossless.

    Returns:
        The bytes of the file.
    """
    from PIL import Image
    buffer = io.BytesIO()
    options = dict(lossless=True) if quality is None else dict(quality=quality)
    Image.fromarray(view).save(buffer, 'WEBP', **options)
    return buffer.getvalue()


def decode_view(data: bytes) -> np.ndarray:
    """Decode a WebP image to sRGB, (H, W, 3) uint8."""
    from PIL import Image
    return np.asarray(Image.open(io.BytesIO(data), formats=['WEBP']).convert('RGB'))


def views_array(views: np.ndarray | Tensor | Sequence) -> np.ndarray:
    """Stack the views of one object to an array, (V, H, W, 3) uint8.

    Raises:
        ValueError: The views have another shape or dtype.
    """
    views = np.stack([np.asarray(view) for view in views]) if len(views) else np.zeros((0, 1, 1, 3), np.uint8)
    if views.ndim != 4 or views.shape[-1] != 3 or views.dtype != np.uint8:
        raise ValueError(f'views have shape {views.shape} and dtype {views.dtype}, expected (V, H, W, 3) uint8 sRGB')
    return views


def to_json(value: dict, indent: int | None = None) -> bytes:
    """Encode a value as JSON, with bytes that depend on the value alone."""
    return (json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=indent) + '\n').encode()
