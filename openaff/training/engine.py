"""One network on some devices: training steps and evaluation."""

import math
import random

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon

from ..errors import UserError


class Engine:
    """Trains and evaluates an initialised, hybridised network, one step at a time.

    Parameters
    ----------
    net : HybridBlock
        The network, its parameters on ``devices``.
    twin : HybridBlock
        A network of the same kind, likewise, that evaluations copy the parameters to.  Inference
        moves weights into oneDNN's layout at its own time; training on them afterwards would give
        other roundings from run to run.
    devices : list of mx.Context
        Each gets its share of every batch.
    schedule : callable
        ``schedule(step)``: the learning rate.
    optimizer : OptimizerConfig
        Momentum, weight decay and clipping of Nesterov's accelerated gradient, label smoothing.
    seed : int
        With the step's number, what every random number of a step follows from.
    """

    def __init__(self, net, twin, devices, schedule, optimizer, seed=0):
        self.net = net
        self.twin = twin
        self.devices = devices
        self.schedule = schedule
        self.loss = CrossEntropy(optimizer.label_smoothing)
        self.seed = seed
        self.step = 0
        if optimizer.no_wd:
            for param in net.collect_params(".*(gamma|beta|bias)$").values():
                param.wd_mult = 0.0
        settings = {
            "learning_rate": schedule(0),
            "momentum": optimizer.momentum,
            "wd": optimizer.weight_decay,
        }
        if optimizer.clip_gradient is not None:
            settings["clip_gradient"] = optimizer.clip_gradient
        # Each device updates its own copy, so that the states can be saved and restored exactly.
        self.trainer = gluon.Trainer(net.collect_params(), "nag", settings, update_on_kvstore=False)
        # Now rather than in the first step, where it would overwrite what a checkpoint restored:
        # the first device's values, running statistics too, go to all.
        self.trainer._init_kvstore()
        self.trainer._init_params()

    def train_step(self, images, labels, sums):
        """One update on a batch; its loss and hits are added to ``sums``.

        Parameters
        ----------
        images : NDArray
            float32 (N, 3, H, W), on the CPU.
        labels : NDArray
            Class numbers (N,), or shares of classes (N, K) under mixup.
        sums : Sums
            What the epoch's means come from.

        Raises
        ------
        NonFiniteLoss
            The loss of the step before is infinite or no number.
        """
        seed_step(self.seed, self.step)
        xs, ys = _split(images, self.devices), _split(labels, self.devices)
        with autograd.record():
            outputs = [self.net(x) for x in xs]
            losses = [self.loss(output, y) for output, y in zip(outputs, ys)]
        autograd.backward(losses)
        self.trainer.set_learning_rate(self.schedule(self.step))
        self.trainer.step(len(images))
        sums.add(losses, outputs, ys)
        self.step += 1

    def evaluate(self, batches):
        """One pass without updates, see :func:`evaluate`, with what ``save_parameters`` saves.

        That is, on several devices, with the mean of their running statistics.
        """
        copies = self.twin._collect_params_with_prefix()
        for name, param in self.net._collect_params_with_prefix().items():
            copies[name].set_data(param._reduce())
        return evaluate(self.twin, batches, self.devices)


class NonFiniteLoss(UserError):
    """The loss is infinite or no number: training cannot go on from here."""


class CrossEntropy(gluon.Block):
    """Softmax cross-entropy (N,), in float32, of logits (N, K), with label smoothing.

    A share ``smoothing`` of every target is spread over all classes alike: Rethinking the
    Inception Architecture (Szegedy et al., CVPR 2016), section 7.  Targets are class numbers
    (N,), or shares of classes (N, K).
    """

    def __init__(self, smoothing=0.0, **kwargs):
        super().__init__(**kwargs)
        self.smoothing = smoothing

    def forward(self, logits, targets):
        log_shares = logits.astype("float32").log_softmax()
        targets = targets.astype("float32")
        if len(targets.shape) == 1:
            loss = -log_shares.pick(targets)
        else:
            loss = -(log_shares * targets).sum(axis=1)
        if self.smoothing:
            loss = (1 - self.smoothing) * loss - self.smoothing * log_shares.mean(axis=1)
        return loss


def seed_step(seed, step):
    """Make all random numbers of a step follow from seed and step: so a resumed run's do, too."""
    numbers = np.random.SeedSequence((seed, step)).generate_state(3)
    random.seed(int(numbers[0]))
    np.random.seed(numbers[1])
    mx.random.seed(int(numbers[2] >> 1))


def evaluate(net, batches, devices):
    """One pass without updates: the exact means over all images.

    Parameters
    ----------
    net : callable
        float (N, 3, H, W) -> logits, float (N, classes), on any of ``devices``.
    batches : iterable
        Images and labels.
    devices : list of mx.Context
        Each gets its share of every batch.

    Returns
    -------
    dict
        ``loss``, ``accuracy`` and ``top5``, the share of images whose label is among the five
        largest logits (None below five classes).
    """
    loss, sums = CrossEntropy(), Sums()
    for images, labels in batches:
        xs, ys = _split(images, devices), _split(labels, devices)
        outputs = [net(x) for x in xs]
        losses = [loss(output, y) for output, y in zip(outputs, ys)]
        sums.add(losses, outputs, ys)
    return sums.means()


def _split(array, devices):
    devices = devices[: len(array)]  # the last batch may be smaller than their number
    return gluon.utils.split_and_load(array, devices, even_split=False)


class Sums:
    """Sums over images, read one step late so that the device never waits for the reader.

    Where targets are shares of classes, a hit counts as much as the predicted class's share.
    """

    def __init__(self, images=0, loss=0.0, correct=0.0, top5=0.0, classes=0):
        self.images = images
        self.loss = loss
        self.correct = correct
        self.top5 = top5
        self.classes = classes
        self._pending = ()

    def add(self, losses, outputs, labels):
        self.collect()
        self.classes = outputs[0].shape[1]
        self._pending = [
            (len(label), loss.sum(), *self._hits(output, label))
            for loss, output, label in zip(losses, outputs, labels)
        ]

    def _hits(self, output, label):
        order = output.topk(k=min(5, self.classes))
        if len(label.shape) == 1:
            hits = order == label.expand_dims(1)
        else:
            hits = mx.nd.concat(
                *[label.pick(order[:, k]).expand_dims(1) for k in range(order.shape[1])], dim=1
            )
        return hits[:, 0].sum(), hits.sum()

    def collect(self):
        """Read what the last step left."""
        for images, *sums in self._pending:
            loss, correct, top5 = (float(each.asscalar()) for each in sums)
            if not math.isfinite(loss):
                raise NonFiniteLoss("the loss is not finite")
            self.images += images
            self.loss += loss
            self.correct += correct
            self.top5 += top5
        self._pending = ()

    def state(self):
        """What :class:`Sums` takes to go on from here."""
        self.collect()
        return {
            "images": self.images,
            "loss": self.loss,
            "correct": self.correct,
            "top5": self.top5,
            "classes": self.classes,
        }

    def mean_loss(self):
        return self.loss / self.images if self.images else float("nan")

    def means(self):
        self.collect()
        return {
            "loss": self.loss / self.images,
            "accuracy": self.correct / self.images,
            "top5": self.top5 / self.images if self.classes >= 5 else None,
        }


_INITIALIZERS = {"xavier": mx.init.Xavier, "msraprelu": mx.init.MSRAPrelu}


def initialize(net, devices, name="xavier"):
    """Initialise a network on ``devices``, then take the fast graph form."""
    net.initialize(_INITIALIZERS[name](), ctx=devices, force_reinit=True)
    # Not static_shape: with it, MXNet 1.9.1 on several devices leaves most batch norms' running
    # statistics as they were, without a word.
    net.hybridize(static_alloc=True)
