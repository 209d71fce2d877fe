import io
import os

import numpy as np
import pytest
from PIL import Image

from openaff import UserError
from openaff.data.image_folder import (
    CenterCrop,
    ImageFolder,
    RandomResizedCrop,
    class_folders,
    cut,
    read_photo,
)
from openaff.data.mask_folder import read_mask
from openaff.data.packing import folder_items

rng = np.random.default_rng(0)
PIXELS = rng.integers(0, 256, (12, 20, 3), dtype="uint8")


def encoded(image, kind="PNG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def grey_levels(image):
    return np.asarray(image.convert("L"), int)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "CMYK", "1", "I;16"])
def test_every_mode_becomes_rgb(mode):
    if mode == "I;16":
        image = Image.fromarray((PIXELS[..., 0].astype("uint16")) << 8)
    else:
        image = Image.fromarray(PIXELS).convert(mode)
    photo = read_photo(encoded(image, "TIFF" if mode == "CMYK" else "PNG"), "x")
    assert photo.mode == "RGB" and photo.size == (20, 12)
    if mode in ("RGB", "RGBA"):
        np.testing.assert_array_equal(np.asarray(photo), PIXELS)
    if mode == "I;16":
        np.testing.assert_array_equal(np.asarray(photo)[..., 1], PIXELS[..., 0])
    if mode == "L":
        np.testing.assert_array_equal(np.asarray(photo)[..., 1], grey_levels(image))


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    photo = read_photo(encoded(Image.fromarray(PIXELS), "PNG", exif=exif), "x")
    np.testing.assert_array_equal(np.asarray(photo), np.rot90(PIXELS, -1))
    deep = Image.fromarray(PIXELS[..., 0].astype("uint16") << 8)
    photo = read_photo(encoded(deep, "PNG", exif=exif), "x")
    np.testing.assert_array_equal(np.asarray(photo)[..., 2], np.rot90(PIXELS[..., 0], -1))


def test_numbers_of_32_bits_are_levels_or_refused():
    levels = PIXELS[..., 0].astype("int32")
    photo = read_photo(encoded(Image.fromarray(levels), "TIFF"), "x")
    np.testing.assert_array_equal(np.asarray(photo)[..., 0], PIXELS[..., 0])
    photo = read_photo(encoded(Image.fromarray(levels << 8), "TIFF"), "x")
    np.testing.assert_array_equal(np.asarray(photo)[..., 0], PIXELS[..., 0])
    with pytest.raises(UserError, match="^x holds floating-point numbers: save it with 8 or 16"):
        read_photo(encoded(Image.fromarray((levels / 255).astype("float32")), "TIFF"), "x")


def test_unreadable_files_are_named(tmp_path):
    whole = encoded(Image.fromarray(PIXELS), "JPEG")
    for name, content, reason in (
        ("empty.jpg", b"", "is empty"),
        ("short.jpg", whole[: len(whole) // 2], "cannot read the image"),
        ("text.jpg", b"not an image", "it is not in an image format"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=reason) as caught:
            read_photo(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="absent.jpg: No such file"):
        read_photo(tmp_path / "absent.jpg")


def test_a_cut_of_the_images_own_size_is_the_image():
    square = Image.fromarray(PIXELS[:, :12])
    np.testing.assert_array_equal(cut(square, (0, 0, 12, 12), 12), PIXELS[:, :12])


def test_center_crop_is_the_centre():
    image = np.zeros((100, 200, 3), "uint8")
    image[25:75, 75:125] = 255
    out = CenterCrop(10, 0.5)(Image.fromarray(image))
    assert out.shape == (10, 10, 3) and (out == 255).all()
    assert (CenterCrop(10, 1.0)(Image.fromarray(image))[0] == 0).all()


def test_random_resized_crops_have_the_stated_areas_and_aspects(monkeypatch):
    boxes = []
    monkeypatch.setattr("openaff.data.image_folder.cut", lambda image, box, size: boxes.append(box))
    image, crop = Image.new("RGB", (400, 300)), RandomResizedCrop(64)
    generator = np.random.default_rng(0)
    for _ in range(2000):
        crop(image, generator)
    left, top, right, bottom = np.array(boxes).T
    assert min(left) >= 0 and min(top) >= 0 and max(right) <= 400 and max(bottom) <= 300
    area = (right - left) * (bottom - top) / (400 * 300)
    aspect = (right - left) / (bottom - top)
    assert 0.079 < area.min() < 0.1 and 0.9 < area.max() <= 1
    assert 0.73 < aspect.min() < 0.78 and 1.28 < aspect.max() < 1.35
    assert (left == 0).mean() < 0.2 < np.std(left / 400) * 4


def test_an_image_that_no_aspect_fits_is_cropped_at_its_centre():
    image = Image.new("RGB", (1000, 2), (9, 8, 7))
    assert (RandomResizedCrop(4)(image, np.random.default_rng(0)) == (9, 8, 7)).all()


def test_photo_set_reads_what_is_picked(tmp_path):
    for index in range(3):
        Image.new("RGB", (30, 20), (index, 0, 0)).save(tmp_path / f"{index}.png")
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    photos = ImageFolder(paths, np.array([5, 6, 7], "int32"), CenterCrop(8, 1.0))
    images, labels = photos.take([2, 0], None)
    assert images.shape == (2, 8, 8, 3) and images.dtype == np.uint8
    assert images[:, 0, 0, 0].tolist() == [2, 0] and labels.tolist() == [7, 5]
    assert photos.image_shape == (3, 8, 8) and len(photos) == 3


def test_class_folders(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        class_folders(tmp_path / "absent")
    with pytest.raises(UserError, match="holds no class folders"):
        class_folders(tmp_path)
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.JPEG").touch()
        (tmp_path / name / "notes.txt").touch()
    classes, items = class_folders(tmp_path)
    assert classes == ["a", "b"]
    assert [(path.name, label) for path, label in items] == [("1.JPEG", 0), ("1.JPEG", 1)]
    (tmp_path / "c").mkdir()
    with pytest.raises(UserError, match="class folder .*c holds no images"):
        class_folders(tmp_path)


def test_a_pipe_among_images_or_masks_is_refused(tmp_path):
    """To open one would wait for a writer for ever."""
    os.mkfifo(tmp_path / "a.png")
    for read in (read_photo, read_mask):
        with pytest.raises(UserError, match="a.png is not a regular file"):
            read(tmp_path / "a.png")
    (tmp_path / "red").mkdir()
    os.rename(tmp_path / "a.png", tmp_path / "red" / "a.png")
    _, ((path, _),) = class_folders(tmp_path)
    with pytest.raises(UserError, match="a.png is not a regular file"):
        ImageFolder([path], np.zeros(1, "int32"), CenterCrop(32, 1.0)).take([0], None)
    _, (item,) = folder_items(tmp_path)
    with pytest.raises(UserError, match="a.png is not a regular file"):
        item.read()
