import mxnet as mx
import numpy as np
import pytest
from helpers import (
    assert_close,
    assert_every_parameter_gets_a_gradient,
    filled,
    initialized,
    input_value,
    structural_params,
)
from mxnet.gluon import nn

import openaff
from openaff import PyramidFusion, UserError, create_model, list_models
from openaff.analysis.complexity import count_parameters, summarize
from openaff.analysis.fusion_weights import fusion_weights
from openaff.blocks import resize_like
from openaff.deploy import onnx_model, symbol
from openaff.models import model_info, pretrained, resnet
from openaff.models.fpn import FPNResNet, FPNResNeXt, FPNSmallResNet

TINY = {"width_multiplier": 1, "num_classes": 3}
SHAPE = (2, 3, 32, 48)
# Of each family of pyramids: options of its smallest member, depth 50 having one block a stage.
FAMILIES = {
    "fpn_resnet8": {"width_multiplier": 1},
    "fpn_resnet18": {},
    "fpn_resnet50": {},
    "fpn_resnext50_32x4d": {},
}
family = pytest.mark.parametrize("backbone", FAMILIES)


@pytest.fixture
def shallow(monkeypatch):
    monkeypatch.setitem(resnet.BLOCKS, 18, (1, 1, 1, 1))
    monkeypatch.setitem(resnet.BLOCKS, 50, (1, 1, 1, 1))


# --- The unit -------------------------------------------------------------------------------------


def interpolation(size, low):
    """The matrix of linear interpolation, pixels being small squares: (low, size)."""
    matrix = np.zeros((low, size))
    for index in range(low):
        place = np.clip((index + 0.5) * size / low - 0.5, 0, size - 1)
        first = int(place)
        matrix[index, first] += 1 - (place - first)
        matrix[index, min(first + 1, size - 1)] += place - first
    return matrix


@pytest.mark.parametrize("size", [(14, 10), (13, 9), (20, 31), (7, 5), (7, 11)])
def test_resizing_is_bilinear_and_its_gradient_is_the_transposed_map(size):
    x, gradient = input_value((2, 3, 7, 5)), input_value((2, 3) + size, 1)
    x.attach_grad()
    with mx.autograd.record():
        y = resize_like(mx.nd, x, mx.nd.zeros((2, 4) + size))
    y.backward(gradient)
    rows, columns = interpolation(7, size[0]), interpolation(5, size[1])
    expected = np.einsum("Hh,nchw,Ww->ncHW", rows, x.asnumpy(), columns)
    assert_close(y, expected)
    expected = np.einsum("Hh,ncHW,Ww->nchw", rows, gradient.asnumpy(), columns)
    assert_close(x.grad, expected)


class AsSpecified(PyramidFusion):
    """The high-level map resized first, then convolved."""

    def hybrid_forward(self, F, low, high):
        high = self.high(resize_like(F, high, low))
        return self.post(self.attention(F.relu(self.high_norm(high)), low))


@pytest.mark.parametrize("size", [(9, 13), (8, 12), (11, 5)])
def test_a_unit_equals_its_specification_whatever_the_ratio(size):
    """Which convolves after it resizes; both outputs and gradients."""
    low, high = input_value((2, 8) + size), input_value((2, 12, 5, 6), 1)
    results = []
    for unit in (filled(PyramidFusion("add", 8, 12)), filled(AsSpecified("add", 8, 12))):
        low.attach_grad()
        high.attach_grad()
        with mx.autograd.record():
            trained = unit(low, high)
            loss = (trained * trained).sum()
        loss.backward()
        assert trained.shape == low.shape
        results.append([trained, unit(low, high), low.grad, high.grad, unit.high.weight.grad()])
    for actual, expected in zip(*results):
        assert_close(actual, expected, 1e-4)


def test_a_unit_takes_y_for_the_branch_and_the_low_level_map_for_the_skip_connection():
    seen = []

    class Second(nn.HybridBlock):
        def hybrid_forward(self, F, x, residual):
            seen.append((x.asnumpy(), residual.asnumpy()))
            return residual

    unit = filled(PyramidFusion(lambda channels: Second(), 8, 12))
    low, high = input_value((1, 8, 6, 7)), input_value((1, 12, 3, 4))
    output = unit(low, high)
    ((y, x),) = seen
    np.testing.assert_array_equal(x, low.asnumpy())
    assert y.shape == x.shape and y.min() == 0 < y.max()  # behind a ReLU
    assert_close(output, unit.post(low))


@pytest.mark.parametrize("fusion", ["add", "AFF", openaff.IAFF, "concat"])
def test_a_unit_hybridised_takes_any_sizes(fusion):
    unit = filled(PyramidFusion(fusion, 8, 12))
    pairs = [
        (input_value((2, 8) + low), input_value((2, 12) + high))
        for low, high in (((9, 13), (5, 7)), ((6, 6), (3, 3)), ((7, 20), (2, 9)))
    ]
    expected = [unit(*pair) for pair in pairs]
    unit.hybridize(static_alloc=True)
    for pair, output in zip(pairs, expected):
        assert_close(unit(*pair), output)


def test_options_of_a_unit():
    class Own(nn.BatchNorm):
        pass

    unit = PyramidFusion("aff", 8, 12, 2, norm_layer=Own, norm_kwargs={"epsilon": 0.5})
    norms = []
    unit.apply(lambda block: norms.append(block) if isinstance(block, nn.BatchNorm) else None)
    assert len(norms) == 6 and all(type(norm) is Own for norm in norms)
    assert all(norm._kwargs["eps"] == 0.5 for norm in norms)
    shapes = {name: param.shape for name, param in structural_params(unit).items()}
    assert shapes["attention.local_att.0.weight"] == (4, 8, 1, 1)
    assert shapes["high.weight"] == (8, 12, 1, 1) and shapes["high.bias"] == (8,)
    assert shapes["post.0.weight"] == (8, 8, 3, 3) and shapes["post.0.bias"] == (8,)


def test_errors_of_a_unit():
    unit = filled(PyramidFusion("add", 8, 12))
    low, high = mx.nd.ones((2, 8, 6, 6)), mx.nd.ones((2, 12, 3, 3))
    with pytest.raises(UserError, match=r"two feature maps: call it as fuse\(low, high\)"):
        unit(low)
    for wrong in ((high, low), (low, high[:1]), (low[0], high), (low, high.reshape((2, -1)))):
        with pytest.raises(UserError, match=r"maps of shapes \(N, 8, H, W\) and \(N, 12, h, w\), "):
            unit(*wrong)
    with pytest.raises(UserError, match="unknown fusion 'af'"):
        PyramidFusion("af", 8, 12)
    with pytest.raises(UserError, match="8 channels cannot be reduced by 3"):
        PyramidFusion("aff", 8, 12, 3)
    with pytest.raises(UserError, match="high_channels must be a positive integer"):
        PyramidFusion("aff", 8, 0)


# --- The networks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "multiplier, counts",
    [(1, (93893, 191109, 288325, 385541)), (4, (1487633, 3037713, 4587793, 6137873))],
)
def test_parameters_are_those_that_the_authors_counted(multiplier, counts):
    for blocks, count in enumerate(counts, start=1):
        options = {"num_classes": 1, "width_multiplier": multiplier}
        net = create_model(f"add_fpn_resnet{6 * blocks + 2}", **options)
        assert count_parameters(net)[0] == count


@pytest.mark.parametrize("key", ["add", "aff", "iaff", "concat"])
def test_any_size_and_gradients(key):
    net = initialized(f"{key}_fpn_resnet8", dropout=0.0, **TINY)
    x = input_value(SHAPE)
    assert_every_parameter_gets_a_gradient(net, x, ("attention", ".high.", ".post."))
    gradients = {name: param.grad().copy() for name, param in structural_params(net).items()
                 if name.endswith("weight")}  # fmt: skip
    inputs = [x, input_value((1, 3, 37, 61)), input_value((3, 3, 17, 16))]
    expected = [net(each) for each in inputs]
    for each, output in zip(inputs, expected):
        assert output.shape == (each.shape[0], 3) + each.shape[2:]
    net.hybridize(static_alloc=True)
    for each, output in zip(inputs, expected):
        assert_close(net(each), output)
    assert_every_parameter_gets_a_gradient(net, x, ("attention", ".high.", ".post."))
    for name, gradient in gradients.items():
        assert_close(structural_params(net)[name].grad(), gradient, 1e-3)


@pytest.mark.parametrize("backbone", list(FAMILIES)[1:])
def test_pyramids_on_hosts_of_imagenet(shallow, backbone):
    net = initialized(f"aff_{backbone}", num_classes=3, last_gamma=False)
    x = input_value((2, 3, 65, 96))
    assert_every_parameter_gets_a_gradient(net, x, ("attention", ".high.", ".post."))
    imperative = net(x)
    assert imperative.shape == (2, 3, 65, 96)
    net.hybridize()
    assert_close(net(x), imperative)
    smaller = input_value((1, 3, 33, 40))
    assert net(smaller).shape == (1, 3, 33, 40)


@family
@pytest.mark.parametrize("hybrid", [False, True], ids=["imperative", "hybridised"])
def test_features_only_gives_the_levels_that_feature_info_describes(shallow, backbone, hybrid):
    net = initialized(f"gau_{backbone}", features_only=True, **FAMILIES[backbone])
    if hybrid:
        net.hybridize()
    outputs = net(input_value((1, 3, 67, 90)))
    assert [output.shape for output in outputs] == [
        (1, channels, -(-67 // stride), -(-90 // stride))
        for _, channels, stride in net.feature_info
    ]
    names = list(structural_params(net))
    assert not any(name.startswith(("head", "output")) for name in names)
    for name, *_ in net.feature_info:
        assert any(each.startswith(name + ".") for each in names)


@pytest.mark.parametrize("backbone", [*FAMILIES, "fpn_resnet20", "fpn_resnext50_64x4d"])
def test_what_is_known_of_a_model_is_what_is_built(shallow, backbone):
    fusion, name, record = model_info(f"aff_{backbone}")
    assert (fusion, name, record.task) == ("aff", backbone, "segmentation")
    assert record.input_shape == (3, 480, 480) and record.num_classes == 1
    net = create_model(f"aff_{backbone}")
    assert tuple(feature.channels for feature in net.feature_info) == record.widths
    assert tuple(feature.stride for feature in net.feature_info) == record.strides
    assert f"aff_{backbone}" in list_models("aff_fpn_*")


def test_a_depth_of_imagenet_is_a_host_of_imagenet():
    """Though 50 and 152 are 6b + 2 too."""
    for depth in (18, 34, 50, 101, 152):
        assert model_info(f"aff_fpn_resnet{depth}").backbone.network is FPNResNet
        assert f"aff_fpn_resnet{depth}" in list_models()
    for depth in (8, 14, 20, 26, 44, 56):
        assert model_info(f"aff_fpn_resnet{depth}").backbone.network is FPNSmallResNet
    assert model_info("aff_fpn_resnext101_64x4d").backbone.network is FPNResNeXt


def test_default_reductions():
    for backbone, hidden in (("fpn_resnet8", 64 // 4), ("fpn_resnet18", 64 // 16)):
        shapes = structural_params(create_model(f"aff_{backbone}"))
        assert shapes["top_down.0.attention.local_att.0.weight"].shape == (hidden, 64, 1, 1)


def test_a_fusion_inside_the_host():
    plain = structural_params(create_model("iaff_fpn_resnet8", **TINY))
    both = create_model("iaff_fpn_resnet8", host_fusion="aff", first_fused_stage=2, **TINY)
    more = {name.rsplit(".local_att")[0] for name in set(structural_params(both)) - set(plain)
            if "local_att" in name}  # fmt: skip
    assert more == {f"bottom_up.features.{stage}.0.attention" for stage in (12, 13)}
    assert "top_down.1.attention.local_att2.0.weight" in plain


def test_the_small_stem_keeps_the_images_size():
    net = initialized("add_fpn_resnet8", deep_stem=False, features_only=True, width_multiplier=1)
    assert [output.shape for output in net(input_value((1, 3, 13, 10)))] == [
        (1, 16, 13, 10), (1, 32, 7, 5), (1, 64, 4, 3)
    ]  # fmt: skip
    assert [feature.stride for feature in net.feature_info] == [1, 2, 4]
    assert structural_params(net)["bottom_up.features.1.weight"].shape == (16, 3, 3, 3)


def test_the_norm_on_the_input_gets_its_statistics():
    net = initialized("add_fpn_resnet8", **TINY)
    with mx.autograd.record():
        loss = net(input_value(SHAPE) + 5).sum()
    loss.backward()
    assert net.bottom_up.features[0].running_mean.data().asnumpy().min() > 0.4


@pytest.mark.parametrize("host", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_a_classifiers_file_loads_into_the_bottom_up_part(shallow, tmp_path, host):
    classifier = initialized(f"aff_{host}", num_classes=7)
    classifier.save_parameters(str(tmp_path / "classifier.params"))
    net = create_model(f"iaff_fpn_{host}", host_fusion="aff", num_classes=3)
    net.initialize()
    pretrained.load_parameters(net.bottom_up, tmp_path / "classifier.params")
    features = create_model(f"aff_{host}", features_only=True)
    pretrained.load_parameters(features, tmp_path / "classifier.params")
    x = input_value((1, 3, 33, 40))
    for actual, expected in zip(net.bottom_up(x), features(x)):
        np.testing.assert_array_equal(actual.asnumpy(), expected.asnumpy())
    assert net(x).shape == (1, 3, 33, 40)
    with pytest.raises(UserError, match="does not hold the parameters of .*: .* unexpected"):
        pretrained.load_parameters(create_model(f"fpn_{host}").bottom_up,
                                   tmp_path / "classifier.params")  # fmt: skip


def test_saving_and_loading_a_network(tmp_path):
    net = initialized("aff_fpn_resnet8", **TINY)
    x = input_value(SHAPE)
    expected = net(x)
    net.save_parameters(str(tmp_path / "net.params"))
    loaded = pretrained.load_model("aff_fpn_resnet8", tmp_path / "net.params", width_multiplier=1)
    assert loaded.options.num_classes == 3  # as the file has
    assert_close(loaded(x), expected)
    levels = create_model("aff_fpn_resnet8", features_only=True, width_multiplier=1)
    pretrained.load_parameters(levels, tmp_path / "net.params")
    assert_close(levels(x)[2], net.bottom_up(x)[2])


def test_norm_options_reach_every_norm():
    options = {"norm_kwargs": {"epsilon": 0.5}, **TINY}
    net = initialized("aff_fpn_resnet8", **options)
    norms = []
    net.apply(lambda block: norms.append(block) if isinstance(block, nn.BatchNorm) else None)
    assert len(norms) > 20 and all(norm._kwargs["eps"] == 0.5 for norm in norms)


def test_float16_casts():
    net = initialized("aff_fpn_resnet8", **TINY)
    net.cast("float16")
    outputs = net(mx.sym.var("data", dtype="float16"))
    assert outputs.infer_type(data="float16")[1] == [np.float16]


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("aff_fpn_resnet21", {}, "no feature pyramid has a host of depth 21: it must be 6b"),
        ("aff_fpn_resnet2", {}, r"or one of \[18, 34, 50, 101, 152\] for a ResNet of ImageNet"),
        ("aff_fpn_resnext18_32x4d", {}, "no ResNeXt has depth 18"),
        ("aff_fpn_resnt20", {}, "unknown model 'aff_fpn_resnt20'; did you mean 'aff_fpn_resnet20'"),
        ("aff_fpn_resnet18", {"width_multiplier": 2}, "no option 'width_multiplier'"),
        ("aff_fpn_resnet8", {"width_multiplier": 0}, "width_multiplier must be a positive"),
        ("aff_fpn_resnet8", {"dropout": 1}, r"dropout must be a number in \[0, 1\), not 1"),
        ("aff_fpn_resnet8", {"dropout": "a"}, r"dropout must be a number in \[0, 1\), not 'a'"),
        ("aff_fpn_resnet8", {"host_fusion": "af"}, "unknown fusion 'af'"),
        ("aff_fpn_resnet8", {"first_fused_stage": 2}, "has no effect: the host has the plain sum"),
        (
            "aff_fpn_resnet8",
            {"first_fused_stage": 5, "host_fusion": "aff"},
            "must be 1 to 4 for 3 stages",
        ),
        ("aff_fpn_resnet8", {"reduction": 3}, "64 channels cannot be reduced by 3"),
        ("add_fpn_resnet8", {"reduction": 4}, "reduction=4 has no effect"),
        ("aff_fpn_resnet8", {"num_classes": 0}, "num_classes must be a positive integer"),
        ("aff_fpn_resnet8", {"deep_stem": "no"}, "deep_stem must be true or false"),
    ],
)
def test_errors(name, options, message):
    with pytest.raises(UserError, match=message):
        create_model(name, **options)


def test_what_the_fusions_of_a_pyramid_weigh():
    net = initialized("aff_fpn_resnet8", **TINY)
    weights = fusion_weights(net, input_value(SHAPE))
    assert [each.shape for (each,) in weights] == [(2, 32, 4, 6), (2, 16, 8, 12)]


# --- What networks cost ---------------------------------------------------------------------------


def test_what_a_unit_costs():
    """The resizing costs nothing, and the 1x1 convolution sees the smaller map."""

    class Pair(nn.HybridBlock):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            with self.name_scope():
                self.low = nn.Conv2D(8, 1, use_bias=False, in_channels=4)
                self.high = nn.Conv2D(12, 3, 2, 1, use_bias=False, in_channels=4)
                self.fuse = PyramidFusion("add", 8, 12)

        def hybrid_forward(self, F, x):
            return self.fuse(self.low(x), self.high(x))

    cost = summarize(Pair(), (4, 9, 6)).stages["fuse"]
    assert cost.multiply_adds == 5 * 3 * 8 * 12 + 9 * 6 * 8 * 8 * 9
    assert cost.activations == 5 * 3 * 8 + 9 * 6 * 8
    assert cost.trainable_parameters == (12 + 1) * 8 + 16 + (72 + 1) * 8 + 16


def test_the_summary_of_a_pyramid(call):
    words = ("aff_fpn_resnet20", "--verbose", "--option", "width_multiplier=1")
    lines = call("summary", *words).out.splitlines()
    assert [line.split()[0] for line in lines[1:6]] == [
        *("aff_fpn_resnet20", "bottom_up", "top_down", "head", "output")
    ]
    assert "3x480x480" in lines[1]


# --- Exports --------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["add", "aff", "iaff", "concat"])
def test_exports_take_any_batch_and_image_size(tmp_path, key):
    net = filled(create_model(f"{key}_fpn_resnet8", **TINY))
    files, difference = symbol.export_symbol(net, tmp_path, "net", SHAPE[1:])
    assert difference <= symbol.TOLERANCE
    inputs = [input_value(shape) for shape in (SHAPE, (1, 3, 37, 61), (3, 3, 64, 40))]
    imported = mx.gluon.SymbolBlock.imports(str(files[0]), ["data"], str(files[1]))
    for x in inputs:
        assert_close(imported(x), net(x))
    pytest.importorskip("onnxruntime", reason="needs the extra [onnx]")
    onnx_model.export_onnx(*files, tmp_path / "net.onnx", SHAPE[1:])
    assert onnx_model.session(tmp_path / "net.onnx").get_inputs()[0].shape == ["N", 3, "H", "W"]
    run = onnx_model.network(tmp_path / "net.onnx")
    for x in inputs:
        assert_close(run(x), net(x))


def test_a_fixed_batch_leaves_the_size_free(tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra [onnx]")
    net = filled(create_model("add_fpn_resnet8", **TINY))
    files, _ = symbol.export_symbol(net, tmp_path, "net", SHAPE[1:])
    onnx_model.export_onnx(*files, tmp_path / "net.onnx", SHAPE[1:], batch=2)
    assert onnx_model.session(tmp_path / "net.onnx").get_inputs()[0].shape == [2, 3, "H", "W"]
    x = input_value((3, 3, 20, 24))
    assert_close(onnx_model.network(tmp_path / "net.onnx")(x), net(x))


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "like", "align_corners": True},
        {"mode": "like", "align_corners": False},
        {"height": 9, "width": 11},
    ],
)
def test_onnx_of_resizing_in_ones_own_network(tmp_path, options):
    pytest.importorskip("onnxruntime", reason="needs the extra [onnx]")

    class Resizing(nn.HybridBlock):
        def hybrid_forward(self, F, x):
            small = F.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="max")
            inputs = (small, x) if "mode" in options else (small,)
            return F.contrib.BilinearResize2D(*inputs, **options)

    net = Resizing()
    files, _ = symbol.export_symbol(net, tmp_path, "net", (3, 8, 10))
    onnx_model.export_onnx(*files, tmp_path / "net.onnx", (3, 8, 10))
    x = input_value((2, 3, 8, 10))
    assert_close(onnx_model.network(tmp_path / "net.onnx")(x), net(x))
