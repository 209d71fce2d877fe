"""Which network, with which weights and data: from a run, an export, a checkpoint, or by name."""

import pathlib
from dataclasses import dataclass, fields
from typing import Any, Dict, Optional, Tuple

import mxnet as mx

from ..data import DATASETS, DataConfig, load_dataset
from ..data.masks import read_names
from ..models import create_model, pretrained_info
from ..models.pretrained import PUBLISHED, load_model, load_published
from ..tasks import TASKS, check_network
from ..utils.arguments import add_imports, add_option, refuse
from ..utils.configs import build, parse_options, read_yaml
from ..utils.descriptions import read_result
from ..utils.errors import UserError
from ..utils.imports import import_modules
from ..utils.labels import read_labels
from .engines import Engine, add_engine
from .export import export_labels, read_export


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
    crop_ratio: Optional[float] = None  # photographs: size of the centre crop / short side
    score: Optional[Dict[str, Any]] = None  # what was measured of it, and how
    loss: Optional[Dict[str, Any]] = None  # options of the loss that it was trained with
    short_side: Optional[int] = None  # dense tasks: that images are resized to, if any

    def facts(self):
        """What files say of it."""
        return {name: getattr(self, name) for name in FACTS}


FACTS = tuple(each.name for each in fields(Subject) if each.name not in ("net", "class_names"))


def run_data(folder):
    """The :class:`~openaff.data.DataConfig` of a run folder; imports the modules that it names."""
    read_result(folder)
    path = pathlib.Path(folder) / "config.yaml"
    config = read_yaml(path)
    imports = config.get("imports") or []
    if not (isinstance(imports, list) and all(isinstance(name, str) for name in imports)):
        raise UserError(f"{path}: imports must be a list of modules, not {imports!r}")
    import_modules(imports)
    data = build(DataConfig, config.get("data") or {}, where=path)
    data.check()
    return data


def run_subject(folder, ctx=None, which="best"):
    """The :class:`Subject` of a finished run, with its ``best`` or its ``last`` parameters.

    Raises
    ------
    UserError
        No run folder, one whose training has not finished, or one without ``labels.txt``.
    """
    folder = pathlib.Path(folder)
    data, result = run_data(folder), read_result(folder)
    class_names = read_labels(folder, result.get("classes"))
    info = DATASETS[result["dataset"]]
    # Files of the first edition, which had classification alone, do not name the figure.
    headline = result.get("headline", "accuracy")
    chosen = {"selection": "last epoch"}
    if which == "best":
        chosen = {key: result[key] for key in ("best_epoch", "best_selection")}
    keys = ("split", "protocol", "seed", "commit")
    return Subject(
        load_model(result["model"], folder / f"{which}.params", ctx, **result["options"]),
        result["model"],
        result["options"],
        info.task,
        result["dataset"],
        result["labels"],
        class_names,
        tuple(result["input_shape"]),
        tuple(result["mean"]),
        tuple(result["std"]),
        _crop_ratio(data),
        {
            f"{which}_{headline}": result[f"{which}_{headline}"],
            **chosen,
            **{key: result[key] for key in keys},
        },
        read_yaml(folder / "config.yaml").get("loss"),
        _short_side(data),
    )


def export_data(folder):
    """The :class:`~openaff.data.DataConfig` of an export folder, but for where the files are."""
    facts = read_export(folder)
    if facts["dataset"] is None:
        raise UserError(f"{folder} does not say which data set its network is for")
    return described_data(facts)


def described_data(facts):
    """The :class:`~openaff.data.DataConfig` that an export or a record of weights describes."""
    info = DATASETS[facts["dataset"]]
    config = DataConfig(name=info.key, image_size=facts.get("short_side"))
    if info.crop_ratio:
        config.image_size, config.crop_ratio = facts["input_shape"][1], facts.get("crop_ratio")
    if "labels" in info.settings:
        keys = {each.words: each.key for each in info.labels}
        if facts["labels"] not in keys:
            raise UserError(
                f"labels of {info.key} are {' or '.join(keys)}, and of this network "
                f"{facts['labels']!r}: evaluate it as --model"
            )
        config.labels = keys[facts["labels"]]
    return config


def export_subject(folder, engine="auto", precision=None):
    """The :class:`Subject` of an export folder; its network is an
    :class:`~openaff.deploy.engines.Engine`, on the CPU.

    Raises
    ------
    UserError
        No export folder, a changed file, or what the engine refuses.
    """
    facts = read_export(folder)
    return Subject(
        net=Engine(folder, facts, engine, precision),
        class_names=export_labels(folder, facts),
        **{"task": "classification", **{key: facts[key] for key in FACTS if key in facts}},
    )


def pretrained_subject(key, ctx=None):
    """The :class:`Subject` of weights in the package.

    Raises
    ------
    UserError
        See :func:`~openaff.models.pretrained_info` and :func:`~openaff.create_model`.
    """
    facts = pretrained_info(key)
    net = create_model(facts["model"], pretrained=key)
    if ctx is not None:
        net.collect_params().reset_ctx(ctx)
    net.hybridize(static_alloc=True)
    return Subject(
        net=net,
        class_names=tuple(facts["class_names"]),
        **{name: facts[name] for name in FACTS},
    )


def published_subject(name, params, ctx=None, names=None):
    """The :class:`Subject` of a published checkpoint, from the authors' file ``params``.

    ``names`` are the class names; by default what we know of the data set, or numbers.
    """
    net, known = load_published(name, params, ctx)
    info = DATASETS[known.dataset]
    labels = info.granularity(known.labels)
    return Subject(
        net,
        known.model,
        known.options,
        info.task,
        known.dataset,
        known.labels and labels.words,
        _class_names(names, labels.names, known.classes),
        info.image_shape,
        info.mean,
        info.std,
        info.crop_ratio,
        {known.metric: known.score, "selection": known.selection, "source": "published"},
    )


def model_subject(model, params, data, dataset=None, options=None, ctx=None, names=None):
    """The :class:`Subject` of a model id and a file of parameters, for a data set.

    Parameters
    ----------
    model : str
        See :func:`openaff.list_models`.
    params : path-like
        The file of its parameters.
    data : DataConfig
        Which data set.
    dataset : Dataset, optional
        What ``data`` names, where it was loaded; the files are not needed.
    options : dict, optional
        The network's.
    ctx : mx.Context, optional
    names : sequence of str, optional
        The class names; by default the data set's own, or numbers where only its files have them.

    Raises
    ------
    UserError
        Parameters of another network, or another number of names than classes.
    """
    check_network(model, data.name)
    net = load_model(model, params, ctx, **(options or {}))
    info = DATASETS[data.name]
    if dataset is None and info.mean is None:  # measured on images that come with a package
        dataset = load_dataset(data)
    if dataset is not None:
        names = _class_names(names, dataset.class_names, len(dataset.class_names))
        shape, words = (dataset.test or dataset.train).image_shape, dataset.labels
    else:
        shape, labels = info.input_shape(data), info.granularity(data.labels)
        names = _class_names(names, labels.names, labels.classes or _count(net, shape, info, ctx))
        words = labels.words.format(len(names))
    scaled = info if dataset is None else dataset
    return Subject(
        net,
        model,
        options or {},
        info.task,
        info.key,
        words,
        names,
        shape,
        scaled.mean,
        scaled.std,
        _crop_ratio(data),
        short_side=_short_side(data),
    )


def _class_names(given, known, count):
    """The names that were given, the known ones, or numbers; ``count`` of them."""
    if given is None:
        return tuple(known or map(str, range(count)))
    if len(given) != count:
        raise UserError(f"there are {len(given)} class names for {count} classes")
    return tuple(given)


def _count(net, shape, info, ctx):
    """How many classes a network tells apart."""
    outputs = net(mx.nd.zeros((1, *shape), ctx=ctx)).shape[1]
    return 2 if TASKS[info.task].dense and outputs == 1 else outputs


def _short_side(data):
    return data.image_size if TASKS[DATASETS[data.name].task].dense else None


def _crop_ratio(data):
    default = DATASETS[data.name].crop_ratio
    return default and (data.crop_ratio or default)


# --- On a command line ----------------------------------------------------------------------------

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
