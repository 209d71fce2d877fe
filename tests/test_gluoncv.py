"""Fusions inside gluoncv's networks, and gluoncv's detectors on ours."""

import importlib.util
import json
import pathlib

import mxnet as mx
import numpy as np
import pytest
from helpers import assert_every_parameter_gets_a_gradient, structural_params
from mask_files import write_coco
from mxnet.gluon.model_zoo import vision

import openaff
from openaff import UserError, replace_sums
from openaff.attention import plain_graph
from openaff.deploy.onnx_model import export_onnx, network
from openaff.deploy.symbol import export_symbol
from openaff.models.detection import center_net, ssd
from openaff.utils.imports import import_gluoncv

try:
    model_zoo = import_gluoncv()
except ImportError:
    pytest.skip("needs the extra [gluoncv]", allow_module_level=True)

SHAPE = (3, 32, 32)
NETWORKS = [
    "resnet18_v1b",
    "resnet50_v1d",
    "cifar_resnet20_v1",
    "cifar_resnet20_v2",
    "resnet18_v2",
    "se_resnet18_v1",
    "resnest14",
    pytest.param("resnext50_32x4d", marks=pytest.mark.long),
    pytest.param("hrnet_w18_small_v1_c", marks=pytest.mark.long),
]


def built(name, **options):
    mx.random.seed(0)
    np.random.seed(0)
    net = model_zoo.get_model(name, classes=5, **options)
    net.initialize(mx.init.Xavier())
    return net


def images(size=32):
    return mx.nd.array(np.random.default_rng(0).standard_normal((2, 3, size, size)))


@pytest.mark.parametrize("name", NETWORKS)
def test_with_the_plain_sum_nothing_changes(name):
    net, x = built(name), images()
    expected, names = net(x).asnumpy(), set(structural_params(net))
    net.hybridize()
    net(x)  # a graph with the sums, which must not stay
    assert replace_sums(net, "add") is net
    np.testing.assert_array_equal(net(x).asnumpy(), expected)
    net.hybridize(False)
    np.testing.assert_array_equal(net(x).asnumpy(), expected)
    assert set(structural_params(net)) == names


class Shortcut(openaff.fusion.Fusion):
    """The shortcut alone."""

    def hybrid_forward(self, F, x, residual):
        return residual + 0 * x


@pytest.mark.parametrize(
    "name, stage, channels, activation",
    [
        ("resnet18_v1b", lambda net: net.layer2, 64, mx.nd.relu),
        ("resnet50_v1d", lambda net: net.layer2, 256, mx.nd.relu),
        ("cifar_resnet20_v1", lambda net: net.features[3], 16, mx.nd.relu),
        ("cifar_resnet20_v2", lambda net: net.features[3], 16, lambda x: x),
    ],
)
def test_branch_and_shortcut_are_not_confused(name, stage, channels, activation):
    first, second = stage(replace_sums(built(name), Shortcut))[:2]
    x = mx.nd.random.normal(shape=(1, channels, 8, 8))
    expected = activation(first.downsample(x))
    np.testing.assert_array_equal(first(x).asnumpy(), expected.asnumpy())
    np.testing.assert_array_equal(second(expected).asnumpy(), activation(expected).asnumpy())
    assert isinstance(first.downsample, mx.gluon.Block)  # as it was


@pytest.mark.parametrize("fusion", ["aff", "iaff", "concat"])
def test_fusions_train_and_hybridise(fusion):
    net, x = built("cifar_resnet20_v1"), images()
    replace_sums(net, fusion)
    assert any(name.startswith("features.2.0.attention.") for name in structural_params(net))
    eager = net(x).asnumpy()
    net.hybridize(static_alloc=True)
    np.testing.assert_allclose(net(x).asnumpy(), eager, rtol=1e-4, atol=1e-5)
    assert_every_parameter_gets_a_gradient(net, x)


def test_pretrained_values_stay_and_a_file_of_the_original_loads(tmp_path):
    original = built("resnet18_v1b")
    original(images())
    original.save_parameters(str(tmp_path / "original.params"))
    values = {name: param.data().asnumpy() for name, param in structural_params(original).items()}
    replace_sums(original, "aff", blocks="layer[34].*")
    loaded = replace_sums(model_zoo.get_model("resnet18_v1b", classes=5), "aff", "layer[34].*")
    loaded.load_parameters(str(tmp_path / "original.params"), allow_missing=True)
    for net in (original, loaded):
        params = structural_params(net)
        for name, value in values.items():
            np.testing.assert_array_equal(params[name].data().asnumpy(), value)
        new = set(params) - set(values)
        assert {name[:8] for name in new} == {f"layer{s}.{b}" for s in (3, 4) for b in (0, 1)}
    original(images())  # its fusions have values


@pytest.mark.parametrize(
    "name", ["cifar_resnet20_v2", pytest.param("resnet18_v1b", marks=pytest.mark.long)]
)
def test_exports_to_symbol_and_onnx(name, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra [onnx]")
    net, x = built(name), images()
    replace_sums(net, "iaff")
    expected = net(x).asnumpy()
    files, difference = export_symbol(net, tmp_path, "net", SHAPE)
    assert difference < 1e-5
    export_onnx(*files, tmp_path / "net.onnx", SHAPE)
    outputs = network(tmp_path / "net.onnx")(x).asnumpy()
    assert abs(outputs - expected).max() < 1e-5 * abs(expected).max()
    net.hybridize()
    with plain_graph():
        net(x)
        net.export(str(tmp_path / "gluon"))
    again = mx.gluon.SymbolBlock.imports(
        str(tmp_path / "gluon-symbol.json"), ["data"], str(tmp_path / "gluon-0000.params")
    )
    np.testing.assert_allclose(again(x).asnumpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", [vision.resnet18_v1, vision.resnet18_v2])
def test_gluons_own_resnet_and_float16(network):
    net = network(classes=5)
    net.cast("float16")
    replace_sums(net, "aff")
    weights = net.collect_params(".*conv.*weight").values()
    assert {np.dtype(weight.dtype) for weight in weights} == {np.dtype("float16")}


class TwoSums(mx.gluon.nn.HybridBlock):
    downsample = None

    def hybrid_forward(self, F, x):
        return F.relu(x) + x + F.tanh(x) + (x + F.relu(x))


class NoSymbol(TwoSums):
    def hybrid_forward(self, F, x):
        return F.relu(x) + x.reshape((x.shape[0], -1))


class Holder(mx.gluon.nn.HybridBlock):
    def __init__(self, block):
        super().__init__()
        self.block = block

    def hybrid_forward(self, F, x):
        return self.block(x)


@pytest.mark.parametrize(
    "net, options, message",
    [
        (lambda: Holder(NoSymbol()), {}, "Holder cannot be traced with a symbol: .*'shape'"),
        ("mobilenetv2_0.25", {}, "MobileNetV2 has no residual block whose sum can be replaced"),
        ("dla34", {}, "DLA has blocks Tree that add 0 branches to their shortcut"),
        (lambda: Holder(TwoSums()), {}, "Holder has blocks TwoSums that add 2 branches"),
        (lambda: mx.gluon.nn.Block(), {}, "sums are replaced in a HybridBlock, not in Block"),
        ("resnet18_v1b", {"blocks": "stage*"}, r"fits 'stage\*': the names are layer1.0, layer1.1"),
        ("resnet18_v1b", {"fusion": "afff"}, "did you mean 'aff'"),
        ("resnet18_v1b", {"norm_kwargs": {"bogus": 1}}, "norm_kwargs={'bogus': 1}: ."),
        ("resnet18_v1b", {"norm_kwargs": {"beta_initializer": "foo"}}, "norm_kwargs=.*: ."),
        ("resnet18_v1b", {"reduction": 5}, "64 channels cannot be reduced by 5"),
        (lambda: replace_sums(built("cifar_resnet20_v1")), {}, "has fusions already"),
    ],
)
def test_errors_leave_the_network_as_it_was(net, options, message):
    net = built(net) if isinstance(net, str) else net()
    kinds = [type(each) for each in descendants(net)]
    with pytest.raises(UserError, match=message):
        replace_sums(net, **options)
    assert [type(each) for each in descendants(net)] == kinds


def descendants(block):
    yield block
    for child in block._children.values():
        yield from descendants(child)


# --- Detectors ------------------------------------------------------------------------------------


def pyramid(name="aff_fpn_resnet8", **options):
    return openaff.create_model(name, features_only=True, width_multiplier=1, **options)


@pytest.mark.parametrize("make", [ssd, center_net])
def test_detectors_give_boxes_in_all_forms(make, tmp_path):
    options = {"size": 64} if make is ssd else {"topk": 20}
    net, x = make(pyramid(), ["a", "b"], **options), images(64)
    net.initialize()
    expected = [each.asnumpy() for each in net(x)]
    assert expected[2].shape[::2] == (2, 4) and np.isfinite(expected[2]).all()
    net.hybridize()
    with plain_graph():
        outputs = net(x)
        net.export(str(tmp_path / "net"))
    again = mx.gluon.SymbolBlock.imports(
        str(tmp_path / "net-symbol.json"), ["data"], str(tmp_path / "net-0000.params")
    )
    for form in (outputs, again(x)):
        for one, two in zip(form, expected):
            np.testing.assert_allclose(one.asnumpy(), two, rtol=1e-4, atol=1e-4)


def test_anchors_lie_over_the_maps_cells():
    net = ssd(pyramid(), ["a"], 64)
    net.initialize()
    with mx.autograd.train_mode():
        scores, boxes, anchors = net(images(64))
    anchors = anchors.asnumpy()[0]
    count = 6 * (16 * 16 + 8 * 8 + 4 * 4)  # strides 4, 8 and 16
    assert anchors.shape == (count, 4) and boxes.shape == (2, count, 4)
    assert scores.shape == (2, count, 2)
    np.testing.assert_allclose(anchors[0], [2, 2, 6.4, 6.4])
    assert anchors[-1, :2].tolist() == [56, 56]
    assert anchors[:, 2:].max() > 0.4 * 64


def test_detectors_need_maps():
    with pytest.raises(UserError, match="CIFARResNet gives no feature maps: build .*features_only"):
        ssd(openaff.create_model("aff_cifar_resnet8"), ["a"], 64)
    with pytest.raises(UserError, match="CIFARResNet makes in its first stage: take a .*pyramid"):
        center_net(openaff.create_model("aff_cifar_resnet8", features_only=True), ["a"])
    with pytest.raises(UserError, match="size must be a positive integer"):
        ssd(pyramid(), ["a"], 0)


@pytest.mark.parametrize("call", [lambda: ssd(pyramid(), ["a"], 64)])
def test_without_gluoncv(call, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gluoncv.model_zoo", None)
    with pytest.raises(UserError, match=r"detectors need gluoncv .*pip install -e .\[gluoncv\]"):
        call()


@pytest.fixture(scope="module")
def example():
    path = pathlib.Path(__file__).parent.parent / "examples" / "detect_with_aff.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def synthetic(size=48):
    """Two pictures of coloured rectangles, whose colour is their class."""
    pixels, labels = np.full((2, size, size, 3), 127, "uint8"), []
    for index, boxes in enumerate(([(4, 4, 20, 24, 0)], [(24, 8, 44, 40, 1), (2, 30, 16, 46, 0)])):
        for left, top, right, bottom, number in boxes:
            pixels[index, top:bottom, left:right] = ((255, 0, 0), (0, 0, 255))[number]
        labels.append(np.array(boxes, "float32"))
    return pixels, labels


@pytest.mark.parametrize("kind, size", [("ssd", 48), ("center_net", 46)])
def test_the_example_learns(example, kind, size, tmp_path):
    mx.random.seed(0)
    np.random.seed(0)
    pixels, labels = synthetic(size)
    detector = example.DETECTORS[kind](pyramid(), ["red", "blue"], size, labels)
    images = example.scaled(pixels)
    losses = example.learn(detector, images, 12, 0.01)
    assert losses[-1] < 0.6 * losses[0]
    found = example.detect(detector.net, images)
    assert len(found) == 2 and found[0].shape[1] == 6
    found[0] = np.array([[0, 0.9, 20, 24, 4, 4]])  # a box may come out turned round
    example.draw(tmp_path / "boxes.png", pixels, found, labels, ["red", "blue"])
    assert example.Image.open(tmp_path / "boxes.png").size == (4 * size, 2 * size)


def test_precision_of_the_truth_is_one(example):
    _, labels = synthetic()
    found = [
        np.concatenate([label[:, 4:], np.ones((len(label), 1)), label[:, :4]], 1)
        for label in labels
    ]
    assert example.mean_precision(found, labels, ["red", "blue"]) == pytest.approx(1)
    assert example.mean_precision([row[:0] for row in found], labels, ["red", "blue"]) == 0


def test_photographs_of_coco(example, tmp_path):
    pytest.importorskip("pycocotools", reason="needs the extra [coco]")
    root = write_coco(tmp_path)
    pixels, labels, classes = example.read_photos(root, "val2017", 2, 60)
    assert pixels.shape == (2, 60, 60, 3) and classes == ["person", "stop sign"]
    np.testing.assert_allclose(labels, [[[1.5, 2, 13.5, 20, 1]], [[1.5, 2, 13.5, 20, 0]]])
    for split, count, message in (
        ("val2017", 3, "has 2 photographs with boxes, not 3"),
        ("test2017", 1, "cannot read .*instances_test2017.json: No such file"),
    ):
        with pytest.raises(UserError, match=message):
            example.read_photos(root, split, count, 60)
    flat = json.loads((root / "annotations/instances_val2017.json").read_text())
    for each in flat["annotations"]:
        each["bbox"][2] = 0
    (root / "annotations/instances_val2017.json").write_text(json.dumps(flat))
    with pytest.raises(UserError, match="has 0 photographs with boxes, not 1"):
        example.read_photos(root, "val2017", 1, 60)
    (root / "annotations/instances_val2017.json").write_text('{"images": []}')
    with pytest.raises(UserError, match="not a file of COCO's annotations: it has no categories"):
        example.read_photos(root, "val2017", 1, 60)
    box = {"image_id": 1, "category_id": 7, "iscrowd": 0, "bbox": [1, 1, 8, 9]}
    content = {"categories": [], "images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [box]}
    for change, message in (({}, "of an image or a category that is not"), ({"bbox": [1]}, "bbox")):
        content["annotations"] = [{**box, **change}]
        (root / "annotations/instances_val2017.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=f"not a file of COCO's annotations: .*{message}"):
            example.read_photos(root, "val2017", 1, 60)
