"""Speed of training steps of whole networks, see :mod:`openaff.analysis.benchmark`."""

import multiprocessing
import pathlib
import re
from concurrent import futures
from types import SimpleNamespace

import mxnet as mx

from ..analysis.benchmark import (
    CLASSES,
    FORMS,
    NETWORKS,
    build_network,
    random_images,
    ratio_row,
    take_turns,
)
from ..models import model_info
from ..tasks import TASKS
from ..utils.errors import UserError
from .engine import Engine
from .optimizers import OptimizerConfig
from .session import networks


def _training(form, key, backbone, options, batch_size, size):
    net = build_network(form, key, backbone, options)
    classes = options.get("num_classes", CLASSES)
    return _steps(net, backbone, classes, OptimizerConfig(), batch_size, size)


def steps_of(config, classes, size):
    """What trains the network of a configuration for some steps, on random images of (H, W)."""
    net, _ = networks(config, classes, [mx.cpu()])
    return _steps(net, config.model.name, classes, config.optimizer, config.data.batch_size, size)


def _steps(net, model, classes, optimizer, batch_size, size, steps=2):
    made_up = SimpleNamespace(name="made up", class_names=tuple(map(str, range(classes))))
    task = TASKS[model_info(model).backbone.task](made_up)
    engine = Engine(net, task.loss, lambda step: 0.01, optimizer)
    targets = mx.nd.zeros((batch_size, *size) if task.dense else batch_size)
    batch = random_images(batch_size, size), targets

    def work():
        meter = task.meter()
        for _ in range(steps):
            engine.train_step(*batch, meter)
        mx.nd.waitall()
        return steps * batch_size

    return work


def _peak_memory(make, arguments):
    """MiB at the most, in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        try:
            return pool.submit(_work_and_measure, make, arguments).result()
        except futures.process.BrokenProcessPool:
            raise UserError(
                "the process whose memory is measured was killed, perhaps for lack of memory"
            ) from None


def _work_and_measure(make, arguments):
    make(*arguments)()
    # Not getrusage: its maximum is inherited from the parent process.
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status).group(1)) / 1024


def train(turns=5, memory=True):
    """Training steps of whole networks, with the peak memory of each form."""
    rows = []
    for key, backbone, options, batch_size, size in NETWORKS:
        arguments = {form: (form, key, backbone, options, batch_size, size) for form in FORMS}
        rates = take_turns({form: _training(*each) for form, each in arguments.items()}, turns)
        peaks = {
            f"{form} MiB": _peak_memory(_training, each)
            for form, each in arguments.items()
            if memory
        }
        rows.append(ratio_row(f"{key}_{backbone}, batch {batch_size}", "images/s", rates, **peaks))
    return rows
