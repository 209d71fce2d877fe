"""Batches of an image set that depend on the seed and the epoch alone."""

import functools
import time

import mxnet as mx
import numpy as np

from ..utils.errors import UserError
from ..utils.framework import check_processes, physical_cores
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
        With it, batches are for training: images are shuffled, and a last batch that is not full
        is dropped, so that every step averages over the same number of images.  Without it, they
        are for evaluation: images are in order, and the last batch may be shorter.  Then only
        neighbours of the same size share a batch.
    seed : int
        An epoch's order and augmentation depend on (seed, epoch, batch) alone.
    mixup : Mixup, optional
        Applied to normalised batches; targets are then float32 (N, classes).
    workers : int, optional
        Processes that prefetch batches; 0: none, each batch is made when it is asked for.  The
        batches are the same for any number.  By default, two cores stay free for training, which
        uses two threads (while MXNet computes a step, the caller fetches the next batch).  Up to
        four other cores prefetch, or sixteen if images are files.  There are no workers by default
        for evaluation on images in memory, because normalising a batch takes hardly longer than
        handing it over, nor for small data sets, because workers start anew in each epoch.
    shard : tuple of int
        (rank, count): this is process ``rank`` of ``count`` that share every batch.  ``batch_size``
        is that of one process.

    Attributes
    ----------
    waited : float
        Seconds that the consumer has waited for batches, in the current or last epoch.

    Raises
    ------
    UserError
        There are fewer images than one training batch, or the number of workers is negative.
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
        if workers:
            check_processes("workers", workers)
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
        """The image indices of each evaluation batch."""
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
        """The image indices of each training batch of an epoch."""
        rank, count = self.shard
        order = np.random.default_rng((self.seed, number)).permutation(len(self.images))
        order = order[rank::count][: len(self) * self.batch_size]
        return order.reshape(len(self), self.batch_size)

    def __len__(self):
        if self.augment:
            return len(self.images) // self.shard[1] // self.batch_size
        return len(self._evaluated)

    def epoch(self, number=0, start=0, mixing=True):
        """Yield the batches of epoch ``number`` from batch ``start`` on; ``mixing``: with mixup."""
        picked = self._shuffled(number) if self.augment else self._evaluated
        make = functools.partial(self._make, number, picked, self.mixup if mixing else None)
        batches = range(start, len(self))
        made = prefetch(make, batches, self.workers) if self.workers else map(make, batches)
        self.waited = 0.0
        for _ in batches:
            asked = time.perf_counter()
            images, targets = next(made)
            self.waited += time.perf_counter() - asked  # what follows may wait for MXNet
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
