"""Tasks: what a network is trained for."""

from . import classification  # noqa: F401  (registers its task)
from .base import METRICS, TASKS, Meter, Metric, NonFiniteLoss, Task

__all__ = ["METRICS", "TASKS", "Meter", "Metric", "NonFiniteLoss", "Task", "load_task"]


def load_task(dataset, loss=None):
    """The :class:`Task` of a data set, its loss with these options."""
    return TASKS[dataset.task](dataset, loss)
