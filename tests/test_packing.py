import contextlib
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import tarfile
import threading
import time

import mxnet as mx
import numpy as np
import pytest
from photo_files import add, official_tars, write_devkit, write_folder
from PIL import Image

from openaff import UserError
from openaff.data import packing
from openaff.data.packing import encode, folder_items, pack, read_devkit, train_tar_items


def jpeg(image, **options):
    out = io.BytesIO()
    image.save(out, "JPEG", **options)
    return out.getvalue()


def photo(size=(40, 30), mode="RGB"):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype="uint8")
    return Image.fromarray(pixels).convert(mode)


def records(path):
    """(label, content) of every image, by the index."""
    reader = mx.recordio.MXIndexedRecordIO(str(path.with_suffix(".idx")), str(path), "r")
    for key in sorted(reader.keys):
        header, content = mx.recordio.unpack(reader.read_idx(key))
        yield header.label, content


@pytest.fixture
def prepare(root):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, str(root / "scripts/prepare_imagenet.py"), *map(str, arguments)],
            capture_output=True,
            text=True,
        )

    return run


def test_from_official_tars_to_records(prepare, tmp_path):
    folder = official_tars(tmp_path)
    run = prepare(
        *("--out", tmp_path / "rec", "--workers", 2, "--train", tmp_path / "train.tar"),
        *("--val", tmp_path / "val.tar", "--devkit", tmp_path / "devkit.tar.gz"),
    )
    assert run.returncode == 0, run.stderr
    assert "train: 6 images of 3 classes" in run.stdout and "val: 4 images" in run.stdout
    train = list(records(tmp_path / "rec" / "train.rec"))
    labels = [label for label, _ in train]
    assert sorted(labels) == [0, 0, 1, 1, 2, 2] != labels  # shuffled
    greens = {(folder / "green" / f"{index}.jpg").read_bytes() for index in (0, 1)}
    assert {content for label, content in train if label == 1} == greens
    assert [label for label, _ in records(tmp_path / "rec" / "val.rec")] == [2, 0, 1, 0]
    manifest = json.loads((tmp_path / "rec" / "manifest.json").read_text())
    assert manifest["classes"] == ["n00000000", "n00000001", "n00000002"]
    assert manifest["splits"]["train"]["bytes"] == (tmp_path / "rec/train.rec").stat().st_size
    assert sorted(path.name for path in (tmp_path / "rec").iterdir()) == [
        *("manifest.json", "train.idx", "train.rec", "val.idx", "val.rec")
    ]


def test_what_is_encoded_anew_and_what_stays_as_it_is():
    for image in (photo(), photo(mode="L")):
        content = jpeg(image)
        assert encode(content, "x") is content
        assert encode(content, "x", resize=30) is content
    exif = Image.Exif()
    exif[packing.ORIENTATION] = 8
    png = io.BytesIO()
    photo(mode="RGBA").save(png, "PNG")
    for content, size in (
        (jpeg(photo(mode="CMYK")), (40, 30)),
        (jpeg(photo(), exif=exif), (30, 40)),
        (png.getvalue(), (40, 30)),
    ):
        packed = Image.open(io.BytesIO(encode(content, "x")))
        assert (packed.format, packed.mode, packed.size) == ("JPEG", "RGB", size)
        assert packed.getexif().get(packing.ORIENTATION, 1) == 1
    small = Image.open(io.BytesIO(encode(jpeg(photo((80, 60))), "x", resize=30)))
    assert small.size == (40, 30)
    good, bad = (len(encode(png.getvalue(), "x", quality=quality)) for quality in (95, 30))
    assert bad < good / 2


def test_unreadable_images_are_named_counted_and_left_out(prepare, tmp_path):
    folder = write_folder(tmp_path / "photos", per_class=2)
    whole = (folder / "red" / "0.jpg").read_bytes()
    (folder / "red" / "empty.jpg").touch()
    (folder / "red" / "folder.jpg").mkdir()
    (folder / "red" / "link.jpg").symlink_to("nowhere")
    (folder / "blue" / "short.jpg").write_bytes(whole[:300])
    run = prepare("--out", tmp_path / "rec", "--train", folder, "--workers", 1)
    assert run.returncode == 0, run.stderr
    assert "train: 6 images of 3 classes" in run.stdout
    assert "left out: red/empty.jpg is empty" in run.stderr
    assert "left out: cannot read the image blue/short.jpg" in run.stderr
    assert "red/folder.jpg: Is a directory" in run.stderr
    assert "red/link.jpg: No such file" in run.stderr
    assert "train: 4 images left out" in run.stderr
    manifest = json.loads((tmp_path / "rec" / "manifest.json").read_text())
    assert len(manifest["splits"]["train"]["skipped"]) == 4
    for path in folder.rglob("*.jpg"):
        if path.is_file():
            path.write_bytes(b"")
    classes, items = folder_items(folder)
    with pytest.raises(UserError, match="none of the 10 images of train can be read"):
        pack("train", classes, items, tmp_path / "none")


@pytest.mark.parametrize("where", ["a part", "the joining"])
def test_an_interruption_costs_nothing_but_its_part(where, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "PART", 4)
    classes, items = folder_items(write_folder(tmp_path / "photos"))
    whole = pack("train", classes, items, tmp_path / "whole")
    encoded, copied = [], []

    def stop_in_part(content, name, *settings):
        encoded.append(name)
        if where == "a part" and len(encoded) == 7:
            raise KeyboardInterrupt
        return content

    def stop_in_joining(source, out, size):
        copied.append(out.write(source.read(10 if len(copied) == 1 else -1)))
        if where == "the joining" and len(copied) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as stopping:
        stopping.setattr(packing, "encode", stop_in_part)
        stopping.setattr(packing.shutil, "copyfileobj", stop_in_joining)
        with pytest.raises(KeyboardInterrupt):
            pack("train", classes, items, tmp_path / "two")
    assert not (tmp_path / "two" / "train.rec").exists()
    with pytest.raises(UserError, match="unfinished packing of other images or settings"):
        pack("train", classes, items, tmp_path / "two", quality=50)
    encoded.clear()
    monkeypatch.setattr(
        packing, "encode", lambda content, name, *_: encoded.append(name) or content
    )
    assert pack("train", classes, items, tmp_path / "two") == whole
    assert len(encoded) == (8 if where == "a part" else 0)
    for name in ("train.rec", "train.idx", "manifest.json"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_second_interruption_of_the_joining_costs_no_line_of_the_index(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "PART", 4)
    classes, items = folder_items(write_folder(tmp_path / "photos"))
    whole = pack("train", classes, items, tmp_path / "whole")
    index, found = tmp_path / "two" / "train.parts" / "joined.idx", []

    def stop_after_a_part(source, out, size):
        found.append(index.read_text())  # what a SIGKILL would leave
        if out.tell():
            raise KeyboardInterrupt
        out.write(source.read())

    with monkeypatch.context() as stopping:
        stopping.setattr(packing.shutil, "copyfileobj", stop_after_a_part)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                pack("train", classes, items, tmp_path / "two")
    assert [text.count("\n") for text in found] == [0, 4, 4]
    index.write_text(found[-1][:-1])
    with pytest.raises(UserError, match="train.parts was changed: remove it"):
        pack("train", classes, items, tmp_path / "two")
    index.write_text(found[-1])
    assert pack("train", classes, items, tmp_path / "two") == whole
    for name in ("train.rec", "train.idx"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_packed_split_stays_as_it_is(tmp_path):
    classes, items = folder_items(write_folder(tmp_path / "photos"))
    first = pack("train", classes, items, tmp_path / "rec")
    before = (tmp_path / "rec" / "train.rec").stat()
    assert pack("train", classes, items, tmp_path / "rec") == first
    assert (tmp_path / "rec" / "train.rec").stat() == before
    for others, settings in ((items, {"resize": 20}), (items[:-1], {})):
        with pytest.raises(UserError, match="train.rec exists, with other images or settings"):
            pack("train", classes, others, tmp_path / "rec", **settings)
    with pytest.raises(UserError, match="has other classes"):
        pack("val", ["x"], items, tmp_path / "rec")


def test_an_interruption_while_files_are_put_into_place(tmp_path, monkeypatch):
    classes, items = folder_items(write_folder(tmp_path / "photos"))
    whole = pack("train", classes, items, tmp_path / "whole")
    original = packing.write_json

    def full_disk(path, value):
        if path.name == "manifest.json":
            raise OSError(28, "No space left on device")
        original(path, value)

    with monkeypatch.context() as full:
        full.setattr(packing, "write_json", full_disk)
        with pytest.raises(OSError, match="No space left"):
            pack("train", classes, items, tmp_path / "two")
    assert pack("train", classes, items, tmp_path / "two") == whole
    assert len(list(records(tmp_path / "two" / "train.rec"))) == 12
    # the other split may have been packed at the same time
    pack("val", classes, items, tmp_path / "two")
    manifest = json.loads((tmp_path / "two" / "manifest.json").read_text())
    assert sorted(manifest["splits"]) == ["train", "val"]


def test_records_that_are_gone_are_no_success(tmp_path):
    classes, items = folder_items(write_folder(tmp_path / "photos"))
    whole = pack("train", classes, items, tmp_path / "rec")
    record, index = tmp_path / "rec" / "train.rec", tmp_path / "rec" / "train.idx"
    for path, content in ((record, b""), (record, None), (index, None)):
        before = path.read_bytes()
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError, match="train.rec or its .idx is missing or changed: put"):
            pack("train", classes, items, tmp_path / "rec")
        path.write_bytes(before)
    assert pack("train", classes, items, tmp_path / "rec") == whole


def test_a_kill_before_the_parts_are_removed_leaves_nothing_behind(tmp_path, monkeypatch):
    classes, items = folder_items(write_folder(tmp_path / "photos"))
    out, parts = tmp_path / "rec", tmp_path / "rec" / "train.parts"
    with monkeypatch.context() as killed:
        killed.setattr(packing.shutil, "rmtree", lambda *_: None)
        whole = pack("train", classes, items, out)
    assert (parts / packing.RESULT).exists()
    with monkeypatch.context() as killed:
        killed.setattr(packing.shutil, "rmtree", lambda *_, **__: None)
        assert pack("train", classes, items, out) == whole
    for path in (out / "train.rec", out / "train.idx", out / "manifest.json"):
        path.rename(path.with_name(f"{path.name}.away"))
    with pytest.raises(UserError, match="train.parts was changed: remove it, and pack the split"):
        pack("train", classes, items, out)
    assert not (out / "manifest.json").exists()
    for path in (out / "train.rec", out / "train.idx", out / "manifest.json"):
        path.with_name(f"{path.name}.away").rename(path)
    assert pack("train", classes, items, out) == whole and not parts.exists()


def test_two_splits_that_end_at_once_are_both_in_the_manifest(tmp_path, monkeypatch):
    plan = {"listing": "", "resize": None, "quality": 95}
    for split in ("train", "val"):
        (tmp_path / f"{split}.parts").mkdir()
        result = {"images": 1, "bytes": 0, "sha256": "", "skipped": [], **plan}
        packing.write_json(tmp_path / f"{split}.parts" / packing.RESULT, result)
        for suffix in (".rec", ".idx"):
            (tmp_path / f"{split}.parts" / f"joined{suffix}").touch()
    original = packing.write_json
    other = threading.Thread(target=packing._install, args=(tmp_path, "val", ["a"]))

    def write_slowly(path, value):
        if other.ident is None:
            other.start()
            other.join(0.2)  # in vain: it waits
        original(path, value)

    monkeypatch.setattr(packing, "write_json", write_slowly)
    packing._install(tmp_path, "train", ["a"])
    other.join()
    assert sorted(packing.read_manifest(tmp_path)["splits"]) == ["train", "val"]


def test_a_killed_process_is_an_error_and_the_rest_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "PART", 4)
    classes, items = folder_items(write_folder(tmp_path / "photos"))
    with monkeypatch.context() as killing:
        killing.setattr(packing, "encode", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        with pytest.raises(UserError, match="a packing process was killed, perhaps"):
            pack("train", classes, items, tmp_path / "rec", workers=2)
    assert pack("train", classes, items, tmp_path / "rec", workers=2)["images"] == 12


def test_the_processes_end_with_the_command(tmp_path):
    """Even where it is killed: they would wait for work for ever."""
    write_folder(tmp_path / "photos")
    code = (
        "import os, sys, time; from openaff.data import packing; "
        "packing.encode = lambda *_: (os.write(1, b'%d\\n' % os.getpid()), time.sleep(60)); "
        "names, items = packing.folder_items(sys.argv[1]); packing.PART = 4; "
        "packing.pack('train', names, items, sys.argv[2], workers=2)"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "photos"), str(tmp_path / "rec")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    children = [int(process.stdout.readline()) for _ in range(2)]
    process.kill()
    process.communicate()
    for _ in range(100):
        if not any(is_running(child) for child in children):
            return
        time.sleep(0.05)
    pytest.fail(f"{children} still run")


def is_running(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def test_two_packings_at_once_are_one_line(tmp_path):
    classes, items = folder_items(write_folder(tmp_path / "photos"))
    parts = tmp_path / "rec" / "train.parts"
    parts.mkdir(parents=True)
    hold = (
        "import sys; from openaff.utils.files import lock; held = lock(sys.argv[1]); "
        "print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(parts / packing.LOCK)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(UserError, match="another process is packing .*train.rec: let it end"):
        pack("train", classes, items, tmp_path / "rec")
    holder.communicate()
    assert pack("train", classes, items, tmp_path / "rec")["images"] == 12
    assert not parts.exists()


def test_tar_files_that_are_refused(tmp_path):
    official_tars(tmp_path)
    whole = (tmp_path / "train.tar").read_bytes()
    (tmp_path / "short.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="short.tar.* is (truncated or )?damaged"):
        train_tar_items(tmp_path / "short.tar")
    with pytest.raises(UserError, match="cannot read .*absent.tar"):
        train_tar_items(tmp_path / "absent.tar")
    for name in ("../n01.tar", "/n01.tar"):
        with tarfile.open(tmp_path / "evil.tar", "w") as archive:
            add(archive, name, b"")
        with pytest.raises(UserError, match="which does not belong in an image archive: refused"):
            train_tar_items(tmp_path / "evil.tar")
    with tarfile.open(tmp_path / "twice.tar", "w") as archive:
        for _ in range(2):
            archive.add(tmp_path / "train.tar", "n01.tar")
    with pytest.raises(UserError, match="twice.tar holds 'n01.tar' twice"):
        train_tar_items(tmp_path / "twice.tar")
    with tarfile.open(tmp_path / "link.tar", "w") as archive:
        link = tarfile.TarInfo("n01.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(UserError, match="refused"):
        train_tar_items(tmp_path / "link.tar")
    with pytest.raises(UserError, match="val.tar holds ILSVRC2012_val_.*, which is not a tar file"):
        train_tar_items(tmp_path / "val.tar")
    with pytest.raises(UserError, match="is not an ILSVRC2012 devkit"):
        read_devkit(tmp_path / "val.tar")
    classes, _ = train_tar_items(tmp_path / "train.tar")
    with pytest.raises(UserError, match="holds 4 images, but there are 3 labels"):
        packing.val_tar_items(tmp_path / "val.tar", ["n00000000"] * 3, classes)
    with pytest.raises(UserError, match="label 'n9' .* is not a class"):
        packing.val_tar_items(tmp_path / "val.tar", ["n9"] * 4, classes)


def test_tar_files_that_lost_images_are_refused(tmp_path):
    """Python's tarfile takes a damaged header, and a missing end, for the end."""
    official_tars(tmp_path)
    path = tmp_path / "train.tar"
    whole = path.read_bytes()
    with tarfile.open(path) as outer:
        members = outer.getmembers()
        with tarfile.open(fileobj=outer.extractfile(members[0])) as inner:
            within = members[0].offset_data + inner.getmembers()[1].offset
        end = outer.offset
    for place in (members[1].offset, within):
        path.write_bytes(whole[: place + 3] + b"\xff" + whole[place + 4 :])
        with pytest.raises(UserError, match="train.tar.* is truncated or damaged: its end is miss"):
            train_tar_items(path)
    for place in (members[1].offset, members[2].offset + 100, end):
        path.write_bytes(whole[:place])
        with pytest.raises(UserError, match="train.tar is truncated or damaged"):
            train_tar_items(path)


def test_pipes_in_the_place_of_archives(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for read in (train_tar_items, read_devkit):
        with pytest.raises(UserError, match="pipe is not a regular file"):
            read(tmp_path / "pipe")


def test_an_image_that_no_jpeg_can_hold_is_left_out(tmp_path):
    content = io.BytesIO()
    Image.new("RGB", (70000, 2)).save(content, "PNG")
    with pytest.raises(UserError, match="long.png cannot be written as a JPEG: ."):
        encode(content.getvalue(), "long.png")


def test_devkits_that_are_refused(tmp_path):
    path = tmp_path / "devkit.tar.gz"
    write_devkit(path)
    assert read_devkit(path) == ["n00000002", "n00000000", "n00000001", "n00000000"]
    whole = path.read_bytes()
    for place in [*range(20, len(whole), 4001), *range(len(whole) - 60, len(whole), 7)]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        with pytest.raises(UserError, match="devkit.tar.gz is not an ILSVRC2012 devkit, or dama"):
            read_devkit(path)
        path.write_bytes(whole[:place])
        with pytest.raises(UserError, match="devkit.tar.gz is not an ILSVRC2012 devkit, or dama"):
            read_devkit(path)
    later = b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(400)
    for table in (b"", bytes(300), later):
        write_devkit(path, table)
        with pytest.raises(UserError, match="is not an ILSVRC2012 devkit, or damaged: .") as caught:
            read_devkit(path)
        assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_made(tmp_path):
    classes, items = folder_items(write_folder(tmp_path / "photos"))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot make the folder .*file.*: Not a directory"):
        pack("train", classes, items, tmp_path / "file" / "records")


def test_script_errors(call, tmp_path):
    folder = write_folder(tmp_path / "photos")
    (tmp_path / "file.tar").touch()
    for arguments, message in (
        ([], "nothing to pack"),
        (["--train", folder, "--quality", 0], "--quality must be 1 to 100"),
        (["--train", tmp_path], "--out .*rec lies in --train .*: name a folder beside it"),
        (["--train", folder, "--resize", 0], "--resize must be a positive integer"),
        (["--val", tmp_path / "file.tar"], "needs its labels: --devkit or --val-labels"),
        (["--val", folder, "--devkit", "x"], "--devkit has no effect unless --val is a tar file"),
        (["--train", tmp_path / "absent"], "--train .*absent: there is no such file or folder"),
        (["--val", tmp_path / "absent"], "--val .*absent: there is no such file or folder"),
        (["--val", tmp_path / "file.tar", "--val-labels", "absent"], "cannot read absent: No such"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            call("prepare-imagenet", "--out", tmp_path / "rec", *arguments)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "rec").exists()
