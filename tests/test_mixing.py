import numpy as np
import pytest

from openaff import UserError
from openaff.data.mixup import Mixup, one_hot

rng = np.random.RandomState(0)
IMAGES = rng.standard_normal((6, 3, 4, 4)).astype("float32")
LABELS = np.array([0, 1, 2, 3, 0, 1])


def test_one_hot():
    np.testing.assert_array_equal(one_hot(np.array([1, 0]), 3), [[0, 1, 0], [1, 0, 0]])


def test_images_and_labels_are_mixed_in_one_proportion():
    images, targets = Mixup(1.0, 4)(IMAGES, LABELS, np.random.default_rng(1))
    weight = targets[0, 0]
    assert 0 < weight < 1
    np.testing.assert_allclose(images, weight * IMAGES + (1 - weight) * IMAGES[::-1], rtol=1e-6)
    expected = weight * one_hot(LABELS, 4) + (1 - weight) * one_hot(LABELS[::-1], 4)
    np.testing.assert_allclose(targets, expected, rtol=1e-6)
    assert images.dtype == targets.dtype == np.float32


def test_the_proportion_is_beta_distributed():
    mixup, generator = Mixup(0.2, 4), np.random.default_rng(0)
    weights = [mixup(IMAGES[:2], LABELS[:2], generator)[1][0, 0] for _ in range(2000)]
    # Beta(0.2, 0.2): mean 1/2, variance 1 / (4 * (2 * 0.2 + 1)).
    assert np.mean(weights) == pytest.approx(0.5, abs=0.03)
    assert np.var(weights) == pytest.approx(1 / 5.6, abs=0.01)


@pytest.mark.parametrize("alpha", [0, -1, float("nan"), 1e-10, 1e308])
def test_impossible_alpha(alpha):
    with pytest.raises(UserError, match="alpha must be in .0.001, 1000., not "):
        Mixup(alpha, 4)
