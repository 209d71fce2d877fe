"""The configuration of a training: every setting, with its rules in its own section."""

import dataclasses
import math
import pathlib
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

import yaml
from omegaconf import MISSING

from ..data import DATASETS, DataConfig
from ..models.pretrained import PUBLISHED
from ..tasks import TASKS, check_network
from ..utils.configs import Section, build, check_types, read_yaml, require
from ..utils.errors import UserError
from ..utils.imports import import_modules
from ..utils.packaged import config_path
from .optimizers import OptimizerConfig
from .schedule import ScheduleConfig

INITIALIZERS = ("xavier", "msraprelu")
PRECISIONS = ("float32", "float16", "amp")
KVSTORES = (None, "dist_sync", "dist_device_sync")
SETTLED = ("name", "num_classes", "features_only")  # of a network's options: not to be set


# What a resumed run may change, by name: how long it trains, and where and how it reads.
CHANGEABLE = (
    "epochs",
    "checkpoint_steps",
    "data.root",
    "data.download",
    "data.workers",
    "distillation.params",
)


@dataclass
class ModelConfig(Section):
    name: str = MISSING  # a model id, see openaff.list_models()
    options: Dict[str, Any] = field(default_factory=dict)  # of the family: width_multiplier, ...

    def check(self, prefix="model."):
        super().check(prefix)
        _check_options(self.options, prefix)


@dataclass
class DistillationConfig(Section):
    teacher: Optional[str] = None  # a model id, or gluoncv:NAME; null: no distillation
    params: Optional[str] = None  # the teacher's parameters
    options: Dict[str, Any] = field(default_factory=dict)  # of the teacher's family
    weight: Optional[float] = None  # the teacher's part of the loss, 0.5 by default
    temperature: Optional[float] = None  # divides both networks' logits, 4 by default

    def check(self, prefix="distillation."):
        super().check(prefix)
        _check_options(self.options, prefix)
        if self.teacher is None:
            for key in ("params", "options", "weight", "temperature"):
                if getattr(self, key) not in (None, {}):
                    raise UserError(f"{prefix}{key} has no effect without {prefix}teacher")
            return
        weight, temperature = self.weight, self.temperature
        require(
            prefix,
            ("params", self.params, "is needed: the teacher's parameters"),
            ("weight", weight is None or 0 < weight <= 1, "must be in (0, 1]"),
            ("temperature", temperature is None or temperature > 0, "must be positive"),
        )


def _check_options(options, prefix):
    if "pretrained" in options:
        raise UserError(
            f"{prefix}options.pretrained cannot be set: training starts from what start_from names"
        )
    for key in SETTLED:
        if key in options:
            raise UserError(
                f"{prefix}options.{key} cannot be set: the network's name and the data set "
                "settle it"
            )


@dataclass
class Config(Section):
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: Dict[str, Any] = field(default_factory=dict)  # of the task: label_smoothing, ...
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    imports: List[str] = field(default_factory=list)  # your modules, which register what you add
    epochs: int = MISSING
    seed: int = 0
    initializer: str = "xavier"  # xavier or msraprelu
    start_from: Optional[str] = None  # a file, a run, an export, a key, or a name
    start_params: Optional[str] = None  # the file of a published name
    freeze: List[str] = field(default_factory=list)  # patterns of parameters that stay
    lr_mult: Dict[str, float] = field(default_factory=dict)  # pattern -> factor of the rate
    precision: str = "float32"  # float16 (float32 master weights) or amp, on GPUs
    sync_batch_norm: bool = False  # one batch norm over all devices of a process
    kvstore: Optional[str] = None  # several processes: dist_sync or dist_device_sync
    checkpoint_steps: Optional[int] = None  # a checkpoint every so many steps, too

    def check(self, prefix=""):
        """Import the user's modules, then refuse values out of range and settings without effect.

        Raises
        ------
        UserError
            What is wrong, in one line, wherever the configuration comes from.
        """
        check_types(self)
        require(prefix, *((key, value != MISSING, "is not set") for key, value in self._needed()))
        import_modules(self.imports)
        super().check(prefix)
        require(
            prefix,
            ("epochs", self.epochs >= 1, "must be at least 1"),
            ("seed", 0 <= self.seed < 2**31, "must be in [0, 2**31)"),
            self.one_of("initializer", INITIALIZERS),
            self.one_of("precision", PRECISIONS),
            self.one_of("kvstore", KVSTORES),
            (
                "checkpoint_steps",
                self.checkpoint_steps is None or self.checkpoint_steps >= 1,
                "must be at least 1",
            ),
            (
                "sync_batch_norm",
                not (self.sync_batch_norm and self.precision != "float32"),
                "works in float32 only: MXNet's operator has no float16",
            ),
            (
                "data.mixup_off_epochs",
                (self.data.mixup_off_epochs or 0) < self.epochs,
                "must be in [0, epochs)",
            ),
        )
        published = self.start_from in PUBLISHED
        require(
            prefix,
            ("start_from", self.start_from != "", "must name a run, a file or a published network"),
            (
                "loss.label_smoothing",
                not (self.distillation.weight == 1 and self.loss.get("label_smoothing")),
                "has no effect with distillation.weight=1, which leaves the labels out",
            ),
            (
                "start_params",
                self.start_params or not published,
                f"is needed: the file of {self.start_from}",
            ),
            (
                "start_params",
                self.start_params is None or published,
                "has no effect without a published name in start_from",
            ),
            *(
                (
                    "lr_mult",
                    math.isfinite(factor) and factor > 0,
                    f"of {pattern!r} must be positive",
                )
                for pattern, factor in self.lr_mult.items()
            ),
        )
        if self.schedule.unit == "epochs":
            self.schedule.check_length(self.epochs)
        check_network(self.model.name, self.data.name)
        TASKS[DATASETS[self.data.name].task].make_loss(self.loss)

    def _needed(self):
        return ("model.name", self.model.name), ("epochs", self.epochs)


def load_config(source, overrides=()):
    """The checked :class:`Config` of a YAML file or a dict, changed by overrides.

    Parameters
    ----------
    source : path-like or dict
        A file, a name such as ``cifar/aff_resnet8``, see
        :func:`~openaff.utils.packaged.config_path`, or a file's content.
    overrides : sequence of str
        ``"optimizer.lr=0.1"`` and so on.

    Raises
    ------
    UserError
        A file that is missing or no YAML mapping, an unknown key (with the nearest valid name),
        a value of the wrong type or range, or a setting that has no effect.
    """
    where = "config" if isinstance(source, dict) else config_path(source)
    values = source if isinstance(source, dict) else read_yaml(where)
    moved = "optimizer.label_smoothing=", "loss.label_smoothing="
    overrides = [override.replace(*moved) for override in overrides]
    config = build(Config, _moved(values), overrides, where)
    config.check()
    return config


def _moved(values):
    """Settings under the names that they have now, for files of the first edition."""
    optimizer = values.get("optimizer")
    if isinstance(optimizer, dict) and "label_smoothing" in optimizer:
        optimizer = dict(optimizer)
        smoothing = optimizer.pop("label_smoothing")
        values = {**values, "optimizer": optimizer}
        if smoothing:
            values["loss"] = {"label_smoothing": smoothing, **(values.get("loss") or {})}
    return values


def changed_config(folder, overrides):
    """The :class:`Config` of a run folder that is resumed, and the names that overrides change.

    Raises
    ------
    UserError
        See :func:`load_config`; an override of a setting that a run keeps.
    """
    config = load_config(pathlib.Path(folder) / "config.yaml", overrides)
    names = {override.partition("=")[0] for override in overrides}
    for name in sorted(names - set(CHANGEABLE)):
        raise UserError(
            f"{name} cannot change in a run that has begun, only {', '.join(CHANGEABLE)} can: "
            "start another run with --config and --out"
        )
    return config, names


def refuse_differences(config, before, names, folder, checkpoint):
    """Refuse a configuration that is not the one that a checkpoint was written with.

    Parameters
    ----------
    config : Config
        Of the run folder, with overrides.
    before : dict
        What the checkpoint holds.
    names : set of str
        Settings that may differ: the overrides'.
    folder, checkpoint : path-like
        For the message.

    Raises
    ------
    UserError
        It names the first setting that differs.
    """
    before = _settings(build(Config, before, where=checkpoint))
    for key, value in _settings(config).items():
        if key in names or value == before[key]:
            continue
        remedy = f"write {before[key]!r} there again, or start another run"
        if key in CHANGEABLE:
            remedy += f", or allow the change: --resume {folder} {key}={value}"
        raise UserError(
            f"{key} is {value!r} in {folder}/config.yaml, but {checkpoint} was written with "
            f"{before[key]!r}: {remedy}"
        )


def _settings(section, prefix=""):
    """Every setting by its full name, such as ``optimizer.lr``."""
    settings = {}
    for key, value in vars(section).items():
        if isinstance(value, Section):
            settings.update(_settings(value, f"{prefix}{key}."))
        else:
            settings[prefix + key] = value
    return settings


def to_yaml(config):
    """The whole configuration as YAML that :func:`load_config` reads."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)
