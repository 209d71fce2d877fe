"""Class names are checked where they are written and wherever they are read."""

import json
import os
import shutil

import pytest
from photo_files import write_folder

from openaff import UserError
from openaff.data import DataConfig, load_dataset, packing
from openaff.deploy import export
from openaff.deploy.predict import Predictor
from openaff.deploy.subject import export_subject, run_subject
from openaff.utils.descriptions import EXPORT
from openaff.utils.errors import printable
from openaff.utils.files import sha256
from openaff.utils.labels import LABELS, check_names, read_labels, write_labels

# A line break, a form feed, two that splitlines takes for line breaks, colours, no UTF-8.
ODD = ["a\nb", "a\fb", "a\x85b", "a\u2028b", "\x1b[31ma", "a\udc80"]


@pytest.mark.parametrize("name", ODD)
def test_names_that_would_shift_others_or_reach_a_terminal_are_refused(tmp_path, name):
    with pytest.raises(UserError) as caught:
        write_labels(tmp_path, ["x", name])
    assert f"labels.txt: the class name {name!r} has a character" in str(caught.value)
    assert str(caught.value).isprintable() and list(tmp_path.iterdir()) == []
    root = tmp_path / "photos"
    for split in ("train", "val"):
        write_folder(root / split)
        next((root / split).iterdir()).rename(root / split / name)
    with pytest.raises(UserError, match="the data set images: the class name"):
        load_dataset(DataConfig(name="images", root=str(root)))
    with pytest.raises(UserError, match="manifest.json: the class name"):
        packing.pack("train", *packing.folder_items(root / "train"), tmp_path / "records")
    assert not (tmp_path / "records").exists()


def test_other_names_are_refused():
    with pytest.raises(UserError, match="data: the class name 'a' stands there twice"):
        check_names(["a", "b", "a"], "data")
    for name in ("", "  "):
        with pytest.raises(UserError, match="data: a class name is empty"):
            check_names(["a", name], "data")


def test_names_come_back_as_they_were(tmp_path):
    names = (" a ", "b c", "Grün", "猫", "a,b", '"', "#")
    write_labels(tmp_path, names)
    assert read_labels(tmp_path, len(names)) == names
    (tmp_path / LABELS).write_text("a\nb")  # written by hand
    assert read_labels(tmp_path) == ("a", "b")


DAMAGE = {
    "shortened": lambda names: names[:-1],
    "doubled": lambda names: names * 2,
    "none": lambda names: [],
    "shifted": lambda names: ["a\fb", *names[1:]],
    "repeated": lambda names: [names[1], *names[1:]],
}


@pytest.fixture(scope="module")
def exported(digits_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels") / "export"
    export.export_folder(run_subject(digits_run[0]), folder, ["symbol"])
    return folder


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_wrong_labels_are_refused_wherever_they_are_read(digits_run, exported, tmp_path, damage):
    run, folder = tmp_path / "run", tmp_path / "export"
    shutil.copytree(digits_run[0], run)
    shutil.copytree(exported, folder)
    wrong = "".join(name + "\n" for name in damage([str(digit) for digit in range(10)]))
    for each in (run, folder):
        (each / LABELS).write_text(wrong)
    description = json.loads((folder / EXPORT).read_text())
    description["files"][LABELS] = sha256(folder / LABELS)  # as if it had been exported so
    (folder / EXPORT).write_text(json.dumps(description))
    for read in (
        lambda: run_subject(run),
        lambda: Predictor(folder),
        lambda: export_subject(folder),
    ):
        with pytest.raises(UserError, match="labels.txt.* names|labels.txt: ") as caught:
            read()
        assert str(caught.value).isprintable()


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="cannot read .*labels.txt: No such file"):
        read_labels(tmp_path)
    (tmp_path / LABELS).write_bytes(b"\xff\n")
    with pytest.raises(UserError, match="it is not UTF-8"):
        read_labels(tmp_path)
    (tmp_path / LABELS).unlink()
    os.mkfifo(tmp_path / LABELS)
    with pytest.raises(UserError, match="is not a regular file"):
        read_labels(tmp_path)


@pytest.mark.parametrize("name", ODD)
def test_what_is_printed_is_escaped(name):
    shown = printable(name)
    assert shown.isprintable() and shown.encode().decode("unicode_escape") == name
    assert printable("Grün 猫 ~") == "Grün 猫 ~"
