import numpy as np
import pytest

from openaff import UserError
from openaff.data.augment import Compose, Normalize, RandomCrop
from openaff.data.base import ImageSet
from openaff.data.loader import BatchLoader

IMAGES = ImageSet(
    np.random.RandomState(0).randint(0, 256, (23, 8, 8, 3)).astype("uint8"),
    np.arange(23, dtype="int32"),
)
PLAIN = Normalize((0.5,) * 3, (0.25,) * 3)
RANDOM = Compose([RandomCrop(2), PLAIN])


def labels(loader, epoch):
    return [batch.asnumpy().astype(int).tolist() for _, batch in loader.epoch(epoch)]


def test_evaluation_is_in_order_with_a_short_last_batch():
    loader = BatchLoader(IMAGES, 5, PLAIN)
    assert len(loader) == 5
    assert sum(labels(loader, 0), []) == list(range(23))
    images, _ = list(loader.epoch())[-1]
    np.testing.assert_array_equal(images.asnumpy(), PLAIN(IMAGES.images[20:]))


def test_training_shuffles_anew_each_epoch_and_drops_the_rest():
    loader = BatchLoader(IMAGES, 5, PLAIN, train=True, seed=3)
    first, second = labels(loader, 1), labels(loader, 2)
    assert [len(batch) for batch in first] == [5] * 4 == [5] * len(loader)
    assert first != second
    assert len(set(sum(first, []))) == 20


def test_an_epoch_follows_from_seed_and_number_alone():
    def epoch(seed, number):
        loader = BatchLoader(IMAGES, 5, RANDOM, train=True, seed=seed)
        return np.concatenate([images.asnumpy() for images, _ in loader.epoch(number)])

    np.testing.assert_array_equal(epoch(3, 4), epoch(3, 4))
    assert not np.array_equal(epoch(3, 4), epoch(4, 4))
    assert not np.array_equal(epoch(3, 4), epoch(3, 5))


def test_too_few_images_for_a_batch():
    with pytest.raises(UserError, match="23 training images do not fill one batch of 24"):
        BatchLoader(IMAGES, 24, PLAIN, train=True)
    assert len(BatchLoader(IMAGES, 24, PLAIN)) == 1
