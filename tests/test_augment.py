import numpy as np
import pytest

from openaff.data.autoaugment import AutoAugment
from openaff.data.base import Dataset, ImageSet
from openaff.data.transforms import Normalize, RandomCrop, RandomFlip, training_transform
from openaff.training.config import DataConfig

IMAGES = np.random.RandomState(0).randint(0, 256, (64, 12, 10, 3)).astype("uint8")


def rng():
    return np.random.default_rng(7)


def test_normalize_is_the_formula_in_channels_first():
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    expected = (IMAGES.transpose(0, 3, 1, 2) / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(
        std, (3, 1, 1)
    )
    actual = Normalize(mean, std)(IMAGES)
    assert actual.dtype == np.float32 and actual.flags.c_contiguous
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_crop_takes_a_window_of_the_padded_image():
    cropped = RandomCrop(3)(IMAGES, rng())
    padded = np.pad(IMAGES, ((0, 0), (3, 3), (3, 3), (0, 0)))
    seen = set()
    for image, out in zip(padded, cropped):
        matches = [
            (y, x)
            for y in range(7)
            for x in range(7)
            if np.array_equal(image[y : y + 12, x : x + 10], out)
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) > 30  # of 49 offsets; each image has its own


def test_flip_mirrors_about_half():
    flipped = RandomFlip()(IMAGES, rng())
    mirrored = [np.array_equal(a[:, ::-1], b) for a, b in zip(IMAGES, flipped)]
    same = [np.array_equal(a, b) for a, b in zip(IMAGES, flipped)]
    assert all(m != s for m, s in zip(mirrored, same))
    assert 20 < sum(mirrored) < 44


@pytest.mark.parametrize("transform", [RandomCrop(2), RandomFlip()])
def test_same_generator_same_result_and_input_untouched(transform):
    before = IMAGES.copy()
    np.testing.assert_array_equal(transform(IMAGES, rng()), transform(IMAGES, rng()))
    np.testing.assert_array_equal(IMAGES, before)


def test_the_config_chooses_the_transforms():
    split = ImageSet(IMAGES, np.zeros(64, "int32"))
    dataset = Dataset("x", "x", "x", ("a",), split, split, (0.5,) * 3, (0.2,) * 3)
    plain = training_transform(dataset, DataConfig(name="x", crop_padding=0, flip=False))
    np.testing.assert_array_equal(
        plain(IMAGES, rng()), Normalize(dataset.mean, dataset.std)(IMAGES)
    )
    kinds = [type(step) for step in training_transform(dataset, DataConfig(name="x")).transforms]
    assert kinds == [RandomCrop, RandomFlip, Normalize]
    policy = DataConfig(name="x", autoaugment="cifar10")
    assert type(training_transform(dataset, policy).transforms[0]) is AutoAugment
