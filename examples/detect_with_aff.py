#!/usr/bin/env python
"""A detector of gluoncv on a network of openaff learns a few photographs by heart.

    python examples/detect_with_aff.py --data DIR --out boxes.png
    python examples/detect_with_aff.py --data DIR --out boxes.png --detector center_net

DIR has COCO's layout: annotations/instances_SPLIT.json, and the photographs in SPLIT/.  The picture
shows each photograph with the boxes of its annotation (white) and those found (in colours).  This
is a check that boxes, targets, loss and features fit together, not a measure of how well a detector
generalises: train on all of COCO for that, by gluoncv's own scripts.
"""

import openaff  # isort: skip  (before mxnet: it loads CUDA's libraries)

import colorsys
import math
import pathlib

import mxnet as mx
import numpy as np
from PIL import Image, ImageDraw

from openaff.data.image_folder import read_photo
from openaff.models.detection import center_net, ssd
from openaff.utils import cli
from openaff.utils.arguments import Parser, add_option
from openaff.utils.configs import parse_options
from openaff.utils.errors import UserError, positive_int
from openaff.utils.files import atomic, check_parent
from openaff.utils.imports import import_gluoncv
from openaff.utils.json_files import read_json
from openaff.utils.progress import progress_bar

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHOWN = 0.3  # score from which on a box is drawn

COCO = {  # what annotations must hold
    "categories": [{"id": int, "name": str}],
    "images": [{"id": int, "file_name": str}],
    "annotations": [{"image_id": int, "category_id": int, "iscrowd": int, "bbox": [float] * 4}],
}


def parse_args():
    parser = Parser(__doc__)
    parser.add_argument("--data", required=True, metavar="DIR", help="folder of COCO's layout")
    parser.add_argument("--split", default="val2017", metavar="NAME", help="(%(default)s)")
    parser.add_argument("--images", type=int, default=8, metavar="N", help="(%(default)s)")
    parser.add_argument("--size", type=int, default=128, metavar="N", help="pixels (%(default)s)")
    parser.add_argument("--detector", choices=DETECTORS, default="ssd", help="(%(default)s)")
    parser.add_argument(
        "--model", default="aff_fpn_resnet8", metavar="NAME", help="features (%(default)s)"
    )
    add_option(parser, "of the model, such as width_multiplier=1")
    parser.add_argument("--steps", type=int, default=300, metavar="N", help="(%(default)s)")
    parser.add_argument("--lr", type=float, default=0.003, help="Adam's (%(default)s)")
    parser.add_argument("--out", required=True, metavar="FILE", help="picture to write")
    return parser.parse_args()


def read_photos(root, split, count, size):
    """The first photographs of a split that have boxes, resized to squares.

    Returns
    -------
    pixels : numpy.ndarray
        uint8 (N, size, size, 3).
    labels : list of numpy.ndarray
        Of each photograph: float32 (boxes, 5), left, top, right and bottom in pixels, class.
    classes : list of str
        The classes that occur.
    """
    path = pathlib.Path(root) / "annotations" / f"instances_{split}.json"
    try:
        content = read_json(path, COCO)
        names = {each["id"]: each["name"] for each in content["categories"]}
        boxes = {each["id"]: [] for each in content["images"]}
        for each in content["annotations"]:
            if each["image_id"] not in boxes or each["category_id"] not in names:
                raise ValueError("an annotation is of an image or a category that is not there")
            left, top, width, height = each["bbox"]
            if not each["iscrowd"] and width > 0 and height > 0:  # COCO has boxes without area
                box = (left, top, left + width, top + height)
                boxes[each["image_id"]].append((*box, each["category_id"]))
        files = {each["id"]: each["file_name"] for each in content["images"]}
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is not a file of COCO's annotations: {error}") from None
    chosen = [number for number in sorted(boxes) if boxes[number]][:count]
    if len(chosen) < count:
        raise UserError(f"{path} has {len(chosen)} photographs with boxes, not {count}")
    pixels, labels = [], []
    for number in chosen:
        photo = read_photo(pathlib.Path(root) / split / files[number])
        pixels.append(np.asarray(photo.resize((size, size))))
        scale = np.array([size / photo.width, size / photo.height] * 2 + [1])
        labels.append((np.array(boxes[number]) * scale).astype("float32"))
    known = sorted({int(number) for label in labels for number in label[:, 4]})
    for label in labels:
        label[:, 4] = np.searchsorted(known, label[:, 4])
    return np.stack(pixels), labels, [names[number] for number in known]


class SSD:
    """What differs between the detectors: the network, targets and loss; here SSD's."""

    def __init__(self, levels, classes, size, labels):
        self.net = ssd(levels, classes, size)
        most = max(map(len, labels))
        self.truth = np.full((len(labels), most, 5), -1, "float32")
        for row, label in zip(self.truth, labels):
            row[: len(label)] = label

    def prepare(self, images):
        """Compute the targets, which are the same in every step."""
        gluoncv = import_gluoncv("gluoncv")
        module = import_gluoncv("gluoncv.model_zoo.ssd.target")
        generator = module.SSDTargetGenerator(negative_mining_ratio=-1)
        with mx.autograd.train_mode():
            scores, _, anchors = self.net(images)
        boxes, ids = mx.nd.array(self.truth[..., :4]), mx.nd.array(self.truth[..., 4:])
        self.targets = generator(anchors, scores, boxes, ids)[:2]
        self.criterion = gluoncv.loss.SSDMultiBoxLoss()

    def loss(self, outputs):
        scores, boxes, _ = outputs
        return self.criterion(scores, boxes, *self.targets)[0][0].mean()


class CenterNet:
    """CenterNet's."""

    def __init__(self, levels, classes, size, labels):
        self.net = center_net(levels, classes, topk=40)
        self.labels, self.size = labels, size

    def prepare(self, images):
        gluoncv = import_gluoncv("gluoncv")
        module = import_gluoncv("gluoncv.model_zoo.center_net.target_generator")
        scale = self.net.scale
        side = math.ceil(self.size / scale)
        generator = module.CenterNetTargetGenerator(self.net.num_classes, side, side)
        each = [generator(label[:, :4] / scale, label[:, 4:]) for label in self.labels]
        self.targets = [mx.nd.stack(*maps) for maps in zip(*each)]
        self.heat = gluoncv.loss.HeatmapFocalLoss(from_logits=True)
        self.distance = gluoncv.loss.MaskedL1Loss()

    def loss(self, outputs):
        heat, sizes, offsets = outputs
        target, size, size_mask, offset, offset_mask = self.targets
        return (
            self.heat(heat, target)
            + 0.1 * self.distance(sizes, size, size_mask)
            + self.distance(offsets, offset, offset_mask)
        )


DETECTORS = {"ssd": SSD, "center_net": CenterNet}


def scaled(pixels):
    """float32 (N, 3, H, W), as gluoncv scales images."""
    return mx.nd.array(((pixels / 255 - MEAN) / STD).transpose(0, 3, 1, 2))


def learn(detector, images, steps, lr):
    """Train on the same images in every step.

    Returns
    -------
    list of float
        The loss of each step.
    """
    net = detector.net
    net.initialize(mx.init.Xavier())
    detector.prepare(images)
    net.hybridize()
    # Small steps at the end: the running statistics of the batch norms catch up.
    schedule = mx.lr_scheduler.CosineScheduler(steps, lr, final_lr=lr / 100)
    options = {"learning_rate": lr, "lr_scheduler": schedule}
    trainer = mx.gluon.Trainer(net.collect_params(), "adam", options)
    losses = []
    for _ in progress_bar(range(steps), unit="step"):
        with mx.autograd.record():
            loss = detector.loss(net(images))
        loss.backward()
        trainer.step(1)
        losses.append(float(loss.asscalar()))
    net.hybridize()  # a graph anew: in training it ends before the boxes are decoded
    return losses


def detect(net, images):
    """Of each image: numpy.ndarray (boxes, 6) of class, score, and the corners in pixels."""
    classes, scores, boxes = (each.asnumpy() for each in net(images))
    count = len(boxes)
    classes, scores = classes.reshape(count, -1, 1), scores.reshape(count, -1, 1)
    rows = np.concatenate([classes, scores, boxes], axis=2)
    return [row[(row[:, 0] >= 0) & (row[:, 1] > 0.01)] for row in rows]


def mean_precision(found, labels, classes):
    """VOC's mean average precision, at an overlap of 0.5, by gluoncv's metric."""
    metrics = import_gluoncv("gluoncv.utils.metrics.voc_detection")
    metric = metrics.VOC07MApMetric(0.5, classes)
    for row, label in zip(found, labels):
        row, label = row[None], label[None]
        metric.update(row[..., 2:], row[..., 0], row[..., 1], label[..., :4], label[..., 4])
    return float(metric.get()[1][-1])


def draw(path, pixels, found, labels, classes):
    """Write the photographs side by side, with the annotated and the found boxes."""
    zoom = 2
    tiles = []
    for image, rows, label in zip(pixels, found, labels):
        tile = Image.fromarray(image).resize((zoom * image.shape[1], zoom * image.shape[0]))
        pen = ImageDraw.Draw(tile)
        for box in label[:, :4]:
            pen.rectangle((zoom * box).tolist(), outline="white", width=3)
        for number, score, *box in rows[rows[:, 1] >= SHOWN]:
            share = number / len(classes)
            colour = tuple(round(255 * each) for each in colorsys.hsv_to_rgb(share, 1, 1))
            corners = [*np.minimum(box[:2], box[2:]), *np.maximum(box[:2], box[2:])]
            pen.rectangle([zoom * side for side in corners], outline=colour, width=1)
            words = f"{classes[int(number)]} {score:.0%}"
            pen.text((zoom * box[0] + 2, zoom * box[1] + 1), words, fill=colour)
        tiles.append(np.asarray(tile))
    across = min(4, len(tiles))
    blank = [np.zeros_like(tiles[0])] * (-len(tiles) % across)
    rows = np.stack(tiles + blank).reshape(-1, across, *tiles[0].shape)
    with atomic(path) as temporary:
        Image.fromarray(np.concatenate([np.concatenate(row, 1) for row in rows])).save(
            temporary, format="PNG"
        )


def main():
    args = parse_args()
    check_parent(args.out)
    for name in ("images", "size", "steps"):
        positive_int(f"--{name}", getattr(args, name))
    if not 0 < args.lr < float("inf"):
        raise UserError(f"--lr {args.lr}: write a positive number")
    pixels, labels, classes = read_photos(args.data, args.split, args.images, args.size)
    options = parse_options(args.option)
    if "features_only" in options:
        raise UserError("--option features_only: a detector needs its maps; leave it out")
    levels = openaff.create_model(args.model, features_only=True, **options)
    detector = DETECTORS[args.detector](levels, classes, args.size, labels)
    images = scaled(pixels)
    losses = learn(detector, images, args.steps, args.lr)
    found = detect(detector.net, images)
    draw(args.out, pixels, found, labels, classes)
    boxes = sum(map(len, labels))
    print(
        f"{args.detector} on {args.model}: loss {losses[0]:.2f} -> {losses[-1]:.2f} in "
        f"{args.steps} steps; mean average precision {mean_precision(found, labels, classes):.1%} "
        f"of {boxes} boxes, {len(classes)} classes; {args.out}"
    )


if __name__ == "__main__":
    mx.random.seed(0)
    np.random.seed(0)
    cli.run(main)
