"""Batches of an image set, reproducible from seed and epoch alone."""

import functools
import time

import mxnet as mx
import numpy as np

from ..utils.errors import UserError
from ..utils.framework import physical_cores
from .prefetch import make_ahead


class BatchLoader:
    """Batches as NDArrays on the CPU: images float32 (N, 3, H, W), labels float32 (N,).

    Parameters
    ----------
    images : ImageSet or PhotoSet
        What to read.
    batch_size : int
        Images a batch.
    transform : callable
        ``transform(images, rng)``: uint8 (N, H, W, 3) -> float32 (N, 3, H, W), in numpy.
    train : bool
        Shuffle, and leave out the last batch where it is not full, so that every step averages
        over as many images.  False: in order, the last batch as short as it comes.
    seed : int
        An epoch's order and augmentation follow from (seed, epoch, batch) alone.
    mixup : Mixup, optional
        Applied to transformed batches, whose labels then are float32 (N, classes).
    workers : int, optional
        Processes that make batches ahead of their use; 0: none, a batch is made when it is asked
        for.  The batches are the same for any number.  By default two cores are left to the
        training, which works in two threads (while MXNet computes a step, the caller gets the
        next batch), and up to four others make batches, sixteen where images are files.  Of images
        in memory none does for evaluation, as to normalise a batch takes hardly longer than to
        hand it over, nor for a small data set, as workers start anew each epoch.
    part : tuple of int
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
        transform,
        train=False,
        seed=0,
        mixup=None,
        workers=None,
        part=(0, 1),
    ):
        rank, count = part
        if train and len(images) < batch_size * count:
            raise UserError(
                f"{len(images)} training images do not fill one batch of {batch_size * count}: "
                "take a smaller data.batch_size or fewer devices"
            )
        if workers is None:
            worthwhile = images.costly or (train and len(images) >= 10000)
            most = 16 if images.costly else 4
            workers = max(0, min(most, physical_cores() - 2)) if worthwhile else 0
        if workers < 0:
            raise UserError(f"workers must be 0 or more, not {workers}")
        self.images = images
        self.batch_size = batch_size
        self.transform = transform
        self.train = train
        self.seed = seed
        self.mixup = mixup
        self.workers = workers
        self.part = part
        self._key = (rank,) if count > 1 else ()  # each process augments on its own
        self.waited = 0.0

    def __len__(self):
        rank, count = self.part
        mine = (
            len(self.images) // count if self.train else len(range(rank, len(self.images), count))
        )
        full, rest = divmod(mine, self.batch_size)
        return full if self.train or not rest else full + 1

    def epoch(self, number=0, start=0, mixing=True):
        """Yield the batches of epoch ``number`` from batch ``start`` on.

        Without ``mixing`` the mixup is left out.
        """
        order = np.arange(len(self.images))
        if self.train:
            order = np.random.default_rng((self.seed, number)).permutation(order)
        rank, count = self.part
        order = order[rank::count]
        make = functools.partial(self._make, number, order, self.mixup if mixing else None)
        batches = range(start, len(self))
        made = make_ahead(make, batches, self.workers) if self.workers else map(make, batches)
        self.waited = 0.0
        for _ in batches:
            asked = time.perf_counter()
            images, labels = next(made)
            self.waited += time.perf_counter() - asked  # what follows may wait for MXNet's engine
            yield mx.nd.array(images), mx.nd.array(labels)

    def _make(self, number, order, mixup, batch):
        picked = order[batch * self.batch_size : (batch + 1) * self.batch_size]
        rng = np.random.default_rng((self.seed, number, batch) + self._key)
        images, labels = self.images.take(picked, rng)
        images = self.transform(images, rng)
        if mixup:
            images, labels = mixup(images, labels, rng)
        return images, labels.astype("float32")
