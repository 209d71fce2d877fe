"""RecordIO files of images: MXNet's C++ reader for training, one by one for evaluation."""

import contextlib
import hashlib
import pathlib
import re
import struct
import time

import mxnet as mx
import numpy as np

from ..utils.errors import UserError, last_line
from ..utils.files import write_json
from ..utils.framework import check_processes, physical_cores
from ..utils.json_files import WrongJSON, read_json
from ..utils.progress import progress_bar
from .image_folder import read_photo
from .mixup import one_hot

MANIFEST = "manifest.json"
SPLIT = {"images": int, "bytes": int, "sha256": str, "skipped": [str]}
_KIND = {"classes": [str], "splits": {str: SPLIT}}
_MAGIC = 0xCED7230A
_INDEX_LINE = re.compile(rb"[0-9]{1,18}\t[0-9]{1,18}\r?")


class RecordSet:
    """A ``.rec`` file and its ``.idx``, checked against each other.

    Parameters
    ----------
    path : path-like
        The ``.rec`` file.
    crop : callable
        ``crop(image, rng)``: a PIL image -> uint8 (size, size, 3).
    classes : int
        Labels are integers below it.
    packed : dict, optional
        What the manifest says of the file: ``images``, ``bytes`` and ``sha256``.

    Raises
    ------
    UserError
        A file is missing, the record file is truncated, or index or manifest do not match it.
    """

    costly = True

    def __init__(self, path, crop, classes, packed=None):
        self.path = pathlib.Path(path)
        self.index = self.path.with_suffix(".idx")
        self.crop = crop
        self.classes, self.packed = classes, packed
        self.length = len(_checked_offsets(self.path, self.index))
        if packed is not None:
            for found, key in ((self.length, "images"), (self.path.stat().st_size, "bytes")):
                if packed[key] != found:
                    raise UserError(
                        f"{self.path} has {found:,} {key}, but the manifest beside it says "
                        f"{packed[key]:,}: copy or pack it again"
                    )
        self._verified = False
        self._reader = None  # opened when needed: each process has its own

    def __len__(self):
        return self.length

    @property
    def image_shape(self):
        return (3, self.crop.size, self.crop.size)

    def take(self, picked, rng):
        """uint8 (n, size, size, 3) and int32 (n,); an unreadable image is a :class:`UserError`."""
        self.verify()
        if self._reader is None:
            self._reader = mx.recordio.MXIndexedRecordIO(str(self.index), str(self.path), "r")
        images, labels = [], []
        for number in picked:
            try:
                content = self._reader.read_idx(self._reader.keys[number])
                header, content = mx.recordio.unpack(content)
            except (mx.base.MXNetError, TypeError, struct.error):  # TypeError: None was read
                raise UserError(f"{self.path} is damaged: cannot read record {number}") from None
            photo = read_photo(content, f"record {number} of {self.path}")
            images.append(self.crop(photo, rng))
            labels.append(header.label)
        return np.stack(images), np.array(labels, "int32")

    def verify(self):
        """Read the whole file once, and check every record, every label and the checksum.

        MXNet's reader ends the process without a word where a record is damaged.  The verdict is
        kept in ``NAME.verified`` beside the file, if the folder can be written, and holds as long
        as no file changes: a later run does not read it all again.

        Raises
        ------
        UserError
            What is damaged.
        """
        if self._verified:
            return
        facts = {
            "files": [_identity(self.path), _identity(self.index)],
            "classes": self.classes,
            "sha256": self.packed and self.packed["sha256"],
        }
        verdict = self.path.with_suffix(".verified")
        try:
            known = read_json(verdict) == facts
        except (OSError, WrongJSON):
            known = False
        if not known:
            self._read_all(facts["sha256"])
            with contextlib.suppress(OSError):
                write_json(verdict, facts)
        self._verified = True

    def _read_all(self, expected):
        offsets = _checked_offsets(self.path, self.index)
        length = self.path.stat().st_size
        sizes = np.diff(np.append(offsets, length))
        digest = hashlib.sha256()
        with open(self.path, "rb") as source, progress_bar(
            total=length,
            unit="B",
            unit_scale=True,
            desc=f"checking {self.path.name}, once",
        ) as bar:
            for number, size in enumerate(map(int, sizes)):
                content = source.read(size)
                problem = _problem(content, self.classes)
                if problem:
                    raise UserError(
                        f"{self.path} is damaged: {problem} in record {number}, at byte "
                        f"{offsets[number]:,}; copy or pack it again"
                    )
                digest.update(content)
                bar.update(size)
        if expected and digest.hexdigest() != expected:
            raise UserError(
                f"{self.path} is damaged: its SHA-256 is not the one in {MANIFEST}; copy or pack "
                "it again"
            )


def _identity(path):
    """What changes if a file is written or copied anew."""
    facts = path.stat()
    return [path.name, facts.st_size, facts.st_mtime_ns, facts.st_ino]


def _problem(content, classes):
    """What is wrong with a record, its frames and its header, or None.

    A frame is a magic number, 3 bits of its kind and 29 of its size, and the content, filled up to
    4 bytes.  A record whose content has the magic number in it is written as several frames: kinds
    1, 2, ..., 2, 3 instead of 0.
    """
    place, kinds = 0, []
    while place < len(content):
        if len(content) - place < 8:
            return "too few bytes"
        magic, flags = struct.unpack_from("<II", content, place)
        if magic != _MAGIC:
            return "no frame"
        kinds.append(flags >> 29)
        place = _end(place, flags)
    if place != len(content) or kinds not in ([0], [1, *[2] * (len(kinds) - 2), 3]):
        return "a frame of another size"
    if len(content) < 32:
        return "no header"
    count, label = struct.unpack_from("<If", content, 8)
    if count or not (0 <= label < classes and label == int(label)):
        return f"{count} labels" if count else f"the label {label:g}, and not one below {classes},"
    return None


def _checked_offsets(path, index):
    try:
        lines = index.read_bytes().split(b"\n")
        length = path.stat().st_size
    except OSError as error:
        raise UserError(f"cannot read {path} with {index.name}: {error}") from None
    lines = lines[:-1] if lines[-1] == b"" else lines
    if not lines:
        raise UserError(f"{index} is empty: pack the images again")
    for number, line in enumerate(lines, 1):
        if not _INDEX_LINE.fullmatch(line):
            raise UserError(f"{index}, line {number}: it must be a key, a tab and an offset")
    if len({int(line.split(b"\t")[0]) for line in lines}) < len(lines):
        raise UserError(f"{index} has a key twice: pack the images again")
    offsets = np.array([int(line.split(b"\t")[1]) for line in lines])
    if offsets[0] != 0 or (np.diff(offsets) <= 0).any():
        raise UserError(
            f"{index} is not the index of {path.name}: its offsets do not increase from 0"
        )
    with open(path, "rb") as records:
        for place, offset in enumerate(offsets[[0, len(offsets) // 2, -1]]):
            records.seek(offset)
            head = records.read(8)
            magic, flags = struct.unpack("<II", head) if len(head) == 8 else (None, 0)
            if magic is None or (place == 2 and magic == _MAGIC and _end(offset, flags) > length):
                raise UserError(
                    f"{path} is truncated: it has {length:,} bytes, but {index.name} names a "
                    f"record at {offset:,} that ends later; copy or pack it again"
                )
            if magic != _MAGIC:
                raise UserError(
                    f"{index} is not the index of {path.name}: there is no record at {offset:,}"
                )
    if flags >> 29 == 0 and _end(offset, flags) != length:
        raise UserError(
            f"{index} is not the index of {path.name}: the last record that it names ends at "
            f"{_end(offset, flags):,} of {length:,} bytes"
        )
    return offsets


def _end(offset, flags):
    return int(offset) + 8 + (((flags & (1 << 29) - 1) + 3) // 4) * 4


def read_manifest(folder):
    """The packer's manifest (classes, counts, checksums), or None if there is none."""
    path = pathlib.Path(folder) / MANIFEST
    if not path.exists():
        return None
    try:
        manifest = read_json(path, _KIND)
    except (OSError, WrongJSON) as error:
        raise UserError(f"cannot read the manifest {path}: {error}") from None
    if len(set(manifest["classes"])) < len(manifest["classes"]):
        raise UserError(f"cannot read the manifest {path}: it has a class twice")
    return manifest


class RecordBatches:
    """Training batches of a :class:`RecordSet`, as :class:`~.loader.BatchLoader` gives them.

    MXNet's reader shuffles, decodes in threads, and does random resized crop, colour jitter, PCA
    noise, flip and normalisation.  It ends the process without a word if an image is damaged, so
    the records are verified first.  We do not use it for evaluation: it cannot read fewer images
    than a batch.

    Parameters
    ----------
    records : RecordSet
        What to read.
    batch_size : int
        Images per batch, in this process.
    mean, std : tuple of float
        Per channel, for pixel values in [0, 1].
    flip : bool
        Mirror half of the images.
    jitter : float
        Largest relative change of brightness, contrast and saturation.
    pca_noise : float
        Standard deviation of the noise along the colours' principal components.
    seed : int
        An epoch's order depends on it and the epoch; the augmentation also on the number of
        threads.
    mixup : Mixup, optional
        Applied to batches.
    workers : int, optional
        Decoding threads, by default one per core, up to 16.
    shard : tuple of int
        (rank, count): this is process ``rank`` of ``count``; each reads its own images.

    Raises
    ------
    UserError
        There are fewer images than one batch, or no threads.
    """

    def __init__(
        self,
        records,
        batch_size,
        mean,
        std,
        flip=False,
        jitter=0.0,
        pca_noise=0.0,
        seed=0,
        mixup=None,
        workers=None,
        shard=(0, 1),
    ):
        rank, count = shard
        # MXNet gives the last process what remains, and all need the same number of batches.
        smallest = len(records) - (count - 1) * -(-len(records) // count)
        if smallest < batch_size:
            raise UserError(
                f"{len(records)} training images do not fill one batch of {batch_size} for each of "
                f"{count} processes: take a smaller data.batch_size or fewer devices"
            )
        if workers == 0:
            raise UserError("data.workers must be at least 1 for record files")
        if workers:
            check_processes("workers", workers)
        records.verify()
        self.records = records
        self.batch_size = batch_size
        self.length = smallest // batch_size
        self.seed = seed
        self.mixup = mixup
        self.shard = shard
        self.waited = 0.0
        self.options = {
            "path_imgrec": str(records.path),
            "path_imgidx": str(records.index),
            "data_shape": records.image_shape,
            "batch_size": batch_size,
            "preprocess_threads": workers or max(1, min(16, physical_cores())),
            "num_parts": count,
            "part_index": rank,
            "verbose": False,
            "shuffle": True,
            "random_resized_crop": True,
            "min_random_area": 0.08,
            "max_random_area": 1.0,
            "min_aspect_ratio": 3 / 4,
            "max_aspect_ratio": 4 / 3,
            "rand_mirror": flip,
            "brightness": jitter,
            "contrast": jitter,
            "saturation": jitter,
            "pca_noise": pca_noise,
        }
        for channel, m, s in zip("rgb", mean, std):
            self.options[f"mean_{channel}"] = 255 * m
            self.options[f"std_{channel}"] = 255 * s

    def __len__(self):
        return self.length

    def epoch(self, number=0, start=0, mixing=True):
        """Yield the batches of epoch ``number`` from batch ``start`` on."""
        self.waited = 0.0
        if start >= self.length:  # nothing to decode: resumed after the last step
            return
        sequence = np.random.SeedSequence((self.seed, number, self.shard[0]))
        seed = int(sequence.generate_state(1)[0] >> 1)
        try:
            # Not seed_aug: it gives every batch the same crops, flips and colours.
            reader = mx.io.ImageRecordIter(seed=seed, shuffle_chunk_seed=seed, **self.options)
            for batch_number in range(self.length):
                asked = time.perf_counter()
                batch = reader.next()
                self.waited += time.perf_counter() - asked
                if batch_number < start:
                    continue
                images, labels = batch.data[0], batch.label[0]
                if self.mixup and mixing:
                    images, labels = self._mix(images, labels, number, batch_number)
                yield images, labels
        except mx.base.MXNetError as error:
            raise UserError(f"cannot read {self.records.path}: {last_line(error)}") from None

    def _mix(self, images, labels, number, batch_number):
        rng = np.random.default_rng((self.seed, number, batch_number, self.shard[0]))
        weight = self.mixup.draw(rng)
        targets = mx.nd.array(one_hot(labels.asnumpy().astype(int), self.mixup.classes))
        return [weight * each + (1 - weight) * each.flip(axis=0) for each in (images, targets)]
