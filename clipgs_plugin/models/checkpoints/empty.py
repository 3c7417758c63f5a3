"""Building of models whose weights are loaded at once, without the random ones, which take most of the time."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

Module = TypeVar('Module', bound=nn.Module)


@contextmanager
def without_initialisation() -> Iterator[None]:
    """Register parameters without memory within the context, so that their initialisation takes no time.

    Buffers keep their values. Other threads are not affected.
    """
    thread = get_ident()

    def empty(module: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter | None:
        if get_ident() == thread:
            return nn.Parameter(parameter.detach().to('meta'), parameter.requires_grad)

    hook = register_module_parameter_registration_hook(empty)
    try:
        yield
    finally:
        hook.remove()


def allocate(model: Module) -> Module:
    """Allocate the parameters of a model that was built without initialisation; their values are undefined."""
    return model._apply(lambda value: torch.empty_like(value, device='cpu') if value.is_meta else value)
