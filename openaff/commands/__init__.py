"""The command ``openaff``: each of its commands is a module here, and ``scripts/`` call the same.

This module imports no mxnet, so that ``openaff --help`` and wrong names answer at once.
"""

import importlib
import platform
import sys

from ..utils import cli
from ..utils.errors import UserError, suggest

GROUPS = {  # heading -> command -> what it does, in one line
    "Begin": {
        "demo": "train on small digits, draw and export: a few minutes, nothing to download",
        "doctor": "what this machine can do, and how to fix each problem",
        "configs": "list the recipes that come with openaff, or print one",
    },
    "Train": {
        "train": "train a network by a recipe, or go on with a run",
        "train-pytorch": "the same in PyTorch, for classification",
        "launch": "try out training in several processes on this machine",
        "prepare-imagenet": "pack ImageNet, or your own photographs, into record files",
        "prepare-coco": "make a segmentation data set of some of COCO's categories",
    },
    "Look at results": {
        "evaluate": "measure a network on the test split of a data set",
        "explain": "draw where networks look, as heat maps",
        "plot": "draw the curves of several runs in one picture",
        "summary": "count a network's parameters and multiply-adds",
        "tables": "the published tables, row by row, and ours beside them",
    },
    "Put to use": {
        "export": "write a network as MXNet symbol, ONNX or PyTorch files",
        "predict": "run an exported network, or one of the package, on photographs",
        "bundle-weights": "put a run's network into the package, for pretrained=KEY",
        "import-pytorch": "turn a PyTorch state dict into MXNet parameters",
    },
    "Measure": {
        "benchmark": "training and inference speed, as ratios",
        "measure-heat-maps": "whether networks look at objects, over a test split",
    },
}
COMMANDS = {name: line for group in GROUPS.values() for name, line in group.items()}


def overview():
    """What ``openaff --help`` prints."""
    width = max(map(len, COMMANDS))
    lines = ["usage: openaff COMMAND ...", ""]
    lines += ["Attentional feature fusion (AFF, iAFF, MS-CAM; WACV 2021) in MXNet/Gluon.", ""]
    for heading, group in GROUPS.items():
        lines.append(f"{heading}:")
        lines += [f"  {name:<{width}}  {line}" for name, line in group.items()]
        lines.append("")
    lines.append("openaff COMMAND --help explains one; openaff --version prints the versions.")
    return "\n".join(lines)


def versions():
    """What ``openaff --version`` prints."""
    from .. import __version__
    from ..utils.cuda import mxnet_builds

    parts = [f"{name} {version}" for name, version in mxnet_builds().items()]
    parts = parts or ["no mxnet"]
    parts.append(f"Python {platform.python_version()}")
    return f"openaff {__version__} ({', '.join(parts)})"


def run(name):
    """Run a command on this process's arguments, and exit as :func:`openaff.utils.cli.run` does."""
    module = f".{name.replace('-', '_')}"
    if name == "doctor":  # a package of its own, which runs where nothing else can be imported
        module = "..doctor.__main__"
    cli.run(lambda: importlib.import_module(module, __name__).main())


def main():
    """The program ``openaff``, with the arguments in ``sys.argv``."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        cli.run(lambda: print(overview()))
    elif name == "--version":
        cli.run(lambda: print(versions()))
    elif name in COMMANDS:
        run(name)
    else:
        cli.run(lambda: _refuse(name))


def _refuse(name):
    raise UserError(
        f"there is no command {name!r}{suggest(name, COMMANDS)}; openaff --help lists them"
    )
