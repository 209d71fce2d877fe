#!/usr/bin/env python
"""Classify photographs with an exported network.

python scripts/predict.py --export exports/aff8 photo.jpg another.png --top 3
"""

import json

from openaff.deploy.predict import ENGINES, Predictor
from openaff.utils import cli
from openaff.utils.arguments import Parser, add_imports
from openaff.utils.imports import import_modules


def main():
    parser = Parser(__doc__)
    parser.add_argument(
        "--export", required=True, metavar="DIR", help="export folder, written by export.py"
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files")
    parser.add_argument(
        "--engine", choices=ENGINES, help="default: onnxruntime, or mxnet if there is no ONNX file"
    )
    parser.add_argument(
        "--top", type=int, default=5, metavar="N", help="labels to print (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object instead")
    add_imports(parser)
    args = parser.parse_args()
    import_modules(args.imports)
    predictor = Predictor(args.export, args.engine)
    predictions = predictor(args.images, args.top)
    if args.json:
        rows = {path: predictor.task.record(row) for path, row in zip(args.images, predictions)}
        print(json.dumps({"engine": predictor.engine, "predictions": rows}, indent=2))
        return
    for path, row in zip(args.images, predictions):
        print(f"{path}: {predictor.task.describe(row)}")


if __name__ == "__main__":
    cli.run(main)
