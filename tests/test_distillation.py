import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd

from openaff import UserError, create_model
from openaff.tasks.classification import ClassificationMeter, CrossEntropy
from openaff.training.config import DistillationConfig
from openaff.training.distillation import Distillation, load_teacher
from openaff.training.engine import Engine, initialize
from openaff.training.optimizers import OptimizerConfig
from openaff.utils.imports import import_gluoncv

SHAPE = (3, 32, 32)
IMAGES = mx.nd.zeros((4, *SHAPE))  # of a teacher that does not look at them
rng = np.random.RandomState(0)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def test_the_teacher_gets_float32():
    seen = []

    def teacher(images):
        seen.append(images.dtype)
        return mx.nd.zeros((2, 5))

    images = mx.nd.zeros((2, 3, 4, 4), dtype="float16")  # as a student of float16 gets them
    Distillation(CrossEntropy(), teacher)(mx.nd.zeros((2, 5)), mx.nd.zeros(2), images)
    assert seen == [np.float32]


def test_loss_is_the_formula_and_the_teacher_gets_no_gradient():
    logits, expected = (rng.standard_normal((4, 5)).astype("float32") for _ in range(2))
    labels = np.array([0, 4, 2, 2])
    weight, temperature = 0.3, 2.0
    teacher_logits = mx.nd.array(expected)
    teacher_logits.attach_grad()
    loss = Distillation(CrossEntropy(), lambda images: teacher_logits, weight, temperature)
    student = mx.nd.array(logits)
    student.attach_grad()
    with autograd.record():
        actual = loss(student, mx.nd.array(labels), IMAGES)
    actual.backward()
    ours, theirs = log_softmax(logits / temperature), log_softmax(expected / temperature)
    divergence = (np.exp(theirs) * (theirs - ours)).sum(axis=1)
    entropy = -log_softmax(logits)[np.arange(4), labels]
    np.testing.assert_allclose(
        actual.asnumpy(), (1 - weight) * entropy + weight * temperature**2 * divergence, rtol=1e-5
    )
    one_hot = np.eye(5)[labels]
    gradient = (1 - weight) * (np.exp(log_softmax(logits)) - one_hot)
    gradient += weight * temperature * (np.exp(ours) - np.exp(theirs))
    np.testing.assert_allclose(student.grad.asnumpy(), gradient, atol=1e-5)
    assert not teacher_logits.grad.asnumpy().any()


def test_a_student_learns_its_teachers_logits(tmp_path):
    teacher = create_model("add_cifar_resnet8", num_classes=4, width_multiplier=1)
    teacher.initialize(mx.init.Xavier())
    path = tmp_path / "teacher.params"
    teacher.save_parameters(str(path))
    config = DistillationConfig("add_cifar_resnet8", str(path), {"width_multiplier": 1})
    loaded = load_teacher(config, 4, SHAPE, [mx.cpu()])
    net = create_model("add_cifar_resnet8", num_classes=4, width_multiplier=1)
    initialize(net, [mx.cpu()])
    loss = Distillation(CrossEntropy(), loaded, weight=1.0, temperature=1.0)
    engine = Engine(net, loss, lambda step: 0.05, OptimizerConfig())
    batch = mx.nd.array(rng.standard_normal((8, *SHAPE))), mx.nd.zeros(8)
    losses = []
    for _ in range(12):
        meter = ClassificationMeter(4)
        engine.train_step(*batch, meter)
        losses.append(meter.values()["loss"])
    assert losses[-1] < 0.3 * losses[0]


def test_a_gluoncv_teacher(tmp_path):
    try:
        model_zoo = import_gluoncv()
    except ImportError:
        pytest.skip("needs the extra [gluoncv]")

    network = model_zoo.get_model("cifar_resnet20_v1", classes=4)
    network.initialize()
    network(mx.nd.zeros((1, *SHAPE)))
    path = tmp_path / "teacher.params"
    network.save_parameters(str(path))
    teacher = load_teacher(
        DistillationConfig("gluoncv:cifar_resnet20_v1", str(path)), 4, SHAPE, [mx.cpu()]
    )
    images = mx.nd.array(rng.standard_normal((2, *SHAPE)))
    np.testing.assert_allclose(teacher(images).asnumpy(), network(images).asnumpy(), rtol=1e-5)
    for config, classes, message in (
        (DistillationConfig("gluoncv:cifar_resnet21_v1", str(path)), 4, "did you mean 'cifar_res"),
        (DistillationConfig("gluoncv:cifar_resnet56_v1", str(path)), 4, "missing"),
        (DistillationConfig("gluoncv:cifar_resnet20_v1", str(path)), 5, "of another shape"),
        (DistillationConfig("gluoncv:cifar_resnet20_v1", "absent", {}), 4, "cannot read absent"),
        (DistillationConfig("gluoncv:cifar_resnet20_v1", str(path), {"x": 1}), 4, "options: "),
        (DistillationConfig("add_cifar_resnet8", str(path)), 4, "missing"),
    ):
        with pytest.raises(UserError, match=message):
            load_teacher(config, classes, SHAPE, [mx.cpu()])


def test_a_teacher_of_other_classes(tmp_path):
    teacher = create_model("add_cifar_resnet8", num_classes=7, width_multiplier=1)
    teacher.initialize()
    path = tmp_path / "teacher.params"
    teacher.save_parameters(str(path))
    config = DistillationConfig("add_cifar_resnet8", str(path), {"width_multiplier": 1})
    with pytest.raises(UserError, match="has 7 outputs in .* but the data set has 4 classes"):
        load_teacher(config, 4, SHAPE, [mx.cpu()])


def test_a_teacher_that_gives_maps(tmp_path):
    teacher = create_model("add_fpn_resnet8", num_classes=4, width_multiplier=1)
    teacher.initialize()
    path = tmp_path / "teacher.params"
    teacher.save_parameters(str(path))
    config = DistillationConfig("add_fpn_resnet8", str(path), {"width_multiplier": 1})
    with pytest.raises(UserError, match="add_fpn_resnet8 gives maps, and distillation is for"):
        load_teacher(config, 4, SHAPE, [mx.cpu()])
