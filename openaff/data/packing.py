"""Pack images from tar files or folders into RecordIO files, in several processes, resumably."""

import collections
import hashlib
import io
import json
import os
import pathlib
import shutil
import signal
import tarfile
from concurrent import futures
from dataclasses import dataclass
from functools import partial

import mxnet as mx
import numpy as np
from PIL import Image
from scipy.io import loadmat

from ..utils.children import end_with
from ..utils.errors import UserError, one_line
from ..utils.files import (
    alone_in,
    atomic,
    check_size,
    lock,
    refuse_special,
    sha256,
    write_json,
)
from ..utils.json_files import WrongJSON, read_json
from ..utils.labels import check_names
from ..utils.progress import progress_bar
from .image_folder import ORIENTATION, class_folders, read_photo
from .records import MANIFEST, SPLIT, read_manifest

PART = 1024  # images per part; an interruption loses only unfinished parts
RESULT = "result.json"  # in the folder of parts: all are joined, and only have to be moved
LOCK = "lock"  # in the folder of parts, while a process packs or after it was killed
DEVKIT = "ILSVRC2012_devkit_t12/data/"


@dataclass(frozen=True)
class Item:
    """An image: a range of bytes in a file, which may be a tar file."""

    name: str
    path: str
    offset: int
    size: int
    label: int

    def read(self):
        refuse_special(self.path)
        try:
            with open(self.path, "rb") as source:
                source.seek(self.offset)
                return source.read(self.size)
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {error.strerror}") from None


def folder_items(folder):
    """Classes and items of an image folder, see :func:`~.image_folder.class_folders`."""
    classes, files = class_folders(folder)
    items = [
        Item(
            f"{classes[label]}/{path.name}",
            str(path),
            0,
            path.stat().st_size if path.exists() else -1,  # a broken link
            label,
        )
        for path, label in files
    ]
    return classes, items


def train_tar_items(path):
    """Classes and items of ILSVRC2012_img_train.tar, which holds one tar file per synset."""
    items, classes = [], []
    with _open_tar(path) as outer:
        members = sorted(_files(path, outer), key=lambda member: member.name)
        for member in progress_bar(members, unit="class", desc="reading the index", leave=True):
            synset, suffix = os.path.splitext(member.name)
            if suffix != ".tar":
                raise UserError(
                    f"{path} holds {member.name}, which is not a tar file of a class's images"
                )
            inner_name = f"{path}, {member.name}"
            try:
                with tarfile.open(fileobj=outer.extractfile(member), mode="r:") as inner:
                    for image in sorted(_files(inner_name, inner), key=lambda each: each.name):
                        offset = member.offset_data + image.offset_data
                        name = f"{synset}/{image.name}"
                        items.append(Item(name, str(path), offset, image.size, len(classes)))
            except tarfile.TarError as error:
                raise UserError(f"{inner_name} is damaged: {error}") from None
            classes.append(synset)
    if not items:
        raise UserError(f"{path} holds no images")
    return classes, items


def val_tar_items(path, synsets, classes):
    """Items of ILSVRC2012_img_val.tar; the n-th image by name belongs to ``synsets[n]``."""
    with _open_tar(path) as archive:
        members = sorted(_files(path, archive), key=lambda member: member.name)
    if len(members) != len(synsets):
        raise UserError(
            f"{path} holds {len(members):,} images, but there are {len(synsets):,} labels"
        )
    numbers = {synset: number for number, synset in enumerate(classes)}
    unknown = sorted(set(synsets) - set(numbers))
    if unknown:
        raise UserError(f"the label {unknown[0]!r} of {path} is not a class of the training images")
    return [
        Item(each.name, str(path), each.offset_data, each.size, numbers[synset])
        for each, synset in zip(members, synsets)
    ]


def read_devkit(path):
    """The validation images' synsets, in order, from ILSVRC2012_devkit_t12.tar.gz."""
    refuse_special(path)
    try:
        with tarfile.open(path) as archive:
            meta = archive.extractfile(DEVKIT + "meta.mat").read()
            truth = archive.extractfile(DEVKIT + "ILSVRC2012_validation_ground_truth.txt").read()
            archive.fileobj.read()  # to its checksum: loadmat may crash on damaged bytes
        table = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        synsets = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in table}
        return [synsets[int(line)] for line in truth.split()]
    except Exception as error:  # of tarfile, zlib or loadmat, which have many
        raise UserError(
            f"{path} is not an ILSVRC2012 devkit, or damaged: {one_line(error)}"
        ) from None


def _open_tar(path):
    refuse_special(path)
    try:
        return tarfile.open(path, "r:")
    except (OSError, tarfile.TarError) as error:
        raise UserError(
            f"cannot read {path}: {error}; it must be an uncompressed tar file"
        ) from None


def _files(path, archive):
    """The regular files of an archive; names that point outside its folder are refused."""
    try:
        members = archive.getmembers()
        archive.fileobj.seek(archive.offset)  # a damaged header, too, ends the list of members
        if archive.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise tarfile.ReadError("its end is missing")
    except tarfile.TarError as error:
        raise UserError(f"{path} is truncated or damaged: {error}") from None
    for member in members:
        name = pathlib.PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts or not (member.isfile() or member.isdir()):
            raise UserError(
                f"{path} holds {member.name!r}, which does not belong in an image archive: refused"
            )
    files = [member for member in members if member.isfile()]
    names = collections.Counter(member.name for member in files)
    twice = [name for name in names if names[name] > 1]
    if twice:
        raise UserError(f"{path} holds {twice[0]!r} twice: pack a whole copy of the archive")
    return files


def encode(content, name, resize=None, quality=95):
    """An image's bytes for packing: unchanged if possible, otherwise a new JPEG.

    A JPEG that is upright and in RGB or grey stays unchanged.  Others are turned upright, converted
    to RGB and encoded again.  With ``resize``, images with a longer short side are also shrunk.

    Raises
    ------
    UserError
        See :func:`~openaff.data.image_folder.read_photo`; or a JPEG cannot hold the image.
    """
    image = read_photo(content, name)
    with Image.open(io.BytesIO(content)) as original:
        upright = original.getexif().get(ORIENTATION, 1) == 1
        fits = resize is None or min(image.size) <= resize
        if original.format == "JPEG" and original.mode in ("RGB", "L") and upright and fits:
            return content
    if not fits:
        scale = resize / min(image.size)
        image = image.resize([round(scale * side) for side in image.size], Image.BICUBIC)
    out = io.BytesIO()
    try:
        image.save(out, "JPEG", quality=quality, subsampling=0 if quality >= 90 else -1)
    except OSError as error:  # such as a side of more than 65,535 pixels
        raise UserError(f"{name} cannot be written as a JPEG: {one_line(error)}") from None
    return out.getvalue()


def pack(split, classes, items, out, resize=None, quality=95, workers=1):
    """Write ``out/SPLIT.rec`` and ``.idx`` and the split's part of the manifest.

    A split that is already packed stays as it is.  Images that cannot be read are left out and
    named in the manifest.  After an interruption, the same call continues where it stopped.

    Parameters
    ----------
    split : str
        ``train`` or ``val``.
    classes : list of str
        Class names; an item's label is an index into it.
    items : list of Item
        What to pack, in this order.
    out : path-like
        A folder; it is made if it does not exist.
    resize : int, optional
        Longer short sides are shrunk to this.
    quality : int
        Quality of new JPEGs, 1 to 100.
    workers : int
        Processes.

    Returns
    -------
    dict
        The split's part of the manifest.

    Raises
    ------
    UserError
        The split is already packed from other images or with other settings, an unfinished packing
        of something else is in the way, the classes differ from the other split's, no image can be
        read, or a process was killed.
    """
    out = pathlib.Path(out)
    record, parts = out / f"{split}.rec", out / f"{split}.parts"
    if split == "train":  # so that each distributed worker reads images of all classes
        order = np.random.default_rng(0).permutation(len(items))
        items = [items[index] for index in order]
    listing = json.dumps([(item.name, item.size, item.label) for item in items])
    plan = {
        "listing": hashlib.sha256(listing.encode()).hexdigest(),
        "resize": resize,
        "quality": quality,
    }
    manifest = _manifest(out, classes)
    packed = manifest["splits"].get(split)
    if packed and packed.items() >= plan.items():
        if not _is_whole(out, split, packed):
            raise UserError(
                f"{record} or its .idx is missing or changed: put both back, or remove them and "
                f"their part of {MANIFEST}"
            )
        shutil.rmtree(parts, ignore_errors=True)  # of a process that was killed at the very end
        return packed
    if packed or (record.exists() and not (parts / RESULT).exists()):
        raise UserError(
            f"{record} exists, with other images or settings: take another --out, or remove it and "
            f"its part of {MANIFEST}"
        )
    _begin(parts, dict(plan, images_per_part=PART))
    locked, ours = lock(parts / LOCK)
    with locked:
        if ours is False:
            raise UserError(
                f"another process is packing {record}: let it end, or take another --out"
            )
        if not (parts / RESULT).exists():
            _pack_parts(split, items, parts, partial(_pack_part, **_settings(plan)), workers)
            result = _join(parts, -(-len(items) // PART))
            if not result["images"]:
                shutil.rmtree(parts)
                raise UserError(f"none of the {len(items):,} images of {split} can be read")
            write_json(parts / RESULT, dict(result, **plan))
        return _install(out, split, classes)


def _settings(plan):
    return {key: plan[key] for key in ("resize", "quality")}


def _manifest(out, classes):
    check_names(classes, out / MANIFEST)
    manifest = read_manifest(out) or {"classes": classes, "splits": {}}
    if manifest["classes"] != classes:
        raise UserError(f"{out / MANIFEST} has other classes: pack into another folder")
    return manifest


def _install(out, split, classes):
    """Move the packed split into place, repeatably; returns its part of the manifest."""
    parts = out / f"{split}.parts"
    for suffix in (".rec", ".idx"):  # the index last: without it nobody reads the records
        if (parts / f"joined{suffix}").exists():
            os.replace(parts / f"joined{suffix}", out / f"{split}{suffix}")
    result = _read(parts / RESULT, SPLIT)
    if not _is_whole(out, split, result):
        raise UserError(f"{parts} was changed: remove it, and pack the split again")
    with alone_in(out):  # the other split may be packed at the same time
        manifest = _manifest(out, classes)
        manifest["splits"][split] = result
        write_json(out / MANIFEST, manifest)
    shutil.rmtree(parts)
    return result


def _is_whole(out, split, facts):
    """Whether the records and index that a part of the manifest describes are there."""
    record, index = out / f"{split}.rec", out / f"{split}.idx"
    return index.is_file() and record.is_file() and record.stat().st_size == facts["bytes"]


def _begin_worker(parent):
    end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the work


def _pack_parts(split, items, parts, make, workers):
    """Pack the missing parts."""
    chunks = [items[start : start + PART] for start in range(0, len(items), PART)]
    missing = [
        (chunk, parts / f"{number:05d}")
        for number, chunk in enumerate(chunks)
        if not (parts / f"{number:05d}.json").exists()
    ]
    done = len(items) - sum(len(chunk) for chunk, _ in missing)
    with progress_bar(total=len(items), initial=done, unit="img", desc=split, leave=True) as bar:
        if workers == 1:
            for task in missing:
                bar.update(make(task))
            return
        begin = {"initializer": _begin_worker, "initargs": (os.getpid(),)}
        # Before Python 3.9 a pool starts all its processes at once, needed or not.
        workers = max(1, min(workers, len(missing)))
        with futures.ProcessPoolExecutor(workers, **begin) as pool:
            tasks = [pool.submit(make, task) for task in missing]
            try:
                for task in futures.as_completed(tasks):
                    bar.update(task.result())
            except futures.process.BrokenProcessPool:
                raise UserError(
                    "a packing process was killed, perhaps for lack of memory: repeat the command "
                    "with fewer --workers, and it continues where it stopped"
                ) from None
            except BaseException:
                for task in tasks:
                    task.cancel()
                raise


def _begin(parts, plan):
    """Make the folder of finished parts, or check that the existing one matches."""
    try:
        parts.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {parts}: {error.strerror}") from None
    path = parts / "plan.json"
    if path.exists() and _read(path) != plan:
        raise UserError(
            f"{parts} is an unfinished packing of other images or settings: repeat it as it was, "
            "or remove it"
        )
    write_json(path, plan)


def _read(path, kind=object):
    try:
        return read_json(path, kind)
    except WrongJSON as error:
        raise UserError(
            f"{path} is damaged ({error}): remove the folder {path.parent}, and pack the split "
            "again"
        ) from None


def _pack_part(task, resize, quality):
    """Write one part's ``.rec`` and then its ``.json``; returns the number of its items."""
    chunk, stem = task
    offsets, skipped = [], []
    with atomic(stem.with_suffix(".rec")) as temporary:
        writer = mx.recordio.MXIndexedRecordIO(os.devnull, str(temporary), "w")
        for item in chunk:
            try:
                content = encode(item.read(), item.name, resize, quality)
            except UserError as error:
                skipped.append(str(error))
                continue
            offsets.append(writer.tell())
            header = mx.recordio.IRHeader(0, item.label, 0, 0)
            writer.write(mx.recordio.pack(header, content))
        size = writer.tell()
        writer.close()  # MXNet does not say when that fails
        check_size(temporary, size)
    write_json(stem.with_suffix(".json"), {"offsets": offsets, "skipped": skipped})
    return len(chunk)


def _join(parts, count):
    """Join all parts into one record file, removing each; returns its part of the manifest.

    ``joined.json`` records the progress, so that an interruption here loses nothing either.
    """
    path = parts / "joined.json"
    state = {"parts": 0, "bytes": 0, "images": 0, "skipped": []}
    if path.exists():
        state = _read(path, {"parts": int, "bytes": int, "images": int, "skipped": [str]})
    joined, index = parts / "joined.rec", parts / "joined.idx"
    joined.touch()
    index.touch()
    lines = b"".join(index.read_bytes().splitlines(True)[: state["images"]])
    if joined.stat().st_size < state["bytes"] or lines.count(b"\n") < state["images"]:
        raise UserError(f"{parts} was changed: remove it, and pack the split again")
    with open(joined, "r+b") as out, open(index, "r+") as out_index:
        # What is whole stays on the disk: the process may be killed again at any time.
        for each, size in ((out, state["bytes"]), (out_index, len(lines))):
            each.truncate(size)
            each.seek(size)
        for number in range(state["parts"], count):
            part = parts / f"{number:05d}.rec"
            facts = _read(part.with_suffix(".json"), {"offsets": [int], "skipped": [str]})
            for offset in facts["offsets"]:
                out_index.write(f"{state['images']}\t{state['bytes'] + offset}\n")
                state["images"] += 1
            with open(part, "rb") as source:
                shutil.copyfileobj(source, out, 1 << 22)
            state["bytes"] += part.stat().st_size
            state["skipped"] += facts["skipped"]
            state["parts"] = number + 1
            for each in (out, out_index):
                each.flush()
                os.fsync(each.fileno())
            write_json(path, state)
            part.unlink()
    return {
        "images": state["images"],
        "bytes": state["bytes"],
        "sha256": sha256(joined),
        "skipped": state["skipped"],
    }
