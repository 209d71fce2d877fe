import mxnet as mx
import numpy as np
import pytest
from helpers import assert_close, structural_params

from openaff import create_model
from openaff.config import OptimizerConfig
from openaff.training.devices import parse_devices
from openaff.training.engine import Engine, initialize

rng = np.random.RandomState(0)
IMAGES = mx.nd.array(rng.standard_normal((12, 3, 16, 16)))
LABELS = mx.nd.array(rng.randint(0, 4, 12))


def engine(devices="cpu", name="add_cifar_resnet8", lr=0.1):
    mx.random.seed(0)
    np.random.seed(0)
    devices = parse_devices(devices)
    net = create_model(name, num_classes=4, width_multiplier=1)
    initialize(net, devices)
    return Engine(net, devices, lambda step: lr, OptimizerConfig())


def quiet(images, loss):
    pass


def test_it_learns_a_batch_by_heart():
    trained = engine(lr=0.05)
    first = trained.train([(IMAGES, LABELS)], quiet)
    for _ in range(30):
        last = trained.train([(IMAGES, LABELS)], quiet)
    assert last["loss"] < 0.2 * first["loss"]
    assert last["accuracy"] == 1.0
    assert trained.step == 31


def test_the_learning_rate_is_the_schedules():
    trained = engine()
    trained.schedule = lambda step: 0.0
    before = {k: p.data().asnumpy() for k, p in structural_params(trained.net).items()}
    trained.train([(IMAGES, LABELS)], quiet)
    for key, param in structural_params(trained.net).items():
        if param.grad_req != "null":
            np.testing.assert_array_equal(param.data().asnumpy(), before[key])
    seen = []
    trained.schedule = lambda step: seen.append(step) or 0.1
    trained.train([(IMAGES, LABELS)] * 3, quiet)
    assert seen == [1, 2, 3]


def test_evaluation_counts_short_batches_exactly():
    evaluated = engine()
    whole = evaluated.evaluate([(IMAGES, LABELS)])
    parts = evaluated.evaluate([(IMAGES[:8], LABELS[:8]), (IMAGES[8:], LABELS[8:])])
    logits = evaluated.net(IMAGES).asnumpy()
    labels = LABELS.asnumpy().astype(int)
    shifted = logits - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(12), labels]
    for result in (whole, parts):
        assert result["accuracy"] == (logits.argmax(axis=1) == labels).mean()
        assert result["loss"] == pytest.approx(losses.mean(), rel=1e-5)


def test_progress_sees_every_step():
    seen = []
    engine().train([(IMAGES, LABELS)] * 2, lambda images, loss: seen.append(images))
    assert seen == [12, 12]


def test_two_devices_average_over_the_whole_batch():
    """With equal halves each device's batch statistics are the whole batch's: one step is equal,
    running statistics included."""
    batch = [mx.nd.concat(each, each, dim=0) for each in (IMAGES, LABELS)]
    one, two = engine(), engine("cpu:2")
    for each in (one, two):
        each.train([batch], quiet)
    for key, param in structural_params(one.net).items():
        assert_close(structural_params(two.net)[key].data(mx.cpu(1)), param.data(), 1e-4)


def test_more_devices_than_images_in_the_last_batch():
    evaluated = engine("cpu:2")
    assert evaluated.evaluate([(IMAGES, LABELS), (IMAGES[:1], LABELS[:1])])["loss"] > 0
