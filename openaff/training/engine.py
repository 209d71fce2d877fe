"""One network on some devices: training steps and evaluation."""

import contextlib
import math
import random

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.contrib import amp

from ..utils.errors import UserError
from .distributed import Workers


class Engine:
    """Trains and evaluates an initialised, hybridised network, one step at a time.

    Parameters
    ----------
    net : HybridBlock
        The network; its devices each get their share of every batch.
    twin : HybridBlock
        A network of the same kind, likewise, that evaluations copy the parameters to.  Inference
        moves weights into oneDNN's layout at its own time; training on them afterwards would give
        other roundings from run to run.
    schedule : callable
        ``schedule(step)``: the learning rate.
    optimizer : OptimizerConfig
        Momentum, weight decay and clipping of Nesterov's accelerated gradient.
    loss : callable, optional
        ``loss(logits, targets, images)``: float32 (N,); :class:`CrossEntropy` by default.
    seed : int
        With the step's number, what every random number of a step follows from.
    precision : str
        ``float32``; ``float16`` updates float32 master copies of a network that was cast;
        ``amp`` scales the loss as MXNet's automatic mixed precision asks for.
    workers : Workers, optional
        The processes that train together; by default this one alone.
    """

    def __init__(
        self,
        net,
        twin,
        schedule,
        optimizer,
        loss=None,
        seed=0,
        precision="float32",
        workers=None,
    ):
        self.net = net
        self.twin = twin
        self.schedule = schedule
        self.loss = loss or CrossEntropy()
        self.seed = seed
        self.dtype = "float16" if precision == "float16" else "float32"
        self.amp = precision == "amp"
        self.workers = workers or Workers()
        self.step = 0
        if optimizer.no_wd:
            for param in net.collect_params(".*(gamma|beta|bias)$").values():
                param.wd_mult = 0.0
        settings = {
            "learning_rate": schedule(0),
            "momentum": optimizer.momentum,
            "wd": optimizer.weight_decay,
            "multi_precision": precision == "float16",
        }
        if optimizer.clip_gradient is not None:
            settings["clip_gradient"] = optimizer.clip_gradient
        # Each device updates its own copy, so that the states can be saved and restored exactly.
        self.trainer = gluon.Trainer(
            net.collect_params(),
            "nag",
            settings,
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
        xs, ys = split(images, self.devices), split(labels, self.devices)
        xs = [x.astype(self.dtype, copy=False) for x in xs]
        if hasattr(self.net, "update_input_norm"):
            for x in xs:
                self.net.update_input_norm(x)
        with autograd.record():
            outputs = [self.net(x) for x in xs]
            losses = [self.loss(output, y, x) for output, y, x in zip(outputs, ys, xs)]
            with self._scaled(losses) as scaled:
                pass
        autograd.backward(scaled)
        self.trainer.set_learning_rate(self.schedule(self.step))
        self.trainer.step(len(images) * self.workers.count)
        sums.add(losses, outputs, ys)
        self.step += 1

    def _scaled(self, losses):
        if self.amp:
            return amp.scale_loss(losses, self.trainer)
        return contextlib.nullcontext(losses)

    def evaluate(self, batches):
        """One pass without updates, see :func:`evaluate`, with what ``save_parameters`` saves.

        That is, on several devices, with the mean of their running statistics.
        """
        copies = self.twin._collect_params_with_prefix()
        for name, param in self.net._collect_params_with_prefix().items():
            copies[name].set_data(param._reduce())
        return evaluate(self.twin, batches, self.devices, self.dtype, self.workers)

    def share_statistics(self):
        """Give all devices of all workers the mean of their running statistics.

        Of several workers only: a checkpoint holds the first one's.
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

    def scaling(self):
        """AMP's loss scale and what its next changes depend on, for a checkpoint."""
        return dict(vars(self.trainer._amp_loss_scaler)) if self.amp else {}

    def restore_scaling(self, state):
        if self.amp:
            vars(self.trainer._amp_loss_scaler).update(state)


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

    def forward(self, logits, targets, images=None):
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


def evaluate(net, batches, devices, dtype="float32", workers=None):
    """One pass without updates: the exact means over all images.

    Parameters
    ----------
    net : callable
        (N, 3, H, W) of type ``dtype`` -> logits, float (N, classes), on any of ``devices``.
    batches : iterable
        Images and labels.
    devices : list of mx.Context
        Each gets its share of every batch.
    dtype : str
        What the images are cast to.
    workers : Workers, optional
        The processes that have each a part of the images, by default this one alone.

    Returns
    -------
    dict
        ``loss``, ``accuracy`` and ``top5``, the share of images whose label is among the five
        largest logits (None below five classes).
    """
    loss, sums = CrossEntropy(), Sums()
    for images, labels in batches:
        xs, ys = split(images.astype(dtype, copy=False), devices), split(labels, devices)
        outputs = [net(x) for x in xs]
        losses = [loss(output, y) for output, y in zip(outputs, ys)]
        sums.add(losses, outputs, ys)
    return sums.means(workers)


def split(array, devices):
    """An NDArray's rows, shared out over devices; fewer where there are fewer rows than devices."""
    devices = devices[: len(array)]
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

    def state(self, workers=None):
        """What :class:`Sums` takes to go on from here, with the sums of all ``workers``."""
        self.collect()
        sums = np.array([self.images, self.loss, self.correct, self.top5])
        images, loss, correct, top5 = (workers or Workers()).sum(sums).tolist()
        return {
            "images": images,
            "loss": loss,
            "correct": correct,
            "top5": top5,
            "classes": self.classes,
        }

    def mean_loss(self):
        return self.loss / self.images if self.images else float("nan")

    def means(self, workers=None):
        """Means over all images, of all ``workers``."""
        total = Sums(**self.state(workers))
        return {
            "loss": total.loss / total.images,
            "accuracy": total.correct / total.images,
            "top5": total.top5 / total.images if total.classes >= 5 else None,
        }


_INITIALIZERS = {"xavier": mx.init.Xavier, "msraprelu": mx.init.MSRAPrelu}


def initialize(net, devices, name="xavier", dtype="float32"):
    """Initialise a network on ``devices``, then take the fast graph form."""
    net.cast(dtype)
    net.initialize(_INITIALIZERS[name](), ctx=devices, force_reinit=True)
    # Not static_shape: with it, MXNet 1.9.1 on several devices leaves most batch norms' running
    # statistics as they were, without a word.
    net.hybridize(static_alloc=True)
