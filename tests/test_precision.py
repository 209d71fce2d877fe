"""float16 and AMP on a network of operators that MXNet has in float16 on a CPU."""

import subprocess
import sys

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn
from test_engine import FourClasses

from openaff import UserError
from openaff.tasks.classification import Classification, ClassificationMeter, CrossEntropy
from openaff.training.config import load_config
from openaff.training.engine import Engine, initialize
from openaff.training.optimizers import OptimizerConfig
from openaff.training.session import train


class Linear(nn.HybridBlock):
    """Logits of the channels' means; written without a matrix product."""

    def __init__(self):
        super().__init__()
        self.weight = self.params.get("weight", shape=(1, 3, 4))

    def hybrid_forward(self, F, x, weight):
        means = F.mean(x, axis=(2, 3)).expand_dims(2)
        return F.sum(F.broadcast_mul(means, weight), axis=1)


def trained(precision, steps=20):
    mx.random.seed(0)
    np.random.seed(0)
    net, evaluation_net = Linear(), Linear()
    for each in (evaluation_net, net):
        initialize(each, [mx.cpu()], dtype="float16" if precision == "float16" else "float32")
    # Updates of some 1e-4, many of which float16 weights near 1 would lose.
    engine = Engine(net, CrossEntropy(), lambda step: 1e-3, OptimizerConfig(), precision=precision)
    net.weight.set_data(mx.nd.ones((1, 3, 4)))
    rng = np.random.RandomState(0)
    batch = mx.nd.array(rng.standard_normal((8, 3, 4, 4))), mx.nd.array(rng.randint(0, 4, 8))
    meter = ClassificationMeter(4)
    for _ in range(steps):
        engine.train_step(*batch, meter)
    task = Classification(FourClasses())
    return engine, meter.values(), engine.evaluate(evaluation_net, [batch], task).values()


def test_float16_updates_float32_master_weights():
    exact, means, _ = trained("float32")
    half, half_means, tested = trained("float16")
    assert half.net.weight.data().dtype == np.float16
    (momentum, master), *_ = half.trainer._updaters[0].states.values()
    assert master.dtype == momentum.dtype == np.float32
    expected = exact.net.weight.data().asnumpy()
    np.testing.assert_allclose(master.asnumpy(), expected, atol=2e-5)
    assert np.abs(expected - 1).max() > 1e-4
    assert half_means["loss"] == pytest.approx(means["loss"], rel=1e-3)
    assert np.isfinite(tested["loss"])


def test_amps_loss_scale_cancels(root):
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from mxnet.contrib import amp; amp.init()\n"
        "from test_precision import trained\n"
        "engine, means, _ = trained('amp')\n"
        "scaling = engine.state()['loss_scaling']\n"
        "print(scaling['_loss_scale'], means['loss'], engine.net.weight.data().sum())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert run.returncode == 0, run.stderr
    scale, loss = run.stdout.split()[:2]
    _, means, _ = trained("float32")
    assert float(scale) == 2**16 and float(loss) == pytest.approx(means["loss"], rel=1e-5)


@pytest.mark.parametrize("precision", ["float16", "amp"])
def test_neither_on_a_cpu(precision, tmp_path):
    config = load_config("digits/add_resnet8", [f"precision={precision}"])
    with pytest.raises(UserError, match=f"precision={precision} needs GPUs"):
        train(config, tmp_path / "run", [mx.cpu()])
    assert not (tmp_path / "run").exists()
