"""Data sets under the usual roots, and whether they are whole."""

import hashlib
import json
import pathlib

from ..errors import UserError
from .finding import OK, WARNING, Finding

USUAL = ("~/.mxnet/datasets", "data")  # Gluon's, and a folder of the clone


def check_data(asked):
    """CIFAR-10, CIFAR-100 and packed photographs in the usual roots and in ``asked``.

    Photographs are compared with the SHA-256 sums of their manifest in ``asked`` only: ImageNet's
    take minutes.
    """
    if asked and not pathlib.Path(asked).expanduser().is_dir():
        yield Finding("data", WARNING, f"--data {asked} is no folder")
        asked = None
    roots = [pathlib.Path(root).expanduser() for root in (*USUAL, asked) if root]
    try:
        findings = list(_cifar(roots))
    except ImportError as error:
        yield Finding("data", WARNING, f"not looked for: {error}")
        return
    for root in roots:
        for folder in (root, root / "imagenet"):
            if (folder / "manifest.json").is_file():
                findings += _photos(folder, hashed=bool(asked) and root == roots[-1])
    yield from findings
    if not findings:
        looked = ", ".join(map(str, roots))
        yield Finding("data", OK, f"none in {looked}; the demo's digits come with scikit-learn")


def _cifar(roots):
    from ..config import DataConfig
    from ..data import load_dataset
    from ..data.cifar import SPECS, locate

    for name in SPECS:
        for root in (folder for each in roots for folder in (each / name, each)):
            found = locate(name, root)
            if found is None:
                continue
            layout, place = found
            try:
                dataset = load_dataset(DataConfig(name=name, root=str(root)))
            except UserError as error:
                yield Finding(name, WARNING, str(error))
                continue
            official = place.name == layout.archive or layout.pickles
            checked = "the official MD5" if official else "sizes and labels as they should be"
            images = f"{len(dataset.train):,} + {len(dataset.test):,} images"
            yield Finding(name, OK, f"{place}: {images}, {checked}")


def _photos(folder, hashed):
    try:
        splits = json.loads((folder / "manifest.json").read_text())["splits"]
        for split, facts in splits.items():
            path = folder / f"{split}.rec"
            size = path.stat().st_size
            text = f"{path}: {facts['images']:,} images, {size:,} bytes"
            if size != facts["bytes"] or (hashed and _sha256(path) != facts["sha256"]):
                text += ", not those of its manifest: copy or pack it anew"
                yield Finding("photos", WARNING, text)
            else:
                checked = "SHA-256" if hashed else "size (--data checks SHA-256)"
                yield Finding("photos", OK, f"{text}, {checked} as in its manifest")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield Finding("photos", WARNING, f"{folder} cannot be read, pack it anew: {error}")


def _sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as source:
        for block in iter(lambda: source.read(1 << 22), b""):
            digest.update(block)
    return digest.hexdigest()
