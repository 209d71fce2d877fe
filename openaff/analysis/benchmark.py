"""Speed as ratios taken in one run: the cases take turns, the median of several turns counts."""

import contextlib
import pathlib
import sys
import tempfile
import time

import mxnet as mx
import numpy as np
from PIL import Image

from ..data import DataConfig, load_dataset
from ..data.autoaugment import AutoAugment
from ..data.base import ImageSet
from ..data.batches import training_batches
from ..data.loader import BatchLoader
from ..data.packing import folder_items, pack
from ..data.transforms import Compose, ImagesOnly, Normalize, RandomCrop, RandomFlip
from ..deploy.onnx_model import export_onnx, network, on_ndarrays, to_int8
from ..deploy.openvino_model import OpenVINO
from ..deploy.pytorch.weights import import_torch, torch_network
from ..deploy.symbol import export_symbol
from ..fusion import FUSIONS
from ..models import create_model
from ..utils.errors import UserError, one_line
from ..utils.framework import physical_cores
from ..utils.packaged import pip_install
from .pillow_autoaugment import PillowAutoAugment
from .reference import printed, with_printed_pooling

CLASSES = 100
PYRAMID = {"width_multiplier": 1, "num_classes": 11}
# What training is measured with: fusion, backbone, options, batch size, (H, W)
NETWORKS = [
    ("add", "cifar_resnet8", {"width_multiplier": 1}, 128, (32, 32)),
    ("aff", "cifar_resnet8", {"width_multiplier": 1}, 128, (32, 32)),
    ("iaff", "cifar_resnet8", {"width_multiplier": 1}, 128, (32, 32)),
    ("aff", "cifar_resnet32", {}, 16, (32, 32)),
    ("iaff", "cifar_resnet32", {}, 16, (32, 32)),
    ("aff", "fpn_resnet8", PYRAMID, 8, (176, 176)),
    ("iaff", "fpn_resnet8", PYRAMID, 8, (176, 176)),
]


def take_turns(cases, turns):
    """Median rate of each case, in items a second.

    Parameters
    ----------
    cases : dict of str to callable
        Each does its work when called and returns the number of items done.
    turns : int
        Turns after the first, which warms up and does not count.
    """
    rates = {name: [] for name in cases}
    for turn in range(turns + 1):
        for name, work in cases.items():
            start = time.perf_counter()
            items = work()
            if turn:
                rates[name].append(items / (time.perf_counter() - start))
    return {name: float(np.median(each)) for name, each in rates.items()}


def build_network(form, key, backbone, options):
    """A network in one of the compared forms, with random weights, hybridised."""
    net = create_model(backbone, fusion=form_of(form, key), **options)
    if form == "printed":
        with_printed_pooling(net)
    net.initialize(mx.init.Xavier())
    net.hybridize(static_alloc=True)
    return net


def random_images(batch_size, size):
    """A batch of images of (H, W)."""
    return mx.nd.random.normal(shape=(batch_size, 3, *size))


def form_of(name, key):
    """A fusion in one of the compared forms: as printed, ours, or the plain sum instead."""
    return {"printed": printed(key), "ours": FUSIONS[key], "add": FUSIONS["add"]}[name]


FORMS = ("printed", "ours", "add")


def ratio_row(case, unit, rates, **more):
    """What is printed of the three forms' rates."""
    ratios = {f"ours/{form}": rates["ours"] / rates[form] for form in ("printed", "add")}
    return {"case": case, "unit": unit, **rates, **ratios, **more}


# What inference is measured with: fusion, backbone, options, (H, W)
DEPLOYED = [
    ("aff", "cifar_resnet8", {"width_multiplier": 1}, (32, 32)),
    ("aff", "cifar_resnet32", {}, (32, 32)),
    ("aff", "resnet50", {}, (224, 224)),
    ("aff", "fpn_resnet8", PYRAMID, (360, 480)),
]


def infer(turns=5, batch_sizes=(1, 32), seconds=1.0):
    """Inference of whole networks by different engines: images a second, and times of a batch.

    "printed", "ours" and "add" are hybridised Gluon networks, "oneDNN" is ours as a symbol with
    MXNet's oneDNN fusions.  The others are ours, exported: ONNX files in ONNX Runtime and OpenVINO,
    and the network in PyTorch.  What is not installed is left out, with a line that says why.
    """
    rows = []
    for key, backbone, options, size in DEPLOYED:
        with tempfile.TemporaryDirectory() as folder:
            engines = _engines(key, backbone, options, size, pathlib.Path(folder))
            for batch_size in batch_sizes:
                images = random_images(batch_size, size)
                times = _interleaved_times(engines, images, turns, seconds)
                printed_median = np.median(times["printed"])
                for name, each in times.items():
                    rows.append(
                        {
                            "case": f"{key}_{backbone}, batch {batch_size}, {name}",
                            "unit": "",
                            "images/s": batch_size / np.median(each),
                            "/printed": printed_median / np.median(each),
                            **{
                                f"p{share} ms": 1000 * float(np.percentile(each, share))
                                for share in (50, 90, 99)
                            },
                        }
                    )
    return rows


def _interleaved_times(engines, images, turns, seconds):
    """Engine -> seconds of each run on ``images``; a turn takes some seconds of each engine."""
    times = {name: [] for name in engines}
    for turn in range(turns + 1):
        for name, run in engines.items():
            end = time.perf_counter() + seconds / turns
            while True:
                start = time.perf_counter()
                run(images).wait_to_read()
                now = time.perf_counter()
                if turn:  # the first warms up
                    times[name].append(now - start)
                if now > end:
                    break
    return times


def _engines(key, backbone, options, size, folder):
    """Name -> callable from NDArray images to NDArray logits."""
    nets = {form: build_network(form, key, backbone, options) for form in FORMS}
    net, shape = nets["ours"], (3, *size)
    files, _ = export_symbol(net, folder, "net", shape)
    engines = {**nets, "oneDNN": _onednn(*files)}
    with _left_out():
        export_onnx(*files, folder / "net.onnx", shape)
        calibration = (random_images(8, size).asnumpy() for _ in range(4))
        to_int8(folder / "net.onnx", folder / "int8.onnx", calibration)
        for add in (_onnx_runtime, _openvino):
            with _left_out():
                engines.update(add(folder))
    with _left_out():
        engines.update(_pytorch(net, f"{key}_{backbone}", options, size))
    return engines


@contextlib.contextmanager
def _left_out():
    """Say why an engine cannot be added, and go on without it."""
    try:
        yield
    except UserError as error:
        print(f"left out: {error}", file=sys.stderr)


def _onednn(symbol, params):
    fused = mx.sym.load(str(symbol)).get_backend_symbol("MKLDNN")
    block = mx.gluon.SymbolBlock(fused, mx.sym.var("data"))
    block.collect_params().load(str(params), ignore_extra=True)
    block.hybridize(static_alloc=True)
    return block


def _onnx_runtime(folder):
    return {
        "ONNX Runtime": network(folder / "net.onnx"),
        "ONNX Runtime, INT8": network(folder / "int8.onnx"),
    }


def _openvino(folder):
    """In float32, with OpenVINO's choice of a precision where that is another, and in INT8."""
    runs = {"OpenVINO": OpenVINO(folder / "net.onnx")}
    own = OpenVINO(folder / "net.onnx", "auto")
    if own.precision != "f32":
        runs[f"OpenVINO, {own.precision}"] = own
    runs["OpenVINO, INT8"] = OpenVINO(folder / "int8.onnx")
    return {name: on_ndarrays(run) for name, run in runs.items()}


def _pytorch(net, model, options, size):
    """As it comes, with channels last, and compiled, where there is a compiler for C++."""
    torch = import_torch()
    torch.set_num_threads(physical_cores())

    def run(network, **form):
        def call(images):
            with torch.no_grad():
                return network(torch.from_numpy(images).contiguous(**form)).numpy()

        return on_ndarrays(call)

    last = {"memory_format": torch.channels_last}
    plain, channels_last = (torch_network(net, model, options)[0].eval() for _ in range(2))
    channels_last.to(**last)
    runs = {"PyTorch": run(plain), "PyTorch, channels last": run(channels_last, **last)}
    compiled = run(torch.compile(channels_last), **last)
    with _left_out():
        try:
            compiled(random_images(1, size))  # it compiles at the first call
        except Exception as error:  # of many kinds, by what its compiler lacks
            raise UserError(f"PyTorch cannot compile: {one_line(error)}") from None
        runs["PyTorch, compiled"] = compiled
    return runs


def _passes(form, key, shape, passes=3):
    block = form_of(form, key)(shape[1])
    block.initialize()
    block.hybridize(static_alloc=True)
    x, residual, gradient = (mx.nd.random.normal(shape=shape) for _ in range(3))
    x.attach_grad()
    residual.attach_grad()

    def work():
        for _ in range(passes):
            with mx.autograd.record():
                output = block(x, residual)
            output.backward(gradient)
        mx.nd.waitall()
        return passes

    return work


def fusion(turns=5):
    """Forward and backward passes of single blocks."""
    return [
        ratio_row(
            f"{key}, {'x'.join(map(str, shape))}",
            "passes/s",
            take_turns({form: _passes(form, key, shape) for form in FORMS}, turns),
        )
        for key in FUSIONS
        if key != "add"
        for shape in ((64, 16, 32, 32), (16, 256, 8, 8))
    ]


class PadAndCrop(mx.gluon.nn.Block):
    """Gluon has no random crop with padding: this is its per-image form, by MXNet's functions."""

    def forward(self, image):
        padded = mx.image.copyMakeBorder(image, 4, 4, 4, 4)
        return mx.image.random_crop(padded, (32, 32))[0]


class PerImage(mx.gluon.nn.Block):
    """Gluon has no AutoAugment: this is its per-image form, by Pillow."""

    def __init__(self, augment):
        super().__init__()
        self.augment = augment

    def forward(self, image):
        return mx.nd.array(self.augment(image.asnumpy()), dtype="uint8")


def data(turns=5, images=2048, batch_size=128):
    """CIFAR's crop, flip and normalisation, then AutoAugment before: our loader and Gluon's.

    Images a second of one process; Gluon's has also a form with two workers.
    """
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images, 32, 32, 3), dtype="uint8")
    labels = np.zeros(images, "int32")
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    vision = mx.gluon.data.vision.transforms
    ours = [RandomCrop(4), RandomFlip()]
    theirs = [
        PadAndCrop(),
        vision.RandomFlipLeftRight(),
        vision.ToTensor(),
        vision.Normalize(mean, std),
    ]
    forms = {
        "crop, flip, normalise": (ours, theirs),
        "AutoAugment, crop, flip, normalise": (
            [ImagesOnly(AutoAugment("cifar10"))] + ours,
            [PerImage(PillowAutoAugment("cifar10"))] + theirs,
        ),
    }
    array = mx.gluon.data.ArrayDataset(mx.nd.array(pixels, dtype="uint8"), labels)
    return [
        _compare_loaders(
            case,
            BatchLoader(
                ImageSet(pixels, labels),
                batch_size,
                Normalize(mean, std),
                Compose(ours),
                workers=0,
            ),
            array.transform_first(vision.Compose(theirs)),
            turns,
        )
        for case, (ours, theirs) in forms.items()
    ]


def _compare_loaders(case, ours, dataset, turns):
    def gluon(workers):
        loader = mx.gluon.data.DataLoader(
            dataset, ours.batch_size, shuffle=True, last_batch="discard", num_workers=workers
        )
        return lambda: sum(len(batch) for batch, _ in loader)

    def our_passes(passes=10):
        return sum(len(batch) for epoch in range(passes) for batch, _ in ours.epoch(epoch))

    cases = {"gluon": gluon(0), "gluon, 2 workers": gluon(2), "ours": our_passes}
    rates = take_turns(cases, turns)
    return {
        "case": case,
        "unit": "images/s",
        **rates,
        "ours/gluon": rates["ours"] / rates["gluon"],
    }


def photos(turns=5, images=128, batch_size=32):
    """Packing and reading photographs of 640 x 427 pixels, scikit-learn's two samples.

    Images a second on all cores; ratios are to reading the class folders.
    """
    try:
        from sklearn.datasets import load_sample_images
    except ImportError as error:
        raise UserError(
            f"the photographs come with scikit-learn ({error}): {pip_install('demo')}"
        ) from None
    samples = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    with tempfile.TemporaryDirectory() as root:
        root = pathlib.Path(root)
        for index in range(images):
            folder = root / "train" / str(index % len(samples))
            folder.mkdir(parents=True, exist_ok=True)
            samples[index % len(samples)].save(folder / f"{index}.jpg", quality=90)
        classes, items = folder_items(root / "train")

        def pack_with(resize):
            with tempfile.TemporaryDirectory(dir=str(root)) as out:
                return pack("train", classes, items, out, resize)["images"]

        def read(folder, **settings):
            config = DataConfig(name="images", root=str(folder), **settings)
            batches = training_batches(load_dataset(config), config, batch_size)
            return lambda: sum(len(batch) for batch, _ in batches.epoch())

        for out, resize in (("records", None), ("small", 256)):
            pack("train", classes, items, root / out, resize)
        jittered = {"jitter": 0.4, "pca_noise": 0.1}
        cases = {
            "pack, one process": lambda: pack_with(None),
            "pack to 256, one process": lambda: pack_with(256),
            "read folders": read(root, workers=physical_cores(), **jittered),
            "read records": read(root / "records", **jittered),
            "read records of 256": read(root / "small", **jittered),
        }
        rates = take_turns(cases, turns)
    return [
        {
            "case": case,
            "unit": "images/s",
            "images/s": rate,
            "/read folders": rate / rates["read folders"],
        }
        for case, rate in rates.items()
    ]
