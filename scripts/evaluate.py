#!/usr/bin/env python
"""Accuracy of a checkpoint on the test split of CIFAR-10, CIFAR-100 or the embedded digits.

    python scripts/evaluate.py --model aff_cifar_resnet8 --option width_multiplier=1 \\
        --params runs/aff8/best.params --dataset cifar100 --labels fine --data DIR
    python scripts/evaluate.py --published cifar100/AFF-ResNet-32/0.8357 --params FILE --data DIR
"""

import argparse
import dataclasses
import json

from openaff import cli
from openaff.checkpoints import PUBLISHED, load_model, load_published
from openaff.config import DataConfig
from openaff.data import load_dataset
from openaff.errors import UserError, positive_int
from openaff.evaluation import evaluate_network
from openaff.training.devices import parse_devices
from openaff.training.tracking import provenance


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--model", metavar="NAME", help="see openaff.list_models()")
    network.add_argument(
        "--published", metavar="NAME", help="see openaff.checkpoints.list_published()"
    )
    parser.add_argument("--params", required=True, metavar="FILE", help="the network's parameters")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="key=value",
        help="option of --model, such as width_multiplier=1; may be repeated",
    )
    parser.add_argument("--dataset", metavar="NAME", help="cifar100, cifar10 or digits")
    parser.add_argument("--labels", metavar="KIND", help="cifar100: fine (default) or coarse")
    parser.add_argument("--data", metavar="DIR", help="folder of the data set (Gluon's own)")
    parser.add_argument(
        "--batch-size", type=int, default=128, metavar="N", help="images per device (%(default)s)"
    )
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
        raise UserError("--model needs --dataset: cifar100, cifar10 or digits")
    if labels is not None and dataset != "cifar100":
        raise UserError("--labels has an effect on cifar100 only")
    if args.data is not None and dataset == "digits":
        raise UserError("--data has no effect on the embedded digits")
    return DataConfig(name=dataset, root=args.data, labels=labels)


def one_line(result):
    line = "{model} on {dataset} test, {labels}: top-1 {accuracy:.2%}".format(**result)
    if result["top5"] is not None:
        line += ", top-5 {top5:.2%}".format(**result)
    line += " ({images:,} images, {images_per_second:.0f} images/s)".format(**result)
    if result["outputs"] > result["classes"]:
        line += "; the first {classes} of {outputs} outputs used".format(**result)
    if result["published"]:
        line += "; published: {metric} {score:.2%} ({selection})".format(**result["published"])
    return line


def main():
    args = parse_args()
    positive_int("--batch-size", args.batch_size)
    options = cli.parse_options(args.option)
    config = data_config(args)
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
    result = {
        "model": model,
        "options": options,
        "params": args.params,
        **evaluate_network(net, dataset, devices, args.batch_size),
        "published": published,
        **provenance(),
    }
    print(json.dumps(result, indent=2, ensure_ascii=False) if args.json else one_line(result))


if __name__ == "__main__":
    cli.run(main)
