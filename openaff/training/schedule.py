"""Learning rates as pure functions of the step."""

import bisect
import math

from .config import check_length


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
    """``schedule(step)``: the learning rate of step 0, 1, ... of a whole run.

    Parameters
    ----------
    config : ScheduleConfig
        Form, warm-up and milestones, in epochs or steps.
    peak : float
        The learning rate after the warm-up.
    epochs : int
        Epochs of the run.
    steps_per_epoch : int
        Steps an epoch.

    Raises
    ------
    UserError
        A warm-up or milestone, counted in steps, at or after the run's end.
    """

    def __init__(self, config, peak, epochs, steps_per_epoch):
        self.peak = peak
        self.total = epochs * steps_per_epoch
        if config.unit == "steps":
            check_length(config, self.total)
        steps = steps_per_epoch if config.unit == "epochs" else 1  # a unit's
        self.warmup = round(config.warmup * steps)
        self.name = config.name
        self.factor = 0.1 if config.factor is None else config.factor
        self.power = 2.0 if config.power is None else config.power
        self.milestones = [round(milestone * steps) for milestone in config.milestones or ()]

    def __call__(self, step):
        if step < self.warmup:
            return self.peak * step / self.warmup  # linear from 0
        if self.name == "step":
            return step_decay(step, self.milestones, self.peak, self.factor)
        step, total = step - self.warmup, self.total - self.warmup
        if self.name == "polynomial":
            return polynomial(step, total, self.peak, self.power)
        return cosine(step, total, self.peak)
