import random

import mxnet as mx
import numpy as np
import pytest
from helpers import assert_close, structural_params

from openaff import create_model
from openaff.tasks import NonFiniteLoss
from openaff.tasks.classification import Classification, ClassificationMeter, CrossEntropy
from openaff.training.engine import Engine, initialize, seed_step
from openaff.training.optimizers import OptimizerConfig
from openaff.utils.devices import parse_devices

rng = np.random.RandomState(0)
IMAGES = mx.nd.array(rng.standard_normal((12, 3, 16, 16)))
LABELS = mx.nd.array(rng.randint(0, 4, 12))


def engine(devices="cpu", model="add_cifar_resnet8", lr=0.1, loss=None, **optimizer):
    mx.random.seed(0)
    np.random.seed(0)
    devices = parse_devices(devices)
    net = create_model(model, num_classes=4, width_multiplier=1)
    initialize(net, devices)
    loss = loss or CrossEntropy()
    return Engine(net, loss, lambda step: lr, OptimizerConfig(**optimizer))


class FourClasses:
    class_names = tuple("abcd")


def evaluate(trained, batches):
    """What an evaluation of the engine's network gives."""
    net = create_model("add_cifar_resnet8", num_classes=4, width_multiplier=1)
    initialize(net, trained.devices)
    return trained.evaluate(net, batches, Classification(FourClasses())).values()


def step(each, count=1, batch=(IMAGES, LABELS)):
    """Train ``count`` steps; the means over them."""
    meter = ClassificationMeter(4)
    for _ in range(count):
        each.train_step(*batch, meter)
    return meter.values()


def test_it_learns_a_batch_by_heart():
    trained = engine(lr=0.05)
    first = step(trained)
    step(trained, 30)
    last = step(trained)
    assert last["loss"] < 0.2 * first["loss"]
    assert last["accuracy"] == 1.0
    assert trained.step == 32


@pytest.mark.parametrize("devices, count", [("cpu", 1), ("cpu:2", 2)])
def test_running_statistics_of_the_input_follow_the_images(devices, count):
    trained = engine(devices)
    step(trained, 60)
    norm = trained.net.features[0]
    means, variances = norm.running_mean.list_data(), norm.running_var.list_data()
    for part, mean, variance in zip(np.split(IMAGES.asnumpy(), count), means, variances):
        assert_close(mean, part.mean((0, 2, 3)), 1e-2)
        assert_close(variance, part.var((0, 2, 3)), 1e-2)


def test_the_learning_rate_is_the_schedules():
    trained = engine()
    trained.schedule = lambda step: 0.0
    before = {k: p.data().asnumpy() for k, p in structural_params(trained.net).items()}
    step(trained)
    for key, param in structural_params(trained.net).items():
        if param.grad_req != "null":
            np.testing.assert_array_equal(param.data().asnumpy(), before[key])
    seen = []
    trained.schedule = lambda step: seen.append(step) or 0.1
    step(trained, 3)
    assert seen == [1, 2, 3]


def test_evaluation_counts_short_batches_exactly():
    evaluated = engine()
    whole = evaluate(evaluated, [(IMAGES, LABELS)])
    parts = evaluate(evaluated, [(IMAGES[:8], LABELS[:8]), (IMAGES[8:], LABELS[8:])])
    logits = evaluated.net(IMAGES).asnumpy()
    labels = LABELS.asnumpy().astype(int)
    shifted = logits - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(12), labels]
    for result in (whole, parts):
        assert result["accuracy"] == (logits.argmax(axis=1) == labels).mean()
        assert result["loss"] == pytest.approx(losses.mean(), rel=1e-5)


def test_two_devices_average_over_the_whole_batch():
    """With equal halves each device's batch statistics are the whole batch's: one step is equal,
    running statistics included."""
    batch = [mx.nd.concat(each, each, dim=0) for each in (IMAGES, LABELS)]
    one, two = engine(), engine("cpu:2")
    for each in (one, two):
        step(each, batch=batch)
    for key, param in structural_params(one.net).items():
        assert_close(structural_params(two.net)[key].data(mx.cpu(1)), param.data(), 1e-4)


def test_more_devices_than_images_in_the_last_batch():
    evaluated = engine("cpu:2")
    assert evaluate(evaluated, [(IMAGES, LABELS), (IMAGES[:1], LABELS[:1])])["loss"] > 0


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_labels_and_of_probabilities(smoothing):
    logits = rng.standard_normal((5, 4)).astype("float32")
    labels = np.array([0, 3, 1, 1, 2])
    probabilities = 0.3 * np.eye(4)[labels] + 0.7 * np.eye(4)[labels[::-1]]
    loss = CrossEntropy(smoothing)
    for targets, given in ((np.eye(4)[labels], labels), (probabilities, probabilities)):
        smooth = (1 - smoothing) * targets + smoothing / 4
        expected = -(log_softmax(logits) * smooth).sum(axis=1)
        actual = loss(mx.nd.array(logits), mx.nd.array(given))
        np.testing.assert_allclose(actual.asnumpy(), expected, rtol=1e-5)
    half = loss(mx.nd.array(logits, dtype="float16"), mx.nd.array(labels))
    assert half.dtype == np.float32


def test_accuracy_under_mixup_is_the_probability_of_the_predicted_class():
    logits = mx.nd.array([[3, 1, 2], [1, 5, 2]])
    probabilities = mx.nd.array([[0.7, 0.3, 0], [0.4, 0, 0.6]])
    meter = ClassificationMeter(3)
    meter.add([mx.nd.zeros(2)], [logits], [probabilities])
    assert meter.values()["accuracy"] == pytest.approx((0.7 + 0) / 2)


def test_mixup_trains():
    probabilities = mx.nd.array(np.full((12, 4), 0.25))
    trained = engine(loss=CrossEntropy(0.1))
    means = step(trained, batch=(IMAGES, probabilities))
    assert means["accuracy"] == pytest.approx(0.25) and np.isfinite(means["loss"])


def test_no_wd_exempts_bias_gamma_and_beta():
    for no_wd in (False, True):
        trained = engine(model="aff_cifar_resnet8", no_wd=no_wd)
        kept = {
            name.rsplit(".", 1)[1]
            for name, param in structural_params(trained.net).items()
            if param.wd_mult == 0 and param.grad_req != "null"
        }
        assert kept == ({"bias", "gamma", "beta"} if no_wd else set())


def test_clipping_bounds_the_update():
    trained = engine(clip_gradient=1e-3, weight_decay=0.0, lr=1.0)
    before = {k: p.data().asnumpy() for k, p in structural_params(trained.net).items()}
    step(trained)
    moved = [
        np.abs(param.data().asnumpy() - before[name]).max()
        for name, param in structural_params(trained.net).items()
        if param.grad_req != "null"
    ]
    assert 0 < max(moved) <= 1.9e-3 * 1.001  # Nesterov's first step is (1 + momentum) gradients


def test_a_loss_that_is_not_finite_is_an_error():
    trained = engine(lr=1e30)
    with pytest.raises(NonFiniteLoss):
        step(trained, 5)


def test_random_numbers_follow_from_seed_and_step():
    def draw(seed, number):
        seed_step(seed, number)
        return (random.random(), np.random.rand(), mx.nd.random.uniform().asscalar())

    assert draw(0, 5) == draw(0, 5)
    assert all(a != b for a, b in zip(draw(0, 5), draw(0, 6)))
    assert all(a != b for a, b in zip(draw(0, 5), draw(1, 5)))
