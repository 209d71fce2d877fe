"""Pack ImageNet, or photographs of your own in image folders, into MXNet's record files.

    openaff prepare-imagenet --out DIR --train ILSVRC2012_img_train.tar \\
        --val ILSVRC2012_img_val.tar --devkit ILSVRC2012_devkit_t12.tar.gz
    openaff prepare-imagenet --out DIR --train photos/train --val photos/val

This writes train.rec, val.rec, their indices and manifest.json (classes, counts, checksums, and
every image that could not be read).  Nothing is extracted.  If interrupted, repeat the command: it
continues where it stopped.
"""

import pathlib
import sys

from ..data import packing
from ..data.records import read_manifest
from ..utils.arguments import Parser
from ..utils.errors import UserError, positive_int, printable
from ..utils.files import read_text
from ..utils.framework import check_processes, physical_cores


def parse_args():
    parser = Parser(__doc__, "prepare-imagenet")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the record files")
    parser.add_argument("--train", metavar="PATH", help="the official tar file, or an image folder")
    parser.add_argument("--val", metavar="PATH", help="the official tar file, or an image folder")
    parser.add_argument("--devkit", metavar="FILE", help="labels of the official val tar file")
    parser.add_argument(
        "--val-labels",
        metavar="FILE",
        help="instead: one synset per line, in the order of the images",
    )
    parser.add_argument(
        "--resize", type=int, metavar="N", help="shrink images whose short side is longer than N"
    )
    parser.add_argument(
        "--quality",
        type=int,
        default=95,
        metavar="Q",
        help="quality of new JPEGs, 1 to 100 (%(default)s)",
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes (one per core, up to 16)"
    )
    return parser.parse_args()


def check(args):
    if not (args.train or args.val):
        raise UserError("nothing to pack: give --train, --val or both")
    out = pathlib.Path(args.out).resolve()
    for flag in ("train", "val"):
        path = getattr(args, flag)
        if path and not pathlib.Path(path).exists():
            raise UserError(f"--{flag} {path}: there is no such file or folder")
        if path and pathlib.Path(path).resolve() in [out, *out.parents]:
            raise UserError(f"--out {args.out} lies in --{flag} {path}: name a folder beside it")
    if args.resize is not None:
        positive_int("--resize", args.resize)
    if args.workers is not None:
        check_processes("--workers", args.workers)
    if not 1 <= args.quality <= 100:
        raise UserError(f"--quality must be 1 to 100, not {args.quality}")
    labels = [flag for flag in ("devkit", "val_labels") if getattr(args, flag)]
    tar = args.val and not pathlib.Path(args.val).is_dir()
    if tar and len(labels) != 1:
        raise UserError("a tar file for --val needs its labels: --devkit or --val-labels")
    if labels and not tar:
        raise UserError(f"--{labels[0].replace('_', '-')} has no effect unless --val is a tar file")


def val_items(args, classes):
    if pathlib.Path(args.val).is_dir():
        names, items = packing.folder_items(args.val)
        unknown = sorted(set(names) - set(classes or names))
        if unknown:
            raise UserError(f"{args.val} has the class {unknown[0]!r}, but training does not")
        classes = classes or names
        numbers = [classes.index(name) for name in names]
        return classes, [packing.Item(**dict(vars(i), label=numbers[i.label])) for i in items]
    if args.devkit:
        synsets = packing.read_devkit(args.devkit)
    else:
        synsets = read_text(args.val_labels).split()
    classes = classes or sorted(set(synsets))
    return classes, packing.val_tar_items(args.val, synsets, classes)


def main():
    args = parse_args()
    check(args)
    manifest = read_manifest(args.out)
    classes = manifest["classes"] if manifest else None
    todo = []
    if args.train:
        read = (
            packing.folder_items if pathlib.Path(args.train).is_dir() else packing.train_tar_items
        )
        classes, items = read(args.train)
        todo.append(("train", items))
    if args.val:
        classes, items = val_items(args, classes)
        todo.append(("val", items))
    workers = args.workers or min(16, physical_cores())
    for split, items in todo:
        facts = packing.pack(split, classes, items, args.out, args.resize, args.quality, workers)
        print(
            f"{split}: {facts['images']:,} images of {len(classes):,} classes, "
            f"{facts['bytes']:,} bytes in {pathlib.Path(args.out) / split}.rec"
        )
        for skipped in facts["skipped"]:
            print(f"{split}: left out: {printable(skipped)}", file=sys.stderr)
        if facts["skipped"]:
            print(f"{split}: {len(facts['skipped']):,} images left out", file=sys.stderr)
