"""Run an exported network, or weights in the package, on photographs: files, or folders of them.

    openaff predict --export exports/aff8 photo.jpg another.png --top 3
    openaff predict --export exports/camvid --out masks street.jpg more-streets/
    openaff predict --pretrained KEY photo.jpg

A network for segmentation writes to --out, for each photograph, a PNG of class numbers with a
palette (NAME.png) and the photograph in the classes' colours (NAME-overlay.png).
"""

import contextlib
import json
import sys

import numpy as np
from PIL import Image

from ..data.image_folder import read_photo
from ..data.preprocessing import image_files
from ..deploy.predict import Predictor
from ..tasks.pictures import class_colours, indexed, overlay
from ..utils.arguments import Parser, add_imports
from ..utils.errors import UserError, duplicates, printable
from ..utils.files import atomic_folder
from ..utils.imports import import_modules
from ..utils.progress import progress_bar
from ._flags import add_engine, check_engine


def parse_args():
    parser = Parser(__doc__, "predict")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--export", metavar="DIR", help="export folder, written by openaff export")
    source.add_argument(
        "--pretrained", metavar="KEY", help="weights in the package, see openaff.list_pretrained()"
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files, or folders")
    add_engine(parser)
    parser.add_argument(
        "--top", type=int, metavar="N", help="of classification: labels to print (5)"
    )
    parser.add_argument("--out", metavar="DIR", help="of segmentation: folder to make")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead")
    add_imports(parser)
    return parser.parse_args()


def output_names(path):
    """The files that a photograph's mask and overlay are written to."""
    return f"{path.stem}.png", f"{path.stem}-overlay.png"


def check_output(args, predictor, files):
    """Refuse flags that have no effect on this network, and names that would collide."""
    if predictor.task.dense:
        if args.top is not None:
            raise UserError("--top has no effect on a network for segmentation")
        names = [name for path in files for name in output_names(path)]
        twice = duplicates(names)
        if args.out and twice:
            raise UserError(
                f"two images would give {twice[0]}: predict them into different folders"
            )
    elif args.out:
        raise UserError("--out is for networks for segmentation: this one gives labels")


def write_mask(out, path, decoded, colours):
    """Write one photograph's mask and overlay."""
    photo = np.asarray(read_photo(path))
    pictures = (
        indexed(decoded.classes, colours),
        Image.fromarray(overlay(photo, decoded.classes, colours)),
    )
    for name, picture in zip(output_names(path), pictures):
        picture.save(out / name)


def predict(predictor, files, top, out):
    """(path, JSON, words) of each image; masks and overlays go to the folder ``out``, if any."""
    colours = class_colours(predictor.dataset, len(predictor.labels))
    step = 1 if predictor.task.dense else predictor.batch_size
    rows = []
    with progress_bar(total=len(files), unit="image") as bar:
        for start in range(0, len(files), step):
            part = files[start : start + step]
            for path, row in zip(part, predictor(part, top)):
                if out is not None:
                    write_mask(out, path, row, colours)
                rows.append((path, predictor.task.record(row), predictor.task.describe(row)))
            bar.update(len(part))
    return rows


def main():
    args = parse_args()
    import_modules(args.imports)
    files = image_files(args.images)
    if args.export:
        predictor = Predictor(args.export, args.engine, precision=args.precision)
    else:
        check_engine(args)
        predictor = Predictor.pretrained(args.pretrained)
    check_output(args, predictor, files)
    top = 5 if args.top is None else args.top
    with atomic_folder(args.out) if args.out else contextlib.nullcontext() as out:
        rows = predict(predictor, files, top, out)
    if args.json:
        predictions = {str(path): record for path, record, _ in rows}
        facts = {"engine": predictor.engine, "precision": predictor.precision}
        print(json.dumps({**facts, "predictions": predictions}, indent=2, ensure_ascii=False))
        return
    print(f"engine: {predictor.engine}, {predictor.precision}", file=sys.stderr)
    for path, _, words in rows:
        print(f"{printable(str(path))}: {words}")
    if args.out:
        print(f"written to {args.out}")
