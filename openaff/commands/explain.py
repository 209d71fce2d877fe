"""Draw where networks look: heat maps over images, and below them what each network says.

    openaff explain --run runs/aff8 photo.jpg photos/ --out figure.png
    openaff explain --run runs/aff8 --compare runs/add8 --test 0,3,7 --out figure.png
    openaff explain --run runs/aff8 --test 0,3 --methods gradcam,scorecam --weights \\
        --out figure.png
    openaff explain --pretrained KEY photo.jpg --out figure.png
    openaff explain --run runs/camvid --data DIR --test 5 --target car --out figure.png
    openaff explain --published imagenet/AFF-ResNet-50/0.2028 --params FILE \\
        photo.jpg --out figure.png

A row is an image, a column a network. Images are files, folders of them, or test images of the data
set by number (--test), whose label is known. A file's label is known if its folder has a class's
name. * marks a wrong prediction. The numbers go to a JSON file beside the figure.
"""

import pathlib

from ..analysis.cam import METHODS
from ..analysis.explain import draw, explain, records
from ..data import load_dataset
from ..data.preprocessing import image_files
from ..deploy.subject import run_subject
from ..tasks import TASKS
from ..utils.arguments import Parser, numbers, refuse
from ..utils.devices import parse_devices
from ..utils.errors import UserError, printable
from ..utils.files import atomic, check_parent, write_json
from ..utils.provenance import provenance
from ._flags import add_arguments, data_from_arguments, subject_from_arguments


def parse_args():
    parser = Parser(__doc__, "explain")
    add_arguments(parser)
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="image files, or folders")
    parser.add_argument("--test", metavar="N,N,...", help="test images of the data set, from 0 on")
    parser.add_argument("--out", required=True, metavar="FILE.png", help="the figure")
    parser.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="DIR",
        help="another run, beside --run; may be repeated",
    )
    parser.add_argument(
        "--methods",
        default="gradcam",
        metavar="NAME,...",
        help=f"side by side: {', '.join(METHODS)} (%(default)s)",
    )
    parser.add_argument("--target", metavar="CLASS", help="explain it, not what is predicted")
    parser.add_argument(
        "--layer", metavar="NAME", help="the block whose map is shown (the last that the head sees)"
    )
    parser.add_argument("--weights", action="store_true", help="also draw what the fusions weigh")
    parser.add_argument(
        "--measures",
        action="store_true",
        help="also measure deletion and insertion; of segmentation, energy inside the true pixels",
    )
    parser.add_argument("--devices", default="cpu", help="cpu or gpu:0 (%(default)s)")
    return parser.parse_args()


def networks(args, data, dataset, device):
    """Heading -> network: the model's name or, where it is not enough, the run's folder."""
    subjects = [subject_from_arguments(args, data, dataset, device)]
    subjects += [run_subject(folder, device) for folder in args.compare]
    names = [subject.model for subject in subjects]
    own = args.run or args.pretrained or args.model or args.published
    folders = [pathlib.Path(folder).name for folder in [own, *args.compare]]
    headings = names if len(set(names)) == len(names) else folders
    if len(set(headings)) < len(headings):
        headings = [str(folder) for folder in [args.run, *args.compare]]
    return dict(zip(headings, subjects))


def folder_label(path, class_names):
    """The number of the class that a file's folder names, or None."""
    name = path.absolute().parent.name  # of a link its own folder
    return class_names.index(name) if name in class_names else None


def given_images(args, subject):
    """Paths, titles and labels of the files; of pixels nothing is known."""
    paths = image_files(args.images)
    names = () if TASKS[subject.task].dense else subject.class_names
    titles = [path.name for path in paths]
    if len(set(titles)) < len(titles):
        titles = list(map(str, paths))
    return paths, titles, [folder_label(path, names) for path in paths]


def test_images(text, dataset):
    """Pixels, titles and labels or maps of the test images that ``--test`` names."""
    picked = numbers("--test", text)
    test = dataset.test_images()
    for number in picked:
        if not 0 <= number < len(test):
            raise UserError(f"--test {number}: there are {len(test):,} test images, from 0 on")
    taken = [test.take([number], None) for number in picked]
    titles = [f"test {number}" for number in picked]
    return [images[0] for images, _ in taken], titles, [targets[0] for _, targets in taken]


def main():
    args = parse_args()
    out = pathlib.Path(args.out)
    if out.suffix.lower() != ".png" or not out.resolve().parent.is_dir():
        raise UserError(f"--out {out} must be the name of a PNG file in a folder that is there")
    record = out.with_suffix(".json")
    for path in (out, record):
        check_parent(path)
    if record.exists() and not out.exists():
        raise UserError(f"--out {out}: {record} is there, of something else: take another name")
    if not args.images and args.test is None:
        raise UserError("name image files or folders, or test images with --test")
    if args.test is None and not args.model:
        flags = ("data", "setting", "image_size", "crop_ratio")
        refuse(args, flags, "image files: it is for --test")
    if args.compare and not args.run:
        raise UserError("--compare needs --run: it sets other runs beside that one")
    named = [pathlib.Path(folder).resolve() for folder in [args.run or "", *args.compare]]
    if len(set(named)) < len(named):
        raise UserError("--compare names a run twice")
    (device, *more) = parse_devices(args.devices)
    if more:
        raise UserError(f"--devices {args.devices}: one device is enough to explain")
    data = data_from_arguments(args)
    dataset = load_dataset(data) if args.test is not None else None
    subjects = networks(args, data, dataset, device)
    first = next(iter(subjects.values()))
    images, titles, truth = given_images(args, first)
    if out.resolve() in [path.resolve() for path in images]:
        raise UserError(f"--out {out} is one of the images to explain: take another name")
    if dataset:
        if tuple(dataset.class_names) != tuple(first.class_names) and not args.published:
            source = args.run or args.pretrained or args.model
            raise UserError(f"--test: {source} has other classes than the data")
        for known, test in zip((images, titles, truth), test_images(args.test, dataset)):
            known += test
    rows = explain(
        subjects,
        images,
        titles,
        truth,
        args.methods.split(","),
        args.target,
        args.layer,
        args.weights,
        args.measures,
    )
    with atomic(out) as temporary:
        draw(rows).savefig(temporary, dpi=110)
    write_json(record, {"images": records(rows), **provenance()})
    for row in rows:
        for view in row.views:
            words = view.words().replace("\n", "; ")
            print(f"{printable(row.title)}: {view.network}: {words}")
    print(f"written: {out} and {record}")
