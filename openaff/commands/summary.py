"""What networks cost: parameters, multiply-adds and activations, from shapes alone.

    openaff summary aff_cifar_resnet32 aff_resnet50 --verbose
    openaff summary 'aff_cifar_*' --input 3x64x64 --option num_classes=10

In Python, openaff.list_models() lists the networks.
"""

import json
from dataclasses import asdict

from .. import UserError, create_model, list_models
from ..analysis.complexity import summarize
from ..models import model_info
from ..utils.arguments import Parser, add_imports, add_option, image_shape
from ..utils.configs import parse_options
from ..utils.imports import import_modules

COUNTS = {  # what is counted -> its column
    "trainable_parameters": "parameters",
    "parameters": "with statistics",
    "multiply_adds": "multiply-adds",
    "activations": "activations",
}
NOTE = """
Parameters are without and with running statistics. Multiply-adds and activations (sizes of the
outputs) are those of convolutions and dense layers for one image: batch norms, activation
functions, pooling and a fusion's element-wise arithmetic are not counted."""


def expand(name):
    """The model ids that a shell-style pattern stands for; any other name stands for itself."""
    if not set("*?[") & set(name):
        return [name]
    models = list_models(name)
    if not models:
        raise UserError(f"no model matches {name!r}; openaff.list_models() lists the names")
    return models


def row(name, shape, cost):
    return [name, "x".join(map(str, shape)), *(short(cost[count]) for count in COUNTS)]


def short(number):
    """Four digits of it: 702, 84.07k, 7.904M, 1.132G."""
    for unit, power in (("G", 9), ("M", 6), ("k", 3)):
        if number >= 10**power:
            return f"{number / 10**power:.4g}{unit}"
    return str(number)


def print_table(records):
    rows = [["model", "input", *COUNTS.values()]]
    for record in records:
        rows.append(row(record["model"], record["input"], record))
        rows += [row("  " + stage, (), cost) for stage, cost in record.get("stages", {}).items()]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for name, *cells in rows:
        print(name.ljust(widths[0]), *map(str.rjust, cells, widths[1:]), sep="   ")
    print(NOTE)


def main():
    parser = Parser(__doc__, "summary")
    parser.add_argument("models", nargs="+", metavar="MODEL", help="model id, or quoted pattern")
    parser.add_argument("--input", metavar="CxHxW", help="by default what each network is made for")
    add_option(parser, "option of the networks, its value in YAML")
    parser.add_argument("--verbose", action="store_true", help="by stage, too")
    parser.add_argument("--json", action="store_true", help="JSON with exact numbers")
    add_imports(parser)
    args = parser.parse_args()
    import_modules(args.imports)
    shape = None if args.input is None else image_shape("--input", args.input)
    options = parse_options(args.option)
    models = [model for name in args.models for model in expand(name)]
    records = []
    for model in models:
        size = shape or model_info(model).backbone.input_shape
        summary = asdict(summarize(create_model(model, **options), size))
        record = {"model": model, "options": options, "input": size, **summary["total"]}
        records.append({**record, "stages": summary["stages"]} if args.verbose else record)
    if args.json:
        print(json.dumps(records, indent=2))
    else:
        print_table(records)
