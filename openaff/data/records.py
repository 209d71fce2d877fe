"""RecordIO files of images, through MXNet's reader in C++."""

import json
import pathlib
import struct
import time

import mxnet as mx
import numpy as np

from ..errors import UserError
from ..runtime import physical_cores
from .mixing import one_hot

MANIFEST = "manifest.json"
_MAGIC = 0xCED7230A


class RecordSet:
    """A ``.rec`` file with its ``.idx``, checked against each other.

    Parameters
    ----------
    path : path-like
        The ``.rec`` file.
    size : int
        Pixels of a square image's side when read.
    crop_ratio : float
        For evaluation, the central part of the short side that is kept.

    Raises
    ------
    UserError
        A missing file, a record file that is cut short, or an index that does not fit it.
    """

    costly = True

    def __init__(self, path, size, crop_ratio):
        self.path = pathlib.Path(path)
        self.index = self.path.with_suffix(".idx")
        self.size = size
        self.crop_ratio = crop_ratio
        self.length = len(_checked_offsets(self.path, self.index))

    def __len__(self):
        return self.length

    @property
    def image_shape(self):
        return (3, self.size, self.size)


def _checked_offsets(path, index):
    try:
        lines = index.read_text().split("\n")
        offsets = np.array([int(line.split("\t")[1]) for line in lines if line])
        length = path.stat().st_size
    except (OSError, ValueError, IndexError) as error:
        raise UserError(f"cannot read {path} with {index.name}: {error}") from None
    if not len(offsets):
        raise UserError(f"{index} is empty: pack the images anew")
    if offsets[0] != 0 or (np.diff(offsets) <= 0).any():
        raise UserError(f"{index} is no index of {path.name}: its offsets do not increase from 0")
    with open(path, "rb") as records:
        for place, offset in enumerate(offsets[[0, len(offsets) // 2, -1]]):
            records.seek(offset)
            head = records.read(8)
            magic, flags = struct.unpack("<II", head) if len(head) == 8 else (None, 0)
            if magic is None or (place == 2 and magic == _MAGIC and _end(offset, flags) > length):
                raise UserError(
                    f"{path} is cut short: it has {length:,} bytes, and {index.name} names a "
                    f"record at {offset:,} that ends later; copy or pack it anew"
                )
            if magic != _MAGIC:
                raise UserError(
                    f"{index} is no index of {path.name}: there is no record at {offset:,}"
                )
    if flags >> 29 == 0 and _end(offset, flags) != length:
        raise UserError(
            f"{index} is no index of {path.name}: the last record that it names ends at "
            f"{_end(offset, flags):,} of {length:,} bytes"
        )
    return offsets


def _end(offset, flags):
    return int(offset) + 8 + (((flags & (1 << 29) - 1) + 3) // 4) * 4


def read_manifest(folder):
    """What the packer wrote of its files: classes, counts, checksums; or None."""
    path = pathlib.Path(folder) / MANIFEST
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None


class RecordBatches:
    """Batches of a :class:`RecordSet`, as :class:`~openaff.data.loader.BatchLoader` makes them.

    Random resized crop, colour jitter, PCA noise, flip and normalisation in training; a short-side
    resize and the centre in evaluation, whose last batch is as short as it comes.

    Parameters
    ----------
    records : RecordSet
        What to read.
    batch_size : int
        Images a batch, of this process.
    mean, std : tuple of float
        Per channel, for pixel values in [0, 1].
    train : bool
        Shuffle, augment, and leave out the last batch where it is not full.
    flip : bool
        Mirror half of the training images.
    jitter : float
        Largest relative change of brightness, contrast and saturation.
    pca_noise : float
        Deviation of the noise along the colours' principal components.
    seed : int
        An epoch's order and augmentation follow from (seed, epoch) and the number of workers.
    mixup : Mixup, optional
        Applied to training batches.
    workers : int, optional
        Decoding threads, by default one a core, up to 16.
    part : tuple of int
        (rank, count): the share of this one of so many processes.
    """

    def __init__(
        self,
        records,
        batch_size,
        mean,
        std,
        train=False,
        flip=False,
        jitter=0.0,
        pca_noise=0.0,
        seed=0,
        mixup=None,
        workers=None,
        part=(0, 1),
    ):
        rank, count = part
        if train and len(records) < batch_size * count:
            raise UserError(
                f"{len(records)} training images do not fill one batch of {batch_size * count}: "
                "take a smaller data.batch_size or fewer devices"
            )
        self.records = records
        self.batch_size = batch_size
        self.train = train
        self.seed = seed
        self.mixup = mixup
        self.part = part
        self.waited = 0.0
        size = records.size
        self.options = {
            "path_imgrec": str(records.path),
            "path_imgidx": str(records.index),
            "data_shape": records.image_shape,
            "batch_size": batch_size,
            "preprocess_threads": workers or max(1, min(16, physical_cores())),
            "num_parts": count,
            "part_index": rank,
            "verbose": False,
        }
        for channel, m, s in zip("rgb", mean, std):
            self.options[f"mean_{channel}"] = 255 * m
            self.options[f"std_{channel}"] = 255 * s
        if train:
            self.options.update(
                shuffle=True,
                random_resized_crop=True,
                min_random_area=0.08,
                max_random_area=1.0,
                min_aspect_ratio=3 / 4,
                max_aspect_ratio=4 / 3,
                rand_mirror=flip,
                brightness=jitter,
                contrast=jitter,
                saturation=jitter,
                pca_noise=pca_noise,
            )
        else:
            self.options["resize"] = round(size / records.crop_ratio)

    def __len__(self):
        mine = len(self.records) // self.part[1]
        return mine // self.batch_size if self.train else -(-mine // self.batch_size)

    def epoch(self, number=0, start=0, mixing=True):
        """Yield the batches of epoch ``number`` from batch ``start`` on."""
        seed = int(np.random.SeedSequence((self.seed, number)).generate_state(1)[0] >> 1)
        reader = mx.io.ImageRecordIter(
            seed=seed, seed_aug=seed, shuffle_chunk_seed=seed, **self.options
        )
        self.waited = 0.0
        batch_number = -1
        while True:
            asked = time.perf_counter()
            try:
                batch = reader.next()
            except StopIteration:
                return
            except mx.base.MXNetError as error:
                raise UserError(
                    f"cannot read {self.records.path}: {str(error).strip().splitlines()[-1]}"
                ) from None
            self.waited += time.perf_counter() - asked
            batch_number += 1
            if batch_number < start:
                continue
            if self.train and batch_number >= len(self):
                return
            images, labels = batch.data[0], batch.label[0]
            if not self.train and batch.pad:
                images, labels = images[: -batch.pad], labels[: -batch.pad]
            if self.mixup and mixing:
                rng = np.random.default_rng((self.seed, number, batch_number, self.part[0]))
                share = self.mixup.draw(rng)
                targets = mx.nd.array(one_hot(labels.asnumpy().astype(int), self.mixup.classes))
                images, labels = (
                    share * each + (1 - share) * each.flip(axis=0) for each in (images, targets)
                )
            yield images, labels
