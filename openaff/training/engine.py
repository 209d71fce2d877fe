"""One network on some devices: training steps and evaluation."""

import time

import mxnet as mx
from mxnet import autograd, gluon


class Engine:
    """Trains and evaluates an initialised, hybridised network.

    Parameters
    ----------
    net : HybridBlock
        The network, its parameters on ``devices``.
    devices : list of mx.Context
        Each gets its share of every batch.
    schedule : callable
        ``schedule(step)``: the learning rate.
    optimizer : OptimizerConfig
        Momentum and weight decay of Nesterov's accelerated gradient.
    """

    def __init__(self, net, devices, schedule, optimizer):
        self.net = net
        self.devices = devices
        self.schedule = schedule
        self.loss = gluon.loss.SoftmaxCrossEntropyLoss()
        self.step = 0
        self.trainer = gluon.Trainer(
            net.collect_params(),
            "nag",
            {
                "learning_rate": schedule(0),
                "momentum": optimizer.momentum,
                "wd": optimizer.weight_decay,
            },
        )

    def train(self, batches, progress):
        """One pass with updates. Returns the means over its images, and the images per second.

        ``progress(images, loss)`` is called after each step.
        """
        sums = _Sums()
        start = time.perf_counter()
        for images, labels in batches:
            xs, ys = self._split(images), self._split(labels)
            with autograd.record():
                outputs = [self.net(x) for x in xs]
                losses = [self.loss(output, y) for output, y in zip(outputs, ys)]
            autograd.backward(losses)
            self.trainer.set_learning_rate(self.schedule(self.step))
            self.trainer.step(len(images))
            self.step += 1
            sums.add(losses, outputs, ys)
            progress(len(images), sums.mean_loss())
        mx.nd.waitall()  # the last update, too, belongs to the time
        return dict(sums.means(), images_per_second=sums.images / (time.perf_counter() - start))

    def evaluate(self, batches):
        """One pass without updates, see :func:`evaluate`."""
        return evaluate(self.net, batches, self.devices)

    def _split(self, array):
        return _split(array, self.devices)


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
    loss, sums = gluon.loss.SoftmaxCrossEntropyLoss(), _Sums()
    for images, labels in batches:
        xs, ys = _split(images, devices), _split(labels, devices)
        outputs = [net(x) for x in xs]
        losses = [loss(output, y) for output, y in zip(outputs, ys)]
        sums.add(losses, outputs, ys)
    return sums.means()


def _split(array, devices):
    devices = devices[: len(array)]  # the last batch may be smaller than their number
    return gluon.utils.split_and_load(array, devices, even_split=False)


class _Sums:
    """Sums over images, read one step late so that the device never waits for the reader."""

    def __init__(self):
        self.images = self.loss = self.correct = self.top5 = self.classes = 0
        self._pending = None

    def add(self, losses, outputs, labels):
        self._collect()
        self.classes = outputs[0].shape[1]
        self._pending = [
            (
                len(label),
                loss.sum(),
                (output.argmax(axis=1) == label).sum(),
                (output.topk(k=min(5, self.classes)) == label.expand_dims(1)).sum(),
            )
            for loss, output, label in zip(losses, outputs, labels)
        ]

    def _collect(self):
        for images, loss, correct, top5 in self._pending or ():
            self.images += images
            self.loss += float(loss.asscalar())
            self.correct += int(correct.asscalar())
            self.top5 += int(top5.asscalar())
        self._pending = None

    def mean_loss(self):
        return self.loss / self.images if self.images else float("nan")

    def means(self):
        self._collect()
        return {
            "loss": self.loss / self.images,
            "accuracy": self.correct / self.images,
            "top5": self.top5 / self.images if self.classes >= 5 else None,
        }


def initialize(net, devices):
    """Xavier initialisation on ``devices``, then the fast graph form."""
    net.initialize(mx.init.Xavier(), ctx=devices, force_reinit=True)
    # Not static_shape: with it, MXNet 1.9.1 on several devices leaves most batch norms' running
    # statistics as they were, without a word.
    net.hybridize(static_alloc=True)
