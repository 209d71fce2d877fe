"""Find data sets in the usual folders, and check that they are whole."""

import os
import pathlib

from ..utils.errors import UserError
from ..utils.files import sha256
from ..utils.json_files import read_json
from .finding import OK, WARNING, Finding

USUAL = ("~/.mxnet/datasets", "data")  # Gluon's folder, and one in the clone


def check_data(asked):
    """Look for CIFAR-10, CIFAR-100 and packed photographs in the usual folders and in ``asked``.

    SHA-256 sums of photographs are checked in ``asked`` only, because ImageNet's take minutes.
    """
    if asked and not os.path.isdir(os.path.expanduser(asked)):
        yield Finding("data", WARNING, f"--data {asked} is not a folder")
        asked = None
    # by real path: the same folder may be named twice
    roots = {os.path.realpath(os.path.expanduser(root)): root for root in (*USUAL, asked) if root}
    findings = []
    for path, name in roots.items():
        try:
            findings += _cifar(pathlib.Path(path))
            findings += _photos(pathlib.Path(path), hashed=name == asked)
        except ImportError as error:
            findings.append(Finding("data", WARNING, f"did not look for CIFAR: {error}"))
        except OSError as error:
            findings.append(Finding("data", WARNING, f"cannot read {error.filename or path}"))
    yield from dict.fromkeys(findings)
    if not findings:
        looked = ", ".join(roots.values())
        yield Finding("data", OK, f"none in {looked}; the demo's digits come with scikit-learn")


def _cifar(base):
    from ..data import DataConfig, load_dataset
    from ..data.cifar import SPECS, locate

    for name in SPECS:
        for root in (base / name, base):
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
            checked = "the official MD5" if official else "sizes and labels are right"
            images = f"{len(dataset.train):,} + {len(dataset.test):,} images"
            yield Finding(name, OK, f"{place}: {images}, {checked}")


def _photos(base, hashed):
    for folder in (base, base / "imagenet"):
        if not (folder / "manifest.json").is_file():
            continue
        try:
            splits = read_json(folder / "manifest.json")["splits"]
            for split, facts in splits.items():
                yield _check_records(folder / f"{split}.rec", facts, hashed)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            yield Finding("photos", WARNING, f"{folder} cannot be read ({error}): pack it again")
            continue
        if not splits:
            yield Finding("photos", WARNING, f"{folder} has an empty manifest: pack it again")


def _check_records(path, facts, hashed):
    size = path.stat().st_size
    text = f"{path}: {facts['images']:,} images, {size:,} bytes"
    if size != facts["bytes"] or (hashed and sha256(path) != facts["sha256"]):
        text += ", which does not match its manifest: copy or pack it again"
        return Finding("photos", WARNING, text)
    checked = "SHA-256" if hashed else "size (--data checks SHA-256)"
    return Finding("photos", OK, f"{text}, {checked} as in its manifest")
