"""From a data set to the batches of a training or an evaluation."""

from ..utils.errors import UserError
from .loader import BatchLoader
from .mixup import Mixup
from .records import RecordBatches, RecordSet
from .transforms import Normalize, training_transform


def training_batches(dataset, config, batch_size, seed=0, shard=(0, 1)):
    """Augmented, shuffled batches of the training split.

    Parameters
    ----------
    dataset : Dataset
        See :func:`~openaff.data.load_dataset`.
    config : DataConfig
        Augmentation, mixup and workers.
    batch_size : int
        Images per batch, in this process.
    seed : int
        Order and augmentation depend on it.
    shard : tuple of int
        (rank, count): this is process ``rank`` of ``count``; each reads its own images.

    Raises
    ------
    UserError
        There are no training images, fewer than one batch, or images of several sizes that
        nothing crops to one.
    """
    check_training_images(dataset, config)
    mixup = Mixup(config.mixup_alpha, len(dataset.class_names)) if config.mixup_alpha else None
    common = {"seed": seed, "mixup": mixup, "workers": config.workers, "shard": shard}
    if isinstance(dataset.train, RecordSet):
        return RecordBatches(
            dataset.train,
            batch_size,
            dataset.mean,
            dataset.std,
            flip=config.flip,
            jitter=config.jitter or 0.0,
            pca_noise=config.pca_noise or 0.0,
            **common,
        )
    sizes = set(getattr(dataset.train, "sizes", ()))
    if len(sizes) > 1 and not config.crop_size:
        raise UserError(
            f"{dataset.name}: the training images have {len(sizes)} sizes, and those of a batch "
            "must have one: set data.crop_size"
        )
    normalize = Normalize(dataset.mean, dataset.std)
    transform = training_transform(config, dataset.mean)
    return BatchLoader(dataset.train, batch_size, normalize, transform, **common)


def check_training_images(dataset, config):
    """Refuse a data set without a training split."""
    if dataset.train is None:
        raise UserError(f"{dataset.name}: there are no training images in {config.root}")


def test_batches(dataset, batch_size, workers=None, shard=(0, 1)):
    """The test split in order, each image once, normalised; see :func:`training_batches`."""
    images = dataset.test_images()
    if isinstance(images, RecordSet):
        images.verify()  # now rather than at the end of the first epoch
    normalize = Normalize(dataset.mean, dataset.std)
    return BatchLoader(images, batch_size, normalize, workers=workers, shard=shard)
