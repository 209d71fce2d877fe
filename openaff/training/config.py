"""Typed configurations: dataclasses, filled from YAML and ``key=value`` overrides."""

import dataclasses
import math
import pathlib
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from ..utils.errors import UserError, one_line, suggest

AUTOAUGMENT = (None, "cifar10", "imagenet")
INITIALIZERS = ("xavier", "msraprelu")
PRECISIONS = ("float32", "float16", "amp")
KVSTORES = (None, "dist_sync", "dist_device_sync")
UNITS = ("epochs", "steps")
CIFAR = ("cifar10", "cifar100")
PHOTOS = ("imagenet", "images")
DATASETS = ("digits",) + CIFAR + PHOTOS
# data set settings -> where alone they have an effect
ONLY_FOR = {
    "labels": ("cifar100",),
    "root": CIFAR + PHOTOS,
    "download": CIFAR,
    "crop_padding": ("digits",) + CIFAR,
    "image_size": PHOTOS,
    "crop_ratio": PHOTOS,
    "jitter": PHOTOS,
    "pca_noise": PHOTOS,
}
SCHEDULES = {"cosine": (), "step": ("milestones", "factor"), "polynomial": ("power",)}


@dataclass
class ModelConfig:
    name: str = MISSING  # a model id, see openaff.list_models()
    options: Dict[str, Any] = field(default_factory=dict)  # of the family: width_multiplier, ...


@dataclass
class DataConfig:
    name: str = "digits"  # or cifar10, cifar100, imagenet, images (your own class folders)
    root: Optional[str] = None  # folder of the files; CIFAR's is Gluon's own by default
    labels: Optional[str] = None  # cifar100: fine (the default, 100 classes) or coarse (20)
    download: bool = False  # fetch what is missing into root
    batch_size: int = 128  # images per device and step
    crop_padding: Optional[int] = None  # pixels of zeros around a small image before cropping; 4
    image_size: Optional[int] = None  # pixels of a photograph's square; 224
    crop_ratio: Optional[float] = None  # evaluation: centre's share of the short side; 0.875
    jitter: Optional[float] = None  # photographs: change of brightness, contrast, saturation
    pca_noise: Optional[float] = None  # photographs: noise along the colours' components
    flip: bool = True  # mirror half of the training images
    autoaugment: Optional[str] = None  # a published policy: cifar10 or imagenet
    mixup_alpha: float = 0.0  # mixup's Beta(alpha, alpha); 0: no mixup
    mixup_off_epochs: Optional[int] = None  # last epochs without mixup, 0 by default
    workers: Optional[int] = None  # processes that make batches ahead; null: by the machine


@dataclass
class OptimizerConfig:
    lr: float = 0.2  # the schedule's peak
    momentum: float = 0.9  # Nesterov
    weight_decay: float = 1e-4
    no_wd: bool = False  # no weight decay on biases, gammas and betas
    clip_gradient: Optional[float] = None  # largest magnitude of a gradient's elements
    label_smoothing: float = 0.0  # share of every target spread over all classes


@dataclass
class ScheduleConfig:
    name: str = "cosine"  # cosine, step or polynomial
    unit: str = "epochs"  # or steps: what warmup and milestones count
    warmup: float = 0.0  # linear from 0
    milestones: Optional[List[float]] = None  # step: after which lr is multiplied
    factor: Optional[float] = None  # step: by this, 0.1 by default
    power: Optional[float] = None  # polynomial: its power, 2 by default


@dataclass
class DistillationConfig:
    teacher: Optional[str] = None  # a model id, or gluoncv:NAME; null: no distillation
    params: Optional[str] = None  # the teacher's parameters
    options: Dict[str, Any] = field(default_factory=dict)  # of the teacher's family
    weight: Optional[float] = None  # the teacher's share of the loss, 0.5 by default
    temperature: Optional[float] = None  # divides both networks' logits, 4 by default


@dataclass
class Config:
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    epochs: int = MISSING
    seed: int = 0
    initializer: str = "xavier"  # xavier or msraprelu
    start_from: Optional[str] = None  # parameters to start from, instead of the initializer's
    precision: str = "float32"  # float16 (float32 master weights) or amp, on GPUs
    sync_batch_norm: bool = False  # one batch norm over all devices of a process
    kvstore: Optional[str] = None  # several processes: dist_sync or dist_device_sync
    checkpoint_steps: Optional[int] = None  # a checkpoint every so many steps, too


def load_config(path, overrides=()):
    """The :class:`Config` of a YAML file, changed by overrides such as ``"optimizer.lr=0.1"``.

    Raises
    ------
    UserError
        A file that is missing or no YAML mapping, an unknown key (with the nearest valid name),
        a value of the wrong type or range, or a setting that could have no effect.
    """
    path = pathlib.Path(path)
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the config {path}: {error}") from None
    try:
        values = yaml.safe_load(text)
    except (ValueError, RecursionError) as error:  # such as the date 2020-13-45
        raise UserError(f"{path}: not YAML: {one_line(error)}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else path
        raise UserError(
            "{}: not YAML: {}".format(where, getattr(error, "problem", None) or error)
        ) from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: a config is a mapping of keys to values")
    for override in overrides:
        if "=" not in override or override.startswith("-"):
            raise UserError(
                f"{override!r} is no override: write key=value, such as optimizer.lr=0.1"
            )
    try:
        given = OmegaConf.merge(OmegaConf.create(values), OmegaConf.from_dotlist(list(overrides)))
        for section in dataclasses.fields(Config):
            if dataclasses.is_dataclass(section.default_factory) and section.name in given:
                if not OmegaConf.is_dict(given[section.name]):
                    raise UserError(
                        f"{path}: {section.name} is a section of settings, such as "
                        f"{section.name}.{dataclasses.fields(section.default_factory)[0].name}, "
                        f"not {given[section.name]!r}"
                    )
        merged = OmegaConf.merge(OmegaConf.structured(Config), given)
        config = OmegaConf.to_object(merged)
    except ConfigKeyError as error:
        raise UserError(_unknown_key(path, error.full_key)) from None
    except MissingMandatoryValue as error:
        raise UserError(f"{path}: {error.full_key} is not set") from None
    except (
        OmegaConfBaseException,
        yaml.YAMLError,
        TypeError,  # such as a list where a section stands
        ValueError,
        RecursionError,
    ) as error:
        if isinstance(error, UserError):
            raise
        key = getattr(error, "full_key", None)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError("{}: {}{}".format(path, key + ": " if key else "", reason)) from None
    _check(config)
    return config


def to_yaml(config):
    """The whole configuration as YAML that :func:`load_config` reads."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)


def _check_finite(config, prefix=""):
    """Refuse infinite numbers and nan anywhere."""
    for key, value in dataclasses.asdict(config).items():
        section = getattr(config, key)
        if dataclasses.is_dataclass(section):
            _check_finite(section, f"{prefix}{key}.")
            continue
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, list):
                raise UserError(f"{prefix}{key} must be a list of numbers, not {value}")
            if isinstance(number, float) and not math.isfinite(number):
                raise UserError(f"{prefix}{key} must be finite, not {value}")


def _unknown_key(path, full_key):
    known, parent = Config, []
    for part in full_key.split("."):
        fields = {f.name: f for f in dataclasses.fields(known)}
        if part not in fields:
            break
        parent.append(part)
        known = fields[part].default_factory
    names = [".".join(parent + [name]) for name in fields]
    return "{}: unknown key {!r}{} (known: {})".format(
        path, full_key, suggest(full_key, names), ", ".join(names)
    )


def _check(config):
    """Refuse values out of range and settings without effect."""
    _check_finite(config)
    for section in (_check_top, _check_data, _check_optimizer, _check_schedule):
        section(config)
    _check_distillation(config.distillation)


def _require(rules):
    for key, holds, rule in rules:
        if not holds:
            raise UserError(f"{key} {rule}")


def _one_of(key, value, known):
    names = ", ".join(map(str, filter(None, known)))
    return key, value in known, f"must be one of {names}, not {value!r}"


def _check_top(config):
    _require(
        [
            ("epochs", config.epochs >= 1, "must be at least 1"),
            ("seed", 0 <= config.seed < 2**31, "must be in [0, 2**31)"),
            _one_of("initializer", config.initializer, INITIALIZERS),
            _one_of("precision", config.precision, PRECISIONS),
            _one_of("kvstore", config.kvstore, KVSTORES),
            (
                "checkpoint_steps",
                config.checkpoint_steps is None or config.checkpoint_steps >= 1,
                "must be at least 1",
            ),
            (
                "sync_batch_norm",
                not (config.sync_batch_norm and config.precision != "float32"),
                "works in float32 only: MXNet's operator has no float16",
            ),
        ]
    )
    for section in ("model", "distillation"):
        for key in ("name", "num_classes", "features_only"):
            if key in getattr(config, section).options:
                raise UserError(
                    f"{section}.options.{key} cannot be set: a classifier is trained, and the "
                    "network's name and the data set settle it"
                )


def _check_data(config):
    data = config.data
    _require(
        [
            ("data.batch_size", data.batch_size >= 1, "must be at least 1"),
            _one_of("data.name", data.name, DATASETS),
            *(
                (f"data.{key}", (getattr(data, key) or 0) >= 0, "must not be negative")
                for key in ("crop_padding", "jitter", "pca_noise")
            ),
            ("data.jitter", (data.jitter or 0) < 1, "must be less than 1"),
            (
                "data.image_size",
                data.image_size is None or data.image_size >= 1,
                "must be positive",
            ),
            (
                "data.crop_ratio",
                data.crop_ratio is None or 0 < data.crop_ratio <= 1,
                "must be in (0, 1]",
            ),
            ("data.workers", (data.workers or 0) >= 0, "must not be negative"),
            ("data.mixup_alpha", data.mixup_alpha >= 0, "must not be negative"),
            _one_of("data.autoaugment", data.autoaugment, AUTOAUGMENT),
            (
                "data.mixup_off_epochs",
                data.mixup_off_epochs is None or data.mixup_alpha,
                "has no effect without data.mixup_alpha",
            ),
            (
                "data.mixup_off_epochs",
                0 <= (data.mixup_off_epochs or 0) < config.epochs,
                "must be in [0, epochs)",
            ),
        ]
    )
    check_effects(data)


def check_effects(data, flags=None):
    """Refuse settings of a :class:`DataConfig` that have no effect on its data set.

    ``flags``: what a message calls a setting instead of ``data.KEY``.
    """
    for key, names in ONLY_FOR.items():
        if getattr(data, key) not in (None, False) and data.name not in names:
            called = (flags or {}).get(key, f"data.{key}")
            raise UserError(f"{called} has an effect on {', '.join(names)} only")


def _check_optimizer(config):
    optimizer = config.optimizer
    _require(
        [
            ("optimizer.lr", optimizer.lr > 0, "must be positive"),
            ("optimizer.momentum", 0 <= optimizer.momentum < 1, "must be in [0, 1)"),
            ("optimizer.weight_decay", optimizer.weight_decay >= 0, "must not be negative"),
            ("optimizer.label_smoothing", 0 <= optimizer.label_smoothing < 1, "must be in [0, 1)"),
            (
                "optimizer.clip_gradient",
                optimizer.clip_gradient is None or optimizer.clip_gradient > 0,
                "must be positive",
            ),
        ]
    )


def _check_schedule(config):
    schedule = config.schedule
    _require(
        [
            _one_of("schedule.name", schedule.name, tuple(SCHEDULES)),
            _one_of("schedule.unit", schedule.unit, UNITS),
            ("schedule.warmup", schedule.warmup >= 0, "must not be negative"),
        ]
    )
    for key in {key for keys in SCHEDULES.values() for key in keys} - set(SCHEDULES[schedule.name]):
        if getattr(schedule, key) is not None:
            raise UserError(f"schedule.{key} has no effect on a {schedule.name} schedule")
    if schedule.power is not None and not schedule.power > 0:
        raise UserError("schedule.power must be positive")
    if schedule.name == "step":
        milestones = schedule.milestones
        if not milestones or sorted(set(milestones)) != list(milestones) or milestones[0] <= 0:
            raise UserError(
                "schedule.milestones of a step schedule must be increasing positive "
                f"{schedule.unit}, not {milestones}"
            )
        if schedule.factor is not None and not 0 < schedule.factor < 1:
            raise UserError("schedule.factor must be in (0, 1)")
        if milestones[0] <= schedule.warmup:
            raise UserError("schedule.milestones must come after the warm-up")
    if schedule.unit == "epochs":
        check_length(schedule, config.epochs)


def check_length(schedule, length):
    """Refuse a warm-up or a milestone at or after the run's end, ``length`` in the unit of both."""
    for key, last in (
        ("warmup", schedule.warmup),
        ("milestones", (schedule.milestones or [0])[-1]),
    ):
        if last >= length:
            raise UserError(
                f"schedule.{key}: {last:g} lies outside a run of {length:g} {schedule.unit}"
            )


def _check_distillation(distillation):
    if distillation.teacher is None:
        for key in ("params", "weight", "temperature"):
            if getattr(distillation, key) is not None:
                raise UserError(f"distillation.{key} has no effect without distillation.teacher")
        if distillation.options:
            raise UserError("distillation.options has no effect without distillation.teacher")
        return
    weight, temperature = distillation.weight, distillation.temperature
    _require(
        [
            ("distillation.params", distillation.params, "is needed: the teacher's parameters"),
            ("distillation.weight", weight is None or 0 < weight <= 1, "must be in (0, 1]"),
            (
                "distillation.temperature",
                temperature is None or temperature > 0,
                "must be positive",
            ),
        ]
    )
