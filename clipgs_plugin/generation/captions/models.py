"""Captions of objects by models: captions of their views, and a ranking of captions by the views."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy import ndarray

from clipgs_plugin.generation.captions.rules import unique_captions
from clipgs_plugin.registry import TASK_UTILS


@TASK_UTILS.register_module()
class CaptionRanker:
    """Ranking of an object's captions by a teacher and the object's views; the best are kept.

    The weights of a teacher of the catalogue, or of an open_clip tag, are downloaded unless they are on this machine.
    ``toy-clip`` comes with the package.

    Args:
        teacher: Model of :class:`~clipgs_plugin.models.OpenCLIPTeacher`.
        pretrained: Tag or file of the weights; None uses the default of the catalogue.
        precision: Precision of the teacher, ``'fp32'``, ``'fp16'`` or ``'bf16'``.
        device: Device of the teacher.
        keep: Maximum number of captions of an object; None keeps all.

    Raises:
        ValueError: The teacher is unknown or lacks weights, or ``keep`` is below 1.
        FileNotFoundError: The weights are not on this machine and cannot be downloaded.
    """

    def __init__(self, teacher: str, pretrained: str | None = None, precision: str = 'fp32', device: str = 'cpu',
                 keep: int | None = None) -> None:
        if keep is not None and keep < 1:
            raise ValueError(f'keep={keep}: expected at least 1, or None for all')
        from clipgs_plugin.models.teachers import OpenCLIPTeacher
        self.teacher = OpenCLIPTeacher(teacher, pretrained, precision).require_weights().to(device)
        self.keep = keep

    def __call__(self, captions: Sequence[dict], views: ndarray) -> tuple[dict, ...]:
        """Sort captions by their similarity with the views, the best first; equal ones keep their order.

        Args:
            captions: ``dict(text=..., source=...)`` each.
            views: sRGB, (V, H, W, 3) uint8.

        Returns:
            The best captions with ``similarity``, the mean over views of the cosine with the text, to four digits.
        """
        import torch
        _check_views(views)
        if not captions:
            return ()
        images = self.teacher.encode_image(torch.from_numpy(np.ascontiguousarray(views.transpose(0, 3, 1, 2))))
        texts = self.teacher.encode_text([caption['text'] for caption in captions])
        similarity = (texts.double() @ images.double().T).mean(1).tolist()
        scored = [{**caption, 'similarity': round(value, 4)} for caption, value in zip(captions, similarity)]
        return tuple(sorted(scored, key=lambda caption: -caption['similarity'])[:self.keep])


class Captioner(Protocol):
    """A model that describes views. Register one in ``TASK_UTILS`` and name it in the config.

    Attributes:
        name: Name of the model, stored as the source of its captions.
    """

    name: str

    def caption(self, views: ndarray) -> list[str]:
        """Describe the object in views, (V, H, W, 3) uint8 sRGB, in any number of texts in a fixed order."""


@TASK_UTILS.register_module()
class TransformersCaptioner:
    """An image-captioning model of transformers (BLIP, BLIP-2, GIT and similar ones), from weights on this machine.

    Nothing is downloaded: ``model`` is a folder, or a name whose files are in Hugging Face's cache. Decoding is greedy,
    so the same views give the same captions.

    Args:
        model: Folder of the weights, or name of a model in the cache.
        device: Device of the model.
        num_views: Number of views to caption, evenly spaced over the object's views.
        prompt: Beginning of every caption, for models that continue a text, such as BLIP and BLIP-2.
        max_new_tokens: Maximum length of a caption in tokens.

    Raises:
        ImportError: transformers is not installed.
        FileNotFoundError: The weights are not on this machine.
        ValueError: The model is of another kind, or its weights are damaged or incomplete.
    """

    def __init__(self, model: str | Path, device: str = 'cpu', num_views: int = 4, prompt: str | None = None,
                 max_new_tokens: int = 40) -> None:
        if num_views < 1:
            raise ValueError(f'num_views={num_views}: expected at least 1')
        try:
            import transformers
        except ImportError:
            raise ImportError('captions by a model need transformers, of the extra caption; pip install '
                              'transformers') from None
        self.processor, network = _load_model(transformers, str(model))
        self.network = network.to(device).eval()
        self.name = Path(model).name
        self.device = device
        self.num_views = num_views
        self.prompt = prompt
        self.max_new_tokens = max_new_tokens

    def caption(self, views: ndarray) -> list[str]:
        """Caption ``num_views`` of the views; returns distinct captions in the order of the views."""
        import torch
        from PIL import Image
        _check_views(views)
        count = min(self.num_views, len(views))
        images = [Image.fromarray(views[i]) for i in np.arange(count) * len(views) // count]
        prompts = {} if self.prompt is None else dict(text=[self.prompt] * count)
        inputs = self.processor(images=images, return_tensors='pt', **prompts)
        inputs.pop('token_type_ids', None)  # from BERT's tokenizer; generate refuses unknown inputs
        with torch.no_grad():
            tokens = self.network.generate(**inputs.to(self.device), max_new_tokens=self.max_new_tokens,
                                           do_sample=False)
        texts = self.processor.batch_decode(tokens, skip_special_tokens=True)
        return [caption['text'] for caption in unique_captions(dict(text=text) for text in texts)]


def model_captions(captioner: Captioner, views: ndarray) -> tuple[dict, ...]:
    """Return a model's captions of views, with the name of the model as their source."""
    return unique_captions(dict(text=text, source=f'captioner:{captioner.name}') for text in captioner.caption(views))


def _load_model(transformers, model: str) -> tuple:
    """Return the processor and the network of a captioning model on this machine."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError
    from safetensors import SafetensorError
    try:
        # A folder, because from_pretrained asks the network about a name even if its files are in the cache.
        folder = model if Path(model).is_dir() else snapshot_download(model, local_files_only=True)
        processor = transformers.AutoProcessor.from_pretrained(folder, local_files_only=True)
        if not (hasattr(processor, 'image_processor') and hasattr(processor, 'tokenizer')):
            raise ValueError(f'{model}: has only a {type(processor).__name__}, expected a processor of images and '
                             'texts; use a model such as BLIP, BLIP-2 or GIT')
        network, report = transformers.AutoModelForImageTextToText.from_pretrained(
            folder, local_files_only=True, output_loading_info=True)
    except OSError as error:
        raise FileNotFoundError(
            f'{model}: no image-captioning model on this machine ({str(error).splitlines()[0]}). Nothing is downloaded '
            'automatically; get one, for example with hf download Salesforce/blip-image-captioning-base '
            '--local-dir FOLDER, and name the folder') from error
    except HFValidationError:
        raise ValueError(f'{model}: neither a folder nor the name of a model in Hugging Face\'s cache, such as '
                         'Salesforce/blip-image-captioning-base') from None
    except SafetensorError as error:
        raise ValueError(f'{model}: the weights are damaged ({error}); download them again') from error
    if report['missing_keys']:
        raise ValueError(f'{model}: {len(report["missing_keys"])} weights are missing, such as '
                         f'{min(report["missing_keys"])}; download them again')
    return processor, network


def _check_views(views: ndarray) -> None:
    if views.ndim != 4 or views.shape[-1] != 3 or views.dtype != np.uint8 or not len(views):
        raise ValueError(f'views have shape {views.shape} and dtype {views.dtype}, expected (V, H, W, 3) uint8, at '
                         'least one')
