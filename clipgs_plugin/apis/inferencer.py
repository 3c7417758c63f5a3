"""Embeddings of splats, texts and images by a trained model, and zero-shot classification."""
from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from os import PathLike

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

from clipgs_plugin.apis.models import get_model
from clipgs_plugin.apis.sharing import is_folder
from clipgs_plugin.apis.teacher import build_teacher, builds_towers, teacher_name
from clipgs_plugin.datasets.preparation import Gaussians, prepare_object, turned
from clipgs_plugin.datasets.transforms import build_pipeline
from clipgs_plugin.evaluation.class_file import ClassEmbeddings
from clipgs_plugin.io.images import ImageLike, read_image
from clipgs_plugin.models.checkpoints.contract import same_teacher
from clipgs_plugin.models.gs_classifier import GSClassifier
from clipgs_plugin.registry import INFERENCERS
from clipgs_plugin.structures import GaussianBatch, GaussianCloud

PRECISIONS = 'fp32', 'bf16'


@INFERENCERS.register_module()
class CLIPGSInferencer:
    """Embed splats, texts and images into one space.

    Args:
        model: Name of :func:`clipgs_plugin.list_models`, path of a config, config, or built model with a ``cfg``.
        checkpoint: Path of the weights, for configs and for names without weights.
        device: Device to compute on.

    Example:
        >>> clipgs = CLIPGSInferencer('clipgs_toy')
        >>> clipgs.classify(['red_chair.ply'], ['chair', 'table', 'mug'])[0]
        [('chair', 0.97), ('table', 0.02), ('mug', 0.01)]
    """

    def __init__(self, model: str | PathLike | Config | nn.Module, checkpoint: str | PathLike | None = None,
                 device: str | torch.device = 'cpu') -> None:
        self.model = model if isinstance(model, nn.Module) else get_model(model, checkpoint, device)
        if not hasattr(self.model, 'cfg'):
            raise ValueError(f'the {type(self.model).__name__} has no cfg with the pipeline that prepares objects; '
                             'build it with get_model, or set model.cfg to the config it was built from')
        self.name = getattr(self.model, 'name', type(self.model).__name__)
        self.device = torch.device(device)
        # What builds the model anywhere: name and checkpoint, paths as absolute ones; None for what has no name.
        self.origin = _absolute(str(model), checkpoint) if isinstance(model, (str, PathLike)) else None
        self.precision = 'fp32'
        self.transform = build_pipeline(self.model.cfg.test_dataloader.dataset.pipeline)
        self._teachers: dict[str, nn.Module] = {}  # by towers

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.name!r}, {self.device})'

    @property
    def teacher(self) -> nn.Module:
        """Frozen CLIP model of the embedding space, that of the model or built at first use.

        Texts or images alone build one tower of it.
        """
        return self._teacher('both')

    def _teacher(self, towers: str) -> nn.Module:
        """Return a teacher that has some towers; one tower alone if the class of the teacher can build it."""
        whole = self._teachers.get('both') or getattr(self.model, 'teacher', None)
        if whole is not None:
            return whole
        if 'teacher' not in self.model.cfg:
            raise ValueError(f'the config of {self.name} names no teacher, which texts and images need; add '
                             "teacher=dict(type='OpenCLIPTeacher', model=...) to it")
        towers = towers if builds_towers(self.model.cfg) else 'both'
        if towers not in self._teachers:
            self._teachers[towers] = build_teacher(self.model.cfg, towers, self.device)
        return self._teachers[towers]

    def prepare(self, objects: Gaussians, name: str = 'cloud') -> GaussianCloud:
        """Prepare one object by the test pipeline of the config: read, filter, sample, normalise.

        The result depends on the object alone.

        Args:
            objects: Cloud or path.
            name: Name of a cloud in errors; a file is named by its path.

        Raises:
            ValueError: The object holds NaN, infinite values or zero quaternions.
        """
        return prepare_object(self.transform, objects, name)

    @torch.inference_mode()
    def encode(self, clouds: Sequence[GaussianCloud]) -> Tensor:
        """Embed prepared objects in one forward pass.

        Args:
            clouds: Objects of :meth:`prepare`.

        Returns:
            Unit vectors, (n, E), float32 on the CPU. They do not depend on the other objects of the pass.
        """
        batch = GaussianBatch.from_clouds(clouds).to(self.device)
        return nn.functional.normalize(self.model(batch, mode='tensor').float().cpu(), dim=-1)

    def with_precision(self, precision: str) -> CLIPGSInferencer:
        """Return an inferencer that encodes objects with a precision.

        Args:
            precision: ``'fp32'``, or ``'bf16'``, which works on a copy of the model.

        Raises:
            ValueError: The precision is unknown, or the model is a :class:`~clipgs_plugin.models.MultiViewCLIP`,
                whose teacher has a precision of its own.
        """
        if precision not in PRECISIONS:
            raise ValueError(f'precision={precision!r}: expected one of {", ".join(PRECISIONS)}')
        if precision == self.precision:
            return self
        if precision == 'fp32' or not hasattr(self.model, 'encoder'):
            raise ValueError(f'{self.name} cannot be converted from {self.precision} to {precision}; leave the '
                             'precision out')
        other = copy.copy(self)
        other.model, other.precision = copy.deepcopy(self.model), precision
        other.model.encoder.bfloat16()
        return other

    @property
    def embed_dim(self) -> int:
        """Number of values of an embedding."""
        return getattr(self.model, 'encoder', self.model).embed_dim

    def weights_sha256(self) -> str:
        """Return a SHA-256 of the names, shapes and values of the model's weights; empty for a model without any."""
        digest, weights = hashlib.sha256(), self.model.state_dict()
        for name, tensor in sorted(weights.items()):
            digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}'.encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest() if weights else ''

    @torch.inference_mode()
    def embed_gaussians(self, objects: Gaussians | Sequence[Gaussians], batch_size: int = 16, *,
                        turns: int = 1) -> Tensor:
        """Embed objects.

        Args:
            objects: Clouds or paths, one or several, with y up.
            batch_size: Number of objects in a forward pass.
            turns: Number of equal turns about y whose embeddings are averaged. The cost grows in proportion.

        Returns:
            Unit vectors, (n, E), float32 on the CPU.

        Raises:
            ValueError: The number of turns is below 1, or the model is a classifier.
        """
        self.require_embeddings()
        items = _as_list(objects, (GaussianCloud, str, PathLike))
        if turns != 1:
            means = [self.embed_turns(item, turns, batch_size).mean(0) for item in items]
            return self._embed(means, torch.stack, batch_size)
        return self._embed(list(enumerate(items)), lambda chunk: self.encode(
            [self.prepare(item, f'object {i}') for i, item in chunk]), batch_size)

    def require_embeddings(self) -> None:
        """Check that the model embeds.

        Raises:
            ValueError: It is a classifier, whose outputs are no embeddings.
        """
        if isinstance(self.model, GSClassifier):
            raise ValueError(f'{self.name} is a classifier and does not embed into the space of a teacher; call '
                             'classify, or name a CLIPGS')

    def embed_turns(self, item: Gaussians, turns: int, batch_size: int = 16) -> Tensor:
        """Embed one object after each of ``turns`` equal turns about y, as unit vectors, (turns, E)."""
        return self.embed_gaussians(turned(item, turns), batch_size)

    @torch.inference_mode()
    def embed_text(self, texts: str | Sequence[str], batch_size: int = 256) -> Tensor:
        """Embed texts by the teacher as unit vectors, (n, E)."""
        texts = _as_list(texts, str)
        if not all(text.strip() for text in texts):
            raise ValueError('a text to embed is empty')
        return self._embed(texts, lambda chunk: self._teacher('text').encode_text(list(chunk)), batch_size)

    @torch.inference_mode()
    def embed_images(self, images: ImageLike | Sequence[ImageLike], batch_size: int = 64) -> Tensor:
        """Embed images by the teacher as unit vectors, (n, E); the EXIF orientation of photographs is applied.

        Args:
            images: Paths, PIL images or (H, W, 3) uint8 arrays, one or several.
            batch_size: Number of images in a forward pass.
        """
        from PIL import Image

        def embed(chunk: Sequence[ImageLike]) -> Tensor:
            pictures = [read_image(x) for x in chunk]  # a wrong file is reported before a teacher is downloaded
            teacher = self._teacher('image')
            return teacher.encode_image(torch.stack([teacher.preprocess(picture) for picture in pictures]))
        return self._embed(_as_list(images, (str, PathLike, Image.Image, np.ndarray)), embed, batch_size)

    def classes(self, class_names: Sequence[str] | None = None, templates: str | Sequence[str] = 'plain',
                class_embeddings: ClassEmbeddings | str | PathLike | None = None) -> ClassEmbeddings:
        """Embed class names by the text tower, or take their embeddings from a file, without a teacher.

        Args:
            class_names: Names of the classes; None takes all of ``class_embeddings``.
            templates: Name of a prompt set, or templates with ``{}``; embeddings are averaged over them.
            class_embeddings: Embeddings in place of templates and teacher, or the path of their file.

        Raises:
            ValueError: No classes, or embeddings of another width or teacher than the model's.
        """
        from clipgs_plugin.evaluation import prompts
        if class_embeddings is None:
            names = tuple(class_names or ())
            rows = prompts.class_embeddings(self._teacher('text') if names else None, names, templates)
            return ClassEmbeddings(names, rows.cpu(), self.teacher_name)
        found, place = class_embeddings, 'the class embeddings'
        if not isinstance(found, ClassEmbeddings):
            found, place = ClassEmbeddings.load(class_embeddings), str(class_embeddings)
        if found.teacher and self.teacher_name and not same_teacher(found.teacher, self.teacher_name):
            raise ValueError(f'{place}: embeddings of the teacher {found.teacher!r}, but {self.name} embeds into the '
                             f'space of {self.teacher_name!r}; embed the classes with that teacher')
        width = getattr(getattr(self.model, 'encoder', None), 'embed_dim', found.width)
        if found.width != width:
            raise ValueError(f'{place}: embeddings of width {found.width}, but {self.name} has width {width}; embed '
                             f'the classes with its teacher {self.teacher_name!r}')
        return found if class_names is None else found.select(class_names)

    @property
    def teacher_name(self) -> str:
        """Name of the teacher in the config, with its tag or the stem of its file; empty without a teacher."""
        return teacher_name(self.model.cfg)

    def classify(self, objects: Gaussians | Sequence[Gaussians], class_names: Sequence[str] | None = None,
                 templates: str | Sequence[str] = 'plain',
                 class_embeddings: ClassEmbeddings | str | PathLike | None = None, *,
                 turns: int = 1) -> list[list[tuple[str, float]]]:
        """Classify objects by class names alone, or by the classes that a :class:`GSClassifier` was trained on.

        Args:
            objects: Clouds or paths, one or several.
            class_names: Names of the classes; a classifier knows its own and takes no other argument than the objects.
            templates: Name of a prompt set, or templates with ``{}``; embeddings are averaged over them.
            class_embeddings: Embeddings of the classes, or the path of their file, which need no teacher; see
                :meth:`classes`.
            turns: Number of equal turns about y whose embeddings are averaged.

        Returns:
            For each object, classes and probabilities (softmax of scaled cosines or of a classifier's logits), best
            first.
        """
        if isinstance(self.model, GSClassifier):
            if class_names is not None or class_embeddings is not None or turns != 1:
                raise ValueError(f'{self.name} is a classifier with {self.model.num_classes} classes of its own; give '
                                 'the objects alone')
            names = self.model.classes or tuple(map(str, range(self.model.num_classes)))
            logits = self._logits(_as_list(objects, (GaussianCloud, str, PathLike)))
        else:
            found = self.classes(class_names, templates, class_embeddings)
            names, scale = found.names, self.model.logit_scale.exp().item()
            logits = scale * self.embed_gaussians(objects, turns=turns) @ found.embeddings.T
        probabilities, order = logits.softmax(-1).sort(-1, descending=True)
        return [[(names[i], float(p)) for i, p in zip(row, values)]
                for row, values in zip(order.tolist(), probabilities)]

    @torch.inference_mode()
    def _logits(self, items: list[Gaussians], batch_size: int = 16) -> Tensor:
        """Compute the logits of a classifier, (n, C), float32 on the CPU."""
        if not items:
            raise ValueError('nothing to classify: got an empty list')
        clouds = [self.prepare(item, f'object {i}') for i, item in enumerate(items)]
        return torch.cat([self.model(GaussianBatch.from_clouds(clouds[i:i + batch_size]).to(self.device)).float().cpu()
                          for i in range(0, len(clouds), batch_size)])

    @staticmethod
    def _embed(items: list, embed: Callable[[list], Tensor], batch_size: int) -> Tensor:
        if not items:
            raise ValueError('nothing to embed: got an empty list')
        chunks: Iterator[list] = (items[i:i + batch_size] for i in range(0, len(items), batch_size))
        embeddings = torch.cat([embed(chunk).float().cpu() for chunk in chunks])
        return nn.functional.normalize(embeddings, dim=-1)


def _absolute(model: str, checkpoint: str | PathLike | None) -> tuple[str, str | None]:
    """Return what names a model in any folder."""
    path = model.endswith('.py') or is_folder(model)
    return os.path.abspath(model) if path else model, checkpoint and os.path.abspath(checkpoint)


def _as_list(items, single: type | tuple[type, ...]) -> list:
    return [items] if isinstance(items, single) else list(items)
