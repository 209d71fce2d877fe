import json
import runpy
import sys
from dataclasses import asdict, astuple

import mxnet as mx
import numpy as np
import pytest
from helpers import input_value, layout, structural_params
from mxnet.gluon import nn

from openaff import UserError, create_model
from openaff.analysis.complexity import Cost, count_parameters, summarize

# layout -> (model, options, the published tables' figure).  The CIFAR tables round all numbers; the
# ImageNet tables leave the running statistics out, and cut digits off.
PUBLISHED = {
    "add_resnet8_c1_cifar100": ("add_cifar_resnet8", {"width_multiplier": 1}, None),
    "aff_resnet8_c1_cifar100": ("aff_cifar_resnet8", {"width_multiplier": 1}, None),
    "aff_resnet32_cifar100": ("aff_cifar_resnet32", {}, "7.9M"),
    "aff_resnext38_32x4d_cifar100": ("aff_cifar_resnext38_32x4d", {}, "7.8M"),
    "aff_resnext47_32x4d_cifar100": ("aff_cifar_resnext47_32x4d", {}, "9.7M"),
    "aff_resnet50_imagenet": ("aff_resnet50", {}, "30.3M"),
    "aff_resnext50_32x4d_imagenet": ("aff_resnext50_32x4d", {}, "29.9M"),
    "iaff_resnet50_imagenet": ("iaff_resnet50", {}, "35.1M"),
    "iaff_resnext50_32x4d_imagenet": ("iaff_resnext50_32x4d", {}, "34.7M"),
}
# The same to two digits, rounded, as the notes on the published networks have them.
TWO_DIGITS = {
    "aff_resnet32_cifar100": "7.92M",
    "aff_resnext38_32x4d_cifar100": "7.83M",
    "aff_resnext47_32x4d_cifar100": "9.68M",
    "aff_resnet50_imagenet": "30.37M",
    "aff_resnext50_32x4d_imagenet": "29.95M",
    "iaff_resnet50_imagenet": "35.17M",
    "iaff_resnext50_32x4d_imagenet": "34.75M",
}
TINY = {"width_multiplier": 1, "num_classes": 7}


def chain(*layers):
    net = nn.HybridSequential()
    with net.name_scope():
        net.add(*layers)
    return net


def assert_stages_add_up(summary):
    columns = zip(*map(astuple, summary.stages.values()))
    assert astuple(summary.total) == tuple(map(sum, columns))


# --- Closed forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer, input_shape, cost",
    [
        (
            lambda: nn.Conv2D(8, (3, 2), strides=2, padding=1, groups=2, in_channels=4),
            (4, 10, 7),
            Cost(8 * 2 * 6 + 8, 8 * 2 * 6 + 8, (8 * 5 * 4) * 2 * 6, 8 * 5 * 4),
        ),
        (
            lambda: nn.Conv2D(6, 3, dilation=2, use_bias=False),
            (5, 9, 9),
            Cost(6 * 5 * 9, 6 * 5 * 9, (6 * 5 * 5) * 5 * 9, 6 * 5 * 5),
        ),
        (
            lambda: nn.Conv2DTranspose(6, 4, strides=2, padding=1, groups=3, use_bias=False),
            (3, 5, 7),
            Cost(3 * 2 * 16, 3 * 2 * 16, (3 * 5 * 7) * 2 * 16, 6 * 10 * 14),
        ),
        (lambda: nn.Dense(5), (2, 3, 4), Cost(5 * 24 + 5, 5 * 24 + 5, 5 * 24, 5)),
        (
            lambda: nn.Dense(5, flatten=False, use_bias=False),
            (2, 3, 4),
            Cost(5 * 4, 5 * 4, (2 * 3 * 5) * 4, 2 * 3 * 5),
        ),
        (nn.BatchNorm, (3, 4, 4), Cost(4 * 3, 2 * 3, 0, 0)),
        (lambda: nn.BatchNorm(scale=False, center=False), (3, 4, 4), Cost(4 * 3, 0, 0, 0)),
        (lambda: nn.AvgPool2D(2), (3, 4, 4), Cost(0, 0, 0, 0)),
    ],
    ids="grouped dilated transposed dense dense-last-axis norm fixed-norm pooling".split(),
)
def test_layers(layer, input_shape, cost):
    assert summarize(chain(layer(), nn.Activation("relu")), input_shape).total == cost


def test_a_chain_by_stage():
    net = chain(nn.Conv2D(4, 3), nn.BatchNorm(), nn.MaxPool2D(), nn.Flatten(), nn.Dense(10))
    summary = summarize(net, (3, 8, 8))
    assert summary.stages == {
        "0": Cost(4 * 27 + 4, 4 * 27 + 4, 4 * 36 * 27, 4 * 36),
        "1": Cost(16, 8, 0, 0),
        "4": Cost(36 * 10 + 10, 36 * 10 + 10, 36 * 10, 10),
    }
    assert_stages_add_up(summary)


def test_shared_parameters_count_once_and_their_use_every_time():
    first = nn.Dense(4, in_units=4)
    summary = summarize(chain(first, nn.Dense(4, in_units=4, params=first.params)), (4,))
    assert summary.stages == {"0": Cost(20, 20, 2 * 16, 2 * 4)}


def test_a_layer_called_twice_on_different_sizes():
    class Twice(nn.HybridBlock):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            with self.name_scope():
                self.conv = nn.Conv2D(3, 3, use_bias=False)

        def hybrid_forward(self, F, x):
            return self.conv(self.conv(x))

    cost = Cost(81, 81, (3 * 36 + 3 * 16) * 27, 3 * 36 + 3 * 16)
    assert summarize(Twice(), (3, 8, 8)).stages == {"conv": cost}


def test_products_without_a_layer_are_not_counted_but_computed_weights_are():
    class Computed(nn.HybridBlock):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.weight = self.params.get("weight", shape=(2, 3, 1, 1))

        def hybrid_forward(self, F, x, weight):
            x = F.Convolution(x, 2 * weight, kernel=(1, 1), num_filter=2, no_bias=True)
            return F.batch_dot(x, x)

    assert summarize(Computed(), (3, 4, 4)).stages == {
        "weight": Cost(6, 6, 0, 0),
        "computed weights": Cost(0, 0, 2 * 16 * 3, 2 * 16),
    }


def test_a_convolution_by_slices_of_its_weights_counts_as_theirs():
    """Half-AFF, r = 4: the local half at every pixel, the global one once, as its joint one."""
    stages = summarize(create_model("halfaff_cifar_resnet8", **TINY)).stages
    plain = summarize(create_model("add_cifar_resnet8", **TINY)).stages
    assert stages.keys() == plain.keys()
    for name, channels, pixels in (("features.2", 16, 32**2), ("features.4", 64, 8**2)):
        added = stages[name].multiply_adds - plain[name].multiply_adds
        assert added == 2 * channels * (channels // 4) * (pixels + 1)


def test_frozen_parameters_are_not_trainable():
    net = chain(nn.Dense(2, in_units=3), nn.Dense(1, in_units=2))
    net[0].collect_params().setattr("grad_req", "null")
    total = summarize(net, (3,)).total
    assert (total.parameters, total.trainable_parameters) == (11, 3)
    assert count_parameters(net) == (3, 11)


def test_what_a_fusion_adds():
    """Two bottlenecks with r = 4: the local one at every pixel, the global one once."""
    plain, fused = (
        summarize(create_model(f"{key}_cifar_resnet8", **TINY)).total for key in ("add", "aff")
    )
    stages = [(16, 32**2), (32, 16**2), (64, 8**2)]
    multiply_adds = sum(2 * c * (c // 4) * (pixels + 1) for c, pixels in stages)
    activations = sum((c + c // 4) * (pixels + 1) for c, pixels in stages)
    assert fused.multiply_adds - plain.multiply_adds == multiply_adds
    assert fused.activations - plain.activations == activations


# --- The network stays as it is, and its state makes no difference --------------------------------


def test_same_for_every_state_of_the_network():
    net = create_model("aff_cifar_resnet8", **TINY)
    expected = summarize(net)
    net.initialize()
    assert summarize(net) == expected
    x = input_value((2, 3, 32, 32))
    imperative = net(x).asnumpy()
    net.hybridize()
    assert summarize(net) == expected
    hybrid = net(x).asnumpy()
    values = {name: param.data().asnumpy() for name, param in structural_params(net).items()}
    assert summarize(net) == expected
    assert summarize(net, (3, 64, 64)).total.multiply_adds > 3 * expected.total.multiply_adds
    assert np.array_equal(net(x).asnumpy(), hybrid) and np.allclose(imperative, hybrid, atol=1e-5)
    for name, param in structural_params(net).items():
        assert np.array_equal(param.data().asnumpy(), values[name]), name


def test_deferred_shapes_are_inferred_and_stay_open():
    net = chain(nn.Conv2D(3, 3, use_bias=False), nn.Dense(2, use_bias=False))
    with pytest.raises(UserError, match=r"conv\d+_weight is not known before data"):
        count_parameters(net)
    assert summarize(net, (5, 6, 6)).total.parameters == 3 * 5 * 9 + 2 * 48
    assert net[0].weight.shape == (3, 0, 3, 3)
    net.initialize()
    assert summarize(net, (4, 6, 6)).total.parameters == 3 * 4 * 9 + 2 * 48
    net(mx.nd.zeros((1, 2, 6, 6)))
    assert summarize(net, (2, 6, 6)).total.parameters == count_parameters(net)[1]
    # Settled now, although the traced variables do not know it.
    with pytest.raises(UserError, match="cannot take an input of shape 5x6x6"):
        summarize(net, (5, 6, 6))


def test_a_shape_that_no_input_settles():
    class Scaled(nn.HybridBlock):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.scale = self.params.get("scale", shape=(1, 0, 1, 1), allow_deferred_init=True)

        def hybrid_forward(self, F, x, scale):
            return F.broadcast_mul(x, scale)

    with pytest.raises(UserError, match="scale is not known before data"):
        summarize(Scaled(), (3, 8, 8))


@pytest.mark.parametrize(
    "model, input_shape, message",
    [
        ("aff_cifar_resnet8", (4, 32, 32), "4x32x32: Error in operator .*Shape inconsistent"),
        ("aff_cifar_resnet8", (32, 32), "input of shape 32x32: .*should be 4D"),
        ("aff_cifar_resnet8", (3, 1, 1), "3x1x1: .*kernel size .2. exceeds input"),
        ("aff_resnet50", (1, 224, 224), "1x224x224: .*Shape inconsistent"),
        ("aff_cifar_resnet8", (3, 0, 32), "input_shape must be a positive integer, not 0"),
    ],
)
def test_impossible_inputs(model, input_shape, message, capfd):
    with pytest.raises(UserError, match=message) as caught:
        summarize(create_model(model), input_shape)
    assert "\n" not in str(caught.value) and "src/" not in str(caught.value)
    assert capfd.readouterr() == ("", "")  # MXNet's own lines


# --- The networks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_of_the_published_networks(name):
    model, options, figure = PUBLISHED[name]
    net = create_model(model, **options)
    summary = summarize(net, (3, 64, 64))
    assert_stages_add_up(summary)
    total = summary.total
    assert total.parameters == layout(name)["parameters_total"]
    assert total.trainable_parameters == layout(name)["parameters_trainable"]
    assert count_parameters(net) == (total.trainable_parameters, total.parameters)
    if "imagenet" in name:
        assert f"{total.trainable_parameters // 100000 / 10}M" == figure
        assert f"{total.trainable_parameters / 1e6:.2f}M" == TWO_DIGITS[name]
    elif figure:
        assert f"{total.parameters / 1e6:.1f}M" == figure
        assert f"{total.parameters / 1e6:.2f}M" == TWO_DIGITS[name]


def test_resnet50_is_everybodys():
    """torchvision: 25,557,032 parameters, 4.09 G multiply-adds; pycls: 11.1 M activations."""
    net = create_model("add_resnet50", deep_stem=False, avg_down=False)
    summary = summarize(net, (3, 224, 224))
    assert summary.total == Cost(25610152, 25557032, 4089184256, 11114984)
    assert list(summary.stages) == ["conv1", "bn1", *(f"layer{n}" for n in (1, 2, 3, 4)), "fc"]
    assert summary.stages["fc"] == Cost(2049000, 2049000, 2048000, 1000)


@pytest.mark.parametrize("backbone, head", [("cifar_resnet8", "output"), ("resnet50", "fc")])
def test_features_only_lacks_the_head_alone(backbone, head):
    stages = [
        summarize(create_model(f"aff_{backbone}", features_only=features_only), (3, 64, 64)).stages
        for features_only in (False, True)
    ]
    assert list(stages[0])[-1] == head
    # features.5 is the last norm of the pre-activation network.
    assert stages[1] == {k: v for k, v in stages[0].items() if k not in (head, "features.5")}


# --- The script -----------------------------------------------------------------------------------


@pytest.fixture
def script(root, monkeypatch, capsys):
    """The script in this process, where mxnet is imported already: (status, stdout, stderr)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["summary.py", *arguments])
        status = 0
        try:
            runpy.run_path(str(root / "scripts" / "summary.py"), run_name="__main__")
        except SystemExit as stopped:
            status = stopped.code
        return (status, *capsys.readouterr())

    return run


def test_script_json(script):
    arguments = ["aff_cifar_resnet8", "add_resnet50", "--option", "num_classes=10", "--json"]
    status, printed, _ = script(*arguments, "--verbose")
    assert status == 0
    cifar, imagenet = json.loads(printed)
    assert (cifar["input"], imagenet["input"]) == ([3, 32, 32], [3, 224, 224])
    expected = asdict(summarize(create_model("aff_cifar_resnet8", num_classes=10)))
    assert cifar == {
        "model": "aff_cifar_resnet8",
        "options": {"num_classes": 10},
        "input": [3, 32, 32],
        **expected["total"],
        "stages": expected["stages"],
    }


def test_script_table(script):
    options = ["--option", "deep_stem=false", "--option", "avg_down=false"]
    status, table, errors = script("add_resnet50", *options, "--verbose")
    assert (status, errors) == (0, "")
    lines = [line.split() for line in table.splitlines()]
    assert ["add_resnet50", "3x224x224", "25.56M", "25.61M", "4.089G", "11.11M"] in lines
    assert ["fc", "2.049M", "2.049M", "2.048M", "1k"] in lines
    assert "not counted" in table


def test_script_expands_patterns(script):
    status, table, _ = script("aff_cifar_resnext*", "add_cifar_resnet8", "--input", "3x16x20")
    rows = [line.split()[:2] for line in table.splitlines() if "3x16x20" in line]
    models = [f"aff_cifar_resnext{depth}_32x4d" for depth in (29, 38, 47)] + ["add_cifar_resnet8"]
    assert status == 0 and rows == [[model, "3x16x20"] for model in models]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["aff_resnt50"], "unknown model 'aff_resnt50'; did you mean"),
        (["zzz*"], "no model matches 'zzz*'"),
        (["aff_cifar_resnet8", "--input", "32x32"], "--input '32x32': write CxHxW"),
        (["aff_cifar_resnet8", "--input", "3x0x5"], "--input '3x0x5': write CxHxW"),
        (["aff_cifar_resnet8", "--input", "axbxc"], "--input 'axbxc': write CxHxW"),
        (["aff_cifar_resnet8", "--input", "4x32x32"], "cannot take an input of shape 4x32x32"),
        (["aff_cifar_resnet8", "--option", "width=1"], "no option 'width'"),
        (["aff_cifar_resnet8", "--option", "width"], "--option 'width': write key=value"),
        (["aff_cifar_resnet8", "--option", "reduction={"], "the value is not YAML"),
        (["add_cifar_resnet8", "--option", "reduction=4"], "reduction=4 has no effect"),
    ],
)
def test_script_errors(script, arguments, message):
    status, output, errors = script(*arguments)
    assert (status, output) == (2, "")
    assert errors.startswith("error: ") and message in errors and errors.count("\n") == 1
