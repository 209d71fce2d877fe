"""The segmentation task: losses, figures, what outputs mean, and a training from end to end."""

import csv
import json
import shutil

import mxnet as mx
import numpy as np
import pytest
from helpers import assert_close
from mask_files import write_binary, write_masks
from mxnet import autograd
from mxnet.gluon import nn
from PIL import Image
from pixel_task import PixelNet

from openaff import UserError
from openaff.data import DataConfig, Dataset, ImageSet, load_dataset
from openaff.data.batches import test_batches as evaluation_batches
from openaff.data.batches import training_batches
from openaff.data.transforms import IGNORE
from openaff.deploy.export import export_folder
from openaff.deploy.predict import Predictor
from openaff.deploy.subject import run_subject
from openaff.models.factory import register_backbone
from openaff.tasks import load_task
from openaff.tasks.evaluation import evaluate_network, write_confusion, write_per_class
from openaff.tasks.inference import MultiScale, Tiled
from openaff.tasks.pictures import class_colours, coloured, indexed, overlay
from openaff.tasks.segmentation import (
    PixelCrossEntropy,
    Segmentation,
    SegmentationMeter,
    SoftIoU,
    median_frequency,
)
from openaff.training.config import load_config
from openaff.training.curves import read_metrics
from openaff.training.engine import Engine, initialize
from openaff.training.optimizers import OptimizerConfig
from openaff.training.schedule import Schedule, ScheduleConfig
from openaff.training.session import resume, train
from openaff.utils.devices import parse_devices
from openaff.utils.imports import import_gluoncv

CPU = parse_devices("cpu")
# Not among list_models(): the names of the tests' own.
register_backbone(
    r"masknet([1-9])", [], input_shape=(3, 64, 64), strides=(1,), task="segmentation"
)(PixelNet)


def rng(seed=0):
    return np.random.default_rng(seed)


def data_set(classes=3, images=6, size=(5, 7), seed=0, ignored=0.2):
    """Random images and maps, some pixels ignored."""
    random = rng(seed)
    pixels = random.integers(0, 256, (images, *size, 3), dtype="uint8")
    maps = random.integers(0, classes, (images, *size)).astype("int32")
    maps[random.random(maps.shape) < ignored] = IGNORE
    part = ImageSet(pixels, maps)
    names = tuple(f"class {index}" for index in range(classes))
    means = (0.5,) * 3
    return Dataset(
        "made-up", f"{classes} classes", "-", names, part, part, means, means, task="segmentation"
    )


def logits_and_maps(classes=3, images=4, size=(5, 7), seed=0):
    random = rng(seed)
    logits = random.standard_normal((images, classes, *size)).astype("float32")
    maps = random.integers(IGNORE, max(classes, 2), (images, *size)).astype("float32")
    return logits, maps


# --- Losses ---------------------------------------------------------------------------------------


def cross_entropy(logits, maps, weights):
    """Pixel by pixel, in float64."""
    losses = []
    for image, classes in zip(logits.astype("float64"), maps.astype(int)):
        total, count = 0.0, 0
        for y, x in np.ndindex(*classes.shape):
            label = classes[y, x]
            if label != IGNORE:
                total += weights[label] * (
                    np.log(np.exp(image[:, y, x]).sum()) - image[label, y, x]
                )
                count += 1
        losses.append(total / max(count, 1))
    return np.array(losses)


@pytest.mark.parametrize("weights", [None, [1, 0.5, 3]])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_cross_entropy_is_the_mean_over_the_pixels_that_count(weights, dtype):
    logits, maps = logits_and_maps()
    maps[1] = IGNORE
    given = mx.nd.array(logits, dtype=dtype)
    loss = PixelCrossEntropy(weights)(given, mx.nd.array(maps))
    assert loss.dtype == np.float32 and loss.shape == (4,)
    assert_close(loss, cross_entropy(given.asnumpy(), maps, weights or [1, 1, 1]), 1e-5)
    assert loss[1].asscalar() == 0


def gradient(loss, logits, maps):
    given = mx.nd.array(logits)
    given.attach_grad()
    with autograd.record():
        value = loss(given, mx.nd.array(maps)).sum()
    value.backward()
    return given.grad.asnumpy()


@pytest.mark.parametrize(
    "loss, classes",
    [
        (PixelCrossEntropy(), 3),
        (PixelCrossEntropy([1, 0.5, 3]), 3),
        (PixelCrossEntropy(), 1),
        (SoftIoU(), 1),
        (SoftIoU(), 2),
        (SoftIoU(1e-3), 1),
    ],
)
def test_gradients_are_those_of_finite_differences_and_never_nan(loss, classes):
    logits, maps = logits_and_maps(classes, images=4, size=(3, 4), seed=2)
    maps[1], maps[2] = IGNORE, 0
    logits[3] *= 100
    slope = gradient(loss, logits, maps)
    assert np.isfinite(slope).all() and (slope[1] == 0).all() and (slope[2] != 0).any()
    for place in np.ndindex(1, *logits.shape[1:]):
        values = []
        for step in (0.01, -0.01):
            changed = logits.copy()
            changed[place] += step
            values.append(float(loss(mx.nd.array(changed), mx.nd.array(maps))[0].asscalar()))
        assert slope[place] == pytest.approx((values[0] - values[1]) / 0.02, abs=2e-4)


def test_soft_iou_is_its_formula():
    logits, maps = logits_and_maps(1)
    maps[1], maps[2] = IGNORE, 0
    probabilities = 1 / (1 + np.exp(-logits[:, 0].astype("float64")))
    for smooth in (1, 0.01):
        expected = []
        for p, t in zip(probabilities, maps):
            p, t = p[t != IGNORE], t[t != IGNORE]
            expected.append(1 - ((p * t).sum() + smooth) / ((p + t - p * t).sum() + smooth))
        loss = SoftIoU(smooth)(mx.nd.array(logits), mx.nd.array(maps))
        assert_close(loss, np.array(expected), 1e-5)
        assert loss[1].asscalar() == 0


def test_one_output_stands_for_the_logits_zero_and_itself():
    logits, maps = logits_and_maps(1)
    both = np.concatenate([np.zeros_like(logits), logits], axis=1)
    for loss in (PixelCrossEntropy(), SoftIoU()):
        one, two = (loss(mx.nd.array(each), mx.nd.array(maps)) for each in (logits, both))
        assert_close(one, two, 1e-6)
    meters = [SegmentationMeter(("a", "b")) for _ in range(2)]
    for meter, outputs in zip(meters, (logits, both)):
        add(meter, outputs, maps)
    assert meters[0].values() == meters[1].values()
    names = ("background", "target")
    one, two = (Segmentation.decode(each, names) for each in (logits, both))
    for ours, theirs in zip(one, two):
        np.testing.assert_array_equal(ours.classes, theirs.classes)


def test_weights_by_median_frequency():
    maps = np.array([[[0, 0, 0, 1]], [[0, 0, 2, IGNORE]], [[0, 0, 0, 0]]], "int32")
    images = ImageSet(np.zeros((3, 1, 4, 3), "uint8"), maps)
    # frequencies: 9 of 11 pixels, 1 of 4, 1 of 3, nowhere
    expected = [(1 / 3) / (9 / 11), (1 / 3) / (1 / 4), 1, 0]
    assert median_frequency(images, 4) == pytest.approx(expected)
    data = data_set(4)
    data.train = images
    task = load_task(data, {"class_weights": "median_frequency"})
    logits, targets = logits_and_maps(4)
    weighted = task.loss(mx.nd.array(logits), mx.nd.array(targets))
    assert_close(weighted, cross_entropy(logits, targets, expected), 1e-5)
    plain = task.test_loss(mx.nd.array(logits), mx.nd.array(targets))
    assert_close(plain, cross_entropy(logits, targets, [1] * 4), 1e-5)


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"name": "softiou"},
            "loss.name must be cross_entropy or soft_iou, not 'softiou'; did you",
        ),
        ({"smoothing": 1}, "loss.smoothing is not a setting of the segmentation loss"),
        ({"smooth": 1}, r"loss.smooth is not .* \(its settings: class_weights\)"),
        ({"name": "soft_iou", "smooth": 0}, "loss.smooth must be a positive number of pixels"),
        ({"name": "soft_iou", "class_weights": [1]}, "loss.class_weights is not a setting"),
        ({"class_weights": "balanced"}, "loss.class_weights must be median_frequency or a list of"),
        ({"class_weights": [1, -1, 1]}, "loss.class_weights must be median_frequency or a list"),
        ({"class_weights": [0, 0, 0]}, "loss.class_weights must be median_frequency or a list"),
        ({"class_weights": [1, float("nan")]}, "loss.class_weights must be median_frequency"),
        ({"class_weights": [1, 2]}, "loss.class_weights has 2 numbers, but made-up has 3 classes"),
        ({"name": "soft_iou"}, "loss.name=soft_iou is for two classes, but made-up has 3"),
    ],
)
def test_options_of_the_loss_are_checked(options, message):
    with pytest.raises(UserError, match=message):
        load_task(data_set(), options)


# --- Figures --------------------------------------------------------------------------------------


def add(meter, outputs, maps, devices=1):
    """Take in a batch in so many parts, as of devices."""
    parts = list(zip(np.array_split(outputs, devices), np.array_split(maps, devices)))
    xs, ys = ([mx.nd.array(part[index]) for part in parts] for index in (0, 1))
    meter.add([mx.nd.ones(len(x)) for x in xs], xs, ys)


def oracle(outputs, maps, classes):
    """Mean IoU, pixel accuracy, IoU by class, and nIoU of class 1, pixel by pixel."""
    predicted = outputs.argmax(axis=1) if outputs.shape[1] > 1 else outputs[:, 0] > 0
    counts = maps != IGNORE

    def iou(which, label):
        truth, said = (maps == label) & which, (predicted == label) & which
        return (truth & said).sum() / (truth | said).sum() if (truth | said).any() else None

    by_class = [iou(counts, label) for label in range(classes)]
    of_images = [
        iou(counts & (np.arange(len(maps)) == n)[:, None, None], 1) for n in range(len(maps))
    ]
    return {
        "mean_iou": np.mean([value for value in by_class if value is not None]),
        "pixel_accuracy": ((predicted == maps) & counts).sum() / counts.sum(),
        "class_iou": by_class,
        "niou": np.mean([value for value in of_images if value is not None]),
    }


@pytest.mark.parametrize("classes, outputs", [(2, 1), (2, 2), (4, 4), (7, 7)])
def test_figures_are_those_of_an_oracle(classes, outputs):
    logits, _ = logits_and_maps(outputs, images=9)
    maps = rng(1).integers(IGNORE, classes, (9, 5, 7)).astype("float32")
    maps[3] = IGNORE  # no pixel counts
    maps[4], logits[4] = 0, -1  # the target is nowhere
    logits[4, 0] = 1 if outputs > 1 else -1
    if classes == 7:  # the last class is nowhere
        maps[maps == 6], logits[:, 6] = 0, -100
    meter = SegmentationMeter([f"class {index}" for index in range(classes)])
    for part in np.array_split(np.arange(9), 4):
        add(meter, logits[part], maps[part], devices=2)
    values, expected = meter.values(), oracle(logits, maps, classes)
    for key in ("mean_iou", "pixel_accuracy"):
        assert values[key] == pytest.approx(expected[key], abs=1e-12)
    assert list(values["class_iou"]) == meter.class_names
    for ours, theirs in zip(values["class_iou"].values(), expected["class_iou"]):
        assert ours == theirs if theirs is None else ours == pytest.approx(theirs)
    if classes == 2:
        assert values["iou"] == values["class_iou"]["class 1"]
        assert values["niou"] == pytest.approx(expected["niou"])
        assert meter.sums["iou_images"] == 7
    else:
        assert "iou" not in values and "niou" not in values


def test_figures_are_those_of_gluoncv():
    try:
        metrics = import_gluoncv("gluoncv.utils.metrics.segmentation")
    except ImportError:
        pytest.skip("needs the extra [gluoncv]")
    logits, maps = logits_and_maps(5, images=8, size=(11, 13))
    theirs = metrics.SegmentationMetric(5)
    ours = SegmentationMeter("abcde")
    for part in np.array_split(np.arange(8), 3):
        theirs.update(mx.nd.array(maps[part]), mx.nd.array(logits[part]))
        add(ours, logits[part], maps[part])
    accuracy, mean_iou = theirs.get()
    assert ours.values()["pixel_accuracy"] == pytest.approx(accuracy, abs=1e-12)
    assert ours.values()["mean_iou"] == pytest.approx(mean_iou, abs=1e-12)
    confusion = ours.sums["confusion"]
    np.testing.assert_array_equal(confusion.diagonal(), theirs.total_inter)


def test_sums_add_up_over_devices_and_workers_and_go_on_from_a_state():
    logits, maps = logits_and_maps(2, images=12)
    alone = SegmentationMeter("ab")
    add(alone, logits, maps)
    workers = [SegmentationMeter("ab") for _ in range(2)]
    for rank, meter in enumerate(workers):
        add(meter, logits[rank::2][:4], maps[rank::2][:4], devices=2)
        state = json.loads(json.dumps(meter.state()))
        workers[rank] = SegmentationMeter("ab").restore(state)
        add(workers[rank], logits[rank::2][4:], maps[rank::2][4:])
    flats = []
    workers[1].state(lambda flat: flats.append(flat) or flat)
    total = workers[0].values(lambda flat: flat + flats[0])
    expected = alone.values()
    assert total.pop("niou") == pytest.approx(expected.pop("niou"), abs=1e-14)
    assert total == expected


def test_nothing_that_counts_gives_no_figure():
    meter = SegmentationMeter("ab")
    add(meter, np.zeros((2, 2, 3, 3)), np.full((2, 3, 3), IGNORE))
    values = meter.values()
    assert all(values[key] is None for key in ("mean_iou", "pixel_accuracy", "iou", "niou"))
    assert values["class_iou"] == {"a": None, "b": None}


# --- The task -------------------------------------------------------------------------------------


def test_outputs_and_metrics_follow_from_loss_and_classes():
    several, binary = load_task(data_set(4)), load_task(data_set(2))
    assert [metric.key for metric in several.metrics] == ["mean_iou", "pixel_accuracy"]
    assert [metric.key for metric in binary.metrics] == [
        "mean_iou",
        "pixel_accuracy",
        "iou",
        "niou",
    ]
    assert several.headline.key == binary.headline.key == "mean_iou"
    assert (several.outputs, binary.outputs) == (4, 2)
    soft = load_task(data_set(2), {"name": "soft_iou", "smooth": 2})
    assert soft.outputs == 1 and soft.test_loss is soft.loss


def test_what_outputs_mean():
    names = ("sky", "road", "car")
    logits = np.zeros((2, 3, 4, 5), "float32")
    logits[:, 1, :2], logits[1, 2, 3, 4] = 1, 2
    first, second = Segmentation.decode(logits, names)
    assert first.classes.dtype == np.uint8 and first.classes.shape == (4, 5)
    assert Segmentation.describe(first) == "sky 50.0%, road 50.0%"
    assert Segmentation.describe(second) == "road 50.0%, sky 45.0%, car 5.0%"
    assert json.loads(json.dumps(Segmentation.record(second))) == {
        "width": 5,
        "height": 4,
        "pixels": {"road": 10, "sky": 9, "car": 1},
    }


def test_a_table_by_class(tmp_path):
    task = load_task(data_set(3))
    confusion = np.array([[6, 2, 0], [1, 1, 0], [0, 0, 0]])
    rows = task.per_class({"confusion": confusion})
    assert rows[0] == {
        "class": "class 0",
        "pixels": 8,
        "correct": 6,
        "accuracy": 0.75,
        "iou": pytest.approx(6 / 9),
    }
    write_per_class(tmp_path / "classes.csv", rows)
    write_confusion(tmp_path / "confusion.csv", task.class_names, confusion)
    with open(tmp_path / "classes.csv", newline="") as content:
        table = list(csv.DictReader(content))
    assert [row["class"] for row in table] == ["class 1", "class 0", "class 2"]
    assert [row["iou"] for row in table] == ["0.25", str(6 / 9), "nan"]
    assert "class 1,1,1,0" in (tmp_path / "confusion.csv").read_text().splitlines()


def pixel_by_pixel(outputs, classes=None):
    """A network without surroundings: tiles and scales change nothing that they should not."""
    net = nn.HybridSequential()
    net.add(nn.Conv2D(outputs, 1, in_channels=3))
    mx.random.seed(0)
    net.initialize(mx.init.Normal(1))
    net.hybridize()
    return net


@pytest.mark.parametrize("classes, outputs", [(2, 1), (2, 2), (3, 3)])
def test_evaluation_takes_what_the_network_has(classes, outputs):
    data = data_set(classes)
    mx.random.seed(0)
    net = pixel_by_pixel(outputs)
    result, meter = evaluate_network(net, data, CPU, batch_size=4)
    images, maps = next(evaluation_batches(data, 100).epoch())
    logits = net(images)[:, : min(outputs, classes)].asnumpy()
    expected = oracle(logits, maps.asnumpy(), classes)
    assert result["mean_iou"] == pytest.approx(expected["mean_iou"])
    assert result["task"] == "segmentation" and result["outputs"] == outputs
    assert list(result["class_iou"]) == list(data.class_names)
    again = load_task(data, {"name": "soft_iou"}) if outputs == 1 else None
    if again:
        soft, _ = evaluate_network(net, data, CPU, task=again)
        assert soft["mean_iou"] == result["mean_iou"] and soft["loss"] != result["loss"]


def test_too_few_outputs():
    for outputs in (1, 2):
        with pytest.raises(UserError, match=f"{outputs} outputs, too few for made-up, 3 classes"):
            evaluate_network(pixel_by_pixel(outputs), data_set(3), CPU)


def test_too_many_outputs(tmp_path, mask_run):
    with pytest.raises(UserError, match="5 outputs for each pixel, but there are 2 classes"):
        evaluate_network(pixel_by_pixel(5), data_set(2), CPU)
    subject = run_subject(mask_run[0] / "run")
    for names, message in (("ab", "3 outputs, .* 2 classes"), ("abcd", "too few for 4 classes")):
        subject.class_names = tuple(names)
        with pytest.raises(UserError, match=message):
            export_folder(subject, tmp_path / "export")
    assert not (tmp_path / "export").exists()


# --- Scales and tiles -----------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("tile, overlap", [(4, None), (5, 0), (6, 5), (40, None)])
def test_tiles_of_a_network_without_surroundings_change_nothing(outputs, tile, overlap):
    images = mx.nd.array(rng().standard_normal((2, 3, 11, 17)))
    net = pixel_by_pixel(outputs)
    tiled = Tiled(net, tile, overlap)(images)
    expected = net(images) if outputs == 1 else net(images).log_softmax(axis=1)
    assert_close(tiled, expected, 1e-5)


def test_tiles_cover_and_overlap_evenly():
    assert Tiled(None, 480).starts(300) == [0]
    assert Tiled(None, 480).starts(480) == [0]
    assert Tiled(None, 480, 0).starts(960) == [0, 480]
    assert Tiled(None, 480, 0).starts(961) == [0, 240, 481]
    assert Tiled(None, 480, 120).starts(841) == [0, 180, 361]
    for length in range(1, 60):
        starts = Tiled(None, 10, 3).starts(length)
        assert starts[0] == 0 and starts[-1] == max(0, length - 10)
        assert all(0 < after - before <= 7 for before, after in zip(starts, starts[1:]))


def test_tiles_are_seen_alone_and_their_mean_counts():
    shapes = []

    def net(images):
        shapes.append(images.shape)
        return mx.nd.ones((1, 1, *images.shape[2:])) * len(shapes)

    out = Tiled(net, 4, 0)(mx.nd.zeros((1, 3, 4, 6))).asnumpy()[0, 0]
    assert shapes == [(1, 3, 4, 4)] * 2
    first, second = (1 / (1 + np.exp(-z)) for z in (1.0, 2.0))
    mean = (first + second) / 2
    expected = [1, 1, *[np.log(mean / (1 - mean))] * 2, 2, 2]
    np.testing.assert_allclose(out, np.tile(expected, (4, 1)), rtol=1e-5)


@pytest.mark.parametrize("outputs", [1, 3])
def test_one_scale_without_mirroring_is_the_network_itself(outputs):
    images = mx.nd.array(rng().standard_normal((2, 3, 6, 9)))
    net = pixel_by_pixel(outputs)
    for wrapped in (MultiScale(net), MultiScale(net, (1.0,), flip=True), MultiScale(Tiled(net, 4))):
        expected = net(images) if outputs == 1 else net(images).log_softmax(axis=1)
        assert_close(wrapped(images), expected, 1e-5)


def test_scales_are_asked_for_and_probabilities_meet_at_the_images_size():
    shapes = []

    def net(images):
        shapes.append(images.shape[2:])
        place = mx.nd.arange(images.shape[3]).reshape((1, 1, 1, -1)) / (images.shape[3] - 1)
        height, width = images.shape[2:]
        one = mx.nd.broadcast_to(place, (1, 1, height, width))
        return mx.nd.concat(one.log(), (1 - one).log(), dim=1)

    out = MultiScale(net, (0.5, 1, 1.25), flip=True)(mx.nd.zeros((1, 3, 8, 12)))
    assert shapes == [(4, 6)] * 2 + [(8, 12)] * 2 + [(10, 15)] * 2
    assert out.shape == (1, 2, 8, 12)
    assert_close(out.exp(), np.full((1, 2, 8, 12), 0.5), 1e-5)  # mirrored, they cancel


def test_inference_errors():
    for scales in ((), (0,), (1, -1), (float("inf"),)):
        with pytest.raises(UserError, match="scales are positive factors"):
            MultiScale(None, scales)
    with pytest.raises(UserError, match="tile must be a positive integer"):
        Tiled(None, 0)
    with pytest.raises(UserError, match=r"overlap must be in \[0, tile\), not 8 of 8 pixels"):
        Tiled(None, 8, 8)


# --- Training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, lr", [("adagrad", 0.05), ("nag", 0.2)])
def test_steps_on_scenes_with_a_polynomial_schedule_lower_the_loss(name, lr):
    config = DataConfig(name="scenes", flip=False)
    data = load_dataset(config)
    task = load_task(data)
    mx.random.seed(0)
    net = PixelNet(1, num_classes=task.outputs)
    initialize(net, CPU, "msraprelu")
    batches = training_batches(data, config, 8)
    schedule = Schedule(ScheduleConfig("polynomial", power=0.9), lr, 1, steps_per_epoch=12)
    engine = Engine(net, task.loss, schedule, OptimizerConfig(name=name, lr=lr))
    losses = []
    for step, (images, targets) in zip(range(12), batches.epoch()):
        meter = task.meter()
        engine.train_step(images, targets, meter)
        assert engine.trainer.learning_rate == pytest.approx(lr * (1 - step / 12) ** 0.9)
        losses.append(meter.values()["loss"])
    assert np.mean(losses[-3:]) < 0.6 * losses[0]


def config_of(folder, **changes):
    return {
        "model": {"name": "aff_masknet1"},
        "data": {
            "name": "masks",
            "root": str(folder),
            "batch_size": 2,
            "crop_size": 16,
            "scale_range": [0.5, 2.0],
        },
        "optimizer": {"name": "adam", "lr": 0.02},
        "schedule": {"name": "polynomial", "power": 0.9},
        "initializer": "msraprelu",
        "epochs": 4,
        **changes,
    }


@pytest.fixture(scope="module")
def mask_run(tmp_path_factory):
    """A run on small masks of three classes, whose images tell their classes."""
    folder = tmp_path_factory.mktemp("segmentation")
    write_masks(folder / "data", 20)
    return folder, train(load_config(config_of(folder / "data")), folder / "run", CPU)


def test_a_run_learns_and_says_what_it_was(mask_run):
    folder, result = mask_run
    assert result["task"] == "segmentation" and result["headline"] == "mean_iou"
    assert result["best_mean_iou"] > 0.5 and result["classes"] == 3
    assert "random scale 0.5 to 2; random crop 16; flip" in result["protocol"]
    report = (folder / "run" / "report.md").read_text()
    assert "| best mean IoU | " in report and "polynomial, power 0.9; 0 warm-up epochs" in report
    assert "train mean IoU | train pixel accuracy" in report


def test_a_stopped_run_goes_on_bit_equal(mask_run, tmp_path):
    folder, _ = mask_run
    copy = tmp_path / "copy"
    shutil.copytree(folder / "run", copy)
    before = (copy / "last.params").read_bytes()
    for name in ("result.json", "last.params"):
        (copy / name).unlink()
    (copy / "previous.ckpt").replace(copy / "last.ckpt")
    resume(copy, CPU)
    assert (copy / "last.params").read_bytes() == before
    for ours, theirs in zip(read_metrics(copy), read_metrics(folder / "run")):
        for key in ("train_loss", "train_mean_iou", "test_loss", "test_mean_iou"):
            assert ours[key] == theirs[key]


def test_a_run_is_evaluated_by_the_script_and_exported(mask_run, tmp_path, call):
    folder, result = mask_run
    table = tmp_path / "classes.csv"
    line = call("evaluate", "--run", folder / "run", "--per-class", table).out
    assert f"mean IoU {result['best_mean_iou']:.2%}, pixel accuracy " in line
    assert table.read_text().startswith("class,pixels,correct,accuracy,iou\n")
    export_folder(run_subject(folder / "run"), tmp_path / "export", ("symbol",))
    predictor = Predictor(tmp_path / "export")
    data = load_dataset(DataConfig(name="masks", root=str(folder / "data"), image_size=20))
    (said,) = predictor([data.test.take([1])[0][0]])
    assert "class " in predictor.task.describe(said) and said.classes.ndim == 2


def test_binary_masks_by_soft_iou(tmp_path):
    write_binary(tmp_path / "data", 12)
    loss = {"name": "soft_iou"}
    result = train(load_config(config_of(tmp_path / "data", loss=loss)), tmp_path / "run", CPU)
    assert "soft_iou" in result["protocol"]
    subject = run_subject(tmp_path / "run")
    assert subject.loss == loss
    data = load_dataset(DataConfig(name="masks", root=str(tmp_path / "data")))
    measured, _ = evaluate_network(subject.net, data, CPU, task=load_task(data, subject.loss))
    assert measured["outputs"] == 1
    assert measured["mean_iou"] == pytest.approx(result["best_mean_iou"], abs=1e-6)
    rows = [
        json.loads(row) for row in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    best = max(rows, key=lambda row: row["test_mean_iou"])
    assert best["test_iou"] == pytest.approx(measured["iou"], abs=1e-6)
    assert best["test_niou"] == pytest.approx(measured["niou"], abs=1e-6)
    assert best["test_loss"] == pytest.approx(measured["loss"], abs=1e-5)


def test_a_run_without_any_target_knows_no_iou_and_goes_on(tmp_path, monkeypatch):
    write_masks(tmp_path / "data", classes=1, names=["background", "target"])
    nothing = "openaff.tasks.segmentation.predicted_classes"
    monkeypatch.setattr(nothing, lambda outputs: mx.nd.zeros_like(outputs[:, 0]))
    run = tmp_path / "run"
    train(load_config(config_of(tmp_path / "data", epochs=1)), run, CPU)
    resume(run, CPU, overrides=["epochs=2"])
    for row in read_metrics(run):
        assert row["train_iou"] is row["test_niou"] is None and row["test_mean_iou"] == 1
    assert "test_iou" not in read_metrics(run / "metrics.csv")[1]
    assert "| 100.00% | 100.00% | unknown | unknown |" in (run / "report.md").read_text()


def test_a_test_split_in_which_nothing_counts_is_refused(tmp_path):
    write_masks(tmp_path / "data")
    for name in ("0", "5"):  # every fifth image is a test image
        path = tmp_path / "data" / "masks" / f"{name}.png"
        Image.fromarray(np.full_like(Image.open(path), IGNORE)).save(path)
    with pytest.raises(UserError, match="the test split says nothing about the mean IoU"):
        train(load_config(config_of(tmp_path / "data", epochs=1)), tmp_path / "run", CPU)


def rows(text):
    """The lines of the classes."""
    return [line for line in text.splitlines() if line.startswith("  class")]


def test_pictures_views_and_their_errors(mask_run, tmp_path, call):
    folder, _ = mask_run

    def evaluate(*arguments):
        return call("evaluate", "--run", folder / "run", *arguments).out

    other = write_masks(tmp_path / "other", 20, names=["sky", "road", "tree"])
    pictures = tmp_path / "pictures"
    plain = evaluate("--pictures", pictures)
    assert "\n  class 0  iou" in plain and f"pictures: {pictures}" in plain
    names = sorted(path.name for path in pictures.iterdir())
    assert names == ["0.png", "13.png", "18.png", "5.png"]  # every fifth by name
    sheet = np.asarray(Image.open(pictures / "0.png"))
    assert sheet.shape[1] > 4 * 30 and (sheet[:, :, 0] == 214).any()  # something is wrong
    views = evaluate("--scales", "0.75,1", "--flip", "--tile", "16")
    assert "; scales 0.75,1; flip; tile 16\n" in views and rows(views) != rows(plain)
    for arguments, message in (
        (("--pictures", pictures), "pictures exists: take another --pictures"),
        (("--scales", "1,x"), "--scales '1,x': write numbers, such as 0.75,1"),
        (("--scales", "0"), "scales are positive factors"),
        (("--tile", "0"), "--tile must be a positive"),
        (("--data", other), "has other classes than the data: class 0, class 1, class 2, ..., not"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate(*arguments)


def test_predictions_become_masks_and_overlays(mask_run, tmp_path, call):
    folder, _ = mask_run
    export_folder(run_subject(folder / "run"), tmp_path / "export")
    (tmp_path / "photos").mkdir()
    for name, size in (("a", (30, 20)), ("b", (47, 61))):
        Image.new("RGB", size, "red").save(tmp_path / "photos" / f"{name}.png")

    def predict(*arguments):
        return call("predict", "--export", tmp_path / "export", *arguments).out

    out = tmp_path / "masks"
    assert "b.png: class " in predict(tmp_path / "photos", "--out", out)
    for engine in ("mxnet", "onnxruntime"):
        predict(tmp_path / "photos", "--out", tmp_path / engine, "--engine", engine)
        for name, size in (("a", (30, 20)), ("b", (47, 61))):
            mask, same = (Image.open(each / f"{name}.png") for each in (out, tmp_path / engine))
            assert mask.size == size and mask.mode == "P" and np.asarray(mask).max() < 3
            assert np.array_equal(mask, same)
            assert Image.open(out / f"{name}-overlay.png").size == size
    record = json.loads(predict(tmp_path / "photos" / "b.png", "--json"))
    (said,) = record["predictions"].values()
    assert said["width"] == 47 and sum(said["pixels"].values()) == 47 * 61
    (tmp_path / "empty").mkdir()
    photo = tmp_path / "photos" / "a.png"
    for arguments, message in (
        ((photo, "--out", out), "masks exists: name another folder"),
        ((photo, "--top", "3"), "--top has no effect on a network for segmentation"),
        ((photo, photo, "--out", tmp_path / "x"), "two images would give a-overlay.png: predict"),
        ((tmp_path / "empty",), "empty holds no images"),
        ((tmp_path / "nothing.png", "--out", tmp_path / "x"), "nothing.png"),
    ):
        with pytest.raises(UserError, match=message):
            predict(*arguments)
    assert not (tmp_path / "x").exists()


# --- Pictures -------------------------------------------------------------------------------------


def test_classes_have_colours():
    camvid = class_colours("camvid", 11)
    assert camvid.shape == (11, 3) and camvid[3].tolist() == [128, 64, 128]
    voc = class_colours("masks", 21)
    assert voc[[0, 1, 2, 15, 20]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [192, 128, 128],
        [0, 64, 128],
    ]
    assert len({tuple(colour) for colour in class_colours(None, 150).tolist()}) == 150
    assert class_colours("camvid", 3).tolist() == voc[:3].tolist()  # of another network
    assert class_colours("not known", 2).tolist() == voc[:2].tolist()


def test_maps_become_pictures(tmp_path):
    classes = np.array([[0, 1, 2], [IGNORE, 2, 2]], "int8")
    colours = class_colours(None, 3)
    indexed(classes, colours).save(tmp_path / "map.png")
    read = Image.open(tmp_path / "map.png")
    assert np.asarray(read).tolist() == [[0, 1, 2], [255, 2, 2]]
    shown = np.asarray(read.convert("RGB"))
    np.testing.assert_array_equal(shown, coloured(classes, colours))
    assert shown[1, 0].tolist() == [255] * 3 and shown[0, 2].tolist() == [0, 128, 0]
    photo = np.full((2, 3, 3), 100, "uint8")
    mixed = overlay(photo, classes, colours, 0.5)
    assert mixed[0].tolist() == [[100] * 3, [114, 50, 50], [50, 114, 50]]  # black stays clear
    assert mixed[1, 0].tolist() == [178] * 3


def test_one_class_is_none(tmp_path):
    write_masks(tmp_path / "data", classes=1)
    with pytest.raises(UserError, match="masks has 1 class: two are the fewest to tell apart"):
        train(load_config(config_of(tmp_path / "data")), tmp_path / "run", CPU)
    assert not (tmp_path / "run").exists()
