"""Read CIFAR-10 and CIFAR-100 from the official files: binary or python, archive or folder.

Learning Multiple Layers of Features from Tiny Images (Krizhevsky, 2009),
https://www.cs.toronto.edu/~kriz/cifar.html
"""

import hashlib
import http.client
import pickle
import tarfile
import urllib.request
from dataclasses import dataclass, field
from typing import Dict, Tuple

import numpy as np

from ..utils.errors import UserError, one_line
from ..utils.files import atomic, expand
from ..utils.progress import progress_bar
from .base import DATASETS, Dataset, ImageSet, Labels, register_dataset
from .cifar_names import CIFAR10, COARSE, FINE

URL = "https://www.cs.toronto.edu/~kriz/"
IMAGE_BYTES = 3 * 32 * 32

# The published checkpoints use CIFAR-10's statistics for both data sets.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2023, 0.1994, 0.2010)


@dataclass(frozen=True)
class Layout:
    """One of the two official forms of a data set."""

    archive: str
    md5: str  # of the archive
    folder: str
    splits: Dict[str, Tuple[str, ...]]  # split -> file names
    names: Dict[str, str]  # label granularity -> file of class names, or key in the pickled meta
    meta: str = ""  # python form: the pickled class names
    pickles: Dict[str, str] = field(default_factory=dict)  # python form: file -> MD5


@dataclass(frozen=True)
class Spec:
    label_columns: Tuple[str, ...]  # the label bytes before a binary record's image
    images: Dict[str, int]  # split -> count
    binary: Layout
    python: Layout


BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))

SPECS = {
    "cifar10": Spec(
        label_columns=("classes",),
        images={"train": 50000, "test": 10000},
        binary=Layout(
            "cifar-10-binary.tar.gz",
            "c32a1d4ab5d03f1284b67883e8d87530",
            "cifar-10-batches-bin",
            {"train": tuple(name + ".bin" for name in BATCHES), "test": ("test_batch.bin",)},
            {"classes": "batches.meta.txt"},
        ),
        python=Layout(
            "cifar-10-python.tar.gz",
            "c58f30108f718f92721af3b95e74349a",
            "cifar-10-batches-py",
            {"train": BATCHES, "test": ("test_batch",)},
            {"classes": "label_names"},
            "batches.meta",
            {
                "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
                "data_batch_1": "c99cafc152244af753f735de768cd75f",
                "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                "data_batch_4": "634d18415352ddfa80567beed471001a",
                "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
                "test_batch": "40351d587109b95175f43aff81a1287e",
            },
        ),
    ),
    "cifar100": Spec(
        label_columns=("coarse", "fine"),
        images={"train": 50000, "test": 10000},
        binary=Layout(
            "cifar-100-binary.tar.gz",
            "03b5dce01913d631647c71ecec9e9cb8",
            "cifar-100-binary",
            {"train": ("train.bin",), "test": ("test.bin",)},
            {"fine": "fine_label_names.txt", "coarse": "coarse_label_names.txt"},
        ),
        python=Layout(
            "cifar-100-python.tar.gz",
            "eb9058c3a382ffc7106e4002c42a8d85",
            "cifar-100-python",
            {"train": ("train",), "test": ("test",)},
            {"fine": "fine_label_names", "coarse": "coarse_label_names"},
            "meta",
            {
                "meta": "7973b15100ade9c7d40fb424638fde48",
                "train": "16019d7e3df5f24257cddd939b257f8d",
                "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
            },
        ),
    ),
}


# What CIFAR-10 and CIFAR-100 have in common.
COMMON = {
    "task": "classification",
    "image_shape": (3, 32, 32),
    "mean": MEAN,
    "std": STD,
}
SETTINGS = ("root", "download", "crop_padding", "autoaugment", "mixup_alpha", "mixup_off_epochs")


@register_dataset(
    "cifar10",
    title="CIFAR-10",
    labels=(Labels("classes", 10, "10 classes", CIFAR10),),
    settings=SETTINGS,
    **COMMON,
)
def load_cifar10(config):
    """CIFAR-10: 50,000 training and 10,000 test images of 10 classes, uint8 (N, 32, 32, 3)."""
    return _load(config)


@register_dataset(
    "cifar100",
    title="CIFAR-100",
    labels=(
        Labels("fine", 100, "fine (100 classes)", FINE),
        Labels("coarse", 20, "coarse (20 superclasses)", COARSE),
    ),
    settings=("labels", *SETTINGS),
    **COMMON,
)
def load_cifar100(config):
    """CIFAR-100 with its 100 fine labels or, with ``labels=coarse``, its 20 superclasses."""
    return _load(config)


def _load(config):
    name = config.name
    labels = DATASETS[name].granularity(config.labels)
    spec, column = SPECS[name], labels.key
    root = expand(config.root or f"~/.mxnet/datasets/{name}")  # where Gluon keeps them
    layout, read = _find(name, spec, root, config.download)
    decode = _decode_python if layout is spec.python else _decode_binary
    splits = {split: decode(spec, layout, read, split, column) for split in ("train", "test")}
    if layout is spec.python:
        class_names = _unpickle(layout, read, layout.meta)[layout.names[column]]
    else:
        class_names = read(layout.names[column]).decode("ascii", "replace").split()
    classes = labels.classes
    if len(class_names) != classes:
        raise UserError(
            f"{read.place}: {layout.names[column]} has {len(class_names)} names, expected "
            f"{classes}; get it again from {URL}{layout.archive}"
        )
    for split, images in splits.items():
        if images.targets.max() >= classes:
            raise UserError(
                f"{read.place}: label {images.targets.max()} in the {split} split, but {name} has "
                f"{classes} classes ({column}); get it again from {URL}{layout.archive}"
            )
    return Dataset(
        name=name,
        labels=labels.words,
        granularity=labels.key,
        split="official, 50000 training and 10000 test images",
        class_names=tuple(class_names),
        mean=MEAN,
        std=STD,
        **splits,
    )


def locate(name, root):
    """The first form of CIFAR found in ``root``: its layout, and its folder or archive; or None."""
    layouts = (SPECS[name].binary, SPECS[name].python)
    for layout in layouts:
        first = layout.splits["train"][0]
        for folder in (root / layout.folder, root):
            if (folder / first).is_file():
                return layout, folder
    for layout in layouts:
        if (root / layout.archive).is_file():
            return layout, root / layout.archive
    return None


def _find(name, spec, root, download):
    """The first form found in ``root``, and a function that reads one of its files."""
    found = locate(name, root)
    if found:
        layout, place = found
        if place.name != layout.archive:
            return layout, _FolderReader(place, layout.archive)
        _check_archive(place, layout.md5)
        return layout, _ArchiveReader(place, layout)
    if not download:
        form = spec.binary
        raise UserError(
            f"{name}: nothing in {root}: expected {form.folder}/ with {_expected(spec)}, or "
            f"{form.archive}; get it from {URL}{form.archive}, or set data.download=true, or "
            "data.root to another folder"
        )
    _download(URL + spec.binary.archive, root / spec.binary.archive, spec.binary.md5)
    return spec.binary, _ArchiveReader(root / spec.binary.archive, spec.binary)


def _expected(spec):
    """The binary form's image files with their sizes, in words."""
    return ", ".join(
        f"{file_name} ({_file_bytes(spec, split):,} bytes)"
        for split, files in spec.binary.splits.items()
        for file_name in files
    )


def _file_bytes(spec, split):
    """Size of each of a split's binary files."""
    record = len(spec.label_columns) + IMAGE_BYTES
    return record * spec.images[split] // len(spec.binary.splits[split])


def _check_archive(path, md5):
    """Refuse an archive with another MD5: a damaged one may still unpack, to wrong pixels."""
    digest = hashlib.md5()
    try:
        with open(path, "rb") as content:
            for chunk in iter(lambda: content.read(1 << 20), b""):
                digest.update(chunk)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if digest.hexdigest() != md5:
        raise UserError(
            f"{path} has {path.stat().st_size:,} bytes and MD5 {digest.hexdigest()}, not the "
            f"official {md5}; get it again from {URL}{path.name}"
        )


class _FolderReader:
    def __init__(self, folder, archive):
        self.place = folder
        self.archive = archive

    def __call__(self, file_name):
        try:
            return (self.place / file_name).read_bytes()
        except OSError as error:
            raise UserError(
                f"cannot read {self.place / file_name}: {error.strerror}; get it from "
                f"{URL}{self.archive}"
            ) from None


class _ArchiveReader:
    """Reads members by name into memory; nothing is ever extracted to disk."""

    def __init__(self, archive, layout):
        self.place = archive
        self.folder = layout.folder

    def __call__(self, file_name):
        try:
            with tarfile.open(self.place) as archive:
                return archive.extractfile(f"{self.folder}/{file_name}").read()
        except (OSError, EOFError, KeyError, AttributeError, tarfile.TarError) as error:
            raise UserError(
                f"{self.place}: cannot read {self.folder}/{file_name}: {error}; if the archive is "
                f"damaged, get it again from {URL}{self.place.name}"
            ) from None


def _decode_binary(spec, layout, read, split, column):
    """Records: label bytes, then the red, green and blue planes."""
    expected = _file_bytes(spec, split)
    parts = []
    for file_name in layout.splits[split]:
        content = read(file_name)
        if len(content) != expected:
            raise UserError(
                f"{read.place}: {file_name} has {len(content):,} bytes, expected {expected:,}; "
                f"get it again from {URL}{layout.archive}"
            )
        parts.append(
            np.frombuffer(content, "uint8").reshape(-1, len(spec.label_columns) + IMAGE_BYTES)
        )
    records = np.concatenate(parts)
    labels = records[:, spec.label_columns.index(column)].astype("int32")
    return ImageSet(_planes_to_images(records[:, len(spec.label_columns) :]), labels)


def _decode_python(spec, layout, read, split, column):
    key = "labels" if column == "classes" else column + "_labels"
    batches = [_unpickle(layout, read, file_name) for file_name in layout.splits[split]]
    planes = np.concatenate([batch["data"] for batch in batches])
    labels = np.concatenate([batch[key] for batch in batches]).astype("int32")
    return ImageSet(_planes_to_images(planes), labels)


def _planes_to_images(planes):
    """uint8 (N, 3072) -> contiguous (N, 32, 32, 3)."""
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _unpickle(layout, read, file_name):
    """Unpickle a file of the python form: only the official bytes, because unpickling runs code."""
    content = read(file_name)
    md5 = hashlib.md5(content).hexdigest()
    if md5 != layout.pickles[file_name]:
        raise UserError(
            f"{read.place}: {file_name} has {len(content):,} bytes and MD5 {md5}, not the official "
            f"{layout.pickles[file_name]}: it is not unpickled; get it again from "
            f"{URL}{layout.archive}"
        )
    return pickle.loads(content, encoding="latin1")


def _download(url, path, md5):
    """Download ``url`` to ``path``, which appears only once it is whole and its MD5 is right."""
    digest = hashlib.md5()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as part:  # each of several processes has its own
            with urllib.request.urlopen(url, timeout=60) as response, open(part, "wb") as out:
                total = int(response.headers.get("Content-Length", 0)) or None
                with progress_bar(
                    total=total, unit="B", unit_scale=True, desc=path.name, leave=True
                ) as progress:
                    for chunk in iter(lambda: response.read(1 << 20), b""):
                        out.write(chunk)
                        digest.update(chunk)
                        progress.update(len(chunk))
            if digest.hexdigest() != md5:
                raise UserError(f"{url}: MD5 {digest.hexdigest()} instead of {md5}: not kept")
    except UserError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UserError(f"cannot download {url} to {path}: {one_line(error)}") from None
