"""openaff: attentional feature fusion (AFF, iAFF, MS-CAM; WACV 2021) in MXNet/Gluon."""

import importlib

from .utils import framework

__version__ = "1.0.0"

framework.prepare()  # before mxnet is imported, by openaff or by others

_HOMES = {  # public name -> the module that it is imported from, on first use
    "MSCAM": "attention",
    "InceptionCell": "blocks",
    "PyramidFusion": "blocks",
    "create_model": "models",
    "list_models": "models",
    "list_pretrained": "models",
    "pretrained_info": "models",
    "replace_sums": "models.replace",
    "UserError": "utils.errors",
}
_ROOMS = ("attention", "blocks", "fusion", "models")


def __getattr__(name):
    if name == "__all__":
        return _public_names()
    if name.startswith("__"):
        raise AttributeError(name)
    if name != "UserError":
        framework.import_mxnet()
    if name in _ROOMS:
        return importlib.import_module(f".{name}", __name__)
    if name in _HOMES:
        value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    else:  # AFF, IAFF and the class of every registered fusion
        fusion = importlib.import_module(".fusion", __name__)
        if name not in fusion.class_names():
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(fusion, name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *_ROOMS, *_public_names()})


def _public_names():
    framework.import_mxnet()
    return [*_HOMES, *importlib.import_module(".fusion", __name__).class_names()]
