"""Segmentation data sets from COCO's annotations, made up here."""

import json
import os

import numpy as np
import pytest
from mask_files import fifo, run_lengths, write_coco
from PIL import Image

from openaff import UserError
from openaff.data import DataConfig, load_dataset
from openaff.data.coco import _decoder
from openaff.data.transforms import IGNORE
from openaff.utils.files import link

pytest.importorskip("pycocotools.mask", reason="needs the extra [coco]")


@pytest.fixture
def coco(tmp_path):
    return write_coco(tmp_path / "coco")


@pytest.fixture
def prepare(call, coco, tmp_path):
    """``openaff prepare-coco``: the folder, and what it prints."""

    def run(*categories, out=tmp_path / "out"):
        words = [word for category in categories for word in ("--category", category)]
        return out, call("prepare-coco", "--coco", coco, "--out", out, *words).out

    return run


def mask_of(folder, number):
    return np.asarray(Image.open(folder / "masks" / f"{number:012}.png"))


def test_stop_signs(prepare, coco):
    folder, said = prepare("stop sign")
    assert "train: 3 images of train2017; objects: 3 stop sign; crowds, to be ignored: 1" in said
    assert f"written to {folder}" in said
    names = [f"{number:012}" for number in (1, 2, 6, 11)]
    assert sorted(path.stem for path in (folder / "masks").iterdir()) == names
    assert (folder / "train.txt").read_text().split() == names[:3]
    assert (folder / "classes.txt").read_text() == "background\nstop sign\n"
    expected = np.zeros((30, 40), "uint8")
    expected[5:15, 5:15] = 1
    np.testing.assert_array_equal(mask_of(folder, 1), expected)
    expected = np.zeros((30, 40), "uint8")
    expected[3:7, 2:6], expected[2:6, 30:38] = 1, 255
    np.testing.assert_array_equal(mask_of(folder, 2), expected)
    assert mask_of(folder, 6).sum() == 25  # two points are no polygon
    photo = folder / "images" / f"{names[0]}.jpg"
    assert os.path.samefile(photo, coco / "train2017" / photo.name)  # a hard link

    record = json.loads((folder / "coco.json").read_text())
    assert record["categories"] == ["stop sign"] and record["versions"]
    assert record["splits"]["test"] == {
        "source": "val2017",
        "images": 1,
        "objects": {"stop sign": 1},
        "crowds": 0,
        "pixels": {"background": 1164, "stop sign": 36, "crowd": 0},
    }
    data = load_dataset(DataConfig(name="stopsign", root=str(folder)))
    assert data.split == "3 training and 1 test images (train.txt and test.txt)"
    _, maps = data.train.take([1])
    assert (maps == IGNORE).sum() == 32 and (maps == 1).sum() == 16


def test_several_categories_and_the_smaller_object_on_top(prepare):
    folder, said = prepare("person", "stop sign")
    assert "train: 4 images of train2017; objects: 2 person, 3 stop sign;" in said
    mask = mask_of(folder, 1)
    assert mask[0, 0] == 1 and (mask[5:15, 5:15] == 2).all()
    data = load_dataset(DataConfig(name="masks", root=str(folder)))
    assert data.class_names == ("background", "person", "stop sign")


def refuse_link(*_):
    raise OSError("another file system")


def test_images_that_cannot_be_linked_are_copied(prepare, coco, monkeypatch):
    monkeypatch.setattr("openaff.utils.files.os.link", refuse_link)
    folder, _ = prepare("stop sign")
    photo = folder / "images" / "000000000001.jpg"
    theirs = coco / "train2017" / photo.name
    assert not os.path.samefile(photo, theirs) and photo.read_bytes() == theirs.read_bytes()


def rename(coco, split, number, name):
    """Rename an image of COCO, in the annotations, too."""
    folder = coco / f"{split}2017"
    (folder / f"{number:012}.jpg").rename(folder / name)

    def change(content):
        image = next(each for each in content["images"] if each["id"] == number)
        image["file_name"] = name

    edit(coco, change, split)


@pytest.mark.parametrize(
    "split, number, name", [("train", 2, "000000000001.png"), ("val", 11, "000000000001.jpg")]
)
def test_two_images_of_one_name_are_refused_and_left_alone(
    prepare, coco, tmp_path, split, number, name
):
    rename(coco, split, number, name)
    before = {path: path.read_bytes() for path in coco.glob("*/0*")}
    first = "train2017/000000000001.jpg"
    with pytest.raises(UserError, match=f"{first} and .*{split}2017/{name} would have one mask"):
        prepare("stop sign")
    assert {path: path.read_bytes() for path in coco.glob("*/0*")} == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("linked", [True, False])
def test_nothing_is_written_onto_a_file_that_is_there(tmp_path, monkeypatch, linked):
    for name in "ab":
        (tmp_path / name).write_text(name)
    os.link(tmp_path / "a", tmp_path / "target")
    if not linked:
        monkeypatch.setattr("openaff.utils.files.os.link", refuse_link)
    with pytest.raises(FileExistsError):
        link(tmp_path / "b", tmp_path / "target")
    assert (tmp_path / "a").read_text() == "a"


def test_masks_turn_with_photographs_that_readers_turn(prepare, coco):
    path = coco / "train2017" / "000000000001.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif)
    folder, _ = prepare("stop sign")
    mask = mask_of(folder, 1)
    assert mask.shape == (40, 30)
    np.testing.assert_array_equal(np.rot90(mask)[5:15, 5:15], np.ones((10, 10)))
    images, maps = load_dataset(DataConfig(name="masks", root=str(folder))).train.take([0])
    assert images.shape[1:3] == maps.shape[1:] == (40, 30)


def edit(coco, change, split="train"):
    path = coco / "annotations" / f"instances_{split}2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def runs(coco, counts):
    segmentation = {"size": [30, 40], "counts": counts}
    edit(coco, lambda content: content["annotations"][0].update(segmentation=segmentation))


def compressed(coco, change):
    """Give the first object a mask in the compressed form, with its text changed."""
    code = run_lengths(np.arange(1200).reshape(30, 40) % 7 > 3, text=True)
    code["counts"] = change(code["counts"])
    edit(coco, lambda content: content["annotations"][0].update(segmentation=code))


def test_compressed_runs_are_those_of_pycocotools():
    rng = np.random.RandomState(0)
    decode = _decoder()
    for height, width in ((1, 1), (3, 5), (30, 40), (200, 300)):
        for share in (0, 0.01, 0.5, 1):
            mask = rng.rand(height, width) < share
            mask[height // 2 :, : width // 2] ^= True  # long runs, too
            code = run_lengths(mask, text=True)
            assert np.array_equal(decode(code, height, width), mask)
            code = run_lengths(mask)
            assert np.array_equal(decode(code, height, width), mask)


WRONG = {
    "unknown": (lambda coco: None, ["stop sgn"], "no category 'stop sgn'; did you mean 'stop sign"),
    "quite unknown": (
        lambda coco: None,
        ["zzz"],
        r"has no category 'zzz' \(it has person, stop sign, parking meter\)",
    ),
    "twice": (lambda coco: None, ["person", "person"], "the category 'person' is named twice"),
    "nowhere": (
        lambda coco: None,
        ["parking meter"],
        "no image of .*instances_val2017.json has the category 'parking meter'",
    ),
    "no file": (
        lambda coco: (coco / "annotations/instances_val2017.json").unlink(),
        ["person"],
        "cannot read .*instances_val2017.json: No such file",
    ),
    "no JSON": (
        lambda coco: (coco / "annotations/instances_train2017.json").write_text("{"),
        ["person"],
        "instances_train2017.json is not COCO's file of instances .*it is not JSON: ",
    ),
    "another kind": (
        lambda coco: (coco / "annotations/instances_train2017.json").write_text("[1, 2]"),
        ["person"],
        "instances_train2017.json is not COCO's file of instances .TypeError: ",
    ),
    "no area": (
        lambda coco: edit(coco, lambda content: content["annotations"][0].pop("area")),
        ["stop sign"],
        "is not COCO's file of instances .KeyError: 'area'",
    ),
    "of another image": (
        lambda coco: edit(coco, lambda content: content["annotations"][0].update(image_id=99)),
        ["stop sign"],
        "is not COCO's file of instances .KeyError: 99",
    ),
    "a path": (
        lambda coco: edit(coco, lambda content: content["images"][0].update(file_name="../a.jpg")),
        ["stop sign"],
        r"the file name '../a.jpg' is a path",
    ),
    "no polygon": (
        lambda coco: edit(
            coco, lambda content: content["annotations"][0].update(segmentation={"size": [30, 40]})
        ),
        ["stop sign"],
        "cannot read an object of 000000000001.jpg .KeyError: 'counts'",
    ),
    "no height": (
        lambda coco: edit(coco, lambda content: content["images"][0].pop("height")),
        ["stop sign"],
        "train2017.json is not COCO's file of instances .KeyError: 'height'",
    ),
    "a height in quotes": (
        lambda coco: edit(coco, lambda content: content["images"][0].update(height="30")),
        ["stop sign"],
        "is not COCO's file of instances .ValueError: 000000000001.jpg has the height '30'",
    ),
    "no width": (
        lambda coco: edit(coco, lambda content: content["images"][0].update(width=0)),
        ["stop sign"],
        "is not COCO's file of instances .ValueError: 000000000001.jpg has the width 0",
    ),
    "short runs": (
        lambda coco: runs(coco, [100, 5]),
        ["stop sign"],
        "cannot read an object of 000000000001.jpg .ValueError: its run lengths are not for 40 x",
    ),
    "long runs": (
        lambda coco: runs(coco, [100, 5, 9999]),
        ["stop sign"],
        "cannot read an object of 000000000001.jpg .ValueError: its run lengths are not for 40 x",
    ),
    "negative runs": (
        lambda coco: runs(coco, [-100, 5, 1295]),
        ["stop sign"],
        "cannot read an object of 000000000001.jpg .ValueError: a run length is negative",
    ),
    "compressed runs of another size": (
        lambda coco: compressed(coco, lambda counts: counts[:-1]),
        ["stop sign"],
        "cannot read an object of 000000000001.jpg .ValueError: its run lengths are not for 40 x",
    ),
    "no compressed runs": (
        lambda coco: compressed(coco, lambda counts: ""),
        ["stop sign"],
        "cannot read an object of 000000000001.jpg .ValueError: its run lengths are not for 40 x",
    ),
    "a far point": (
        lambda coco: edit(
            coco,
            lambda content: content["annotations"][0].update(segmentation=[[-1e12, 0, 5, 5, 0, 5]]),
        ),
        ["stop sign"],
        "cannot read an object of 000000000001.jpg .ValueError: a polygon's point is far outside",
    ),
    "a pipe": (
        lambda coco: fifo(coco / "annotations/instances_train2017.json"),
        ["stop sign"],
        "instances_train2017.json is not a regular file",
    ),
    "missing images": (
        lambda coco: [(coco / f"train2017/00000000000{k}.jpg").unlink() for k in (2, 6)],
        ["stop sign"],
        r"train2017/000000000002.jpg is missing \(2 of the 3 images needed are\): unpack train2017",
    ),
    "another size": (
        lambda coco: Image.new("RGB", (9, 9)).save(coco / "train2017/000000000001.jpg"),
        ["stop sign"],
        "000000000001.jpg is 9 x 9, but its annotations are for 40 x 30: get the image again",
    ),
    "no image": (
        lambda coco: (coco / "val2017/000000000011.jpg").write_text("no image"),
        ["stop sign"],
        "cannot read the image .*000000000011.jpg: it is not in an image format",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_files_give_one_line_and_leave_nothing_behind(prepare, coco, tmp_path, name):
    change, categories, message = WRONG[name]
    change(coco)
    with pytest.raises(UserError, match=message) as caught:
        prepare(*categories)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["coco"]


def test_an_existing_folder_is_left_alone(prepare, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="out exists: take another --out, or remove it"):
        prepare("person")


def test_without_pycocotools(prepare, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pycocotools", None)
    with pytest.raises(UserError, match=r"COCO's masks need pycocotools .*: pip install -e .\[coc"):
        prepare("person")
