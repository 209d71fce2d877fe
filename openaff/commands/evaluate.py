"""Evaluate a network on the test split of a data set.

    openaff evaluate --run runs/aff8
    openaff evaluate --export exports/aff8 --engine openvino
    openaff evaluate --pretrained KEY --data DIR
    openaff evaluate --model aff_cifar_resnet8 --option width_multiplier=1 \\
        --params runs/aff8/best.params --dataset cifar100 --labels fine --data DIR
    openaff evaluate --published cifar100/AFF-ResNet-32/0.8357 --params FILE --data DIR
    openaff evaluate --published imagenet/AFF-ResNet-50/0.2028 --params FILE --data DIR
    openaff evaluate --run runs/camvid --scales 0.75,1,1.25 --flip --pictures pictures

The data set "images" is for class folders of your own, "masks" for images with masks.
"""

import json
import math
import pathlib

from ..data import DATASETS, load_dataset
from ..models.pretrained import PUBLISHED
from ..tasks import METRICS, load_task
from ..tasks.classification import TenCrop
from ..tasks.evaluation import evaluate_network, write_confusion, write_per_class
from ..tasks.inference import MultiScale, Tiled
from ..tasks.pictures import draw_predictions
from ..utils.arguments import Parser, numbers
from ..utils.devices import parse_devices
from ..utils.errors import UserError, positive_int
from ..utils.files import check_parent, refuse_existing
from ..utils.framework import check_processes
from ..utils.provenance import provenance
from ._flags import add_arguments, check_engine, data_from_arguments, subject_from_arguments


def parse_args():
    parser = Parser(__doc__, "evaluate")
    add_arguments(parser, exports=True)
    parser.add_argument(
        "--ten-crop", action="store_true", help="photographs: mean over ten squares of each"
    )
    dense = parser.add_argument_group("segmentation")
    dense.add_argument("--scales", metavar="S,S,...", help="mean over several scales of each image")
    dense.add_argument("--flip", action="store_true", help="mean over each image and its mirror's")
    dense.add_argument("--tile", type=int, metavar="N", help="see images in squares of N pixels")
    dense.add_argument(
        "--pictures", metavar="DIR", help="draw image, truth, prediction and errors of every image"
    )
    parser.add_argument("--per-class", metavar="FILE", help="write each class's figures, as CSV")
    parser.add_argument("--confusion", metavar="FILE", help="write the confusion table, as CSV")
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="images per device (128; segmentation: 8)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes that read images")
    parser.add_argument(
        "--devices",
        default="cpu",
        help="cpu, cpu:N (N devices on the CPU) or gpu:0,1 (%(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object instead")
    return parser.parse_args()


def ten_crop_size(data):
    """Pixels of the ten squares; the images are read whole, as large as for one central square."""
    info = DATASETS[data.name]
    if info.crop_ratio is None:
        raise UserError(f"--ten-crop is for photographs; {info.key} has none")
    size = data.image_size or info.image_shape[1]
    data.image_size = round(size / (data.crop_ratio or info.crop_ratio))
    data.crop_ratio = 1.0
    return size


def check_classes(source, subject, dataset):
    """Refuse the data set of a run or an export whose network has other classes."""
    names, theirs = subject.class_names, tuple(dataset.class_names)
    numbered = names == tuple(map(str, range(len(names))))  # of a published checkpoint
    if names != theirs and not (numbered and len(names) >= len(theirs)):
        raise UserError(
            f"{source} has other classes than the data: {', '.join(names[:3])}, ..., not "
            f"{', '.join(theirs[:3])}, ..."
        )


def several_views(args, net, task):
    """The network as the flags for segmentation ask to see images."""
    flags = ("scales", "flip", "tile", "pictures")
    asked = [flag for flag in flags if getattr(args, flag) not in (None, False)]
    if asked and not task.dense:
        raise UserError(f"--{asked[0]} is for segmentation; {task.key} has no maps")
    if args.tile is not None:
        net = Tiled(net, positive_int("--tile", args.tile))
    if args.scales is not None or args.flip:
        scales = "1" if args.scales is None else args.scales
        net = MultiScale(net, numbers("--scales", scales, float, "0.75,1,1.25"), args.flip)
    return net


def by_class(rows):
    """The rows of :meth:`~openaff.tasks.base.Task.per_class` as lines of a table."""
    *_, last = rows[0]
    width = max(len(row["class"]) for row in rows)
    shown = [f"{row[last]:7.2%}" if math.isfinite(row[last]) else "      -" for row in rows]
    return [f"  {row['class']:<{width}}  {last} {figure}" for row, figure in zip(rows, shown)]


def one_line(result, info, task):
    """A result in words; of photographs also the error, which their tables print."""
    line = "{model} on {dataset} {tested_on}, {labels}:".format(**result, tested_on=info.tested_on)
    for key, name in (("accuracy", "top-1"), ("top5", "top-5")):
        value = result.get(key)
        if value is not None:
            line += f" {name} {value:.2%}" + f" (error {1 - value:.2%})" * bool(info.crop_ratio)
            line += ","
    for metric in task.metrics:
        if metric is not METRICS["accuracy"]:
            line += f" {metric.title} {metric.show(result[metric.key])},"
    line = line[:-1] + " ({images:,} images, {images_per_second:.0f} images/s)".format(**result)
    if result["engine"]:
        line += "; {engine}, {precision}".format(**result)
    if result["ten_crop"]:
        line += "; mean over ten crops"
    for key, value in result["views"].items():
        line += f"; {key}" if value is True else f"; {key} {value}"
    if result["outputs"] > result["classes"]:
        line += "; the first {classes} of {outputs} outputs used".format(**result)
    if result["published"]:
        line += "; published: {metric} {score:.2%} ({selection})".format(**result["published"])
    return line


def main():
    args = parse_args()
    if args.workers is not None:
        check_processes("--workers", args.workers)
    for flag in ("batch_size", "image_size"):
        if getattr(args, flag) is not None:
            positive_int("--" + flag.replace("_", "-"), getattr(args, flag))
    for path in filter(None, (args.per_class, args.confusion)):
        check_parent(path)
    tables = [pathlib.Path(path).resolve() for path in (args.per_class, args.confusion) if path]
    if len(set(tables)) < len(tables):
        raise UserError("--per-class and --confusion are two tables: name two files")
    if args.export and args.devices != "cpu":
        raise UserError("--devices has no effect with --export: its engines run on the CPU")
    check_engine(args)
    devices = parse_devices(args.devices)
    data = data_from_arguments(args)
    ten_crop = ten_crop_size(data) if args.ten_crop else None
    dataset = load_dataset(data)
    subject = subject_from_arguments(args, data, dataset, devices)
    source = args.run or args.export or args.pretrained
    if source:
        check_classes(source, subject, dataset)
    task = load_task(dataset, subject.loss)
    net = TenCrop(subject.net, ten_crop) if ten_crop else subject.net
    net = several_views(args, net, task)
    if args.pictures is not None:
        refuse_existing(args.pictures, flag="--pictures")
    measured, meter = evaluate_network(net, dataset, devices, args.batch_size, args.workers, task)
    if args.per_class:
        write_per_class(args.per_class, task.per_class(meter.sums))
    if args.confusion:
        if "confusion" not in meter.sums:
            raise UserError(f"the task {task.key} has no confusion table")
        write_confusion(args.confusion, dataset.class_names, meter.sums["confusion"])
    if args.pictures:
        draw_predictions(net, dataset, task, args.pictures, devices[0])
    views = {key: getattr(args, key) for key in ("scales", "flip", "tile")}
    known = PUBLISHED[args.published] if args.published else None
    facts = ("name", "metric", "score", "selection")
    result = {
        "model": subject.model,
        "options": subject.options,
        "params": args.params or args.export or args.pretrained or f"{args.run}/best.params",
        "engine": subject.net.name if args.export else None,
        "precision": subject.net.precision if args.export else None,
        **measured,
        "ten_crop": ten_crop,
        "views": {key: value for key, value in views.items() if value},
        "published": known and {key: getattr(known, key) for key in facts},
        **provenance(),
    }
    if args.json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
        return
    print(one_line(result, DATASETS[data.name], task))
    if task.dense:
        print("\n".join(by_class(task.per_class(meter.sums))))
    if args.pictures:
        print(f"pictures: {args.pictures}")
