"""Batches of an image set, reproducible from seed and epoch alone."""

import mxnet as mx
import numpy as np

from ..errors import UserError


class BatchLoader:
    """Batches as NDArrays on the CPU: images float32 (N, 3, H, W), labels float32 (N,).

    Parameters
    ----------
    images : ImageSet
        What to read.
    batch_size : int
        Images a batch.
    transform : callable
        ``transform(images, rng)``: uint8 (N, H, W, 3) -> float32 (N, 3, H, W).
    train : bool
        Shuffle, and leave out the last batch where it is not full, so that every step averages
        over as many images.  False: in order, the last batch as short as it comes.
    seed : int
        An epoch's order and augmentation follow from (seed, epoch, batch) alone.

    Raises
    ------
    UserError
        Fewer images than one training batch.
    """

    def __init__(self, images, batch_size, transform, train=False, seed=0):
        if train and len(images) < batch_size:
            raise UserError(
                f"{len(images)} training images do not fill one batch of {batch_size}: take a "
                "smaller data.batch_size or fewer devices"
            )
        self.images = images
        self.batch_size = batch_size
        self.transform = transform
        self.train = train
        self.seed = seed

    def __len__(self):
        full, rest = divmod(len(self.images), self.batch_size)
        return full if self.train or not rest else full + 1

    def epoch(self, number=0):
        """Yield the batches of epoch ``number``."""
        order = np.arange(len(self.images))
        if self.train:
            order = np.random.default_rng((self.seed, number)).permutation(order)
        for batch in range(len(self)):
            picked = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            rng = np.random.default_rng((self.seed, number, batch))
            images = self.transform(self.images.images[picked], rng)
            labels = self.images.labels[picked].astype("float32")
            yield mx.nd.array(images), mx.nd.array(labels)
