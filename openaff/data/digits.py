"""scikit-learn's 1,797 handwritten digits: a data set without a download."""

import numpy as np
from PIL import Image

from ..utils.errors import UserError
from ..utils.packaged import pip_install
from .base import Dataset, ImageSet, Labels, register_dataset

TEST_SHARE = 0.2
SPLIT_SEED = 0


@register_dataset(
    "digits",
    title="digits",
    task="classification",
    labels=(Labels("classes", 10, "10 digits", tuple("0123456789")),),
    image_shape=(3, 32, 32),
    settings=("crop_padding", "autoaugment", "mixup_alpha", "mixup_off_epochs"),
)
def load_digits(config=None):
    """The digits as 32x32 RGB, 1,437 for training and 360 for testing, stratified by class.

    They come from Optical Recognition of Handwritten Digits (UCI): 8x8 pixels in 17 grey levels,
    here enlarged bilinearly.  The split is always the same.
    """
    digits, (train, test) = digit_splits()
    small = np.round(digits.images * (255 / 16)).astype("uint8")
    images = np.stack(
        [np.asarray(Image.fromarray(image).resize((32, 32), Image.BILINEAR)) for image in small]
    )
    images = np.repeat(images[..., None], 3, axis=-1)
    labels = digits.target.astype("int32")
    mean = float(images[train].mean() / 255)
    std = float(images[train].std() / 255)
    return Dataset(
        name="digits",
        labels="10 digits",
        split=f"stratified, 1437 training and 360 test images, seed {SPLIT_SEED}",
        class_names=tuple(map(str, digits.target_names)),
        train=ImageSet(images[train], labels[train]),
        test=ImageSet(images[test], labels[test]),
        mean=(mean,) * 3,
        std=(std,) * 3,
    )


def digit_splits():
    """scikit-learn's digits, and the indices of the training and of the test split."""
    try:
        from sklearn import datasets
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise UserError(
            f"the digits come with scikit-learn ({error}); install it: {pip_install('demo')}"
        ) from None

    digits = datasets.load_digits()
    splits = train_test_split(
        np.arange(len(digits.images)),
        test_size=TEST_SHARE,
        random_state=SPLIT_SEED,
        stratify=digits.target,
    )
    return digits, splits
