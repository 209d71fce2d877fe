"""Typed configurations: dataclasses, filled from YAML and ``key=value`` overrides."""

import dataclasses
import math
import pathlib
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from .errors import UserError, suggest

AUTOAUGMENT = (None, "cifar10", "imagenet")
INITIALIZERS = ("xavier", "msraprelu")
SCHEDULES = {"cosine": (), "step": ("milestones", "factor"), "polynomial": ("power",)}


@dataclass
class ModelConfig:
    name: str = MISSING  # a model id, see openaff.list_models()
    options: Dict[str, Any] = field(default_factory=dict)  # of the family: width_multiplier, ...


@dataclass
class DataConfig:
    name: str = "digits"  # or cifar10, cifar100
    root: Optional[str] = None  # folder of the files; by default Gluon's own, see openaff.data
    labels: Optional[str] = None  # cifar100: fine (the default, 100 classes) or coarse (20)
    download: bool = False  # fetch what is missing into root
    batch_size: int = 128  # images per device and step
    crop_padding: int = 4  # pixels of zeros around an image before the random crop
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
    warmup_epochs: float = 0.0  # linear from 0
    milestones: Optional[List[float]] = None  # step: epochs after which lr is multiplied
    factor: Optional[float] = None  # step: by this, 0.1 by default
    power: Optional[float] = None  # polynomial: its power, 2 by default


@dataclass
class Config:
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    epochs: int = MISSING
    seed: int = 0
    initializer: str = "xavier"  # xavier or msraprelu
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
        raise UserError(f"{path}: not YAML: {_one_line(error)}") from None
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
    except (OmegaConfBaseException, yaml.YAMLError, ValueError, RecursionError) as error:
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


def _one_line(error):
    return " ".join(str(error).split()) or type(error).__name__


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
    rules = [
        ("epochs", config.epochs >= 1, "must be at least 1"),
        ("data.batch_size", config.data.batch_size >= 1, "must be at least 1"),
        ("data.crop_padding", config.data.crop_padding >= 0, "must not be negative"),
        ("optimizer.lr", config.optimizer.lr > 0, "must be positive"),
        ("optimizer.momentum", 0 <= config.optimizer.momentum < 1, "must be in [0, 1)"),
        ("optimizer.weight_decay", config.optimizer.weight_decay >= 0, "must not be negative"),
        (
            "schedule.warmup_epochs",
            0 <= config.schedule.warmup_epochs < config.epochs,
            "must be in [0, epochs)",
        ),
        (
            "optimizer.label_smoothing",
            0 <= config.optimizer.label_smoothing < 1,
            "must be in [0, 1)",
        ),
        (
            "optimizer.clip_gradient",
            config.optimizer.clip_gradient is None or config.optimizer.clip_gradient > 0,
            "must be positive",
        ),
        ("data.workers", (config.data.workers or 0) >= 0, "must not be negative"),
        ("data.mixup_alpha", config.data.mixup_alpha >= 0, "must not be negative"),
        ("initializer", config.initializer in INITIALIZERS, f"must be one of {INITIALIZERS}"),
        (
            "checkpoint_steps",
            config.checkpoint_steps is None or config.checkpoint_steps >= 1,
            "must be at least 1",
        ),
        ("seed", 0 <= config.seed < 2**31, "must be in [0, 2**31)"),
    ]
    for key, holds, rule in rules:
        if not holds:
            raise UserError(f"{key} {rule}")
    for key in ("name", "num_classes", "features_only"):
        if key in config.model.options:
            raise UserError(
                f"model.options.{key} cannot be set: a classifier is trained, and the "
                "model's name and the data set settle it"
            )
    schedule = config.schedule
    if schedule.name not in SCHEDULES:
        raise UserError(f"schedule.name must be one of {tuple(SCHEDULES)}, not {schedule.name!r}")
    for key in {key for keys in SCHEDULES.values() for key in keys} - set(SCHEDULES[schedule.name]):
        if getattr(schedule, key) is not None:
            raise UserError(f"schedule.{key} has no effect on a {schedule.name} schedule")
    if schedule.power is not None and not schedule.power > 0:
        raise UserError("schedule.power must be positive")
    if schedule.name == "step":
        milestones = schedule.milestones
        if not milestones or sorted(set(milestones)) != list(milestones) or milestones[0] <= 0:
            raise UserError(
                "schedule.milestones of a step schedule must be increasing positive epochs, not "
                f"{milestones}"
            )
        if schedule.factor is not None and not 0 < schedule.factor < 1:
            raise UserError("schedule.factor must be in (0, 1)")
        if milestones[0] <= schedule.warmup_epochs:
            raise UserError("schedule.milestones must come after the warm-up")
        if milestones[-1] >= config.epochs:
            raise UserError(
                f"schedule.milestones: {milestones[-1]} has no effect in {config.epochs} epochs"
            )
    data = config.data
    if data.autoaugment not in AUTOAUGMENT:
        raise UserError(
            f"data.autoaugment must be {', '.join(map(str, AUTOAUGMENT[1:]))} or null, not "
            f"{data.autoaugment!r}"
        )
    if data.mixup_off_epochs is not None and not data.mixup_alpha:
        raise UserError("data.mixup_off_epochs has no effect without data.mixup_alpha")
    if not 0 <= (data.mixup_off_epochs or 0) < config.epochs:
        raise UserError("data.mixup_off_epochs must be in [0, epochs)")
    if config.data.labels is not None and config.data.name != "cifar100":
        raise UserError("data.labels has an effect on cifar100 only")
    if config.data.name == "digits" and (config.data.root is not None or config.data.download):
        raise UserError("data.root and data.download have no effect on the embedded digits")
