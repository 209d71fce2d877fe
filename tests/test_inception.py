"""The same-layer scenario: the cell, the network on it, and the budget of the paper's Table 4."""

import mxnet as mx
import numpy as np
import pytest
from helpers import assert_close, filled, input_value, structural_params

from openaff import InceptionCell, UserError, create_model
from openaff.analysis import budget
from openaff.analysis.complexity import count_parameters, summarize
from openaff.attention import plain_graph
from openaff.fusion import FUSIONS, fusion_factory

SHAPE = (2, 6, 9, 8)
TINY = {"width_multiplier": 1, "num_classes": 7}
each = pytest.mark.parametrize("key", list(FUSIONS))


def cell(key, channels=8, **options):
    return filled(InceptionCell(channels, SHAPE[1], fusion=key, **options))


# --- The cell -------------------------------------------------------------------------------------


def test_the_cell_is_written_out():
    """MS-SENet tells X, of dilation 1, from Y, of dilation 2: X + s(L1(Y) + G1(Y)) * Y."""
    block, data = cell("xplusayforyadd", stride=2), input_value(SHAPE)
    values = {name: param.data() for name, param in structural_params(block).items()}

    def norm(x, name):
        scale = values[f"{name}.gamma"] / (values[f"{name}.running_var"] + 1e-5).sqrt()
        shift = values[f"{name}.beta"] - values[f"{name}.running_mean"] * scale
        scale, shift = (each.reshape((1, -1, 1, 1)) for each in (scale, shift))
        return mx.nd.broadcast_add(mx.nd.broadcast_mul(x, scale), shift)

    def branch(dilation):
        weight, bias = (values[f"branch{dilation}.0.{each}"] for each in ("weight", "bias"))
        assert weight.shape == (8, 6, 3, 3)
        options = {"kernel": (3, 3), "num_filter": 8, "stride": (2, 2)}
        options.update(pad=(dilation,) * 2, dilate=(dilation,) * 2)
        return norm(mx.nd.Convolution(data, weight, bias, **options), f"branch{dilation}.1")

    def context(x, name, index):
        weight, bias = (values[f"attention.{name}.{index}.{each}"] for each in ("weight", "bias"))
        x = mx.nd.Convolution(x, weight, bias, kernel=(1, 1), num_filter=8)
        return norm(x, f"attention.{name}.{index + 1}")

    x, y = branch(1), branch(2)
    pooled = y.mean(axis=(2, 3), keepdims=True)
    total = mx.nd.broadcast_add(context(y, "local_att", 0), context(pooled, "global_att", 1))
    assert_close(block(data), x + mx.nd.sigmoid(total) * y)
    assert block(data).shape == (2, 8, 5, 4)


@each
def test_every_fusion_fits_in_the_cell(key):
    """Imperative, hybridised and as a plain graph; and every parameter's gradient, together."""
    block, data = cell(key), input_value(SHAPE)
    expected = block(data)
    assert expected.shape == (2, 8, 9, 8)
    with plain_graph():
        symbol = block(mx.sym.var("data"))
    rebuilt = mx.gluon.SymbolBlock(symbol, [mx.sym.var("data")], params=block.collect_params())
    assert_close(rebuilt(data), expected)
    block.hybridize()
    assert_close(block(data), expected)
    block = cell(key)
    block.cast("float64")
    assert_gradients_equal_finite_differences(block, data.astype("float64"))


def assert_gradients_equal_finite_differences(block, data):
    """Along a random direction in each parameter alone."""
    cotangent = input_value((2, 8, 9, 8), 2).astype("float64")

    def loss():
        with mx.autograd.record():
            return (block(data) * cotangent).sum()

    loss().backward()
    params = structural_params(block)
    gradients = {n: p.grad().copy() for n, p in params.items() if p.grad_req != "null"}
    largest = max(abs(gradient).max().asscalar() for gradient in gradients.values())
    rng, step = np.random.RandomState(0), 1e-5
    for name, gradient in gradients.items():
        # A bias before a batch norm in training has no effect.
        if abs(gradient).max().asscalar() < 1e-6 * largest:
            assert name.endswith("bias"), name
        value = params[name].data()
        original = value.copy()
        direction = mx.nd.array(rng.standard_normal(value.shape), dtype="float64")
        ends = []
        for sign in (1, -1):
            value[:] = original + sign * step * direction
            ends.append(loss().asscalar())
        value[:] = original
        slope = (gradient * direction).sum().asscalar()
        # GlobalPool computes in float32 inside, hence no closer.
        actual = (ends[0] - ends[1]) / (2 * step)
        assert actual == pytest.approx(slope, rel=2e-2, abs=2e-3 * max(1, largest)), name


def test_the_baselines_differ_in_their_norms():
    assert set(structural_params(cell("add"))) == {
        f"branch{dilation}.0.{each}" for dilation in (1, 2) for each in ("weight", "bias")
    }
    data = input_value(SHAPE)
    add = cell("add")
    assert_close(add(data), add.branch1(data) + add.branch2(data))
    concat = cell("concat")
    weight = structural_params(concat)["attention.fuse.0.weight"].data()
    bias = structural_params(concat)["attention.fuse.0.bias"].data()
    both = mx.nd.concat(concat.branch2(data), concat.branch1(data), dim=1)
    expected = mx.nd.Convolution(both, weight, bias, kernel=(1, 1), num_filter=8)
    assert_close(concat(data), expected)
    assert "branch1.1.gamma" in structural_params(concat)


def test_forms_of_the_cell():
    data = input_value(SHAPE)

    def single(block):
        return "attention.local_att.3.weight" not in structural_params(block)

    assert single(cell("aff")) and not single(cell("aff", reduction=2))
    assert_close(cell("aff", doubled=True)(data), 2 * cell("aff")(data))
    assert_close(cell(FUSIONS["aff"])(data), cell("aff")(data))  # classes as names
    ones_own = cell(fusion_factory("aff"))  # callables as they are
    assert not single(ones_own)
    sk = structural_params(cell("sk"))
    assert sk["attention.global_att.1.weight"].shape == (2, 8, 1, 1)  # r = 4


@pytest.mark.parametrize(
    "options, message",
    [
        ({"fusion": "af"}, "unknown fusion 'af'"),
        ({"fusion": "add", "reduction": 2}, "reduction=2 has no effect: DirectAddFuse takes none"),
        ({"fusion": "add", "doubled": True}, "doubled=True has no effect: DirectAddFuse takes"),
        ({"fusion": "aff", "reduction": 3}, "8 channels cannot be reduced by 3"),
        ({"fusion": "aff", "doubled": 2}, "doubled must be true or false, not 2"),
    ],
)
def test_errors_of_the_cell(options, message):
    with pytest.raises(UserError, match=message):
        InceptionCell(8, 6, **options)


# --- The network ----------------------------------------------------------------------------------


def test_every_3x3_convolution_is_a_cell():
    net = create_model("aff_cifar_inception_resnet14", **TINY)
    shapes = {name: param.shape for name, param in structural_params(net).items()}
    dilated = {name: shape for name, shape in shapes.items() if shape[2:] == (3, 3)}
    assert all(".branch1." in name or ".branch2." in name for name in dilated)
    cells = []
    net.apply(lambda b: cells.append(b) if isinstance(b, InceptionCell) else None)
    assert len(cells) == 1 + 2 * 6 and len(dilated) == 2 * len(cells)
    # The first cell of a block has its stage's input width, in the stage's second block too.
    for stage, block, widths in (
        (2, 0, (16, 16, 16)),
        (2, 1, (16, 16, 16)),
        (3, 0, (16, 16, 32)),
        (3, 1, (32, 16, 32)),
        (4, 0, (32, 32, 64)),
        (4, 1, (64, 32, 64)),
    ):
        found = [shapes[f"features.{stage}.{block}.resfwd.{k}.branch2.0.weight"] for k in (2, 5)]
        first, between, last = widths
        assert found == [(between, first, 3, 3), (last, between, 3, 3)]
    assert shapes["features.3.0.downsample.0.weight"] == (32, 16, 1, 1)
    assert "features.3.0.downsample.0.bias" not in shapes
    assert "features.2.0.downsample.0.weight" not in shapes


def test_stages_before_the_first_fused_one_are_the_baselines():
    fused = create_model("aff_cifar_inception_resnet8", first_fused_stage=2, **TINY)
    plain = create_model("add_cifar_inception_resnet8", **TINY)

    def names(net, *begin):
        return {name for name in structural_params(net) if name.startswith(begin)}

    assert names(fused, "features.1.", "features.2.") == names(plain, "features.1.", "features.2.")
    assert "features.3.0.resfwd.2.attention.local_att.0.weight" in names(fused, "features.3.")


def test_the_factor_changes_what_the_network_computes():
    images = input_value((2, 3, 17, 14))

    def logits(**options):
        return filled(create_model("aff_cifar_inception_resnet8", **TINY, **options))(images)

    assert_close(logits(doubled=False), logits())
    assert np.abs((logits(doubled=True) - logits()).asnumpy()).max() > 0.01


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("aff_cifar_inception_resnet9", {}, "no CIFAR Inception-ResNet has depth 9: it must be 6b"),
        ("sk_cifar_inception_resnet8", {"reduction": 2}, "reduction=2 has no effect: SKFuse"),
        ("se_cifar_inception_resnet8", {"doubled": True}, "doubled=True has no effect: SEFuse"),
        ("aff_cifar_inception_resnet8", {"first_fused_stage": 4, "doubled": True}, "no stage is"),
        ("aff_cifar_inception_resnet8", {"doubled": "yes"}, "doubled must be true or false"),
        ("aff_cifar_inception_resnet8", {"use_se": True}, "no option 'use_se'"),
    ],
)
def test_errors_of_the_network(name, options, message):
    with pytest.raises(UserError, match=message):
        create_model(name, **options)


# --- Parameters, by formulas of their own ---------------------------------------------------------


def norm(channels):
    return 2 * channels


def context(channels, r):
    if r is None:
        return channels * channels + channels + norm(channels)
    hidden = channels // r
    return 2 * channels * hidden + hidden + norm(hidden) + channels + norm(channels)


def fuse(key, channels, r):
    contexts = {"add": 0, "concat": 0, "iaff": 4}.get(key, 2)
    concat = 2 * channels * channels + channels if key == "concat" else 0
    return contexts * context(channels, r) + concat


def cell_parameters(key, inputs, outputs, r):
    branches = 2 * (9 * inputs * outputs + outputs)
    return branches + (0 if key == "add" else 2 * norm(outputs)) + fuse(key, outputs, r)


def inception_parameters(key, m, b, r, classes=100):
    total, before = cell_parameters(key, 3, 16 * m, r), 16 * m
    for width in (16 * m, 32 * m, 64 * m):
        for inputs in [before] + [width] * (b - 1):
            total += norm(inputs) + cell_parameters(key, inputs, before, r)
            total += norm(before) + cell_parameters(key, before, width, r)
        total += before * width * (before != width)
        before = width
    return total + norm(before) + before * classes + classes


def resnet_parameters(key, m, b, r, classes=100):
    total, before = 27 * 16 * m, 16 * m
    for width in (16 * m, 32 * m, 64 * m):
        total += before * width * (before != width)
        for inputs in [before] + [width] * (b - 1):
            total += norm(inputs) + 9 * inputs * width + norm(width) + 9 * width * width
            total += fuse(key, width, r) + (norm(2 * width) if key == "concat" else 0)
        before = width
    return total + norm(before) + before * classes + classes


@pytest.fixture(scope="module")
def budgets():
    return {title: budget.parameters(*setting) for title, setting in budget.SETTINGS.items()}


def test_the_budgets_counts_are_those_of_the_formulas(budgets):
    for title, (backbone, width, reductions) in budget.SETTINGS.items():
        formula = inception_parameters if backbone == budget.INCEPTION else resnet_parameters
        expected = {
            key: [formula(key, width, b, reductions.get(key)) for b in (1, 2, 3, 4)]
            for key in budget.TABLE_4
        }
        assert budgets[title] == expected, title


def test_the_summary_counts_the_same():
    net = create_model("iaff_cifar_inception_resnet20", width_multiplier=1, reduction=4)
    expected = inception_parameters("iaff", 1, 3, 4)
    assert count_parameters(net)[0] == summarize(net).total.trainable_parameters == expected


def test_spread():
    counts = {"aff": [110, 200], "iaff": [100, 300], "add": [1, 1]}
    assert budget.spread(counts, ["aff", "iaff"]) == pytest.approx([10, 50])


def test_the_page_shows_the_budget_and_says_what_it_means(root, budgets):
    page = (root / "docs/networks.md").read_text()
    assert budget.tables(budgets) in page
    code1, text1, code4, text4, resnet = budgets.values()
    fused = [key for key in budget.TABLE_4 if key != "add"]
    narrow, wide, short = (max(budget.spread(each, fused)) for each in (text1, text4, resnet))
    assert f"within {wide:.1f}% (m = 4) or {narrow:.1f}% (m = 1)" in page
    assert f"and within {short:.1f}% in the ResNet" in page

    def percent(ratios):
        return f"{100 * min(ratios):.0f} to {100 * max(ratios):.0f}%"

    smaller = [
        1 - add / iaff
        for counts in (text1, text4, resnet)
        for add, iaff in zip(counts["add"], counts["iaff"])
    ]
    assert f"are {percent(smaller)} smaller than iAFF's" in page
    larger = [
        iaff / aff - 1
        for counts in (code1, code4)
        for iaff, aff in zip(counts["iaff"], counts["aff"])
    ]
    assert f"{percent(larger)} larger than AFF" in page
    for counts in (code1, code4, text1, text4):
        for key in ("ayforxplusyadd", "xplusayforyadd", "axyforxplusyadd"):
            assert counts[key] == counts["aff"]
