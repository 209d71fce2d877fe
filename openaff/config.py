"""Typed configurations: dataclasses, filled from YAML and ``key=value`` overrides."""

import dataclasses
import pathlib
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from .errors import UserError, suggest


@dataclass
class ModelConfig:
    name: str = MISSING  # a model id, see openaff.list_models()
    options: Dict[str, Any] = field(default_factory=dict)  # of the family: width_multiplier, ...


@dataclass
class DataConfig:
    name: str = MISSING  # digits, cifar10 or cifar100
    root: Optional[str] = None  # folder of the files; by default Gluon's own, see openaff.data
    labels: Optional[str] = None  # cifar100: fine (the default, 100 classes) or coarse (20)
    download: bool = False  # fetch what is missing into root
    batch_size: int = 128  # images per device and step
    crop_padding: int = 4  # pixels of zeros around an image before the random crop
    flip: bool = True  # mirror half of the training images


@dataclass
class OptimizerConfig:
    lr: float = 0.2  # the schedule's peak
    momentum: float = 0.9  # Nesterov
    weight_decay: float = 1e-4


@dataclass
class ScheduleConfig:
    name: str = "cosine"  # cosine or step
    warmup_epochs: float = 0.0  # linear from 0
    milestones: Optional[List[float]] = None  # step: epochs after which lr is multiplied
    factor: Optional[float] = None  # step: by this, 0.1 by default


@dataclass
class Config:
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    epochs: int = MISSING
    seed: int = 0


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
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        key = getattr(error, "full_key", None)
        reason = str(error).splitlines()[0]
        raise UserError("{}: {}{}".format(path, key + ": " if key else "", reason)) from None
    _check(config)
    return config


def to_yaml(config):
    """The whole configuration as YAML that :func:`load_config` reads."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)


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
        ("seed", 0 <= config.seed < 2**31, "must be in [0, 2**31)"),
    ]
    for key, holds, rule in rules:
        if not holds:
            raise UserError(f"{key} {rule}")
    for key in ("name", "num_classes"):
        if key in config.model.options:
            raise UserError(f"model.options.{key}: the model's name and the data set settle it")
    schedule = config.schedule
    if schedule.name == "cosine":
        for key in ("milestones", "factor"):
            if getattr(schedule, key) is not None:
                raise UserError(f"schedule.{key} has no effect on a cosine schedule")
    elif schedule.name == "step":
        milestones = schedule.milestones
        if not milestones or sorted(set(milestones)) != list(milestones) or milestones[0] <= 0:
            raise UserError(
                "schedule.milestones of a step schedule must be increasing positive epochs, not "
                f"{milestones}"
            )
        if milestones[-1] >= config.epochs:
            raise UserError(
                f"schedule.milestones: {milestones[-1]} has no effect in {config.epochs} epochs"
            )
    else:
        raise UserError(f"schedule.name must be cosine or step, not {schedule.name!r}")
    if config.data.labels is not None and config.data.name != "cifar100":
        raise UserError("data.labels has an effect on cifar100 only")
    if config.data.name == "digits" and (config.data.root is not None or config.data.download):
        raise UserError("data.root and data.download have no effect on the embedded digits")
