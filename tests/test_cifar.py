"""Readers of the official files, on small ones of the same form."""

import dataclasses
import gzip
import hashlib
import http.client
import io
import pickle
import tarfile

import numpy as np
import pytest

from openaff import UserError
from openaff.data import DATASETS, DataConfig, cifar, load_dataset

COUNTS = {"train": 20, "test": 10}


def planes(split):
    rng = np.random.RandomState({"train": 0, "test": 1}[split])
    return rng.randint(0, 256, (COUNTS[split], 3072)).astype("uint8")


def expected_images(split):
    return planes(split).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def binary_files(name):
    """File name -> content, as in the official binary form."""
    files = {}
    spec = cifar.SPECS[name]
    for split, names in spec.binary.splits.items():
        pixels = planes(split)
        order = np.arange(len(pixels))
        columns = {"classes": order % 10, "coarse": order % 2, "fine": order % 5}
        labels = np.stack([columns[c] for c in spec.label_columns], axis=1).astype("uint8")
        records = np.concatenate([labels, pixels], axis=1)
        for file_name, part in zip(names, np.split(records, len(names))):
            files[file_name] = part.tobytes()
    counts = {"classes": 10, "coarse": 2, "fine": 5}
    for column, file_name in spec.binary.names.items():
        names = [f"{column}{index}" for index in range(counts[column])]
        files[file_name] = "\n".join(names + [""]).encode()
    return files


def python_files(name):
    spec = cifar.SPECS[name]
    files = {}
    for split, names in spec.python.splits.items():
        order = np.arange(COUNTS[split])
        parts = zip(np.split(planes(split), len(names)), np.split(order, len(names)))
        for file_name, (pixels, index) in zip(names, parts):
            labels = (
                {"labels": index % 10}
                if name == "cifar10"
                else {"fine_labels": index % 5, "coarse_labels": index % 2}
            )
            batch = {key: list(map(int, value)) for key, value in labels.items()}
            files[file_name] = pickle.dumps(dict(batch, data=pixels))
    counts = {"classes": 10, "coarse": 2, "fine": 5}
    files[spec.python.meta] = pickle.dumps(
        {
            key: [f"{column}{index}" for index in range(counts[column])]
            for column, key in spec.python.names.items()
        }
    )
    return files


def write_folder(folder, files):
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def archive_bytes(folder, files):
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as packed, tarfile.open(
        fileobj=packed, mode="w"
    ) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The official layouts with 20 + 10 images, and these files' checksums."""
    for name, spec in list(cifar.SPECS.items()):
        sums = {
            file: hashlib.md5(content).hexdigest() for file, content in python_files(name).items()
        }
        forms = {}
        for form, files in (("binary", binary_files(name)), ("python", python_files(name))):
            layout = getattr(spec, form)
            content = archive_bytes(layout.folder, files)
            forms[form] = dataclasses.replace(layout, md5=hashlib.md5(content).hexdigest())
        forms["python"] = dataclasses.replace(forms["python"], pickles=sums)
        small = dataclasses.replace(spec, images=COUNTS, **forms)
        monkeypatch.setitem(cifar.SPECS, name, small)
    info, classes = DATASETS["cifar100"], {"coarse": 2, "fine": 5}
    labels = [dataclasses.replace(each, classes=classes[each.key]) for each in info.labels]
    monkeypatch.setitem(DATASETS._entries, "cifar100", dataclasses.replace(info, labels=labels))


def config(name, root, **options):
    return DataConfig(name=name, root=str(root), **options)


def check(dataset, columns):
    for split in ("train", "test"):
        images = getattr(dataset, split)
        assert images.images.dtype == np.uint8 and images.targets.dtype == np.int32
        np.testing.assert_array_equal(images.images, expected_images(split))
        np.testing.assert_array_equal(images.targets, np.arange(COUNTS[split]) % columns)
    assert len(dataset.class_names) == columns


@pytest.mark.parametrize("form", ["binary", "python"])
@pytest.mark.parametrize("place", ["folder", "root", "archive"])
@pytest.mark.parametrize(
    "name, labels, classes",
    [("cifar10", None, 10), ("cifar100", None, 5), ("cifar100", "coarse", 2)],
)
def test_every_form_reads_alike(tmp_path, form, place, name, labels, classes):
    files = {"binary": binary_files, "python": python_files}[form](name)
    layout = getattr(cifar.SPECS[name], form)
    root = tmp_path / "data"
    if place == "archive":
        root.mkdir()
        (root / layout.archive).write_bytes(archive_bytes(layout.folder, files))
    else:
        write_folder(root / layout.folder if place == "folder" else root, files)
    before = sorted(tmp_path.rglob("*"))
    dataset = load_dataset(config(name, root, labels=labels))
    check(dataset, classes)
    assert sorted(tmp_path.rglob("*")) == before, "reading writes nothing"


def test_fine_is_the_default_and_the_result_can_say_which(tmp_path):
    write_folder(tmp_path / "d", binary_files("cifar100"))
    assert load_dataset(config("cifar100", tmp_path / "d")).labels == "fine (100 classes)"
    coarse = load_dataset(config("cifar100", tmp_path / "d", labels="coarse"))
    assert coarse.labels == "coarse (20 superclasses)"
    with pytest.raises(UserError, match="data.labels must be fine or coarse, not 'both'"):
        load_dataset(config("cifar100", tmp_path / "d", labels="both"))


def test_missing_files_are_named_with_the_remedy(tmp_path):
    with pytest.raises(UserError, match="data.download=true") as caught:
        load_dataset(config("cifar100", tmp_path))
    for part in ("cifar-100-binary", "train.bin", "61,480 bytes", str(tmp_path), cifar.URL):
        assert part in str(caught.value)


def test_truncated_file(tmp_path):
    files = binary_files("cifar100")
    files["test.bin"] = files["test.bin"][:-7]
    write_folder(tmp_path / "d", files)
    message = r"test.bin has 30,733 bytes, expected 30,740; get it again from https"
    with pytest.raises(UserError, match=message):
        load_dataset(config("cifar100", tmp_path / "d"))


@pytest.mark.parametrize("gone", ["test.bin", "fine_label_names.txt"])
def test_one_file_missing(tmp_path, gone):
    files = binary_files("cifar100")
    del files[gone]
    write_folder(tmp_path / "d", files)
    with pytest.raises(UserError, match=f"cannot read .*{gone}: No such file"):
        load_dataset(config("cifar100", tmp_path / "d"))


def test_a_label_too_large(tmp_path):
    files = binary_files("cifar100")
    files["train.bin"] = b"\0\x09" + files["train.bin"][2:]
    write_folder(tmp_path / "d", files)
    with pytest.raises(UserError, match="label 9 in the train split, but cifar100 has 5 classes"):
        load_dataset(config("cifar100", tmp_path / "d"))


def test_a_class_without_a_name(tmp_path):
    files = binary_files("cifar100")
    files["fine_label_names.txt"] = b"one\ntwo\n"
    write_folder(tmp_path / "d", files)
    with pytest.raises(
        UserError, match="fine_label_names.txt has 2 names, expected 5; get it again"
    ):
        load_dataset(config("cifar100", tmp_path / "d"))


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a foreign pickle was loaded",))


def test_foreign_pickle_is_never_loaded(tmp_path):
    files = python_files("cifar100")
    files["train"] = pickle.dumps(Bomb())
    write_folder(tmp_path / "d", files)
    with pytest.raises(UserError, match="not the official .*: it is not unpickled"):
        load_dataset(config("cifar100", tmp_path / "d"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[: len(b) // 2],
        lambda b: b"no archive at all",
        lambda b: b[:2000] + bytes([b[2000] ^ 1]) + b[2001:],
    ],
)
def test_damaged_archive(tmp_path, damage):
    layout = cifar.SPECS["cifar10"].binary
    content = archive_bytes(layout.folder, binary_files("cifar10"))
    (tmp_path / layout.archive).write_bytes(damage(content))
    with pytest.raises(UserError, match="and MD5 .*, not the official .*; get it again"):
        load_dataset(config("cifar10", tmp_path))


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The archive's official place, on this disk."""
    folder = tmp_path / "server"
    folder.mkdir()
    monkeypatch.setattr(cifar, "URL", folder.as_uri() + "/")
    layout = cifar.SPECS["cifar10"].binary
    content = archive_bytes(layout.folder, binary_files("cifar10"))
    (folder / layout.archive).write_bytes(content)
    spec = cifar.SPECS["cifar10"]
    digest = hashlib.md5(content).hexdigest()
    known = dataclasses.replace(spec.binary, md5=digest)
    monkeypatch.setitem(cifar.SPECS, "cifar10", dataclasses.replace(spec, binary=known))
    return folder / layout.archive


def test_download_only_when_asked_then_read_from_disk(tmp_path, server):
    root = tmp_path / "root"
    with pytest.raises(UserError, match="data.download=true"):
        load_dataset(config("cifar10", root))
    assert not root.exists()
    check(load_dataset(config("cifar10", root, download=True)), 10)
    server.unlink()
    check(load_dataset(config("cifar10", root)), 10)


def test_download_of_other_content_is_not_kept(tmp_path, server):
    server.write_bytes(b"something else")
    with pytest.raises(UserError, match="MD5 .* instead of .*: not kept"):
        load_dataset(config("cifar10", tmp_path / "root", download=True))
    assert list((tmp_path / "root").iterdir()) == []


def test_download_that_fails(tmp_path, server):
    server.unlink()
    with pytest.raises(UserError, match="cannot download file:"):
        load_dataset(config("cifar10", tmp_path / "root", download=True))
    assert list((tmp_path / "root").iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [http.client.BadStatusLine(""), http.client.IncompleteRead(b"x"), ValueError("Content-Length")],
    ids=lambda error: type(error).__name__,
)
def test_a_server_that_speaks_no_http_is_one_line(tmp_path, server, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(cifar.urllib.request, "urlopen", fail)
    with pytest.raises(UserError, match="cannot download file:.* to .*: .") as caught:
        load_dataset(config("cifar10", tmp_path / "root", download=True))
    assert "\n" not in str(caught.value)


def test_of_two_downloads_at_once_none_disturbs_the_other(tmp_path, server, monkeypatch):
    """The one that ends last finds the other's archive, which is the same."""
    urlopen, root = cifar.urllib.request.urlopen, tmp_path / "root"

    def open_while_another_downloads(*args, **kwargs):
        monkeypatch.setattr(cifar.urllib.request, "urlopen", urlopen)
        check(load_dataset(config("cifar10", root, download=True)), 10)
        return urlopen(*args, **kwargs)

    monkeypatch.setattr(cifar.urllib.request, "urlopen", open_while_another_downloads)
    check(load_dataset(config("cifar10", root, download=True)), 10)
    assert len(list(root.iterdir())) == 1
