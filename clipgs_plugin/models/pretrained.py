"""Models as folders and repositories of the Hugging Face hub: ``config.json``, ``model.safetensors``, ``README.md``.

The methods have the names and arguments of huggingface_hub's ``ModelHubMixin``. That class is not a base of ours: it
would read the config without limits, load weights of other shapes without an error, and fall back to pickled files.
"""
from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from torch import nn

from clipgs_plugin.io.files import refuse_damage, write_whole
from clipgs_plugin.io.safe_load import check_finite
from clipgs_plugin.models.checkpoints.reading import read_checkpoint, read_metadata
from clipgs_plugin.models.model_card import MARK, model_card
from clipgs_plugin.models.shared_config import read_shared_config, to_plain
from clipgs_plugin.registry import MODELS, SCOPE

CONFIG, WEIGHTS, CARD = FILES = 'config.json', 'model.safetensors', 'README.md'
HUB = 'hf-hub:'
_REPOSITORY = re.compile(r'[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w.-]+)?', re.ASCII)
_FILES_OF_USERS = ('.py', '.pth', '.pt', '.ckpt', '.bin', '.safetensors')  # no names of repositories


class Pretrained:
    """Mixin of models that are saved to folders and shared on the Hugging Face hub."""

    def save_pretrained(self, save_directory: str | Path, *, repo_id: str | None = None, push_to_hub: bool = False,
                        model_card_kwargs: Mapping[str, Any] | None = None, **push_to_hub_kwargs) -> str | None:
        """Save weights, config and model card to a folder.

        The config is plain data: architecture, pipeline that prepares objects, name of the teacher, and the class names
        of a classifier.

        Args:
            save_directory: Folder, made if absent. Files in it that this library did not write are not replaced.
            repo_id: Repository ``owner/name`` on the hub; the card shows it, by default the name of the folder.
            push_to_hub: Upload the folder to ``repo_id`` as well.
            model_card_kwargs: Any of ``license``, ``data`` (a description), ``metrics`` (numbers by name) and
                ``quantiles`` (of :func:`clipgs_plugin.apis.attributes.attribute_ranges`).
            push_to_hub_kwargs: Further arguments of :func:`upload`.

        Returns:
            URL of the commit if uploaded.

        Raises:
            ValueError: The model has no ``cfg``, its config is no plain data, or a classifier has no class names.
            FileExistsError: The folder holds another model's files.
        """
        folder = Path(save_directory)
        if push_to_hub and repo_id is None:
            raise ValueError('push_to_hub=True needs the repository; give repo_id=\'owner/name\'')
        save_pretrained(self, folder, repo_id or folder.resolve().name, model_card_kwargs)
        return upload(folder, repo_id, **push_to_hub_kwargs) if push_to_hub else None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, *, force_download: bool = False,
                        token: str | bool | None = None, cache_dir: str | Path | None = None,
                        local_files_only: bool = False, revision: str | None = None) -> nn.Module:
        """Load a model from a folder or from the hub, in eval mode.

        Nothing of the folder runs, and only registered types are built.

        Args:
            pretrained_model_name_or_path: Folder, ``owner/name`` or ``hf-hub:owner/name``.
            force_download, token, cache_dir, local_files_only, revision: Arguments of ``hf_hub_download``.

        Raises:
            FileNotFoundError: There is no such folder or repository, or a file of it is missing.
            ValueError: A file is damaged, names a type that is not registered, or does not fit the others.
        """
        options = dict(force_download=force_download, token=token, cache_dir=cache_dir,
                       local_files_only=local_files_only, revision=revision)
        model = load_pretrained(pretrained_model_name_or_path, **options)
        if not isinstance(model, cls):
            raise ValueError(f'{pretrained_model_name_or_path} holds a {type(model).__name__}, not a {cls.__name__}; '
                             'load it with get_model')
        return model

    def push_to_hub(self, repo_id: str, *, model_card_kwargs: Mapping[str, Any] | None = None,
                    **upload_kwargs) -> str:
        """Upload the model to a repository of the hub, which is made if absent.

        Args:
            repo_id: Repository, ``owner/name``.
            model_card_kwargs: See :meth:`save_pretrained`.
            upload_kwargs: Arguments of :func:`upload`.

        Returns:
            URL of the commit.
        """
        with TemporaryDirectory() as folder:
            return str(self.save_pretrained(folder, repo_id=repo_id, push_to_hub=True,
                                            model_card_kwargs=model_card_kwargs, **upload_kwargs))


def save_pretrained(model: nn.Module, folder: Path, name: str, about: Mapping[str, Any] | None = None) -> None:
    """Save a model that was built from its ``cfg``; see :meth:`Pretrained.save_pretrained`."""
    from safetensors.torch import save

    if not hasattr(model, 'cfg'):
        raise ValueError(f'the {type(model).__name__} has no cfg with its architecture and pipeline; build it with '
                         'get_model, or set model.cfg to the config it was built from')
    config = to_plain(model.cfg)
    if hasattr(model, 'classes'):
        if model.classes is None:
            raise ValueError(f'the {type(model).__name__} has no class names; set model.classes to the names in the '
                             'order of their labels, or name them as model.classes of the config')
        config['model']['classes'] = list(model.classes)
    card = {**model.cfg.get('card', {}), **(about or {})}
    unknown = sorted(card.keys() - {'license', 'data', 'metrics', 'quantiles'})
    if unknown:
        raise ValueError(f'model_card_kwargs has {unknown}, expected some of license, data, metrics and quantiles')
    config['card'] = card
    content = json.dumps(config, indent=2, allow_nan=False).encode()
    width = getattr(getattr(model, 'encoder', None), 'embed_dim', None)
    scale = getattr(model, 'logit_scale', None)
    text = model_card(name, config, width, sum(p.numel() for p in model.parameters()),
                      None if scale is None else float(scale.detach().exp()))
    # Copies, since safetensors refuses tensors that share memory.
    state = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
             for key, value in model.state_dict().items()}
    check_finite(state, name)
    folder.mkdir(parents=True, exist_ok=True)
    _check_ours(folder)
    # The config goes first and comes last, so that a killed save never looks complete.
    (folder / CONFIG).unlink(missing_ok=True)
    # One entry of metadata, because safetensors writes several in random order.
    write_whole(folder / WEIGHTS, [save(state, {'library': SCOPE})])
    if not (folder / CARD).exists() or MARK in (folder / CARD).read_text(encoding='utf-8', errors='replace'):
        write_whole(folder / CARD, [text.encode()])
    write_whole(folder / CONFIG, [content])


def _check_ours(folder: Path) -> None:
    """Refuse a folder whose config or weights this library did not write."""
    from safetensors import SafetensorError

    try:
        if (folder / CONFIG).exists():
            read_shared_config(folder / CONFIG)
        ours = not (folder / WEIGHTS).exists() or read_metadata(folder / WEIGHTS).get('library') == SCOPE
    except (ValueError, SafetensorError):
        ours = False
    if not ours:
        raise FileExistsError(f'{folder} holds {CONFIG} or {WEIGHTS} of another program or model; name another folder')


def upload(folder: Path, repo_id: str, *, commit_message: str = 'Upload model with clipgs_plugin',
           private: bool | None = None, token: str | None = None, branch: str | None = None,
           create_pr: bool | None = None) -> str:
    """Upload the three files of a saved model, and no other file of its folder, in one commit.

    Args:
        folder: Folder of :func:`save_pretrained`.
        repo_id: Repository, ``owner/name``, made if absent.
        commit_message, private, token, branch, create_pr: Arguments of huggingface_hub's ``ModelHubMixin``.

    Returns:
        URL of the commit.

    Raises:
        ConnectionError: The hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(token=token, library_name=SCOPE)
    try:
        repo_id = api.create_repo(repo_id=repo_id, private=private, exist_ok=True).repo_id
        return str(api.upload_folder(repo_id=repo_id, repo_type='model', folder_path=folder, revision=branch,
                                     commit_message=commit_message, create_pr=create_pr, allow_patterns=list(FILES)))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ConnectionError(f'{repo_id}: not uploaded ({_first_line(error)}); log in with "hf auth login", check '
                              f'the name and the network; the model is in {folder}') from error


def is_repository(name: str) -> bool:
    """Check whether a name has the form ``owner/name`` or ``hf-hub:owner/name``, perhaps with ``@revision``."""
    return name.startswith(HUB) or (bool(_REPOSITORY.fullmatch(name)) and not name.endswith(_FILES_OF_USERS))


def pretrained_config(name: str | Path, **hub: Any) -> Config:
    """Read the config of a folder or repository, without its weights; see :func:`load_pretrained`."""
    return read_shared_config(_find(name, CONFIG, hub))


def load_pretrained(name: str | Path, weights: Path | None = None, **hub: Any) -> nn.Module:
    """Load a model from a folder or repository; see :meth:`Pretrained.from_pretrained`.

    Args:
        name: Folder, ``owner/name`` or ``hf-hub:owner/name``, the latter perhaps with ``@revision``.
        weights: Checkpoint that replaces the shared weights.
        hub: Options of ``hf_hub_download``.
    """
    cfg = pretrained_config(name, **hub)
    path, weights = _find(name, CONFIG, hub), weights or _find(name, WEIGHTS, hub)
    with refuse_damage(path, 'config of a model'):
        _check_size(cfg, path, weights)
        model = MODELS.build(cfg.model)
    load_weights(model, weights)
    for module in model.modules():
        if isinstance(module, BaseModule):
            module.is_init = True  # a Runner that trains the model further keeps its weights
    model.cfg, model.name = cfg, str(name).rstrip('/')
    return model.eval()


def _check_size(cfg: Config, path: Path, weights: Path) -> None:
    """Refuse a config of a model that its weights cannot fill, before memory is allocated for it."""
    try:
        with torch.device('meta'):
            numbers = sum(value.numel() for value in MODELS.build(cfg.model).state_dict().values())
    except MemoryError as error:
        raise ValueError(f'{path} describes a model that exceeds the memory; download it again') from error
    held = weights.stat().st_size
    if numbers > held:
        read_checkpoint(weights)  # damaged weights have an error of their own
        raise ValueError(f'{path} describes a model of {numbers:,} numbers, but {weights} has {held:,} bytes; download '
                         'both again')


def _find(name: str | Path, file: str, hub: Mapping[str, Any]) -> Path:
    """Find a file of a shared model, in its folder, in the hub's cache or on the hub."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / file).is_file():
            raise FileNotFoundError(f'{folder} has no regular file {file}; give a folder that save_pretrained or '
                                    'tools/share.py wrote, or a config and a checkpoint')
        return folder / file
    if not is_repository(str(name)):
        raise FileNotFoundError(f'{name} is neither a folder nor a repository of the hub; expected a path or '
                                f'{HUB}owner/name')
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    repo, _, revision = str(name).removeprefix(HUB).partition('@')
    try:
        return Path(hf_hub_download(repo_id=repo, filename=file, library_name=SCOPE,
                                    **{**hub, 'revision': hub.get('revision') or revision or None}))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise FileNotFoundError(f'{name}: no folder of this name, and {file} was not found in the hub\'s cache or on '
                                f'the hub ({_first_line(error)}); check the name and the network, or copy the '
                                'repository to a folder and name that') from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f'{type(error).__name__}: {lines[0][:160]}' if lines else type(error).__name__


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a whole checkpoint.

    Raises:
        ValueError: Tensors are missing, unexpected, of another shape or not finite; the message names them.
    """
    state = read_checkpoint(path)
    expected = model.state_dict()
    # Older files hold logit_scale as a scalar, the model holds it with shape (1,).
    state = {key: value.view_as(expected[key]) if key in expected and value.numel() == expected[key].numel() == 1
             else value for key, value in state.items()}
    reshaped = [key for key in expected if key in state and state[key].shape != expected[key].shape]
    wrong = {
        'missing': sorted(expected.keys() - state.keys()),
        'unexpected': sorted(state.keys() - expected.keys()),
        'of another shape': [f'{key} {tuple(state[key].shape)} for {tuple(expected[key].shape)}' for key in reshaped],
    }
    if any(wrong.values()):
        counts = '; '.join(f'{len(keys)} {kind} ({", ".join(keys[:3])}{", ..." if len(keys) > 3 else ""})'
                           for kind, keys in wrong.items() if keys)
        raise ValueError(f'{path} does not fit the model: {counts}; is it the checkpoint of this config?')
    check_finite(state, path)
    model.load_state_dict({key: value.to(expected[key].dtype) for key, value in state.items()})
