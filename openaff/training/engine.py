"""One network on some devices: training steps and evaluation."""

import contextlib
import random

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.contrib import amp

from ..tasks.evaluation import evaluate, split
from ..utils.quiet import POOLING, without_lines
from .distributed import Workers
from .optimizers import count_updates, restore_state_arrays, restore_updates, state_arrays


class Engine:
    """Trains an initialised, hybridised network, one step at a time.

    Parameters
    ----------
    net : HybridBlock
        The network to train.  Each of its devices gets an equal share of every batch.
    loss : callable
        ``loss(outputs, targets, images)``: float32 (N,).
    schedule : callable
        ``schedule(step)``: the learning rate.
    optimizer : OptimizerConfig
        Which optimiser, and its settings.
    seed : int
        Every random number of a step follows from it and the step's number.
    precision : str
        ``float32``; ``float16`` updates float32 master copies of a network that was cast;
        ``amp`` scales the loss as MXNet's automatic mixed precision asks for.
    workers : Workers, optional
        The processes that train together; by default this one alone.
    """

    framework = "MXNet"

    def __init__(self, net, loss, schedule, optimizer, seed=0, precision="float32", workers=None):
        self.net = net
        self.loss = loss
        self.schedule = schedule
        self.seed = seed
        self.dtype = "float16" if precision == "float16" else "float32"
        self.amp = precision == "amp"
        self.workers = workers or Workers()
        self.step = 0
        self._shapes = set()  # of batches that there was a step on
        if optimizer.no_wd:
            for param in net.collect_params(".*(gamma|beta|bias)$").values():
                param.wd_mult = 0.0
        # Each device updates its own copy, so that the states can be saved and restored exactly.
        self.trainer = gluon.Trainer(
            net.collect_params(),
            optimizer.name,
            {"learning_rate": schedule(0), **optimizer.settings(precision)},
            kvstore=self.workers.kvstore or "device",
            update_on_kvstore=False,
        )
        self.devices = self.trainer._contexts
        # Now rather than in the first step, where it would overwrite what a checkpoint restored:
        # the first device's values, running statistics too, go to all, of all workers.
        self.trainer._init_kvstore()
        self.trainer._init_params()
        if self.amp:
            amp.init_trainer(self.trainer)

    def train_step(self, images, targets, meter):
        """One update on a batch, which is also added to ``meter``.

        Parameters
        ----------
        images : NDArray
            float32 (N, 3, H, W), on the CPU.
        targets : NDArray
            float32 (N, ...), what the loss takes.
        meter : Meter
            Measures the epoch.

        Raises
        ------
        NonFiniteLoss
            The loss of the step before is infinite or not a number.
        """
        if images.shape in self._shapes or self.devices[0].device_type != "cpu":
            self._train_step(images, targets, meter)
            return
        with without_lines(POOLING):  # of operators that are prepared for a new shape
            self._train_step(images, targets, meter)
            mx.nd.waitall()
        self._shapes.add(images.shape)

    def _train_step(self, images, targets, meter):
        seed_step(self.seed, self.step)
        xs, ys = split(images, self.devices), split(targets, self.devices)
        xs = [x.astype(self.dtype, copy=False) for x in xs]
        with autograd.record():
            outputs = [self.net(x) for x in xs]
            losses = [self.loss(output, y, x) for output, y, x in zip(outputs, ys, xs)]
            with self._scaled(losses) as scaled:
                pass
        autograd.backward(scaled)
        self.trainer.set_learning_rate(self.schedule(self.step))
        self.trainer.step(len(images) * self.workers.count)
        meter.add(losses, outputs, ys)
        self.step += 1

    def _scaled(self, losses):
        if self.amp:
            return amp.scale_loss(losses, self.trainer)
        return contextlib.nullcontext(losses)

    def evaluate(self, net, batches, task):
        """The meter of one pass of a second network, which gets this one's parameters.

        Inference moves weights into oneDNN's layout at its own time; training on them afterwards
        would round otherwise from run to run.  On several devices the second network gets the mean
        of their running statistics, as ``save_parameters`` saves it.
        """
        copies = net._collect_params_with_prefix()
        for name, param in self.net._collect_params_with_prefix().items():
            copies[name].set_data(param._reduce())
        return evaluate(net, batches, task, self.devices, self.dtype)

    def settle(self):
        """Make ``net`` what files should hold of it.

        All devices of several workers get the mean of their running statistics, since a checkpoint
        holds the first one's.
        """
        if self.workers.count == 1:
            return
        params = [param for param in self.trainer._params if param.grad_req == "null"]
        means = [param._reduce().asnumpy() for param in params]
        if not means:
            return
        shared = self.workers.sum(np.concatenate([mean.ravel() for mean in means]))
        ends = np.cumsum([mean.size for mean in means])
        for param, mean, part in zip(params, means, np.split(shared, ends[:-1])):
            param.set_data(mx.nd.array(part.reshape(mean.shape) / self.workers.count))

    def finish(self, folder):
        """Write what a run folder holds besides, once the best and the last parameters are in it.

        Before its result: a run without one can be resumed, and gets here again.
        """

    def arrays(self):
        """What a checkpoint holds besides the network's parameters: name -> NDArray."""
        return state_arrays(self.trainer)

    def restore_arrays(self, arrays):
        """Take back what :meth:`arrays` gave, once ``net`` has its parameters back."""
        restore_state_arrays(self.trainer, arrays)

    def state(self):
        """What a checkpoint holds besides arrays: position, and AMP's loss scale."""
        scaling = dict(vars(self.trainer._amp_loss_scaler)) if self.amp else {}
        return {
            "step": self.step,
            "updates": count_updates(self.trainer),
            "loss_scaling": scaling,
        }

    def restore(self, state):
        """Take back what :meth:`state` gave."""
        self.step = state["step"]
        # Checkpoints of the first edition, which had NAG alone, do not say the number.
        restore_updates(self.trainer, state.get("updates", self.step))
        if self.amp:
            vars(self.trainer._amp_loss_scaler).update(state["loss_scaling"])


def seed_step(seed, step):
    """Seed all random generators from ``seed`` and ``step``, so that a resumed run repeats them."""
    numbers = np.random.SeedSequence((seed, step)).generate_state(3)
    random.seed(int(numbers[0]))
    np.random.seed(numbers[1])
    mx.random.seed(int(numbers[2] >> 1))


_INITIALIZERS = {"xavier": mx.init.Xavier, "msraprelu": mx.init.MSRAPrelu}


def initialize(net, devices, name="xavier", dtype="float32"):
    """Initialise a network on ``devices``, then take the fast graph form."""
    net.cast(dtype)
    net.initialize(_INITIALIZERS[name](), ctx=devices, force_reinit=True)
    # Not static_shape: with it, MXNet 1.9.1 on several devices leaves most batch norms' running
    # statistics as they were, without a word.
    net.hybridize(static_alloc=True)
