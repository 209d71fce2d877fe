"""The networks, one published family a file."""

from ..utils.framework import import_mxnet

import_mxnet()

from . import (  # noqa: E402,F401  (register their families)
    cifar_resnet,
    fpn,
    inception_resnet,
    resnet,
    resnext,
)
from .bundled import list_pretrained, pretrained_info  # noqa: E402
from .factory import create_model, list_models, model_info  # noqa: E402

__all__ = ["create_model", "list_models", "list_pretrained", "model_info", "pretrained_info"]
