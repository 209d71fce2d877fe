"""Which network, with which weights and data: from a run, a published checkpoint, or by name."""

import json
import pathlib
from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

from ..data import DATASETS, DataConfig, load_dataset
from ..models.pretrained import PUBLISHED, load_model, load_published
from ..utils.cli import parse_options
from ..utils.configs import build, read_yaml
from ..utils.errors import UserError
from ..utils.imports import import_modules


@dataclass
class Subject:
    """A network, and what somebody who runs it has to know."""

    net: Any  # initialised, float32 (N, 3, H, W) -> outputs
    model: str
    options: Dict[str, Any]
    task: str
    dataset: Optional[str]
    labels: Optional[str]  # their granularity, in words
    class_names: Tuple[str, ...]
    input_shape: Tuple[int, int, int]
    mean: Tuple[float, float, float]  # of pixel values in [0, 1]
    std: Tuple[float, float, float]
    crop_ratio: Optional[float] = None  # photographs: the centre's share of the short side
    score: Optional[Dict[str, Any]] = None  # what was measured of it, and how


def run_subject(folder, ctx=None):
    """The :class:`Subject` of a finished run, with its best parameters, and its data.

    Returns
    -------
    subject : Subject
    data : DataConfig

    Raises
    ------
    UserError
        No run folder, one whose training has not finished, or one without ``labels.txt``.
    """
    folder = pathlib.Path(folder)
    try:
        result = json.loads((folder / "result.json").read_text())
    except (OSError, ValueError):
        raise UserError(
            f"{folder} is no folder of a finished run: it has no result.json, or a damaged one"
        ) from None
    config = read_yaml(folder / "config.yaml")
    import_modules(config.get("imports") or ())
    data = build(DataConfig, config.get("data") or {}, where=folder / "config.yaml")
    data.check()
    try:
        class_names = tuple((folder / "labels.txt").read_text().splitlines())
    except OSError as error:
        raise UserError(f"cannot read {folder / 'labels.txt'}: {error.strerror}") from None
    info = DATASETS[result["dataset"]]
    # Files of the first edition, which had classification alone, do not name the figure.
    headline = result.get("headline", "accuracy")
    keys = (f"best_{headline}", "best_epoch", "best_selection")
    keys += ("split", "protocol", "seed", "commit")
    subject = Subject(
        load_model(result["model"], folder / "best.params", ctx, **result["options"]),
        result["model"],
        result["options"],
        info.task,
        result["dataset"],
        result["labels"],
        class_names,
        tuple(result["input_shape"]),
        tuple(result["mean"]),
        tuple(result["std"]),
        info.crop_ratio and (data.crop_ratio or info.crop_ratio),
        {key: result[key] for key in keys},
    )
    return subject, data


def published_subject(name, params, ctx=None):
    """The :class:`Subject` of a published checkpoint, from the authors' file ``params``."""
    net, known = load_published(name, params, ctx)
    info = DATASETS[known.dataset]
    return Subject(
        net,
        known.model,
        known.options,
        info.task,
        known.dataset,
        known.labels and info.granularity(known.labels).words,
        tuple(map(str, range(known.outputs))),
        info.image_shape,
        info.mean,
        info.std,
        info.crop_ratio,
        {known.metric: known.score, "selection": known.selection, "source": "published"},
    )


def model_subject(model, params, data, options=None, ctx=None):
    """The :class:`Subject` of a model id and a file of parameters, for a data set.

    ``data``: the :class:`~openaff.data.DataConfig` that names the data set.
    """
    dataset = load_dataset(data)
    return Subject(
        load_model(model, params, ctx, **(options or {})),
        model,
        options or {},
        dataset.info.task,
        dataset.name,
        dataset.labels,
        dataset.class_names,
        dataset.test.image_shape,
        dataset.mean,
        dataset.std,
        dataset.info.crop_ratio and (data.crop_ratio or dataset.info.crop_ratio),
    )


# --- On a command line ----------------------------------------------------------------------------

FLAGS = {"name": "--dataset", "root": "--data"}  # settings of data whose flag has another name


def add_arguments(parser):
    """The flags that say which network and which data, the same for every program."""
    network = parser.add_argument_group("network")
    source = network.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", metavar="DIR", help="folder of a finished run: its best weights")
    source.add_argument("--model", metavar="NAME", help="see openaff.list_models()")
    source.add_argument("--published", metavar="NAME", help="a published checkpoint")
    network.add_argument("--params", metavar="FILE", help="parameters of --model or --published")
    network.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="key=value",
        help="option of --model, such as width_multiplier=1; may be repeated",
    )
    data = parser.add_argument_group("data")
    data.add_argument("--dataset", metavar="NAME", help=f"of --model: {', '.join(DATASETS)}")
    data.add_argument("--labels", metavar="KIND", help="cifar100: fine (default) or coarse")
    data.add_argument("--data", metavar="DIR", help="folder of the data set (CIFAR: Gluon's own)")
    data.add_argument("--image-size", type=int, metavar="N", help="photographs: pixels (224)")
    data.add_argument(
        "--crop-ratio",
        type=float,
        metavar="R",
        help="photographs: the centre's share of the short side (0.875)",
    )


def from_arguments(args, ctx=None):
    """The :class:`Subject` and the :class:`~openaff.data.DataConfig` of :func:`add_arguments`.

    Raises
    ------
    UserError
        Flags that contradict each other or have no effect, and whatever cannot be loaded.
    """
    if args.run:
        _refuse(args, ("params", "option", "dataset", "labels"), "--run: the run settles it")
        subject, data = run_subject(args.run, ctx)
    else:
        if not args.params:
            raise UserError("--model and --published need --params, the file of the parameters")
        known = PUBLISHED[args.published] if args.published else None
        if known:
            _refuse(args, ("option",), f"{known.name}: leave it out")
            for flag in ("dataset", "labels"):
                if getattr(args, flag) not in (None, getattr(known, flag)):
                    raise UserError(
                        f"--{flag} {getattr(args, flag)} contradicts {known.name} "
                        f"({getattr(known, flag) or 'none'}): leave it out"
                    )
        elif not args.dataset:
            raise UserError("--model needs --dataset, such as cifar100: it settles the scaling")
        source = known or args
        data = DataConfig(name=source.dataset, labels=source.labels)
    for key, value in (
        ("root", args.data),
        ("image_size", args.image_size),
        ("crop_ratio", args.crop_ratio),
    ):
        if value is not None:
            setattr(data, key, value)
    check_flags(data)
    if args.published:
        subject = published_subject(args.published, args.params, ctx)
    elif args.model:
        options = parse_options(args.option)
        subject = model_subject(args.model, args.params, data, options, ctx)
    return subject, data


def _refuse(args, flags, settled):
    for flag in flags:
        if getattr(args, flag):
            raise UserError(f"--{flag} has no effect with {settled}")


def check_flags(data):
    """:meth:`DataConfig.check`, its messages with the names of flags."""
    try:
        data.check("--")
    except UserError as error:
        text = str(error)
        for key in sorted(vars(data), key=len, reverse=True):
            text = text.replace(f"--{key} ", FLAGS.get(key, f"--{key}".replace("_", "-")) + " ")
        raise UserError(text) from None
