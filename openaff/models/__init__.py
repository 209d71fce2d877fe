"""The networks, one published family a file."""

from . import cifar_resnet, resnet, resnext  # noqa: F401  (register their families)
from .factory import create_model, list_models

__all__ = ["create_model", "list_models"]
