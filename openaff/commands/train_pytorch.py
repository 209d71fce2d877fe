"""Train a network for classification in PyTorch, by the recipes of openaff train.

    openaff train-pytorch cifar/aff_resnet8 --out runs/aff8-torch data.root=DIR
    openaff train-pytorch --resume runs/aff8-torch

Initial weights, batches, learning rates and update rules are those of openaff train, and so is the
run folder.  It also holds best.safetensors and last.safetensors, which network.py loads.
"""

import functools
import re

import mxnet as mx

from ..data import DATASETS
from ..deploy.pytorch.engine import TorchEngine, Updates
from ..deploy.pytorch.weights import import_torch
from ..tasks.classification import Classification
from ..utils.errors import UserError, first_line
from . import train


def main():
    train.main(__doc__, "train-pytorch", PyTorch)


class PyTorch(train.Backend):
    """What trains: PyTorch, on one device."""

    help = "cpu, cuda or cuda:N (%(default)s)"

    def __init__(self, devices):
        torch = import_torch()
        self.contexts = [mx.cpu()]  # of what MXNet still does: it makes the initial weights
        self.device = devices
        if not re.fullmatch(r"cpu|cuda(:\d+)?", devices):
            raise UserError(f"--devices {devices!r}: write cpu, cuda or cuda:N")
        try:
            torch.zeros(1, device=devices)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"--devices {devices} cannot be used: {first_line(error)}") from None

    def engine(self, config):
        _check(config)
        model = {"model": config.model.name, "options": config.model.options}
        return functools.partial(TorchEngine, **model, device=self.device)


def _check(config):
    """Refuse what a recipe asks for and PyTorch does not do here."""
    task = DATASETS[config.data.name].task
    for key, asked in (
        ("data.name", task != Classification.key and config.data.name),
        ("distillation.teacher", config.distillation.teacher),
        ("optimizer.name", config.optimizer.name not in Updates.STATES and config.optimizer.name),
        ("precision", config.precision != "float32" and config.precision),
        ("sync_batch_norm", config.sync_batch_norm),
        ("kvstore", config.kvstore),
        ("freeze", config.freeze),
        ("lr_mult", config.lr_mult),
    ):
        if asked:
            raise UserError(
                f"{key}={asked} is not for training in PyTorch, which trains whole classifiers in "
                "float32 on one device, without a teacher: use openaff train"
            )
    if config.data.batch_size == 1:
        raise UserError("data.batch_size=1: a batch norm of PyTorch needs two values or more")
