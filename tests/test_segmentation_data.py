"""Joint transforms, and the data sets of images with masks."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from mask_files import fifo, sample, write_binary, write_camvid, write_masks
from photo_files import write_folder
from PIL import Image

from openaff import UserError
from openaff.data import DATASETS, DataConfig, load_dataset
from openaff.data.base import ImageSet
from openaff.data.batches import test_batches as evaluation_batches
from openaff.data.batches import training_batches
from openaff.data.mask_folder import MaskFolder, class_labels, find_pairs, read_mask
from openaff.data.transforms import (
    IGNORE,
    ColorJitter,
    Compose,
    RandomFlip,
    RandomScaleCrop,
    describe_augmentation,
    nearest,
)
from openaff.training.config import load_config
from openaff.utils.configs import build
from openaff.utils.files import atomic_folder


def rng(seed=0):
    return np.random.default_rng(seed)


# --- Transforms -----------------------------------------------------------------------------------


def blocks(index, size=(40, 60), block=10):
    """An image of squares whose colour is 40 times their class, and the map."""
    height, width = (length // block for length in size)
    classes = rng(index).integers(0, 6, (height, width)).repeat(block, 0).repeat(block, 1)
    return np.repeat(40 * classes[..., None], 3, -1).astype("uint8"), classes.astype("int32")


@pytest.mark.parametrize("size, scales", [(32, (0.5, 2.0)), (90, (1, 1)), (33, (0.3, 0.4))])
def test_image_and_map_are_scaled_cropped_and_mirrored_alike(size, scales):
    samples = [blocks(index, (40, 60) if index % 2 else (70, 30)) for index in range(12)]
    images, maps = zip(*samples)
    transform = Compose([RandomScaleCrop(size, scales, fill=(0.9,) * 3), RandomFlip()])
    squares, targets = transform(list(images), list(maps), rng())
    assert squares.shape == (12, size, size, 3) and targets.shape == (12, size, size)
    assert targets.dtype == np.int32
    around = targets == IGNORE
    assert (squares[around] == 230).all() and not around.all()
    # Bilinear pixels are between classes at edges, and there alone.
    equal = np.abs(squares[..., 0].astype(int) - 40 * targets)[~around] <= 4
    assert equal.mean() > (0.75 if min(scales) >= 0.5 else 0.5)
    assert around.any() == (size == 90 or min(scales) < 0.8)


def test_a_whole_sample_is_unchanged():
    image, classes = blocks(0, (40, 40))
    squares, maps = RandomScaleCrop(40)(image[None], classes[None], rng())
    np.testing.assert_array_equal(squares[0], image)
    np.testing.assert_array_equal(maps[0], classes)


def test_scaling_by_two_repeats_the_maps_pixels_and_places_vary():
    classes = rng().integers(0, 100, (16, 16)).astype("int32")
    image = np.zeros((16, 16, 3), "uint8")
    squares, maps = RandomScaleCrop(32, (2, 2))(image[None], classes[None], rng())
    np.testing.assert_array_equal(maps[0], classes.repeat(2, 0).repeat(2, 1))
    _, crops = RandomScaleCrop(4)(np.stack([image] * 200), np.stack([classes] * 200), rng())
    corners = {int(crop[0, 0]) for crop in crops}
    expected = set(classes[:13, :13].ravel().tolist())  # every place is possible
    assert len(corners) > 0.5 * len(expected) and corners <= expected


def test_nearest_takes_the_middle_of_each_part():
    assert nearest(0, 4, 4).tolist() == [0, 1, 2, 3]
    assert nearest(0, 6, 3).tolist() == [1, 3, 5]
    assert nearest(1.0, 3.0, 4).tolist() == [1, 1, 2, 2]


def test_colours_leave_maps_alone():
    image, classes = blocks(0)
    changed, maps = ColorJitter(0.5)(image[None], classes[None], rng())
    assert not np.array_equal(changed[0], image)
    np.testing.assert_array_equal(maps[0], classes)


def test_labels_cannot_be_cropped():
    with pytest.raises(UserError, match="data.crop_size crops targets with a value for each pixel"):
        RandomScaleCrop(4)(np.zeros((2, 8, 8, 3), "uint8"), np.zeros(2, "int32"), rng())


# --- Settings -------------------------------------------------------------------------------------

MASKS = {"model": {"name": "aff_pixelnet1"}, "imports": ["pixel_task"], "epochs": 1}


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("digits", {"crop_size": 8}, "data.crop_size has no effect on digits, only on scenes"),
        ("digits", {"skip": ["a"]}, "data.skip has no effect on digits, only on camvid"),
        ("camvid", {"lists": "a"}, "data.lists has no effect on camvid, only on masks, stopsign"),
        ("camvid", {"crop_padding": 2}, "data.crop_padding has no effect on camvid"),
        ("masks", {"mixup_alpha": 1.0}, "data.mixup_alpha has no effect on masks"),
        ("masks", {"autoaugment": "cifar10"}, "data.autoaugment has no effect on masks"),
        ("scenes", {"root": "a"}, "data.root has no effect on scenes"),
        ("scenes", {"image_size": 9}, "data.image_size has no effect on scenes"),
        ("masks", {"crop_size": 0}, "data.crop_size must be 1 to 32,768 pixels"),
        ("masks", {"scale_range": [0.5, 2.0]}, "scale_range has no effect without data.crop_size"),
        ("masks", {"crop_size": 8, "scale_range": [2.0, 0.5]}, "two increasing positive factors"),
        ("masks", {"crop_size": 8, "scale_range": [0.0, 1.0]}, "two increasing positive factors"),
        ("masks", {"crop_size": 8, "scale_range": [1.0]}, "two increasing positive factors"),
        ("masks", {"train_split": "all"}, "data.train_split must be one of train, trainval"),
        ("masks", {"test_split": "train"}, "data.test_split must be one of test, val"),
        (
            "masks",
            {"train_split": "trainval", "test_split": "val"},
            "data.test_split val cannot be tested on: data.train_split=trainval trains on it",
        ),
    ],
)
def test_settings_are_checked(name, settings, message):
    with pytest.raises(UserError, match=message):
        DataConfig(name=name, **settings).check()


def test_lists_of_settings_come_from_yaml_too():
    values = {**MASKS, "data": {"name": "squares"}}
    with pytest.raises(UserError, match="data.scale_range has no effect without data.crop_size"):
        load_config(values, ["data.scale_range=[0.5, 2]"])
    with pytest.raises(UserError, match="data.skip has no effect on squares"):
        load_config(values, ["data.skip=[a]"])


def test_the_augmentation_in_words():
    config = DataConfig(name="masks", crop_size=480, scale_range=[0.5, 2.0], jitter=0.4)
    assert describe_augmentation(config) == [
        "random scale 0.5 to 2",
        "random crop 480",
        "flip",
        "colour jitter 0.4",
    ]


# --- Reading masks --------------------------------------------------------------------------------


def load(folder, name="masks", **settings):
    config = DataConfig(name=name, root=str(folder), **settings)
    config.check()
    return load_dataset(config)


def test_masks_by_class_number(tmp_path):
    data = load(write_masks(tmp_path / "data", 7))
    assert (data.task, data.labels, data.granularity) == ("segmentation", "3 classes", "classes")
    assert data.class_names == ("class 0", "class 1", "class 2")
    assert data.split == "5 training and 2 test images (every fifth is for testing)"
    assert [pair[0].name for pair in data.test.pairs] == ["0.png", "5.png"]
    assert data.train.sizes == [(24, 18), (20, 30)] * 2 + [(20, 30)]
    images, maps = data.train.take([0, 2])
    image, mask = sample(1, (24, 18))
    np.testing.assert_array_equal(images[0], image)
    np.testing.assert_array_equal(maps[0], mask)
    assert images.dtype == np.uint8 and maps.dtype == np.int8
    images, maps = data.train.take([0, 1])  # of two sizes
    assert isinstance(images, list) and [each.shape for each in maps] == [(24, 18), (20, 30)]


def test_binary_masks_lists_and_endings_as_in_sirst(tmp_path):
    folder = write_binary(tmp_path / "data", 6)
    for path in (folder / "masks").iterdir():
        path.rename(path.with_name(f"{path.stem}_pixels0.png"))
        path.with_suffix(".xml").write_text("<annotation/>")
    for name in ("idx_a", "idx_b"):
        (folder / name).mkdir()
        (folder / name / "train.txt").write_text("2\n0.png\n\n")
        (folder / name / "val.txt").write_text("4\n")
        (folder / name / "test.txt").write_text("3\n1\n")
    with pytest.raises(UserError, match="has lists of images in idx_a and idx_b: name one, data.l"):
        load(folder)
    data = load(folder, lists="idx_b")
    assert data.class_names == ("background", "target")
    assert data.split == "2 training and 2 test images (idx_b/train.txt and idx_b/test.txt)"
    assert [pair[0].stem for pair in data.train.pairs] == ["2", "0"]  # in the list's order
    _, maps = data.train.take([0])
    np.testing.assert_array_equal(maps[0], sample(2, classes=2)[1])
    assert len(load(folder, lists="idx_b", train_split="trainval").train) == 3
    (folder / "idx_b" / "trainval.txt").write_text("5\n")
    assert len(load(folder, lists="idx_b", train_split="trainval").train) == 1
    assert [pair[0].stem for pair in load(folder, lists="idx_b", test_split="val").test.pairs] == [
        "4"
    ]
    left = load(folder, lists="idx_b", skip=["3"])
    assert len(left.test) == 1 and left.split.endswith(", without 3")
    with pytest.raises(UserError, match="no image 33; did you mean '3'.; a name made of digits n"):
        load(folder, lists="idx_b", skip=["33"])
    with pytest.raises(UserError, match="data.skip leaves out all images of a split"):
        load(folder, lists="idx_b", skip=["1", "3"])
    (folder / "idx_b" / "train.txt").write_text("2\n2.png\n")
    with pytest.raises(UserError, match="idx_b/train.txt has the image 2 twice"):
        load(folder, lists="idx_b")
    (folder / "idx_b" / "train.txt").write_text("2\n0.png\n")
    (folder / "idx_b" / "test.txt").write_text("0\n")
    with pytest.raises(UserError, match="images/0.png is a training and a test image$"):
        load(folder, lists="idx_b")
    (folder / "idx_b" / "test.txt").unlink()
    with pytest.raises(UserError, match=r"no .*test.txt: .* \(there: train, trainval, val; see"):
        load(folder, lists="idx_b")
    with pytest.raises(UserError, match="there is no folder .*idx_c: data.lists is a folder below"):
        load(folder, lists="idx_c")


def test_camvid(tmp_path):
    folder = write_camvid(tmp_path / "data")
    data = load(folder, "camvid")
    assert len(data.class_names) == len(DATASETS["camvid"].colours) == 11
    assert data.split == "3 training and 3 test images (train and test)"
    _, maps = data.test.take([2])
    expected = sample(22, (24, 32), 11)[1].astype("int8")
    expected[:4, :4] = IGNORE
    np.testing.assert_array_equal(maps[0], expected)
    both = load(folder, "camvid", train_split="trainval", image_size=12)
    assert len(both.train) == 6 and both.train.sizes[0] == (12, 16)
    assert both.split == "6 training and 3 test images (trainval and test), short side 12"
    images, maps = both.train.take([0])
    assert images.shape == (1, 12, 16, 3)
    np.testing.assert_array_equal(maps[0], load(folder, "camvid").train.take([0])[1][0][1::2, 1::2])
    (folder / "valannot" / "val1.png").unlink()
    with pytest.raises(UserError, match="there is no mask for .*val1.png in .*valannot$"):
        load(folder, "camvid", test_split="val")


def test_masks_hold_at_most_255_classes(tmp_path):
    folder = write_masks(tmp_path / "data", names=[str(k) for k in range(255)])
    save(folder / "masks" / "1.png", np.full((24, 18), 254, "uint8"))
    assert (load(folder).train.take([0])[1] == 254).all()


def test_stopsign_has_its_own_two_classes(tmp_path):
    names = ["background", "stop sign"]
    data = load(write_masks(tmp_path / "data", classes=2, names=names), "stopsign")
    assert (data.name, data.labels, data.task) == ("stopsign", "stop sign or not", "segmentation")
    other = write_masks(tmp_path / "other", classes=2)
    with pytest.raises(UserError, match="classes class 0, class 1, but StopSign has background, s"):
        load(other, "stopsign")


def test_a_large_set_is_read_when_needed(tmp_path):
    folder = write_masks(tmp_path / "data")
    pairs = find_pairs(folder / "images", folder / "masks")
    kept, lazy = (
        MaskFolder(pairs, class_labels(3), short_side=9, in_memory=size) for size in (1e9, 0)
    )
    assert lazy._samples is None and kept._samples
    assert lazy.sizes == kept.sizes and lazy.costly
    for index in range(len(pairs)):
        for ours, theirs in zip(lazy.take([index]), kept.take([index])):
            np.testing.assert_array_equal(ours, theirs)
    Image.fromarray(np.full((20, 30), 9, "uint8")).save(folder / "masks" / "2.png")
    with pytest.raises(UserError, match=r"2.png has the unknown label 9 \(known: 0 to 2, 255\)"):
        lazy.take([2])


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)


def test_images_of_all_modes_become_rgb(tmp_path):
    folder = write_masks(tmp_path / "data", 6, ((20, 30),))
    grey = rng().integers(0, 256, (20, 30)).astype("uint8")
    images = folder / "images"
    save(images / "0.png", grey)
    save(images / "1.png", np.dstack([grey] * 4))
    Image.fromarray(grey).convert("P").save(images / "2.png")
    save(images / "3.png", grey.astype("uint16") << 8)
    Image.fromarray(grey).convert("1").save(images / "4.png")
    data = load(folder)
    for part in (data.train, data.test):
        for index in range(len(part)):
            assert part.take([index])[0].shape == (1, 20, 30, 3)
    for index in (0, 2):  # 1.png and 3.png
        np.testing.assert_array_equal(data.train.take([index])[0][0], np.dstack([grey] * 3))


def test_masks_of_all_modes_are_read(tmp_path):
    classes = rng().integers(0, 2, (8, 9)).astype("uint8")
    path = tmp_path / "mask.png"
    palette = Image.fromarray(classes)
    palette.putpalette([0, 0, 0, 200, 50, 50])
    for image in (
        palette,
        Image.fromarray(classes.astype(bool)),
        Image.fromarray(classes.astype("uint16")),
        Image.fromarray(np.dstack([classes] * 3)),
        Image.fromarray(np.dstack([classes] * 3 + [classes + 100])),
        Image.merge("LA", [Image.fromarray(classes), Image.fromarray(classes + 9)]),
    ):
        image.save(path)
        np.testing.assert_array_equal(read_mask(path), classes, image.mode)
    Image.fromarray(classes.astype("int32") + 70000).save(tmp_path / "mask.tiff")
    assert read_mask(tmp_path / "mask.tiff").min() == 70000
    Image.fromarray(classes.astype("float32")).save(tmp_path / "mask.tiff")
    with pytest.raises(UserError, match="mask.tiff has pixels that are no integers"):
        read_mask(tmp_path / "mask.tiff")


def test_a_turned_photograph_matches_its_upright_mask(tmp_path):
    folder = write_masks(tmp_path / "data", 6, ((20, 30),))
    image, mask = sample(3)
    exif = Image.Exif()
    exif[0x0112] = 6  # its top is at the right
    turned = np.rot90(image)
    save(folder / "images" / "3.png", turned, exif=exif)
    upright = load(folder).train.take([2])[0][0]
    np.testing.assert_array_equal(upright, image)
    content = (folder / "images" / "3.png").read_bytes()
    start = content.index(b"eXIf") - 4
    chunk = content[start : start + 12 + int.from_bytes(content[start : start + 4], "big")]
    late = content.replace(chunk, b"").replace(content[-12:], chunk + content[-12:])
    (folder / "images" / "3.png").write_bytes(late)  # the header does not tell it
    save(folder / "masks" / "3.png", np.ascontiguousarray(np.rot90(mask)))
    with pytest.raises(UserError, match="3.png is 30 x 20 when it is upright, and its mask is not"):
        load(folder)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-200])


def lossy(path, kind="JPEG"):
    content = io.BytesIO()
    Image.open(path).save(content, kind)
    path.write_bytes(content.getvalue())


WRONG = {
    "no image": (lambda f: (f / "images/2.png").unlink(), "no image for .*masks/2.png in .*images"),
    "no mask": (lambda f: (f / "masks/2.png").unlink(), "no mask for .*images/2.png in .*masks"),
    "several": (
        lambda f: [(f / f"masks/{k}.png").unlink() for k in (1, 2, 3)],
        r"no mask for .*images/1.png in .*masks \(and 2 more are missing\)",
    ),
    "another size": (
        lambda f: save(f / "masks/2.png", np.zeros((5, 7), "uint8")),
        r"masks/2.png is 7 x 5, but its image is 30 x 20: .* \"data.skip=\['2'\]\"",
    ),
    "unknown label": (
        lambda f: save(f / "masks/2.png", np.full((20, 30), 3, "uint8")),
        r"masks/2.png has the unknown label 3 \(known: 0 to 2, 255\)",
    ),
    "large label": (
        lambda f: save(f / "masks/2.png", np.full((20, 30), 700, "uint16")),
        "masks/2.png has the unknown label 700",
    ),
    "colours": (
        lambda f: save(f / "masks/2.png", np.arange(1800, dtype="uint8").reshape(20, 30, 3)),
        "masks/2.png is in colours: save class numbers",
    ),
    "a JPEG": (
        lambda f: lossy(f / "masks/2.png"),
        "masks/2.png is a JPEG, which can change labels",
    ),
    "a WebP": (lambda f: lossy(f / "masks/2.png", "WEBP"), "2.png is a WEBP, which can change la"),
    "no image format": (
        lambda f: (f / "images/2.png").write_text("no image"),
        "cannot read the image .*images/2.png: it is not in an image format",
    ),
    "cut short": (lambda f: cut_short(f / "images/2.png"), "cannot read the image .*images/2.png"),
    "mask cut": (lambda f: cut_short(f / "masks/2.png"), "cannot read the image .*masks/2.png"),
    "empty": (lambda f: (f / "masks/2.png").write_bytes(b""), "cannot read .*masks/2.png"),
    "a pipe": (lambda f: fifo(f / "images/2.png"), "no image for .*masks/2.png"),
    "a folder": (
        lambda f: ((f / "masks/2.png").unlink(), (f / "masks/2.png").mkdir()),
        "no mask for .*images/2.png",
    ),
    "two files": (
        lambda f: save(f / "images/2.bmp", np.zeros((20, 30), "uint8")),
        "images/2.bmp and .*images/2.png have the same name: remove one",
    ),
    "no folder": (lambda f: (f / "masks").rename(f / "mask"), "there is no folder .*masks$"),
    "no classes": (lambda f: (f / "classes.txt").write_text("\n"), "classes.txt is empty: write"),
    "a class twice": (
        lambda f: (f / "classes.txt").write_text("a\nb\na\n"),
        "classes.txt has the name 'a' twice",
    ),
    "a strange name": (
        lambda f: (f / "classes.txt").write_text("a\nb\x85c\nd\n", encoding="utf-8"),
        r"classes.txt has the name 'b\\x85c', which cannot be printed",
    ),
    "a class 255": (
        lambda f: (f / "classes.txt").write_text("".join(f"{k}\n" for k in range(256))),
        "classes.txt has 256 names, but masks tell at most 255 classes apart",
    ),
    "too many classes": (
        lambda f: (f / "classes.txt").write_text("".join(f"{k}\n" for k in range(300))),
        "classes.txt has 300 names, but masks tell at most 255 classes apart",
    ),
    "not UTF-8": (
        lambda f: (f / "classes.txt").write_bytes(b"\xff\n"),
        "cannot read .*classes.txt: it is not UTF-8",
    ),
    "no such split": (
        lambda f: (f / "train.txt").write_text("9\n") and (f / "test.txt").write_text("1\n"),
        "there is no image .*images/9$",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_files_give_one_line_that_names_them(tmp_path, name):
    change, message = WRONG[name]
    folder = write_masks(tmp_path / "data", 6, ((20, 30),))
    change(folder)
    with pytest.raises(UserError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_names_made_of_digits_are_quoted_in_settings(tmp_path):
    folder = write_masks(tmp_path / "data")
    save(folder / "masks" / "1.png", np.zeros((5, 7), "uint8"))
    for kind in ("images", "masks"):
        (folder / kind / "1.png").rename(folder / kind / "0003.png")
    with pytest.raises(UserError, match=r"leave this image out, \"data.skip=\['0003'\]\"$"):
        load(folder)

    def load_skipping(override):
        values = {"name": "masks", "root": str(folder)}
        return load_dataset(build(DataConfig, values, [override]))

    data = load_skipping("skip=['0003']")
    assert data.split.endswith(", without 0003")
    for kind in ("images", "masks"):
        (folder / kind / "3.png").unlink()
    with pytest.raises(UserError, match="there is no image 3.*a name made of digits needs quotes"):
        load_skipping("skip=[0003]")


def test_lists_that_do_not_fit_are_not_ignored(tmp_path):
    folder = write_masks(tmp_path / "data")
    (folder / "README.txt").write_text("not a list\n")
    assert len(load(folder).test) == 2
    for name, content in (("trainval", "1\n2\n"), ("val", "3\n")):
        (folder / f"{name}.txt").write_text(content)
    with pytest.raises(UserError, match=r"no .*train.txt: .* \(there: README, trainval, val; see"):
        load(folder)
    (folder / "lists").mkdir()
    for name in ("trainval", "val"):
        (folder / f"{name}.txt").rename(folder / "lists" / f"{name}.txt")
    with pytest.raises(UserError, match="has lists of images in lists: name one, data.lists=lists"):
        load(folder)


def test_an_image_is_in_trainval_once(tmp_path):
    folder = write_masks(tmp_path / "data")
    for name, content in (("train", "1\n2\n"), ("val", "3\n2\n"), ("test", "4\n")):
        (folder / f"{name}.txt").write_text(content)
    assert len(load(folder).train) == 2
    with pytest.raises(UserError, match="train.txt and .*val.txt have the image 2 twice"):
        load(folder, train_split="trainval")


def test_a_mask_is_for_one_image(tmp_path):
    folder = write_masks(tmp_path / "data", 6, ((20, 30),))
    (folder / "images" / "2.png").rename(folder / "images" / "1_mask.png")
    (folder / "masks" / "1.png").unlink()
    (folder / "masks" / "2.png").rename(folder / "masks" / "1_mask.png")
    with pytest.raises(UserError, match="1_mask.png is the mask of 1.png and of 1_mask.png: ren"):
        load(folder)
    (folder / "train.txt").write_text("1\n")
    (folder / "test.txt").write_text("1_mask\n")
    with pytest.raises(UserError, match="masks/1_mask.png is a training and a test mask"):
        load(folder)


@pytest.mark.parametrize("early", [0, 255])
def test_masks_of_background_and_255_come_first(tmp_path, early):
    folder = write_masks(tmp_path / "data", 60, ((6, 6),))
    masks = sorted((folder / "masks").iterdir(), key=lambda path: path.stem)
    for number, path in enumerate(masks):
        if number != 44:  # not in a sample
            save(path, np.full((6, 6), early if number < 50 else 255, "uint8"))
    save(masks[44], np.full((6, 6), 1, "uint8"))
    assert len(load(folder).train) == 48
    save(masks[44], np.zeros((6, 6), "uint8"))
    with pytest.raises(UserError, match="hold 0 and 255 alone"):
        load(folder)


def test_camvid_has_a_name_in_two_folders(tmp_path):
    folder = write_camvid(tmp_path / "data")
    for kind in ("", "annot"):
        (folder / f"test{kind}" / "test0.png").rename(folder / f"test{kind}" / "train0.png")
    assert load(folder, "camvid").test.names == ["test1", "test2", "train0"]


def test_a_failed_folder_leaves_no_folders_above(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(KeyError), atomic_folder(tmp_path / "mine" / "a" / "b" / "out"):
        raise KeyError
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]
    with pytest.raises(KeyError), atomic_folder(tmp_path / "mine" / "a" / "b" / "out"):
        (tmp_path / "mine" / "a" / "theirs").touch()
        raise KeyError
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "mine", "theirs"]


def test_text_is_written_as_utf8(tmp_path):
    code = (
        "import sys; from openaff.utils.files import write_text; write_text(sys.argv[1], '\\xe9')"
    )
    command = [sys.executable, "-X", "utf8=0", "-c", code, str(tmp_path / "text")]
    path = os.pathsep.join(sys.path)
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": path}
    subprocess.run(command, env=ascii_only, check=True)
    assert (tmp_path / "text").read_bytes() == "é".encode()


def test_the_home_folder_may_be_a_tilde(tmp_path, monkeypatch):
    """No shell expands it within data.root=~/data."""
    monkeypatch.setenv("HOME", str(tmp_path))
    write_masks(tmp_path / "masks", 2)
    assert len(load("~/masks").train) == 1
    write_folder(tmp_path / "photos" / "train")
    config = DataConfig(name="images", root="~/photos", image_size=32)
    assert len(load_dataset(config).train) > 0


def test_other_errors(tmp_path):
    for name in ("masks", "camvid", "stopsign"):
        with pytest.raises(UserError, match="data.root is not set: name the folder of"):
            load_dataset(DataConfig(name=name))
        with pytest.raises(UserError, match="there is no folder .*absent: data.root is the folder"):
            load(tmp_path / "absent", name)
    folder = write_masks(tmp_path / "data")
    for setting in ({"train_split": "trainval"}, {"test_split": "val"}):
        with pytest.raises(UserError, match="need lists of images, but .* has no "):
            load(folder, **setting)
    one = write_masks(tmp_path / "one", 1)
    with pytest.raises(UserError, match="images holds one image: a test image is needed, too"):
        load(one)
    none = write_masks(tmp_path / "none", 0)
    with pytest.raises(UserError, match=r"images holds no images \(.jpg, "):
        load(none)
    binary = write_binary(tmp_path / "binary")
    (binary / "classes.txt").write_text("background\ntarget\n")
    with pytest.raises(UserError, match="hold 0 and 255 alone, and with classes.txt 255 does not"):
        load(binary)
    (binary / "classes.txt").unlink()
    save(binary / "masks" / "2.png", np.full((20, 30), 2, "uint8"))
    unknown = r"unknown label 2 \(known: 0 to 1, 255\); masks with class numbers need classes.txt$"
    with pytest.raises(UserError, match=unknown):
        load(binary)


# --- Batches --------------------------------------------------------------------------------------


def arrays(batches, number=0):
    return [[each.asnumpy() for each in batch] for batch in batches.epoch(number)]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_images_of_many_sizes(tmp_path, workers):
    folder = write_masks(tmp_path / "data", 11, ((20, 30), (24, 18), (16, 16)))
    config = DataConfig(
        name="masks", root=str(folder), crop_size=16, scale_range=[0.5, 2.0], workers=workers
    )
    config.check()
    data = load_dataset(config)
    batches = training_batches(data, config, 4, seed=3)
    epoch = arrays(batches, 1)
    assert [images.shape for images, _ in epoch] == [(4, 3, 16, 16)] * 2
    for images, maps in epoch:
        assert maps.shape == (4, 16, 16) and set(np.unique(maps)) <= {-1, 0, 1, 2}
        outside = (maps == IGNORE)[:, None].repeat(3, 1)
        assert np.abs(images[outside]).max(initial=0) < 0.02  # the mean colour
    for (images, maps), (same_images, same_maps) in zip(epoch, arrays(batches, 1)):
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(maps, same_maps)
    alone = training_batches(data, DataConfig(**{**vars(config), "workers": 0}), 4, seed=3)
    np.testing.assert_array_equal(arrays(alone, 1)[1][0], epoch[1][0])
    assert not np.array_equal(arrays(batches, 2)[0][0], epoch[0][0])
    whole = arrays(evaluation_batches(data, 4, workers))
    assert sum(len(images) for images, _ in whole) == len(data.test) == 3
    for images, maps in whole:
        assert images.shape[2:] == maps.shape[1:]


def test_images_of_many_sizes_need_a_crop(tmp_path):
    folder = write_masks(tmp_path / "data")
    config = DataConfig(name="masks", root=str(folder))
    with pytest.raises(UserError, match="the training images have 2 sizes, .* set data.crop_size"):
        training_batches(load_dataset(config), config, 2)


# --- Scenes ---------------------------------------------------------------------------------------


def test_scenes_are_always_the_same():
    data, again = load_dataset(DataConfig(name="scenes")), load_dataset(DataConfig(name="scenes"))
    assert isinstance(data.train, ImageSet) and data.task == "segmentation"
    for split in ("train", "test"):
        ours, theirs = getattr(data, split), getattr(again, split)
        np.testing.assert_array_equal(ours.images, theirs.images)
        np.testing.assert_array_equal(ours.targets, theirs.targets)
        assert set(np.unique(ours.targets)) == set(range(len(data.class_names)))
        assert ours.image_shape == DATASETS["scenes"].image_shape
        shares = np.bincount(ours.targets.ravel()) / ours.targets.size
        assert 0.8 < shares[0] < 0.95 and shares[1:].min() > 0.01
