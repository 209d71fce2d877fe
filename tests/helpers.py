"""Rule-made parameters and inputs for the golden files in ``tests/data``."""

import dataclasses
import importlib
import json
import pathlib
import shutil
import zlib

import mxnet as mx
import numpy as np

from openaff import create_model
from openaff.data import DATASETS, ImageSet, cifar

DATA = pathlib.Path(__file__).parent / "data"


def load_command(name):
    """A command's module, to call its ``main`` in this process."""
    return importlib.import_module(f"openaff.commands.{name}")


def golden(name):
    return json.loads((DATA / "golden" / (name + ".json")).read_text())


def layout(name):
    return json.loads((DATA / "layouts" / (name + ".json")).read_text())


def param_value(name, shape):
    """A parameter's value, by its structural name and shape."""
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    kind = name.rsplit(".", 1)[-1]
    if kind == "weight":
        scale = np.sqrt(2.0 / (int(np.prod(shape[1:])) or 1))
        return (rng.standard_normal(shape) * scale).astype("float32")
    if kind in ("gamma", "running_var"):
        return rng.uniform(0.5, 1.5, shape).astype("float32")
    return (rng.standard_normal(shape) * 0.1).astype("float32")


def input_value(shape, seed=0):
    rng = np.random.RandomState(1000 + seed)
    return mx.nd.array(rng.standard_normal(shape).astype("float32"))


def structural_params(block):
    """Structural name -> Parameter, the names that ``save_parameters`` writes."""
    return block._collect_params_with_prefix()


def filled(block):
    """``block``, initialised, with the rule's value in every parameter."""
    block.initialize()
    for name, param in structural_params(block).items():
        param.set_data(mx.nd.array(param_value(name, param.shape)))
    return block


def initialized(*args, **options):
    """``create_model(...)`` with Xavier's values, the same every time."""
    mx.random.seed(0)
    np.random.seed(0)
    net = create_model(*args, **options)
    net.initialize(mx.init.Xavier())
    return net


def assert_every_parameter_gets_a_gradient(net, x, before_a_norm=("attention", "branch")):
    """``before_a_norm``: parts of the names of biases that a batch norm takes away in training."""
    with mx.autograd.record():
        loss = (net(x) ** 2).sum()
    loss.backward()
    for name, param in structural_params(net).items():
        dead = name.endswith("bias") and any(part in name for part in before_a_norm)
        if param.grad_req != "null" and not dead:
            assert np.abs(param.grad().asnumpy()).max() > 0, name


def assert_close(actual, expected, relative=1e-5):
    """Equal within ``relative`` of the largest expected magnitude."""
    actual = actual.asnumpy() if hasattr(actual, "asnumpy") else np.asarray(actual)
    expected = expected.asnumpy() if hasattr(expected, "asnumpy") else np.asarray(expected)
    expected = expected.reshape(actual.shape)
    limit = relative * max(np.abs(expected).max(), 1e-12)
    assert np.abs(actual - expected).max() <= limit


def write_cifar100(folder, monkeypatch, images=40):
    """CIFAR-100's binary form with ``images`` random images a split, which the reader accepts."""
    spec = cifar.SPECS["cifar100"]
    rng = np.random.RandomState(0)
    folder.mkdir()
    for (name,) in spec.binary.splits.values():
        labels = np.stack([rng.permutation(images) % classes for classes in (20, 100)], axis=1)
        pixels = rng.randint(0, 256, (images, cifar.IMAGE_BYTES))
        (folder / name).write_bytes(np.hstack([labels, pixels]).astype("uint8").tobytes())
    for column, classes in (("coarse", 20), ("fine", 100)):
        names = "".join(f"{column}{index}\n" for index in range(classes))
        (folder / spec.binary.names[column]).write_text(names)
    small = dataclasses.replace(spec, images=dict.fromkeys(spec.images, images))
    monkeypatch.setitem(cifar.SPECS, "cifar100", small)
    return folder


def fewer_images(patch, name, train, test):
    """Let the data set ``name`` have its first ``train`` and ``test`` images only."""
    info = DATASETS[name]

    def load(config):
        whole, counts = info.load(config), {"train": train, "test": test}
        few = {key: getattr(whole, key).take(range(count), None) for key, count in counts.items()}
        return dataclasses.replace(whole, **{key: ImageSet(*each) for key, each in few.items()})

    patch.setitem(DATASETS._entries, name, dataclasses.replace(info, load=load))


def finished_run(folder, digits_run, **values):
    """A run folder with the files of a finished run that ``record`` reads."""
    folder.mkdir()
    shutil.copy(digits_run[0] / "metrics.jsonl", folder)
    result = json.loads((digits_run[0] / "result.json").read_text())
    command = "train.py configs/a.yaml --out /home/x/run data.root=/d/c"
    result.update(model="aff_cifar_resnet8", dataset="cifar100", labels="fine (100 classes)")
    result.update({"command": command, **values})
    (folder / "result.json").write_text(json.dumps(result))
    return folder
