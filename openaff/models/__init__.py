"""The networks, one published family a file."""

from . import cifar_resnet  # noqa: F401  (registers its family)
from .factory import create_model, list_models

__all__ = ["create_model", "list_models"]
