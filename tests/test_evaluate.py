import json
import subprocess
import sys
from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest
from helpers import filled, load_command, write_cifar100

from openaff import UserError, create_model
from openaff.data import DATASETS, DataConfig, Dataset, ImageSet, load_dataset
from openaff.data.transforms import Normalize
from openaff.tasks import METRICS, evaluation
from openaff.tasks.evaluation import evaluate_network
from openaff.utils.devices import parse_devices

CPU = parse_devices("cpu")
ARTICLE = "cifar100/AFF-ResNet-32/superclasses/0.9078"


def tiny(outputs):
    return filled(create_model("aff_cifar_resnet8", width_multiplier=1, num_classes=outputs))


def forward(net, dataset):
    images = Normalize(dataset.mean, dataset.std)(dataset.test.images)
    return net(mx.nd.array(images)).asnumpy()


def made_up(classes, images=30):
    rng = np.random.RandomState(0)
    pixels = rng.randint(0, 256, (images, 32, 32, 3)).astype("uint8")
    part = ImageSet(pixels, rng.randint(0, classes, images).astype("int32"))
    names = tuple(map(str, range(classes)))
    return Dataset("made-up", f"{classes} kinds", "-", names, part, part, (0.5,) * 3, (0.25,) * 3)


def test_digits_by_hand():
    net, digits = tiny(10), load_dataset(DataConfig(name="digits"))
    logits, labels = forward(net, digits).astype("float64"), digits.test.targets
    shifted = logits - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(360), labels]
    five = np.argsort(-logits, axis=1)[:, :5]
    result, _ = evaluate_network(net, digits, CPU, batch_size=100)
    assert result["accuracy"] == (logits.argmax(axis=1) == labels).mean() > 0
    assert result["top5"] == (five == labels[:, None]).any(axis=1).mean() > result["accuracy"]
    assert result["loss"] == pytest.approx(losses.mean(), rel=1e-4)
    assert (result["images"], result["classes"], result["outputs"]) == (360, 10, 10)
    assert (result["dataset"], result["labels"]) == ("digits", "10 digits")


def test_only_the_first_outputs_are_used_where_there_are_more_than_classes():
    net, dataset = tiny(100), made_up(20)
    bias = np.where(np.arange(100) < 20, 0, 1e3)  # the unused outputs are the largest
    net.output.bias.set_data(mx.nd.array(bias))
    logits = forward(net, dataset)
    assert (logits.argmax(axis=1) >= 20).all()
    best = logits[:, :20].argmax(axis=1)
    dataset.test.targets[:12] = best[:12]
    result, _ = evaluate_network(net, dataset, CPU)
    assert result["accuracy"] == (best == dataset.test.targets).mean() >= 0.4
    assert (result["classes"], result["outputs"]) == (20, 100)


@pytest.mark.parametrize("name, size", [("digits", 128), ("scenes", 8)])
def test_maps_are_evaluated_in_small_batches(name, size, monkeypatch):
    """128 of them would fill the memory."""

    def batches(dataset, batch_size, workers):
        raise UserError(f"{batch_size} images")

    monkeypatch.setattr(evaluation, "test_batches", batches)
    with pytest.raises(UserError, match=f"^{size} images"):
        evaluate_network(None, load_dataset(DataConfig(name=name)), CPU)


def test_too_few_outputs():
    with pytest.raises(UserError, match="5 outputs, too few for made-up, 20 kinds"):
        evaluate_network(tiny(5), made_up(20), CPU)


@pytest.mark.parametrize("classes, top5", [(4, None), (5, 1.0)])
def test_no_top5_below_five_classes(classes, top5):
    assert evaluate_network(tiny(7), made_up(classes), CPU)[0]["top5"] == top5


def test_devices_and_batches_do_not_matter():
    net, dataset = tiny(20), made_up(20, images=9)
    one, _ = evaluate_network(net, dataset, CPU)
    devices = parse_devices("cpu:2")
    net.collect_params().reset_ctx(devices)
    two, _ = evaluate_network(net, dataset, devices, batch_size=4)  # the last batch: one image
    assert two["devices"] == ["cpu(0)", "cpu(1)"]
    assert (two["accuracy"], two["top5"]) == (one["accuracy"], one["top5"])
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)


@pytest.fixture
def evaluate(call):
    """What ``openaff evaluate`` prints."""
    return lambda *arguments: call("evaluate", *arguments).out


@pytest.fixture(scope="module")
def params(tmp_path_factory):
    """Network of 100 outputs -> its file's arguments."""
    path = tmp_path_factory.mktemp("params") / "tiny.params"
    tiny(100).save_parameters(str(path))
    return "--params", path


MODEL = ("--model", "aff_cifar_resnet8", "--option", "width_multiplier=1")


def test_fine_and_coarse(evaluate, params, tmp_path, monkeypatch):
    data = write_cifar100(tmp_path / "data", monkeypatch)
    common = (*MODEL, *params, "--dataset", "cifar100", "--data", data)
    line = evaluate(*common, "--batch-size", 16)
    assert line.startswith("aff_cifar_resnet8 on cifar100 test, fine (100 classes): top-1 ")
    assert "%, top-5 " in line and "% (40 images, " in line and line.endswith(" images/s)\n")
    coarse = evaluate(*common, "--labels", "coarse")
    assert "coarse (20 superclasses): top-1 " in coarse
    assert coarse.endswith("; the first 20 of 100 outputs used\n")
    result = json.loads(evaluate(*common, "--labels", "coarse", "--json"))
    dataset = load_dataset(DataConfig(name="cifar100", root=str(data), labels="coarse"))
    best = forward(tiny(100), dataset)[:, :20].argmax(axis=1)
    assert result["accuracy"] == (best == dataset.test.targets).mean()
    assert f"top-1 {result['accuracy']:.2%}, top-5 {result['top5']:.2%} (" in coarse
    assert result["options"] == {"width_multiplier": 1} and result["published"] is None


def test_published(evaluate, tmp_path, monkeypatch):
    data = write_cifar100(tmp_path / "data", monkeypatch, images=10)
    net, path = create_model("aff_cifar_resnet32"), tmp_path / "any.params"
    net.initialize(mx.init.Xavier())
    net.save_parameters(str(path))
    line = evaluate("--published", ARTICLE, "--params", path, "--data", data)
    assert line.startswith("aff_cifar_resnet32 on cifar100 test, coarse (20 superclasses): top-1 ")
    assert "; the first 20 of 100 outputs used; published: top-1 accuracy 90.78% (best of" in line
    assert "chosen on the test split, continued from 0.9031)" in line


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((*MODEL,), "--model needs --dataset"),
        ((*MODEL, "--dataset", "imagnet"), "--dataset must be one of digits, cifar10"),
        ((*MODEL, "--dataset", "cifar100", "--labels", "both"), "must be fine or coarse"),
        ((*MODEL, "--dataset", "cifar10", "--labels", "fine"), "--labels has no effect on cifar10"),
        ((*MODEL, "--dataset", "digits", "--data", "here"), "--data has no effect on digits"),
        (
            (*MODEL, "--dataset", "cifar100", "--ten-crop"),
            "--ten-crop is for photographs",
        ),
        ((*MODEL, "--dataset", "digits", "--image-size", "32"), "--image-size has no effect on"),
        ((*MODEL, "--dataset", "images", "--crop-ratio", "2"), "--crop-ratio must be in"),
        ((*MODEL, "--dataset", "images"), "data.root is not set"),
        ((*MODEL, "--dataset", "digits", "--confusion", "no/x.csv"), "cannot write no/x.csv"),
        (
            (*MODEL, "--dataset", "digits", "--confusion", "x.csv", "--per-class", "./x.csv"),
            "--per-class and --confusion are two tables: name two files",
        ),
        ((*MODEL, "--dataset", "digits", "--batch-size", "0"), "--batch-size must be a positive"),
        ((*MODEL, "--dataset", "digits", "--option", "width"), "'width': write key=value"),
        ((*MODEL, "--dataset", "digits", "--option", "width=[1"), "the value is not YAML"),
        ((*MODEL, "--dataset", "digits", "--option", "width=1"), "no option 'width'"),
        (("--published", ARTICLE, "--labels", "fine"), "--labels fine contradicts cifar100/"),
        (("--published", ARTICLE, "--dataset", "cifar10"), "--dataset cifar10 contradicts"),
        (("--published", ARTICLE, "--option", "a=1"), "--option has no effect"),
        (("--published", "cifar100/AFF"), "unknown published checkpoint 'cifar100/AFF'"),
    ],
)
def test_errors(evaluate, params, arguments, message):
    with pytest.raises(UserError, match=message):
        evaluate(*arguments, *params)


def test_json_is_all_that_stdout_holds(root, params):
    command = [sys.executable, root / "scripts/evaluate.py", *MODEL, *params]
    command += ["--dataset", "digits", "--json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert 0 <= result["accuracy"] <= result["top5"] <= 1
    assert (result["outputs"], result["classes"], result["images"]) == (100, 10, 360)
    assert result["model"] == "aff_cifar_resnet8" and result["params"] == str(params[1])
    assert (
        result["command"].startswith("python scripts/evaluate.py --model")
        and result["versions"]["mxnet"]
    )


def test_photographs_have_accuracy_and_error_on_the_validation_split():
    result = {"model": "m", "dataset": "images", "labels": "3 classes", "accuracy": 0.75}
    result.update(top5=None, images=4, images_per_second=2.0, engine=None, ten_crop=None, views={})
    result.update(outputs=3, classes=3, published=None)
    task = SimpleNamespace(metrics=(METRICS["accuracy"],))
    line = load_command("evaluate").one_line(result, DATASETS["images"], task)
    assert line.startswith("m on images validation, 3 classes: top-1 75.00% (error 25.00%) (4 im")
