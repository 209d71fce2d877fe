#!/usr/bin/env python
"""Accuracy of a checkpoint on the test split of a data set.

    python scripts/evaluate.py --model aff_cifar_resnet8 --option width_multiplier=1 \\
        --params runs/aff8/best.params --dataset cifar100 --labels fine --data DIR
    python scripts/evaluate.py --published cifar100/AFF-ResNet-32/0.8357 --params FILE --data DIR
    python scripts/evaluate.py --published imagenet/AFF-ResNet-50/0.2028 --params FILE --data DIR

Data sets: cifar100, cifar10, digits, imagenet, and images for class folders of your own.
"""

import dataclasses
import json
import pathlib

from openaff.data import load_dataset
from openaff.data.imagenet import CROP_RATIO, IMAGE_SIZE
from openaff.models.pretrained import PUBLISHED, load_model, load_published
from openaff.tasks.evaluation import evaluate_network, one_line, write_confusion, write_per_class
from openaff.training.config import PHOTOS, DataConfig, check_effects
from openaff.training.run_folder import provenance
from openaff.utils import cli
from openaff.utils.arguments import Parser
from openaff.utils.devices import parse_devices
from openaff.utils.errors import UserError, positive_int

FLAGS = {  # data setting -> its flag
    "root": "--data",
    "labels": "--labels",
    "image_size": "--image-size",
    "crop_ratio": "--crop-ratio",
}


def parse_args():
    parser = Parser(__doc__)
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--model", metavar="NAME", help="see openaff.list_models()")
    network.add_argument(
        "--published", metavar="NAME", help="see openaff.models.pretrained.list_published()"
    )
    parser.add_argument("--params", required=True, metavar="FILE", help="the network's parameters")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="key=value",
        help="option of --model, such as width_multiplier=1; may be repeated",
    )
    parser.add_argument("--dataset", metavar="NAME", help="see above")
    parser.add_argument("--labels", metavar="KIND", help="cifar100: fine (default) or coarse")
    parser.add_argument("--data", metavar="DIR", help="folder of the data set (CIFAR: Gluon's own)")
    parser.add_argument(
        "--image-size", type=int, metavar="N", help=f"photographs: pixels ({IMAGE_SIZE})"
    )
    parser.add_argument(
        "--crop-ratio",
        type=float,
        metavar="R",
        help=f"photographs: the centre's share of the short side ({CROP_RATIO:g})",
    )
    parser.add_argument(
        "--ten-crop", action="store_true", help="photographs: mean over ten squares of each"
    )
    parser.add_argument("--per-class", metavar="FILE", help="write each class's accuracy, as CSV")
    parser.add_argument("--confusion", metavar="FILE", help="write the confusion table, as CSV")
    parser.add_argument(
        "--batch-size", type=int, default=128, metavar="N", help="images per device (%(default)s)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes that read images")
    parser.add_argument(
        "--devices",
        default="cpu",
        help="cpu, cpu:N (N devices on the CPU) or gpu:0,1 (%(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object instead")
    return parser.parse_args()


def data_config(args):
    """What to evaluate on; a published checkpoint says it, and is not contradicted."""
    dataset, labels = args.dataset, args.labels
    if args.published:
        known = PUBLISHED[args.published]
        for flag, given, wanted in (
            ("--dataset", dataset, known.dataset),
            ("--labels", labels, known.labels),
        ):
            if given not in (None, wanted):
                raise UserError(
                    f"{flag} {given} contradicts {known.name} ({wanted or 'none'}): leave it out"
                )
        if args.option:
            raise UserError(f"--option has no effect on {known.name}: leave it out")
        dataset, labels = known.dataset, known.labels
    if dataset is None:
        raise UserError("--model needs --dataset, such as cifar100")
    config = DataConfig(name=dataset, root=args.data, labels=labels)
    config.image_size, config.crop_ratio = args.image_size, args.crop_ratio
    check_effects(config, FLAGS)
    if args.crop_ratio is not None and not 0 < args.crop_ratio <= 1:
        raise UserError(f"--crop-ratio must be in (0, 1], not {args.crop_ratio:g}")
    if args.ten_crop:
        if dataset not in PHOTOS:
            raise UserError(f"--ten-crop has an effect on {', '.join(PHOTOS)} only")
        ratio = args.crop_ratio or CROP_RATIO
        config.image_size, config.crop_ratio = round((args.image_size or IMAGE_SIZE) / ratio), 1.0
    return config


def main():
    args = parse_args()
    for flag in ("batch_size", "image_size", "workers"):
        if getattr(args, flag) is not None:
            positive_int("--" + flag.replace("_", "-"), getattr(args, flag))
    options = cli.parse_options(args.option)
    config = data_config(args)
    for path in filter(None, (args.per_class, args.confusion)):
        if not pathlib.Path(path).resolve().parent.is_dir():
            raise UserError(f"cannot write {path}: there is no such folder")
    devices = parse_devices(args.devices)
    dataset = load_dataset(config)
    published = None
    if args.published:
        net, checkpoint = load_published(args.published, args.params, devices)
        model, options = checkpoint.model, checkpoint.options
        dataset = dataclasses.replace(dataset, mean=checkpoint.mean, std=checkpoint.std)
        published = {
            key: getattr(checkpoint, key) for key in ("name", "metric", "score", "selection")
        }
    else:
        model, net = args.model, load_model(args.model, args.params, devices, **options)
    ten_crop = (args.image_size or IMAGE_SIZE) if args.ten_crop else None
    measured, confusion = evaluate_network(
        net, dataset, devices, args.batch_size, args.workers, ten_crop
    )
    if args.per_class:
        write_per_class(args.per_class, dataset.class_names, confusion)
    if args.confusion:
        write_confusion(args.confusion, dataset.class_names, confusion)
    result = {
        "model": model,
        "options": options,
        "params": args.params,
        **measured,
        "published": published,
        **provenance(),
    }
    print(json.dumps(result, indent=2, ensure_ascii=False) if args.json else one_line(result))


if __name__ == "__main__":
    cli.run(main)
