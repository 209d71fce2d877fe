"""Which network, with which weights and data: from a run, an export, a checkpoint, or by name."""

import pathlib
from dataclasses import dataclass, fields
from typing import Any, Dict, Optional, Tuple

import mxnet as mx

from ..data import DATASETS, DataConfig, load_dataset
from ..models import create_model, pretrained_info
from ..models.pretrained import load_model, load_published
from ..tasks import TASKS, check_network
from ..utils.configs import build, read_yaml
from ..utils.descriptions import read_result
from ..utils.errors import UserError
from ..utils.imports import import_modules
from ..utils.labels import read_labels
from .engines import Engine
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
