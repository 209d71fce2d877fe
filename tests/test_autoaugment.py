"""AutoAugment: every operation against Pillow, the two policies, and the random draws."""

import platform

import numpy as np
import pytest
from PIL import Image, ImageFilter

from openaff.analysis.pillow_autoaugment import OPERATIONS as PILLOW
from openaff.analysis.pillow_autoaugment import PillowAutoAugment
from openaff.data.autoaugment import OPERATIONS, POLICIES, AutoAugment
from openaff.utils.errors import UserError

FILL = (10, 200, 77)
BLENDS = ("Contrast", "Color", "Brightness", "Sharpness")
# Compilers may fuse the multiply-add of Pillow's blend on other processors, which then rounds
# once instead of twice before it truncates. Everything else is exact everywhere.
BLEND_TOLERANCE = 0 if platform.machine() in ("x86_64", "AMD64") else 1


# Name -> (magnitude without effect, paper's strongest, random sign?).
RANGES = {
    "ShearX": (0, 0.3, True),
    "ShearY": (0, 0.3, True),
    "TranslateX": (0, 150 / 331, True),
    "TranslateY": (0, 150 / 331, True),
    "Rotate": (0, 30, True),
    "AutoContrast": (None, 0, False),
    "Invert": (None, 0, False),
    "Equalize": (None, 0, False),
    "Solarize": (256, 0, False),
    "Posterize": (8, 4, False),
    "Contrast": (0, 0.9, True),
    "Color": (0, 0.9, True),
    "Brightness": (0, 0.9, True),
    "Sharpness": (0, 0.9, True),
}
STEPS = [step for policy in POLICIES.values() for sub in policy for step in (sub[:3], sub[3:])]


def pillow(name, image, magnitude):
    return np.asarray(PILLOW[name](Image.fromarray(image), magnitude, FILL))


def sample_images(height, width):
    """Random, low-contrast, dark, constant and almost constant images, (5, H, W, 3)."""
    rng = np.random.default_rng(height * 1000 + width)
    images = rng.integers(0, 256, (5, height, width, 3), dtype=np.uint8)
    images[1] = images[1] // 8 + 100
    images[2] = images[2] // 2 * (images[2] % 3 == 0)
    images[3] = 93, 0, 255
    images[4] = 0
    images[4, -1, -1] = 200, 1, 255
    return images


@pytest.fixture
def use_policy(monkeypatch):
    """Return a function that makes an AutoAugment of the sub-policies it is given."""

    def use(*sub_policies):
        monkeypatch.setitem(POLICIES, "test", sub_policies)
        return AutoAugment("test", fill=FILL)

    return use


def test_table_has_the_papers_operations_and_ranges():
    assert {name: entry[1:] for name, entry in OPERATIONS.items()} == {
        name: ((weakest or 0, strongest), signed)
        for name, (weakest, strongest, signed) in RANGES.items()
    }


# In the last image of 16 x 32, Pillow's equalize reaches level 256 and clips it.
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 2), (3, 3), (16, 32), (33, 20)])
@pytest.mark.parametrize("name", RANGES)
def test_operation_equals_pillow(name, shape):
    weakest, strongest, signed = RANGES[name]
    magnitudes = np.linspace(strongest if weakest is None else weakest, strongest, 10)
    if signed:
        magnitudes = np.concatenate([magnitudes, -magnitudes])
    images = sample_images(*shape)
    many = np.repeat(images, len(magnitudes), axis=0)
    before = many.copy()
    each = np.tile(magnitudes, len(images))

    out = OPERATIONS[name][0](many, each, np.array(FILL, np.uint8))

    assert out.dtype == np.uint8 and out.shape == many.shape
    np.testing.assert_array_equal(many, before)
    expected = np.stack([pillow(name, i, m) for i, m in zip(many, each)])
    difference = np.abs(out.astype(int) - expected)
    assert difference.max() <= (BLEND_TOLERANCE if name in BLENDS else 0)


def test_sharpness_starts_from_pillows_smoothed_image():
    images = sample_images(12, 10)
    out = OPERATIONS["Sharpness"][0](images, np.full(len(images), -1.0), None)
    expected = [np.asarray(Image.fromarray(i).filter(ImageFilter.SMOOTH)) for i in images]
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("name", RANGES)
def test_level_9_is_the_papers_strongest_with_random_sign(name, use_policy):
    _, strongest, signed = RANGES[name]
    image = sample_images(16, 20)[0]
    out = use_policy((name, 1.0, 9, "Invert", 0.0, 0))(
        np.stack([image] * 400), np.random.default_rng(0)
    )
    magnitudes = [strongest, -strongest] if signed else [strongest]
    outcomes = [pillow(name, image, magnitude) for magnitude in magnitudes]
    distances = np.abs(out[:, None].astype(int) - outcomes).max(axis=(2, 3, 4))
    assert (distances.min(axis=1) <= BLEND_TOLERANCE).all()
    if signed:
        assert np.mean(distances[:, 0] < distances[:, 1]) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    "name", [n for n, (weakest, _, _) in RANGES.items() if weakest is not None]
)
def test_level_0_changes_nothing(name, use_policy):
    images = sample_images(9, 11)
    out = use_policy((name, 1.0, 0, name, 1.0, 0))(images, np.random.default_rng(0))
    np.testing.assert_array_equal(out, images)


def test_both_operations_are_applied_in_order(use_policy):
    images = sample_images(16, 20)
    out = use_policy(("Solarize", 1.0, 5, "Equalize", 1.0, 0))(images, np.random.default_rng(0))
    solarized = [pillow("Solarize", i, 256 - 256 * 5 / 9) for i in images]
    np.testing.assert_array_equal(out, [pillow("Equalize", i, 0) for i in solarized])


def test_the_yardstick_draws_from_the_same_distribution(use_policy):
    """One step of probability 1 at level 9: both results, by sign, about as often as ours."""
    use_policy(("Brightness", 1.0, 9, "Invert", 0.0, 0))
    image = sample_images(4, 4)[0]
    np.random.seed(0)
    yardstick = PillowAutoAugment("test", fill=FILL)
    bright = [yardstick(image).mean() > image.mean() for _ in range(400)]
    assert np.mean(bright) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("policy", POLICIES)
def test_policy_has_25_sub_policies_of_two_operations(policy):
    assert len(POLICIES[policy]) == 25
    assert all(len(sub_policy) == 6 for sub_policy in POLICIES[policy])


def test_policies_name_known_operations_probabilities_and_levels():
    assert {name for name, _, _ in STEPS} <= set(OPERATIONS)
    assert {p for _, p, _ in STEPS} <= {tenths / 10 for tenths in range(11)}
    assert {level for _, _, level in STEPS} <= set(range(10))


@pytest.mark.parametrize("p", [0.0, 0.3, 0.8, 1.0])
def test_probability_is_the_fraction_of_images_changed(p, use_policy):
    images = np.zeros((4000, 1, 1, 3), np.uint8)
    for sub_policy in (("Invert", p, 0, "Invert", 0.0, 0), ("Invert", 0.0, 0, "Invert", p, 0)):
        out = use_policy(sub_policy)(images, np.random.default_rng(0))
        assert np.mean(out == 255) == pytest.approx(p, abs=0.03)


def test_the_two_operations_are_applied_independently(use_policy):
    augment = use_policy(("Invert", 0.5, 0, "Posterize", 0.5, 9))
    out = augment(np.full((4000, 1, 1, 3), 23, np.uint8), np.random.default_rng(0))
    values, counts = np.unique(out, return_counts=True)
    assert values.tolist() == [16, 23, 224, 232]  # one, none, both, the other
    assert counts / out.size == pytest.approx([0.25] * 4, abs=0.03)


def test_each_sub_policy_has_its_own_probabilities(use_policy):
    augment = use_policy(("Invert", 0.0, 0, "Invert", 0.0, 0), ("Invert", 1.0, 0, "Invert", 0.0, 0))
    out = augment(np.zeros((4000, 1, 1, 3), np.uint8), np.random.default_rng(0))
    assert np.mean(out == 255) == pytest.approx(0.5, abs=0.03)


def test_sub_policies_are_drawn_uniformly_and_whole(use_policy):
    """The levels (9, 0), whose result is 232, are in no sub-policy here and so never occur."""
    levels = [(0, 0), (0, 9), (9, 9)]
    augment = use_policy(*[("Solarize", 1.0, s, "Posterize", 1.0, p) for s, p in levels])
    out = augment(np.full((4000, 1, 1, 3), 23, np.uint8), np.random.default_rng(0))
    values, counts = np.unique(out, return_counts=True)
    assert values.tolist() == [16, 23, 224]
    assert counts / out.size == pytest.approx([1 / 3] * 3, abs=0.03)


@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (1, 1, 1, 3), (200, 8, 5, 3), (2, 224, 224, 3)])
@pytest.mark.parametrize("policy", POLICIES)
def test_result_depends_on_images_and_generator_only(policy, shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    before = images.copy()
    augment = AutoAugment(policy)
    first = augment(images, np.random.default_rng(7))
    second = augment(np.asfortranarray(images), np.random.default_rng(7))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(images, before)
    assert first.dtype == np.uint8 and first.shape == shape
    assert not np.shares_memory(first, images)
    if len(images) == 200:
        assert (augment(images, np.random.default_rng(8)) != first).any()


@pytest.mark.parametrize(
    "policy, near",
    [("imagnet", "; did you mean 'imagenet'?"), ("cifar", "; did you mean 'cifar10'?"), (None, "")],
)
def test_an_unknown_policy_is_told_the_known_ones(policy, near):
    with pytest.raises(UserError) as error:
        AutoAugment(policy)
    assert str(error.value) == f"unknown policy {policy!r}{near} (known: cifar10, imagenet)"


@pytest.mark.parametrize("fill", [128, (1, 2), (0, 0, 256), (0.5, 0, 0)])
def test_bad_fill(fill):
    with pytest.raises(UserError, match="expected 3 integers in 0..255") as error:
        AutoAugment(fill=fill)
    assert repr(fill) in str(error.value)


@pytest.mark.parametrize(
    "images, given",
    [
        (np.zeros((2, 4, 4, 3), np.float32), "float32 (2, 4, 4, 3)"),
        (np.zeros((4, 4, 3), np.uint8), "uint8 (4, 4, 3)"),
        (np.zeros((2, 3, 4, 4), np.uint8), "uint8 (2, 3, 4, 4)"),
        (np.zeros((2, 0, 4, 3), np.uint8), "uint8 (2, 0, 4, 3)"),
        ([[[[0, 0, 0]]]], "list (1, 1, 1, 3)"),
    ],
)
def test_bad_images(images, given):
    with pytest.raises(UserError) as error:
        AutoAugment()(images, np.random.default_rng(0))
    assert str(error.value) == f"images are {given}: expected uint8 (N, H, W, 3), H, W >= 1"
