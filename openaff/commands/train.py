"""Train a network by a recipe, or go on with a run.

    openaff train cifar/aff_resnet8 data.root=DIR
    openaff train mine.yaml --out runs/mine --devices gpu:0,1 optimizer.lr=0.1
    openaff train --resume runs/mine --devices gpu:0,1

The recipe is a YAML file, or the name of one that comes with openaff (openaff configs lists them);
its data set settles whether the network learns to classify or to segment.  SIGTERM and Ctrl-C
finish the step, write a checkpoint and exit with status 75.  --resume continues from there, or
after a crash from the last checkpoint, to the same result.
"""

import os
import pathlib
import shlex

from ..data import DATASETS
from ..tasks import METRICS
from ..training.checkpoint import LAST, PREVIOUS
from ..training.config import load_config
from ..training.engine import Engine
from ..training.session import resume, train
from ..utils.arguments import Parser
from ..utils.devices import parse_devices
from ..utils.errors import UserError
from ..utils.interrupt import Stopped
from ..utils.program import program


class Backend:
    """What trains: MXNet, on the devices that ``--devices`` names."""

    help = "cpu, cpu:N (N devices on the CPU) or gpu:0,1 (%(default)s)"

    def __init__(self, devices):
        self.contexts = parse_devices(devices)

    def engine(self, config):
        """What makes the engine; refuses what it cannot do."""
        if DATASETS[config.data.name].crop_ratio is not None:
            # Photographs: cuDNN measures its algorithms, with as much memory as they want.
            os.environ.setdefault("MXNET_CUDNN_AUTOTUNE_DEFAULT", "2")
        return Engine


def main(description=__doc__, command="train", backend=Backend):
    """Train or resume as ``sys.argv`` says, and print how it ended.

    Raises
    ------
    UserError
        See :func:`~openaff.training.session.train`.
    """
    args = _parse_args(description, command, backend)
    try:
        result = _run(args, backend)
    except Stopped as stopped:
        how = ", started in the same way," if "DMLC_ROLE" in os.environ else ""
        raise Stopped(f"{stopped}; go on{how} with: {_resuming(args)}") from None
    if result:  # of several workers the first one has it
        headline = METRICS[result["headline"]]
        best, last = (headline.show(result[f"{each}_{headline.key}"]) for each in ("best", "last"))
        print(
            f"best {headline.title} {best} (epoch {result['best_epoch']}, "
            f"{result['best_selection']}), last {last}; labels: {result['labels']}"
        )
        print(f"written to {args.resume or args.out}")


def _parse_args(description, command, backend):
    parser = Parser(description, command)
    parser.add_argument("recipe", nargs="?", metavar="CONFIG", help="the recipe: a name or a file")
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="key=value",
        help="settings that differ from the recipe's; with --resume only some, such as epochs",
    )
    parser.add_argument("--config", metavar="CONFIG", help="another way to name the recipe")
    parser.add_argument(
        "--out", metavar="DIR", help="run folder to make (runs/CONFIG, or CONFIG-2 ...)"
    )
    parser.add_argument("--resume", metavar="DIR", help="continue the run of this folder")
    parser.add_argument(
        "--checkpoint", metavar="NAME", help=f"of --resume's folder: {LAST} or {PREVIOUS}"
    )
    parser.add_argument("--devices", default="cpu", help=backend.help)
    args = parser.parse_intermixed_args()
    if args.recipe is not None:
        if args.config is None and "=" not in args.recipe:
            args.config = args.recipe
        else:
            args.settings.insert(0, args.recipe)
    return args


def _run(args, backend):
    backend = backend(args.devices)
    if args.resume:
        if args.config or args.out:
            raise UserError("--resume takes its settings from the run folder: leave others out")
        checkpoint = args.checkpoint or LAST
        return resume(args.resume, backend.contexts, checkpoint, backend.engine, args.settings)
    if args.config is None:
        raise UserError(
            "name a config, such as digits/aff_resnet8, or a run to go on with, --resume DIR"
        )
    if args.checkpoint:
        raise UserError("--checkpoint has no effect without --resume")
    config = load_config(args.config, args.settings)
    if args.out is None:
        args.out = str(_free_folder(pathlib.Path(args.config).stem))
    return train(config, args.out, backend.contexts, backend.engine)


def _free_folder(name):
    """``runs/NAME`` or, where that is taken, ``runs/NAME-2`` and so on."""
    folder, number = pathlib.Path("runs", name), 1
    while folder.exists():
        number += 1
        folder = pathlib.Path("runs", f"{name}-{number}")
    return folder


def _resuming(args):
    """The command that goes on with a run that was stopped."""
    words = ["--resume", args.resume or args.out]
    words += [] if args.devices == "cpu" else ["--devices", args.devices]
    return f"{program()} {shlex.join(words)}"
