import inspect
import re

import mxnet as mx
import numpy as np
import pytest
from helpers import DATA, assert_close, filled, golden, input_value, structural_params
from mxnet.gluon import nn

import openaff
from openaff import AFF, IAFF, ConcatFuse, DirectAddFuse, UserError
from openaff.analysis.reference import printed
from openaff.attention import plain_graph
from openaff.fusion import FUSIONS, Fusion, fusion_by_stage, fusion_factory

KEYS = list(FUSIONS)  # before other tests register theirs
ALL = [FUSIONS[key] for key in KEYS]
KEY_OF = dict(zip(ALL, KEYS))
PUBLISHED = [getattr(openaff, path.stem) for path in sorted((DATA / "golden/fusion").glob("*"))]
ARTICLE = ["ResGlobLocaChaFuse", "AXYforXplusYAddFuse", "AXYforXYAddFuse"]
SHAPE = (2, 8, 5, 4)
pair = pytest.mark.parametrize("hybrid", [False, True], ids=["imperative", "hybridised"])
each = pytest.mark.parametrize("fusion", ALL, ids=lambda fusion: fusion.__name__)
published = pytest.mark.parametrize("fusion", PUBLISHED, ids=lambda fusion: fusion.__name__)


def options(fusion):
    return inspect.signature(fusion).parameters


def build(fusion, channels=8):
    return filled(fusion() if fusion is DirectAddFuse else fusion(channels))


def test_all_are_public_by_class_name():
    assert len(PUBLISHED) == 18 and set(PUBLISHED) <= set(ALL)
    for fusion in ALL:
        assert FUSIONS[fusion.__name__] is fusion
        assert getattr(openaff, fusion.__name__) is fusion
    names = {fusion.__name__ for fusion in ALL}
    assert names <= set(dir(openaff)) and names <= set(openaff.__all__)
    assert AFF is openaff.ASKCFuse and IAFF is openaff.ResGlobLocaforGlobLocaChaFuse


def test_the_page_lists_all_that_are_registered(root):
    page = (root / "docs/networks.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)`( \(?\*r\*\)?)? \|", page, re.M)
    marks = {"absent": "", None: " (*r*)", 4: " *r*"}
    expected = set()
    for key, fusion in zip(KEYS, ALL):
        reduction = options(fusion).get("reduction")
        mark = marks[reduction.default if reduction else "absent"]
        expected.add((key, fusion.__name__, mark))
    assert set(rows) == expected


@published
def test_names_and_shapes_are_the_published_ones(fusion):
    shapes = {name: list(p.shape) for name, p in structural_params(build(fusion)).items()}
    assert shapes == golden("fusion/" + fusion.__name__)["params"]


@published
@pair
def test_golden_inference(fusion, hybrid):
    expected = golden("fusion/" + fusion.__name__)
    block = build(fusion)
    if hybrid:
        block.hybridize()
    output = block(input_value(expected["shape"], 0), input_value(expected["shape"], 1))
    assert_close(output, expected["inference_output"])


@pytest.mark.parametrize("name", ARTICLE)
@pair
def test_golden_training_output_and_gradients(name, hybrid):
    expected = golden("fusion/" + name)
    block = build(getattr(openaff, name))
    if hybrid:
        block.hybridize()
    x, residual = input_value(expected["shape"], 0), input_value(expected["shape"], 1)
    x.attach_grad()
    residual.attach_grad()
    with mx.autograd.record():
        output = block(x, residual)
    output.backward(input_value(expected["shape"], 2))
    assert_close(output, expected["train_output"])
    assert_close(x.grad, expected["grad_x"], 1e-4)
    assert_close(residual.grad, expected["grad_residual"], 1e-4)
    params = structural_params(block)
    assert expected["grad_params"]
    # A bias before a batch norm in training has gradient 0 up to rounding: compare all parameters
    # on the scale of the largest gradient.
    scale = max(np.abs(values).max() for values in expected["grad_params"].values())
    for key, values in expected["grad_params"].items():
        actual = params[key].grad().asnumpy()
        assert np.abs(actual - np.reshape(values, actual.shape)).max() <= 1e-4 * scale, key


@each
@pair
def test_gradients_equal_finite_differences(fusion, hybrid):
    """The directional derivative along a random direction in all inputs and parameters."""
    block = build(fusion)
    block.cast("float64")
    if hybrid:
        block.hybridize()
    params = [p for p in structural_params(block).values() if p.grad_req != "null"]
    inputs = [input_value(SHAPE, seed).astype("float64") for seed in (0, 1)]
    values = inputs + [p.data() for p in params]
    cotangent = input_value(SHAPE, 2).astype("float64")
    for x in inputs:
        x.attach_grad()

    def loss():
        with mx.autograd.record():  # training mode: batch statistics
            return (block(*inputs) * cotangent).sum()

    loss().backward()
    gradients = [x.grad.copy() for x in inputs] + [p.grad().copy() for p in params]
    rng = np.random.RandomState(0)
    directions = [mx.nd.array(rng.standard_normal(v.shape), dtype="float64") for v in values]
    slope = sum((g * d).sum().asscalar() for g, d in zip(gradients, directions))
    originals, step = [v.copy() for v in values], 1e-6
    ends = []
    for sign in (1, -1):
        for value, original, direction in zip(values, originals, directions):
            value[:] = original + sign * step * direction
        ends.append(loss().asscalar())
    # GlobalPool computes in float32 inside, hence no closer.
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(slope, rel=2e-2, abs=1e-3)


def printed_twin(fusion, **given):
    twin = printed(KEY_OF[fusion])
    return filled(twin() if fusion is DirectAddFuse else twin(8, **given))


@each
def test_values_and_gradients_equal_the_printed_equations(fusion):
    assert_same_function(build(fusion), printed_twin(fusion))


@pytest.mark.parametrize("reduction", [None, 1, 2])
@pytest.mark.parametrize("fusion", [each for each in ALL if "reduction" in options(each)])
def test_every_reduction_has_the_printed_equation(fusion, reduction):
    block = filled(fusion(8, reduction=reduction))
    assert_same_function(block, printed_twin(fusion, reduction=reduction))
    hidden = 8 if reduction is None else 8 // reduction
    for name, param in structural_params(block).items():
        if "_att" in name and name.endswith(("0.weight", "1.weight")):  # 0 may be the pooling
            assert param.shape == (hidden, 8, 1, 1), name
    ends = [name for name in structural_params(block) if "_att" in name and ".weight" in name]
    bottlenecks = 2 if reduction and fusion is not openaff.HalfAFF else 1
    assert len(ends) == bottlenecks * len({name.partition(".")[0] for name in ends})


@pytest.mark.parametrize("fusion", [each for each in ALL if "doubled" in options(each)])
def test_every_factor_has_the_printed_equation(fusion):
    x, residual = input_value(SHAPE, 0), input_value(SHAPE, 1)
    outputs = [filled(fusion(8, doubled=doubled))(x, residual) for doubled in (False, True)]
    if "for" not in KEY_OF[fusion]:  # two rounds with the factor are not linear in it
        assert_close(outputs[1], 2 * outputs[0])
    for doubled in (False, True):
        block = filled(fusion(8, doubled=doubled))
        assert_same_function(block, printed_twin(fusion, doubled=doubled))


def test_concatenation_without_its_norm():
    block = filled(ConcatFuse(8, normalized=False))
    assert list(structural_params(block)) == ["fuse.0.weight", "fuse.0.bias"]
    assert_same_function(block, printed_twin(ConcatFuse, normalized=False))


@pytest.mark.parametrize("channels", [8, 12, 32])
def test_a_convolution_of_a_concatenation_has_a_backward_pass(channels):
    """Behind F.concat, MXNet 1.9.1 on a CPU ends the process or raises an error at 8 and 12."""
    for block in (ConcatFuse(channels, normalized=False), openaff.HalfAFF(2 * channels, 2)):
        block.initialize()
        block.hybridize(static_alloc=True)
        x = input_value((16, block._channels, 8, 8))
        x.attach_grad()
        with mx.autograd.record():
            output = block(x, x)
        output.backward()
        assert np.isfinite(x.grad.asnumpy()).all()


def assert_same_function(*blocks):
    """Ours and its printed twin: values, and gradients of inputs and parameters."""
    results = []
    for block in blocks:
        block.hybridize()
        x, residual = input_value(SHAPE, 0), input_value(SHAPE, 1)
        x.attach_grad()
        residual.attach_grad()
        with mx.autograd.record():
            output = block(x, residual)
        output.backward(input_value(SHAPE, 2))
        params = structural_params(block)
        gradients = {n: p.grad().asnumpy() for n, p in params.items() if p.grad_req != "null"}
        results.append((output, x.grad, residual.grad, gradients))
    ours, expected = results
    for one, other in zip(ours[:3], expected[:3]):
        assert_close(one, other)
    scale = max([1e-3] + [np.abs(values).max() for values in expected[3].values()])
    for name, values in expected[3].items():
        assert np.abs(ours[3][name] - values).max() <= 1e-4 * scale, name


@each
def test_inference_equals_the_printed_equation_on_odd_sizes(fusion):
    block, twin = build(fusion), printed_twin(fusion)
    for shape in ((1, 8, 1, 1), (3, 8, 7, 2), (2, 8, 16, 16)):
        inputs = input_value(shape, 3), input_value(shape, 4)
        assert_close(block(*inputs), twin(*inputs))


@each
def test_float16_is_float16_throughout(fusion):
    """MXNet has no float16 convolution on a CPU: what can be tested here is the graph's types."""
    block = build(fusion)
    block.cast("float16")
    symbol = block(*[mx.sym.var(name, dtype="float16") for name in ("x", "residual")])
    assert symbol.infer_type(x="float16", residual="float16")[1] == [np.float16]
    assert "gemm" not in symbol.tojson(), "linear algebra has no float16"


@each
def test_plain_graph_is_the_same_function_without_gemm(fusion):
    block = build(fusion)
    inputs = input_value(SHAPE, 0), input_value(SHAPE, 1)
    names = [mx.sym.var("x"), mx.sym.var("residual")]
    with plain_graph():
        symbol = block(*names)
    assert "gemm" not in symbol.tojson()
    rebuilt = mx.gluon.SymbolBlock(symbol, names, params=block.collect_params())
    assert_close(rebuilt(*inputs), block(*inputs))


@each
def test_every_parameter_gets_a_gradient(fusion):
    block = build(fusion)
    x = input_value(SHAPE, 0)
    x.attach_grad()
    with mx.autograd.record():
        loss = (block(x, input_value(SHAPE, 1)) ** 2).sum()
    loss.backward()
    for name, param in structural_params(block).items():
        # A bias before a batch norm has no effect in training: rounding noise, or exactly zero.
        before_norm = name.endswith("bias") and fusion is not ConcatFuse
        if param.grad_req != "null" and not before_norm:
            assert np.abs(param.grad().asnumpy()).max() > 1e-6, name


@pytest.mark.parametrize("fusion", [openaff.ASKCFuse, openaff.ResGlobLocaChaFuse])
def test_untrained_fusion_is_the_plain_sum(fusion):
    """The factor 2: with the last batch norms at zero the weight is 1/2."""
    block = build(fusion)
    for name, param in structural_params(block).items():
        if name.endswith(("gamma", "beta")):
            param.set_data(mx.nd.zeros(param.shape))
    x, residual = input_value(SHAPE, 0), input_value(SHAPE, 1)
    assert_close(block(x, residual), x + residual)


@each
def test_one_input_is_an_error(fusion):
    with pytest.raises(UserError, match="fuses two feature maps"):
        build(fusion)(input_value(SHAPE))


@each
@pair
def test_different_shapes_are_an_error(fusion, hybrid):
    block = build(fusion)
    if hybrid:
        block.hybridize()
    with pytest.raises(UserError, match=r"one shape, not \(2, 8, 5, 4\) and \(2, 8, 1, 1\)"):
        block(input_value(SHAPE), input_value((2, 8, 1, 1)))


def test_other_channels_are_an_error():
    x = input_value((2, 4, 5, 4))
    with pytest.raises(UserError, match=r"built for maps of shape \(N, 8, H, W\)"):
        build(AFF)(x, x)


@pytest.mark.parametrize("channels, reduction", [(10, 4), (2, 4)])
@pytest.mark.parametrize("fusion", [AFF, IAFF, openaff.SEFuse, openaff.HalfAFF, openaff.ConcatAFF])
def test_impossible_reductions(fusion, channels, reduction):
    with pytest.raises(UserError, match="cannot be reduced by 4"):
        fusion(channels, reduction)


def test_unknown_keyword_is_an_error():
    with pytest.raises(TypeError):
        AFF(8, reducton=4)


def test_factory_takes_keys_class_names_classes_and_callables():
    for fusion in ("aff", "ASKCFuse", "AFF", AFF):
        assert type(fusion_factory(fusion)(16)) is AFF

    class Mean(nn.HybridBlock):
        def hybrid_forward(self, F, x, residual):
            return (x + residual) / 2

    assert type(fusion_factory(lambda channels: Mean())(16)) is Mean


def test_factory_takes_a_class_of_a_module_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "my_fusions.py").write_text(
        "from openaff.fusion import Fusion\n"
        "class Max(Fusion):\n"
        "    def hybrid_forward(self, F, x, residual):\n"
        "        return F.maximum(x, residual)\n"
    )
    monkeypatch.chdir(tmp_path)
    net = openaff.create_model("cifar_resnet8", fusion="my_fusions:Max", width_multiplier=1)
    assert type(net.features[2][0].attention).__name__ == "Max"
    with pytest.raises(UserError, match="reduction=4 has no effect: Max takes none"):
        fusion_factory("my_fusions:Max", reduction=4)


def test_factory_uses_the_reduction_asked_for_else_the_default():
    def hidden(**options):
        block = fusion_factory("aff", **options)(32)
        return structural_params(block)["local_att.0.weight"].shape[0]

    assert hidden() == 8
    assert hidden(defaults={"reduction": 16}) == 2
    assert hidden(defaults={"reduction": 16}, reduction=2) == 16


@pytest.mark.parametrize(
    "fusion, options, message",
    [
        ("af", {}, "unknown fusion 'af'; did you mean 'aff'"),
        ("add", {"reduction": 4}, "reduction=4 has no effect: DirectAddFuse takes none"),
        ("sk", {"reduction": 4}, "reduction=4 has no effect: SKFuse takes none"),
        ("se", {"doubled": False}, "doubled=False has no effect: SEFuse takes none"),
        (3, {}, "must be a name, module:Class, or a callable .* not 3"),
        (int, {}, "must be a name, module:Class, or a callable .* not <class 'int'>"),
        ("no_such:Mean", {}, "fusion: there is no module 'no_such'"),
        ("os.path:Mean", {}, "fusion: the module os.path has no 'Mean'"),
        ("os.path:sep", {}, "must be a name, module:Class, or a callable .* not 'os.path:sep'"),
    ],
)
def test_factory_errors(fusion, options, message):
    with pytest.raises(UserError, match=message):
        fusion_factory(fusion, **options)


def test_a_backbones_defaults_are_for_the_fusions_that_have_the_option():
    defaults = {"reduction": 16, "doubled": False, "normalized": False}

    def names(fusion):
        return list(structural_params(fusion_factory(fusion, defaults=defaults)(32)))

    assert names("add") == []
    assert names("concat") == ["fuse.0.weight", "fuse.0.bias"]
    assert "local_att.3.weight" in names("aff")
    assert "local_att.3.weight" not in names("ayforxplusyadd")  # its own default is None
    single = fusion_factory("aff", defaults={"reduction": None})(32)
    assert "local_att.3.weight" not in structural_params(single)
    x = input_value((2, 32, 5, 4))
    block = filled(fusion_factory("aff", defaults={"doubled": False})(32))
    assert_close(block(x, x), x)
    block = filled(fusion_factory("aff", doubled=True, defaults={"doubled": False})(32))
    assert_close(block(x, x), 2 * x)


def test_the_factor_is_on_or_off():
    for key in FUSIONS:
        if "doubled" in options(FUSIONS[key]):
            with pytest.raises(UserError, match="doubled must be true or false, not 'no'"):
                fusion_factory(key, doubled="no")(8)


def test_factory_refuses_a_callable_that_returns_something_else():
    with pytest.raises(UserError, match="must return a mxnet.gluon.HybridBlock"):
        fusion_factory(lambda channels: None)(16)


def test_fusion_by_stage():
    chosen = fusion_by_stage(AFF, 3, stages=4)
    assert [chosen(stage) for stage in (1, 2, 3, 4)] == [DirectAddFuse] * 2 + [AFF] * 2
    for wrong in (0, 6, True):
        with pytest.raises(UserError, match="first_fused_stage"):
            fusion_by_stage(AFF, wrong, stages=4)


def test_concat_and_own_fusion_classes_take_a_norm_layer():
    block = fusion_factory("concat", norm_kwargs={"epsilon": 0.5}, norm_layer=nn.BatchNorm)(8)
    assert isinstance(block, ConcatFuse) and isinstance(block, Fusion)
    assert block.fuse[0]._kwargs["eps"] == 0.5
