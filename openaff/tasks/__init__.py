"""Tasks: what a network is trained for."""

from ..utils.framework import import_mxnet

import_mxnet()

from ..data import DATASETS  # noqa: E402
from ..models import model_info  # noqa: E402
from ..utils.errors import UserError  # noqa: E402
from . import classification, segmentation  # noqa: E402,F401  (register their tasks)
from .base import METRICS, TASKS, Meter, Metric, NonFiniteLoss, Task  # noqa: E402

__all__ = [
    "METRICS",
    "TASKS",
    "Meter",
    "Metric",
    "NonFiniteLoss",
    "Task",
    "check_network",
    "load_task",
]


def load_task(dataset, loss=None):
    """The :class:`Task` of a data set, its loss with these options."""
    return TASKS[dataset.task](dataset, loss)


def check_network(model, dataset):
    """Refuse a network, a model id, whose outputs are not what a data set's task needs.

    Raises
    ------
    UserError
        An unknown name, or a network for another task.
    """
    made_for, needed = model_info(model).backbone.task, DATASETS[dataset].task
    if made_for != needed:
        raise UserError(
            f"{model} is a network for {made_for}, and {dataset} a data set for {needed}: "
            "take another network or another data set"
        )
