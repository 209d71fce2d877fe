"""Export a network as files that MXNet, ONNX Runtime and PyTorch load without openaff.

    openaff export --run runs/aff8 --out exports/aff8
    openaff export --run runs/aff8 --out exports/aff8 --format symbol,onnx,pytorch
    openaff export --pretrained KEY --out exports/KEY
    openaff export --published cifar100/AFF-ResNet-32/0.8357 --params FILE --out DIR
    openaff export --model aff_cifar_resnet8 --params FILE --dataset cifar100 --out exports/aff8
    openaff export --model aff_resnet50 --params FILE --dataset images --names classes.txt --out DIR

The export is compared with the network, and refused where it differs.  --int8 measures ranges on
training images and, like --dtype float16, the accuracy on the test split.  Without them the data
set's files are not needed.
"""

import dataclasses

from ..data import load_dataset
from ..data.batches import check_training_images
from ..deploy.export import FORMATS, USUAL, add_to_description, export_folder
from ..deploy.quantization import accuracies, calibration_batches
from ..tasks import METRICS, TASKS
from ..utils.arguments import Parser, count, image_shape, refuse
from ..utils.errors import UserError, positive_int
from ..utils.files import refuse_existing
from ._flags import add_arguments, data_from_arguments, names_are_in_files, subject_from_arguments

IMAGES = 256  # that --int8 is calibrated on, by default
MOST_BATCH = 4096


def parse_args():
    parser = Parser(__doc__, "export")
    add_arguments(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="export folder to make")
    parser.add_argument(
        "--format",
        default=",".join(USUAL),
        metavar="F,F,...",
        help=f"some of {', '.join(FORMATS)} (%(default)s)",
    )
    parser.add_argument("--input", metavar="3xHxW", help="input size (the data set's)")
    parser.add_argument("--batch", default="dynamic", help="dynamic or a number (%(default)s)")
    parser.add_argument(
        "--fixed-size",
        action="store_true",
        help="segmentation: ONNX files for one height and width, such as OpenCV needs",
    )
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=["float32", "float16"],
        help="numbers in the ONNX file",
    )
    parser.add_argument("--int8", action="store_true", help="write a quantised ONNX file, too")
    parser.add_argument(
        "--images", type=int, metavar="N", help=f"to calibrate --int8 on ({IMAGES})"
    )
    return parser.parse_args()


def check_effects(args, smaller):
    """Refuse flags that would change nothing."""
    if args.images is not None:
        positive_int("--images", args.images)
        if not args.int8:
            raise UserError("--images has no effect without --int8, which it calibrates")
    if args.data and not smaller and not names_are_in_files(args):
        raise UserError("--data has no effect without --int8 or --dtype float16, which read images")
    if args.setting and not smaller and not args.model:
        raise UserError("--setting has no effect without --int8 or --dtype float16")
    if not args.model:
        refuse(args, ("image_size", "crop_ratio"), "a network that is trained for its data")


def check_sizes(args, subject, dataset):
    """Refuse images that a file of one input size does not take, before it is written."""
    if TASKS[subject.task].dense and not args.fixed_size:
        return
    size = tuple(subject.input_shape[1:])
    for images in [dataset.test_images()] + [dataset.train] * args.int8:
        for other in {tuple(images.image_shape[1:]), *map(tuple, getattr(images, "sizes", ()))}:
            if other != size:
                raise UserError(
                    "the ONNX file takes {}x{} pixels only, and there are images of {}x{} to "
                    "measure it on: leave out --input and --fixed-size".format(*size, *other)
                )


def main():
    args = parse_args()
    batch = None if args.batch == "dynamic" else count("--batch", args.batch)
    if batch is not None and batch > MOST_BATCH:
        raise UserError(f"--batch {batch}: at most {MOST_BATCH:,}")
    images = args.images or max(1, IMAGES // (batch or 1)) * (batch or 1)
    if args.int8 and images % (batch or 1):
        raise UserError(f"--images {images}: a file for batches of {batch} needs a multiple of it")
    refuse_existing(args.out, "the export folder ")
    smaller = args.int8 or args.dtype == "float16"
    check_effects(args, smaller)
    data = data_from_arguments(args)
    subject = subject_from_arguments(args, data)
    if args.input:
        subject.input_shape = image_shape("--input", args.input, 3)
    if args.fixed_size:
        data = dataclasses.replace(data, crop_size=None, scale_range=None)  # whole images
    dataset = load_dataset(data) if smaller else None
    if smaller:
        if args.int8:
            check_training_images(dataset, data)
        check_sizes(args, subject, dataset)
    calibration = calibration_batches(dataset, data, images, batch or 32) if args.int8 else None
    formats = args.format.split(",")
    written = export_folder(
        subject, args.out, formats, batch, args.dtype, calibration, args.fixed_size
    )
    for name, difference in written["parity"].items():
        print(f"{name}: largest relative difference from the network {difference:.1e}")
    if smaller:
        measured = accuracies(subject.net, args.out, written, dataset)
        add_to_description(args.out, accuracy=measured)
        headline = METRICS[measured["headline"]]
        for name, value in measured[headline.key].items():
            shown = f"{headline.title} {headline.show(value)}"
            print(f"{name}: {shown} on {measured['images']:,} test images")
    for name in written["files"]:
        print(f"written {args.out}/{name}")
