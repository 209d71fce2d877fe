import numpy as np

from openaff.data import DataConfig, load_dataset


def test_digits_split_and_form():
    digits = load_dataset(DataConfig(name="digits"))
    assert digits.train.images.shape == (1437, 32, 32, 3)
    assert digits.test.images.shape == (360, 32, 32, 3)
    assert digits.train.images.dtype == np.uint8 and digits.train.images.max() == 255
    assert digits.class_names == tuple("0123456789")
    # Stratified: every class has its share of the test split, to one image.
    shares = np.bincount(digits.test.targets) / np.bincount(
        np.concatenate([digits.train.targets, digits.test.targets])
    )
    assert np.all(np.abs(shares - 0.2) < 0.01)


def test_digits_are_the_same_each_time():
    first, second = (load_dataset(DataConfig(name="digits")) for _ in range(2))
    np.testing.assert_array_equal(first.test.images, second.test.images)
    np.testing.assert_array_equal(first.test.targets, second.test.targets)
