"""The flags that several commands share: which network, with which weights, data and engine."""

import pathlib

from ..data import DATASETS, DataConfig, load_dataset
from ..data.masks import read_names
from ..deploy.engines import ENGINES
from ..deploy.openvino_model import PRECISIONS
from ..deploy.subject import (
    described_data,
    export_data,
    export_subject,
    model_subject,
    pretrained_subject,
    published_subject,
    run_data,
    run_subject,
)
from ..models import pretrained_info
from ..models.pretrained import PUBLISHED
from ..utils.arguments import add_imports, add_option, refuse
from ..utils.configs import build, parse_options
from ..utils.errors import UserError
from ..utils.imports import import_modules

SETTINGS = ("lists", "train_split", "test_split", "skip", "crop_size", "download")  # of --setting
FLAGS = {"name": "--dataset", "root": "--data"}  # settings of data whose flag has another name


def add_arguments(parser, exports=False):
    """Add the flags that say which network and which data, the same for every program.

    ``exports``: whether it may be an export folder, with the engine that runs it.
    """
    network = parser.add_argument_group("network")
    add_imports(network)
    source = network.add_mutually_exclusive_group(required=True)
    if exports:
        source.add_argument("--export", metavar="DIR", help="export folder, run by --engine")
        add_engine(network)
    else:
        parser.set_defaults(export=None)
    source.add_argument("--run", metavar="DIR", help="folder of a finished run: its best weights")
    source.add_argument(
        "--pretrained", metavar="KEY", help="weights in the package, see openaff.list_pretrained()"
    )
    source.add_argument("--model", metavar="NAME", help="see openaff.list_models()")
    source.add_argument("--published", metavar="NAME", help="a published checkpoint")
    network.add_argument("--params", metavar="FILE", help="parameters of --model or --published")
    add_option(network, "option of --model, such as width_multiplier=1")
    data = parser.add_argument_group("data")
    data.add_argument("--dataset", metavar="NAME", help=f"of --model: {', '.join(DATASETS)}")
    data.add_argument("--labels", metavar="KIND", help="cifar100: fine (default) or coarse")
    data.add_argument(
        "--data", metavar="DIR", help="folder of the data set (CIFAR: ~/.mxnet/datasets/NAME)"
    )
    if exports:
        parser.set_defaults(names=None)
    else:
        data.add_argument(
            "--names",
            metavar="FILE",
            help="of --model, --published: class names, one per line (the data set's, or numbers)",
        )
    data.add_argument(
        "--setting",
        action="append",
        default=[],
        metavar="key=value",
        help="another setting of data, such as lists=idx_427; may be repeated",
    )
    data.add_argument(
        "--image-size", type=int, metavar="N", help="photographs: pixels (224); masks: short side"
    )
    data.add_argument(
        "--crop-ratio",
        type=float,
        metavar="R",
        help="photographs: size of the centre crop / short side (0.875)",
    )


def data_from_arguments(args):
    """The checked :class:`~openaff.data.DataConfig` that the flags of a program name.

    Raises
    ------
    UserError
        Flags that contradict each other, have no effect, or are missing; no run folder.
    """
    import_modules(args.imports)
    settled = ("params", "option", "dataset", "labels", "imports", "names")
    if args.export:
        described = ("params", "option", "dataset", "labels", "image_size", "crop_ratio")
        refuse(args, described, "--export: the export settles it")
        data = export_data(args.export)
    elif args.run:
        refuse(args, settled, "--run: the run settles it")
        data = run_data(args.run)
    elif args.pretrained:
        refuse(args, settled, "--pretrained: the weights settle it")
        data = described_data(pretrained_info(args.pretrained))
    else:
        if not args.params:
            raise UserError("--model and --published need --params, the file of the parameters")
        if args.published:
            known = PUBLISHED[args.published]
            refuse(args, ("option",), f"{known.name}: leave it out")
            for flag in ("dataset", "labels"):
                given, own = getattr(args, flag), getattr(known, flag)
                if given not in (None, own):
                    raise UserError(
                        f"--{flag} {given} contradicts {known.name} ({own or 'none'}): leave it out"
                    )
            data = DataConfig(name=known.dataset, labels=known.labels)
        elif not args.dataset:
            raise UserError("--model needs --dataset, such as cifar100: it settles the scaling")
        else:
            data = DataConfig(name=args.dataset, labels=args.labels)
    given = {"root": args.data, "image_size": args.image_size, "crop_ratio": args.crop_ratio}
    for key, value in given.items():
        if value is not None:
            setattr(data, key, value)
    data = _with_settings(data, args.setting)
    check_flags(data)
    return data


def _with_settings(data, settings):
    """The :class:`~openaff.data.DataConfig` with ``key=value`` settings that have no own flag."""
    flags = [*FLAGS, "labels", "image_size", "crop_ratio"]
    for setting in settings:
        key = setting.partition("=")[0]
        if key in flags:
            flag = FLAGS.get(key, f"--{key}".replace("_", "-"))
            raise UserError(f"--setting {setting}: write {flag}")
        if key in vars(data) and key not in SETTINGS:
            raise UserError(f"--setting {setting}: it has an effect on trainings only")
    return build(DataConfig, vars(data), settings, "--setting") if settings else data


def subject_from_arguments(args, data, dataset=None, ctx=None):
    """The :class:`Subject` that the flags name.

    ``data`` is what :func:`data_from_arguments` gave; ``dataset``, where it is loaded already,
    what it names.
    """
    if args.export:
        return export_subject(args.export, args.engine, args.precision)
    if args.run:
        return run_subject(args.run, ctx)
    if args.pretrained:
        return pretrained_subject(args.pretrained, ctx)
    names = None if args.names is None else read_names(pathlib.Path(args.names))
    if args.published:
        return published_subject(args.published, args.params, ctx, names)
    if dataset is None and names_are_in_files(args):
        dataset = load_dataset(data)
    options = parse_options(args.option)
    if options.get("features_only"):
        raise UserError("--option features_only: its maps are no predictions; leave it out")
    return model_subject(args.model, args.params, data, dataset, options, ctx, names)


def names_are_in_files(args):
    """Whether the class names of ``--model`` come from the folder that ``--data`` names."""
    return bool(args.model and args.data and args.names is None)


def check_flags(data):
    """:meth:`DataConfig.check`, its messages with the names of flags."""
    try:
        data.check("--")
    except UserError as error:
        text = str(error)
        for key in sorted(vars(data), key=len, reverse=True):
            text = text.replace(f"--{key} ", FLAGS.get(key, f"--{key}".replace("_", "-")) + " ")
        raise UserError(text) from None


def check_engine(args):
    """Refuse the flags of :func:`add_engine` where there is no ``--export``."""
    if not args.export:
        for flag, asked in (("engine", args.engine != "auto"), ("precision", args.precision)):
            if asked:
                raise UserError(f"--{flag} is for --export: other networks run in MXNet")


def add_engine(parser):
    """Add ``--engine`` and ``--precision``, the same for every program that runs exports."""
    parser.add_argument(
        "--engine",
        choices=("auto", *ENGINES),
        default="auto",
        help="what runs the export; auto: the fastest that is installed (%(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="of openvino: f32 (default), or auto, its own choice for this processor, such as bf16",
    )
