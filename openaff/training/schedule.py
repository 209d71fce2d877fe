"""Learning rate schedules: pure functions of the step."""

import bisect
import math
from dataclasses import dataclass
from typing import List, Optional

from ..utils.configs import Section, require
from ..utils.errors import UserError

UNITS = ("epochs", "steps")
SCHEDULES = {"cosine": (), "step": ("milestones", "factor"), "polynomial": ("power",)}

_FACTOR, _POWER = 0.1, 2.0  # by default


@dataclass
class ScheduleConfig(Section):
    name: str = "cosine"  # cosine, step or polynomial
    unit: str = "epochs"  # or steps: the unit of warmup and milestones
    warmup: float = 0.0  # length; linear from 0
    milestones: Optional[List[float]] = None  # step: here lr is multiplied
    factor: Optional[float] = None  # step: by this, default 0.1
    power: Optional[float] = None  # polynomial: default 2

    def check(self, prefix="schedule."):
        super().check(prefix)
        require(
            prefix,
            self.one_of("name", tuple(SCHEDULES)),
            self.one_of("unit", UNITS),
            ("warmup", self.warmup >= 0, "must not be negative"),
            (
                "unit",
                self.unit == "epochs" or self.warmup or self.milestones,
                f"{self.unit} has no effect without warmup or milestones",
            ),
        )
        for key in ("milestones", "factor", "power"):
            if getattr(self, key) is not None and key not in SCHEDULES[self.name]:
                raise UserError(f"{prefix}{key} has no effect on a {self.name} schedule")
        require(prefix, ("power", self.power is None or self.power > 0, "must be positive"))
        if self.name == "step":
            marks, factor = self.milestones or [], self.factor
            increasing = marks and marks == sorted(set(marks)) and marks[0] > 0
            require(
                prefix,
                (
                    "milestones",
                    increasing,
                    f"of a step schedule must be increasing positive {self.unit}, not {marks}",
                ),
                ("factor", factor is None or 0 < factor < 1, "must be in (0, 1)"),
                ("milestones", marks[:1] > [self.warmup], "must come after the warm-up"),
            )

    def check_length(self, length):
        """Reject a warm-up or milestone at or after the run's end; ``length`` is in their unit."""
        for key, last in (("warmup", self.warmup), ("milestones", (self.milestones or [0])[-1])):
            if last >= length:
                raise UserError(
                    f"schedule.{key}: {last:g} lies outside a run of {length:g} {self.unit}"
                )

    def describe(self):
        """In words, for result files."""
        form = self.name
        if self.milestones:
            form += f" at {self.unit} " + ", ".join(map("{:g}".format, self.milestones))
            form += f", times {_FACTOR if self.factor is None else self.factor:g}"
        if self.name == "polynomial":
            form += f", power {_POWER if self.power is None else self.power:g}"
        return f"{form}; {self.warmup:g} warm-up {self.unit}"


def cosine(step, total, peak):
    """``peak * (1 + cos(pi * step / total)) / 2``: from ``peak`` at step 0 to 0 at ``total``."""
    return peak * (1 + math.cos(math.pi * step / total)) / 2


def step_decay(step, milestones, peak, factor):
    """``peak * factor ** k``, k the number of ``milestones`` (in steps) at or before ``step``."""
    return peak * factor ** bisect.bisect_right(milestones, step)


def polynomial(step, total, peak, power):
    """``peak * (1 - step / total) ** power``: from ``peak`` at step 0 to 0 at ``total``."""
    return peak * (1 - step / total) ** power


class Schedule:
    """``schedule(step)`` is the learning rate of step 0, 1, ... of a run.

    Parameters
    ----------
    config : ScheduleConfig
        Form, warm-up and milestones, in epochs or steps.
    peak : float
        The learning rate after the warm-up.
    epochs : int
        Number of epochs.
    steps_per_epoch : int
        Steps per epoch.

    Raises
    ------
    UserError
        A warm-up or milestone lies at or after the run's end, is less than half a step long, or
        two milestones are one step.
    """

    def __init__(self, config, peak, epochs, steps_per_epoch):
        self.peak = peak
        self.total = epochs * steps_per_epoch
        if config.unit == "steps":
            config.check_length(self.total)
        steps = steps_per_epoch if config.unit == "epochs" else 1  # per unit
        self.warmup = round(config.warmup * steps)
        self.name = config.name
        self.factor = _FACTOR if config.factor is None else config.factor
        self.power = _POWER if config.power is None else config.power
        self.milestones = [round(milestone * steps) for milestone in config.milestones or ()]
        acting = {step for step in self.milestones if 0 < step < self.total}
        if len(acting) < len(self.milestones):
            raise UserError(
                f"schedule.milestones: in a run of {self.total} steps they are at "
                f"{', '.join(map(str, self.milestones))}, and not all change anything"
            )
        if config.warmup and not self.warmup:
            raise UserError(
                f"schedule.warmup: {config.warmup:g} {config.unit} is less than half a step"
            )

    def __call__(self, step):
        if step < self.warmup:
            return self.peak * step / self.warmup  # linear from 0
        if self.name == "step":
            return step_decay(step, self.milestones, self.peak, self.factor)
        step, total = step - self.warmup, self.total - self.warmup
        if self.name == "polynomial":
            return polynomial(step, total, self.peak, self.power)
        return cosine(step, total, self.peak)
