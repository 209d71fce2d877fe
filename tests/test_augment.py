import numpy as np
import pytest

from openaff import UserError
from openaff.data import DataConfig
from openaff.data.autoaugment import AutoAugment
from openaff.data.transforms import (
    IGNORE,
    ColorJitter,
    ImagesOnly,
    Normalize,
    PCANoise,
    RandomCrop,
    RandomFlip,
    training_transform,
)

IMAGES = np.random.RandomState(0).randint(0, 256, (64, 12, 10, 3)).astype("uint8")
LABELS = np.arange(64)


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
    cropped, labels = RandomCrop(3)(IMAGES, LABELS, rng())
    assert labels is LABELS
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
    flipped, _ = RandomFlip()(IMAGES, LABELS, rng())
    mirrored = [np.array_equal(a[:, ::-1], b) for a, b in zip(IMAGES, flipped)]
    same = [np.array_equal(a, b) for a, b in zip(IMAGES, flipped)]
    assert all(m != s for m, s in zip(mirrored, same))
    assert 20 < sum(mirrored) < 44


@pytest.mark.parametrize("transform", [RandomCrop(2), RandomFlip()])
def test_same_generator_same_result_and_input_untouched(transform):
    before = IMAGES.copy()
    (one, _), (two, _) = (transform(IMAGES, LABELS, rng()) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(IMAGES, before)


def test_the_config_chooses_the_transforms():
    def chosen(**settings):
        return [type(step) for step in training_transform(DataConfig(**settings)).transforms]

    assert chosen(crop_padding=0, flip=False) == []
    assert chosen() == [RandomCrop, RandomFlip]
    assert chosen(autoaugment="cifar10") == [ImagesOnly, RandomCrop, RandomFlip]
    photographs = dict(name="images", jitter=0.4, pca_noise=0.1)
    assert chosen(**photographs) == [ColorJitter, PCANoise, RandomFlip]


@pytest.mark.parametrize("transform", [RandomCrop(3), RandomFlip(), ColorJitter(0), PCANoise(0)])
def test_maps_move_with_their_images(transform):
    """A map that says where each pixel comes from still does afterwards."""
    rows = np.arange(1, 121, dtype="uint8").reshape(12, 10)
    images = np.repeat(rows[None, ..., None], 3, axis=-1).repeat(8, axis=0)
    moved, maps = transform(images, images[..., 0].astype("int32"), rng())
    assert maps.dtype == np.int32
    np.testing.assert_array_equal(moved[..., 0], np.where(maps == IGNORE, 0, maps))


def test_what_cannot_move_maps_refuses_them():
    maps = np.zeros((64, 12, 10), "int32")
    with pytest.raises(UserError, match="AutoAugment moves images, but not targets with a value"):
        ImagesOnly(AutoAugment("cifar10"))(IMAGES, maps, rng())
