"""Batches of an image set, reproducible from seed and epoch alone."""

import functools
import time

import mxnet as mx
import numpy as np

from ..utils.errors import UserError
from ..utils.framework import physical_cores
from .prefetch import prefetch


class BatchLoader:
    """Batches as NDArrays on the CPU: images float32 (N, 3, H, W), targets float32 (N, ...).

    Parameters
    ----------
    images : ImageSet, ImageFolder or another image set
        What to read, see :class:`~openaff.data.Dataset`.
    batch_size : int
        Images a batch.
    normalize : callable
        ``normalize(images)``: uint8 (N, H, W, 3) -> float32 (N, 3, H, W), in numpy.
    augment : callable, optional
        ``augment(images, targets, rng)`` gives both again, see :mod:`openaff.data.transforms`.
        With it, batches are for training: they are shuffled, and the last one is left out where it
        is not full, so that every step averages over as many images.  Without it, they are for
        evaluation: in order, the last batch as short as it comes.  Images of different sizes then
        share a batch only with neighbours of their own size.
    seed : int
        An epoch's order and augmentation follow from (seed, epoch, batch) alone.
    mixup : Mixup, optional
        Applied to normalised batches, whose targets then are float32 (N, classes).
    workers : int, optional
        Processes that make batches ahead of their use; 0: none, a batch is made when it is asked
        for.  The batches are the same for any number.  By default two cores are left to the
        training, which works in two threads (while MXNet computes a step, the caller gets the
        next batch), and up to four others make batches, sixteen where images are files.  Images
        in memory need none for evaluation, since normalising a batch takes hardly longer than
        handing it over, and small data sets need none, since workers start anew each epoch.
    shard : tuple of int
        (rank, count): of the batches that ``count`` processes read together, the images of number
        ``rank``.  ``batch_size`` is one process's.

    Attributes
    ----------
    waited : float
        Seconds that the consumer of the present or last epoch has waited for batches to be made.

    Raises
    ------
    UserError
        Fewer images than one training batch, or a negative number of workers.
    """

    def __init__(
        self,
        images,
        batch_size,
        normalize,
        augment=None,
        seed=0,
        mixup=None,
        workers=None,
        shard=(0, 1),
    ):
        rank, count = shard
        if augment and len(images) < batch_size * count:
            raise UserError(
                f"{len(images)} training images do not fill one batch of {batch_size * count}: "
                "take a smaller data.batch_size or fewer devices"
            )
        if workers is None:
            worthwhile = images.costly or (augment and len(images) >= 10000)
            most = 16 if images.costly else 4
            workers = max(0, min(most, physical_cores() - 2)) if worthwhile else 0
        if workers < 0:
            raise UserError(f"workers must be 0 or more, not {workers}")
        self.images = images
        self.batch_size = batch_size
        self.normalize = normalize
        self.augment = augment
        self.seed = seed
        self.mixup = mixup
        self.workers = workers
        self.shard = shard
        self._key = (rank,) if count > 1 else ()  # each process augments on its own
        self._evaluated = None if augment else self._in_order()
        self.waited = 0.0

    def _in_order(self):
        """The numbers of the images of each evaluation batch."""
        rank, count = self.shard
        sizes = getattr(self.images, "sizes", None)
        batches = []
        for number in range(rank, len(self.images), count):
            last = batches[-1] if batches else None
            if last and len(last) < self.batch_size:
                if sizes is None or sizes[last[0]] == sizes[number]:
                    last.append(number)
                    continue
            batches.append([number])
        return list(map(np.array, batches))

    def _shuffled(self, number):
        """The numbers of the images of each training batch of an epoch."""
        rank, count = self.shard
        order = np.random.default_rng((self.seed, number)).permutation(len(self.images))
        order = order[rank::count][: len(self) * self.batch_size]
        return order.reshape(len(self), self.batch_size)

    def __len__(self):
        if self.augment:
            return len(self.images) // self.shard[1] // self.batch_size
        return len(self._evaluated)

    def epoch(self, number=0, start=0, mixing=True):
        """Yield the batches of epoch ``number`` from batch ``start`` on.

        Without ``mixing`` the mixup is left out.
        """
        picked = self._shuffled(number) if self.augment else self._evaluated
        make = functools.partial(self._make, number, picked, self.mixup if mixing else None)
        batches = range(start, len(self))
        made = prefetch(make, batches, self.workers) if self.workers else map(make, batches)
        self.waited = 0.0
        for _ in batches:
            asked = time.perf_counter()
            images, targets = next(made)
            self.waited += time.perf_counter() - asked  # what follows may wait for MXNet's engine
            yield mx.nd.array(images), mx.nd.array(targets)

    def _make(self, number, picked, mixup, batch):
        rng = np.random.default_rng((self.seed, number, batch) + self._key)
        images, targets = self.images.take(picked[batch], rng)
        if self.augment:
            images, targets = self.augment(images, targets, rng)
        images = self.normalize(images)
        if mixup:
            images, targets = mixup(images, targets, rng)
        return images, targets.astype("float32")
