"""Tasks: what a network is trained for."""

from ..utils.framework import import_mxnet

import_mxnet()

from . import classification  # noqa: E402,F401  (registers its task)
from .base import METRICS, TASKS, Meter, Metric, NonFiniteLoss, Task  # noqa: E402

__all__ = ["METRICS", "TASKS", "Meter", "Metric", "NonFiniteLoss", "Task", "load_task"]


def load_task(dataset, loss=None):
    """The :class:`Task` of a data set, its loss with these options."""
    return TASKS[dataset.task](dataset, loss)
