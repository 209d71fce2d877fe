"""What a network is trained for: its outputs, the loss, and the figures that count."""

import inspect
import math
from dataclasses import dataclass

import numpy as np

from ..utils.errors import UserError, suggest
from ..utils.registry import Registry

TASKS = Registry("task")  # key -> a class of tasks
METRICS = Registry("metric")  # key -> Metric, all that files of metrics may hold


@dataclass(frozen=True)
class Metric:
    """A figure by epoch: ``train_KEY`` and ``test_KEY`` in the files of metrics."""

    key: str
    title: str  # for people
    larger_is_better: bool = True
    percent: bool = True  # the value is a fraction of 1, and shown as percent

    def __post_init__(self):
        METRICS.register(self.key)(self)

    def show(self, value):
        if value is None:
            return "unknown"
        return f"{value:.2%}" if self.percent else f"{value:.3f}"

    def best(self, rows, key):
        """The first of the best rows by the value that they have under ``key``."""
        return (max if self.larger_is_better else min)(rows, key=lambda row: row[key])


SMALLEST = 1e-12  # probability whose logarithm is taken

LOSS = Metric("loss", "loss", larger_is_better=False, percent=False)


class NonFiniteLoss(UserError):
    """The loss is infinite or not a number: training cannot go on from here."""


class Task:
    """What differs between trainings, as an object that the engine and all others ask.

    Parameters
    ----------
    dataset : Dataset
        What is learned.
    loss : dict, optional
        Options of the training loss, see :attr:`Loss`.

    Attributes
    ----------
    key : str
        The task's name in data sets' records and in result files.
    metrics : tuple of Metric
        What is measured by epoch, besides the loss.  The first is the headline figure: the best
        parameters are those where it is best.
    further : dict of str to str
        Other figures of the meter, which a run's result has for its last epoch: key -> title.
    Loss : class
        ``Loss(**options)(outputs, targets, images)`` gives float32 (N,).
    dense : bool
        True: a value for every pixel.  Targets are maps (N, H, W), outputs have the images' size,
        whatever it is, and what :meth:`decode` gives has a method ``resized(height, width)``.
    """

    key = None
    metrics = ()
    further = {}
    Loss = None
    dense = False

    def __init__(self, dataset, loss=None):
        self.class_names = dataset.class_names
        self.classes = len(dataset.class_names)
        self.loss = self.make_loss(loss or {})

    @classmethod
    def make_loss(cls, options, Loss=None):
        """``Loss(**options)``; an unknown or impossible option is a :class:`UserError`."""
        Loss = Loss or cls.Loss
        known = [key for key in inspect.signature(Loss).parameters if key != "kwargs"]
        for key in options:
            if key not in known:
                raise UserError(
                    f"loss.{key} is not a setting of the {cls.key} loss{suggest(key, known)} "
                    f"(its settings: {', '.join(known)})"
                )
        return Loss(**options)

    @property
    def headline(self):
        return self.metrics[0]

    @property
    def outputs(self):
        """``num_classes`` of the network."""
        return self.classes

    def used_outputs(self, outputs):
        """How many outputs the task needs, the first ones of a network that has ``outputs``."""
        return self.classes

    @property
    def test_loss(self):
        """The loss of evaluations; by default that of training."""
        return self.loss

    def meter(self, detailed=False):
        """A new :class:`Meter`; a detailed one also counts what is reported class by class."""
        raise NotImplementedError

    def per_class(self, sums):
        """Of each class, in order, what a detailed meter's ``sums`` say.

        A list of dicts with equal keys: ``class``, then figures.  The last one is the figure that
        ranks the classes, NaN where it is not known.

        Raises
        ------
        UserError
            The task has none.
        """
        raise UserError(f"the task {self.key} has no figures by class")

    @staticmethod
    def decode(outputs, class_names, top=5):
        """What outputs, float32 numpy (N, ...), say: a list with one entry for each image."""
        raise NotImplementedError

    @staticmethod
    def describe(decoded):
        """One entry of :meth:`decode` in words."""
        return ", ".join(map(str, decoded))

    @staticmethod
    def record(decoded):
        """One entry of :meth:`decode` as JSON can hold it."""
        return decoded


class Meter:
    """Sums over images, read one step late so that the device never waits for the reader.

    Attributes
    ----------
    images : int
        Images seen.
    loss : float
        Sum of their losses.
    sums : dict of str to numpy.ndarray
        What :meth:`metrics` needs, float64.
    """

    def __init__(self, **shapes):
        """``shapes``: name -> shape of each sum."""
        self.images, self.loss = 0, 0.0
        self.sums = {name: np.zeros(shape) for name, shape in shapes.items()}
        self._pending = ()

    def measure(self, output, target):
        """Name -> NDArray to add to the sums, of one device's part of a batch."""
        raise NotImplementedError

    def absorb(self, name, values):
        """Add what :meth:`measure` gave, now a numpy array."""
        self.sums[name] += values.reshape(self.sums[name].shape)

    def metrics(self, images, sums):
        """Key -> value of every metric, from sums over all devices and workers.

        A value is None where nothing says it, such as the IoU of a class that is nowhere.
        """
        raise NotImplementedError

    def add(self, losses, outputs, targets):
        """Take in a batch: of each device its losses (N,), outputs and targets."""
        self.collect()
        self._pending = [
            (len(target), loss.sum(), self.measure(output, target))
            for loss, output, target in zip(losses, outputs, targets)
        ]

    def collect(self):
        """Read what the last step left."""
        for images, loss, measured in self._pending:
            loss = float(loss.asscalar())
            values = {name: value.asnumpy() for name, value in measured.items()}
            if not math.isfinite(loss):
                raise NonFiniteLoss("the loss is not finite")
            self.images += images
            self.loss += loss
            for name, value in values.items():
                self.absorb(name, value)
        self._pending = ()

    def state(self, reduce=None):
        """What :meth:`restore` takes to go on from here.

        ``reduce``: sums a float array (N,) over all workers; by default this one is alone.
        """
        self.collect()
        flat = np.concatenate(
            [[self.images, self.loss], *(self.sums[name].ravel() for name in self.sums)]
        )
        images, loss, *rest = (reduce(flat) if reduce else flat).tolist()
        state, start = {"images": images, "loss": loss}, 0
        for name, values in self.sums.items():
            part = np.array(rest[start : start + values.size])
            state[name] = part.reshape(values.shape).tolist()
            start += values.size
        return state

    def restore(self, state):
        """Take back what :meth:`state` gave; a :class:`UserError` if it is another meter's."""
        read = {}
        for name, zeros in {"images": np.zeros(()), "loss": np.zeros(()), **self.sums}.items():
            try:
                read[name] = np.array(state[name], "float64")
            except (KeyError, TypeError, ValueError):
                read[name] = None
            found = read[name]
            if found is None or found.shape != zeros.shape or not np.isfinite(found).all():
                raise UserError(f"the checkpoint's sums of {name} are of another task or data set")
        self.images, self.loss = float(read.pop("images")), float(read.pop("loss"))
        self.sums = read
        return self

    def mean_loss(self):
        """Of what has been read so far."""
        return self.loss / self.images if self.images else float("nan")

    def values(self, reduce=None):
        """``loss``, the mean over all images of all workers, and every metric."""
        state = self.state(reduce)
        images = state["images"]
        sums = {name: np.array(state[name]) for name in self.sums}
        return {"loss": state["loss"] / images, **self.metrics(images, sums)}
