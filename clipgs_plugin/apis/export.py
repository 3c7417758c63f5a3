"""Models as files of ONNX, OpenVINO and torch.export, with their input contract as metadata."""
from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipgs_plugin.models.indexed_encoder import IndexedEncoder, encoder_inputs
from clipgs_plugin.structures import GaussianBatch, GaussianCloud
from clipgs_plugin.version import __version__

SUFFIXES = {'onnx': '.onnx', 'openvino': '.xml', 'torch': '.pt2'}
PACKAGES = {'onnx': ('onnx', 'onnxscript', 'onnxruntime'), 'openvino': ('onnx', 'onnxscript', 'openvino'), 'torch': ()}
TOLERANCE = 1e-3  # of a component of a unit embedding
METADATA_FILE = 'metadata.json'
PREFIX = 'clipgs.'  # of a name in the metadata of a file; its value is JSON
FRAME = ('right-handed, y up, centred on the mean of the means, in the unit sphere; means and log_scales are '
         'normalised together')
CHANNELS = ('x y z, sRGB r g b in [0, 1], opacity logit, log scale of each axis, quaternion w x y z of any length; '
            'float32')

Runner = Callable[[Mapping[str, Tensor]], Tensor]  # from the inputs by name to embeddings


def export_model(model: nn.Module, path: str | Path, objects: list[GaussianCloud], format: str = 'onnx') -> float:
    """Write a model as one file, and compare what the file computes with the model.

    The graph begins at patches that are given as indices; see :class:`IndexedEncoder`. Number of objects, Gaussians
    and patches are free. Its inputs are those of :func:`encoder_inputs`, its output is ``embedding``, (B, E), not
    normalised. The file replaces another only if it is right.

    Args:
        model: A :class:`CLIPGS` of :func:`clipgs_plugin.get_model`, in eval mode, in float32, on the CPU.
        path: File to write: ``.onnx``, ``.xml`` of OpenVINO with the weights in a ``.bin`` beside it, or ``.pt2``.
        objects: Two or more prepared objects to compare, as ``CLIPGSInferencer.prepare`` returns them.
        format: ``'onnx'``, ``'openvino'`` or ``'torch'``.

    Returns:
        Largest difference between a component of unit embeddings by the file and by the model. The objects are
        compared in a batch and alone.

    Raises:
        ImportError: A package is missing.
        ValueError: The model has no encoder with a GSTokenizer, the name of the file does not have the format's
            suffix, or the embeddings differ by more than ``TOLERANCE``.
    """
    path = Path(path)
    require_packages(format)
    if path.suffix != SUFFIXES[format]:
        raise ValueError(f'{path}: expected a name that ends in {SUFFIXES[format]} for the format {format}')
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f'{path}: its folder does not exist, create it first')
    network = IndexedEncoder(getattr(model, 'encoder', model)).eval()
    batches = [GaussianBatch.from_clouds(objects), *(GaussianBatch.from_clouds([cloud]) for cloud in objects)]
    with TemporaryDirectory(prefix='.export-', dir=path.absolute().parent) as folder, torch.no_grad():
        draft = Path(folder) / path.name
        about = {f'{PREFIX}{key}': json.dumps(value) for key, value in metadata(model).items()}
        _WRITERS[format](_trace(network, batches[0]), draft, about)
        run = load_exported(draft)
        difference = max(_difference(run(encoder_inputs(network.encoder, batch)), network.encoder(batch))
                         for batch in batches)
        if not difference <= TOLERANCE:
            raise ValueError(f'{path}: not written, since its embeddings differ from those of the model by '
                             f'{difference:.2g}, expected at most {TOLERANCE:g}; try another format or version of '
                             f'{" and ".join(PACKAGES[format]) or "torch"}')
        for file in Path(folder).iterdir():
            file.replace(path.parent / file.name)
    return difference


def require_packages(format: str) -> None:
    """Check that the packages of a format are installed.

    Raises:
        ImportError: A package is missing.
        ValueError: The format is unknown.
    """
    if format not in SUFFIXES:
        raise ValueError(f'format={format!r}: expected one of {sorted(SUFFIXES)}')
    missing = [name for name in PACKAGES[format] if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f'export to {format} needs {", ".join(missing)}, of the extra "export"; install it with '
                          f'pip install {" ".join(missing)}')


def metadata(model: nn.Module) -> dict:
    """Describe a model and its input in plain data, for a program without this library."""
    encoder = getattr(model, 'encoder', model)
    tokenizer, cfg = encoder.tokenizer, getattr(model, 'cfg', {})
    refined = tokenizer.refinement is not None
    teacher = cfg.get('teacher') or {}
    pipeline = [] if not cfg else cfg.test_dataloader.dataset.pipeline
    values = {
        'name': getattr(model, 'name', type(encoder).__name__), 'version': f'clipgs_plugin {__version__}',
        'teacher': encoder.teacher or teacher.get('model'), 'embed_dim': encoder.embed_dim,
        'frame': FRAME, 'channels': CHANNELS, 'num_groups': tokenizer.num_groups, 'group_size': tokenizer.group_size,
        'start': tokenizer.start, 'rule': tokenizer.rule, 'radius': tokenizer.radius,
        'orders': list(tokenizer.orders) if refined else [], 'combine': tokenizer.combine if refined else None,
        'pipeline': [dict(step) for step in pipeline]}
    if hasattr(model, 'logit_scale'):
        values['logit_scale'] = float(model.logit_scale.detach().exp())
    return values


def load_exported(path: str | Path) -> Runner:
    """Load a file of :func:`export_model` as a function from inputs by name to embeddings (B, E).

    Raises:
        ValueError: The suffix is unknown.
    """
    path = Path(path)
    loaders = {SUFFIXES[format]: loader for format, loader in _LOADERS.items()}
    if path.suffix not in loaders:
        raise ValueError(f'{path}: expected a name that ends in one of {sorted(loaders)}')
    return loaders[path.suffix](path)


def read_exported_metadata(path: str | Path) -> dict:
    """Read the :func:`metadata` in a file of :func:`export_model`."""
    path = Path(path)
    if path.suffix == SUFFIXES['onnx']:
        import onnx
        found = {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
    elif path.suffix == SUFFIXES['openvino']:
        import openvino
        info = openvino.Core().read_model(path).get_rt_info()
        found = {key: info[key].astype(str) for key in info if key.startswith(PREFIX)}
    else:
        files = {METADATA_FILE: ''}
        torch.export.load(path, extra_files=files)
        found = json.loads(files[METADATA_FILE])
    return {key.removeprefix(PREFIX): json.loads(value) for key, value in found.items() if key.startswith(PREFIX)}


def _trace(network: IndexedEncoder, batch: GaussianBatch) -> torch.export.ExportedProgram:
    """Trace the graph with free numbers of objects, Gaussians and patches."""
    inputs = encoder_inputs(network.encoder, batch)
    objects, gaussians, groups = (torch.export.Dim(name) for name in ('objects', 'gaussians', 'groups'))
    sizes = {name: {0: objects, 1: gaussians if name == 'gaussians' else groups} for name in inputs}
    return torch.export.export(network, (), kwargs=inputs, dynamic_shapes=sizes)


def _write_onnx(program: torch.export.ExportedProgram, path: Path, about: dict[str, str]) -> None:
    exported = torch.onnx.export(program, dynamo=True, verbose=False, output_names=['embedding'])
    exported.model.metadata_props.update(about)
    exported.save(str(path))


def _write_openvino(program: torch.export.ExportedProgram, path: Path, about: dict[str, str]) -> None:
    import openvino

    with TemporaryDirectory() as folder:
        _write_onnx(program, Path(folder) / 'model.onnx', {})
        model = openvino.convert_model(str(Path(folder) / 'model.onnx'))
        for key, value in about.items():
            model.set_rt_info(value, [key])
        openvino.save_model(model, str(path), compress_to_fp16=False)


def _write_torch(program: torch.export.ExportedProgram, path: Path, about: dict[str, str]) -> None:
    torch.export.save(program, path, extra_files={METADATA_FILE: json.dumps(about)})


def _load_onnx(path: Path) -> Runner:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return lambda inputs: torch.from_numpy(session.run(None, _arrays(inputs))[0])


def _load_openvino(path: Path) -> Runner:
    import openvino

    # By default OpenVINO computes in bfloat16 where the processor is fast at it.
    compiled = openvino.compile_model(str(path), 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    return lambda inputs: torch.from_numpy(compiled(_arrays(inputs))[0].copy())


def _load_torch(path: Path) -> Runner:
    module = torch.export.load(path).module()
    return lambda inputs: module(**inputs)


def _arrays(inputs: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in inputs.items()}


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((F.normalize(found, dim=-1) - F.normalize(expected, dim=-1)).abs().max())


_WRITERS = {'onnx': _write_onnx, 'openvino': _write_openvino, 'torch': _write_torch}
_LOADERS = {'onnx': _load_onnx, 'openvino': _load_openvino, 'torch': _load_torch}
