"""Class activation maps: against closed forms, against PyTorch's gradients, and what they leave."""

import mxnet as mx
import numpy as np
import pytest
from helpers import assert_close, filled, input_value, structural_params
from mxnet.gluon import nn

from openaff import UserError, create_model
from openaff.analysis.cam import (
    METHODS,
    ClassifierOutputSoftmaxTarget,
    ClassifierOutputTarget,
    EigenCAM,
    GradCAM,
    GradCAMPlusPlus,
    LayerCAM,
    ScoreCAM,
    SemanticSegmentationTarget,
    deletion_insertion,
    energy_inside,
)
from openaff.analysis.cam.layers import default_layer
from openaff.analysis.cam.measures import blurred
from openaff.analysis.cam.methods import resized, scaled
from openaff.utils.outline import named_blocks

WEIGHTS = np.array([[1.0, -2.0, 0.5], [0.0, 1.0, -1.0]], "float32")  # (classes, channels)
IMAGES = np.abs(input_value((2, 3, 4, 4)).asnumpy())  # a ReLU changes nothing


def pooled_net():
    """ReLU, mean over positions, dense: every method has a closed form."""
    net = nn.HybridSequential()
    net.add(nn.Activation("relu"), nn.GlobalAvgPool2D(), nn.Flatten(), nn.Dense(2, in_units=3))
    net.initialize()
    net[3].weight.set_data(mx.nd.array(WEIGHTS))
    return net


def small(name="aff_cifar_resnet8", **options):
    return filled(create_model(name, **{"width_multiplier": 1, "num_classes": 4, **options}))


def unit(maps):
    """As the definitions scale: from 0 to 1."""
    maps = np.maximum(maps, 0)
    low, high = (bound(maps, axis=(1, 2), keepdims=True) for bound in (np.min, np.max))
    return (maps - low) / (high - low)


# --- closed forms ---------------------------------------------------------------------------------


def test_grad_cam_of_a_pooled_network_is_its_class_activation_map():
    maps = GradCAM(pooled_net())(IMAGES, [ClassifierOutputTarget(k) for k in (0, 1)])
    expected = np.stack([np.tensordot(WEIGHTS[k], IMAGES[k], 1) for k in (0, 1)])
    assert maps.shape == (2, 4, 4) and maps.dtype == np.float32
    assert_close(maps, unit(expected), 1e-6)


def test_grad_cam_plus_plus_in_closed_form():
    gradients = WEIGHTS[0] / 16  # the same at every position
    factors = gradients**2 / (2 * gradients**2 + gradients**3 * IMAGES.sum((2, 3)) + 1e-6)
    weights = 16 * np.maximum(gradients, 0) * factors  # (N, C)
    maps = GradCAMPlusPlus(pooled_net())(IMAGES, [ClassifierOutputTarget(0)] * 2)
    assert_close(maps, unit(np.einsum("nc,nchw->nhw", weights, IMAGES)), 1e-5)


def test_layer_cam_in_closed_form():
    maps = LayerCAM(pooled_net())(IMAGES, [ClassifierOutputTarget(1)] * 2)
    assert_close(maps, unit(IMAGES[:, 1]), 1e-6)  # the one channel with a positive gradient


def test_eigen_cam_finds_the_one_component_with_the_sign_of_the_mean_channel():
    pattern = np.arange(16.0).reshape(4, 4)
    images = np.stack([pattern * scale for scale in (1, 2, 0.5)])[None].astype("float32")
    assert_close(EigenCAM(pooled_net())(images), unit((pattern - pattern.mean())[None]), 1e-6)


def test_score_cam_in_closed_form():
    masks = IMAGES[0] - IMAGES[0].min((1, 2), keepdims=True)
    masks /= masks.max((1, 2), keepdims=True)
    scores = np.array([(IMAGES[0] * mask).mean((1, 2)) @ WEIGHTS[0] for mask in masks])
    weights = np.exp(scores) / np.exp(scores).sum()
    maps = ScoreCAM(pooled_net(), batch_size=2)(IMAGES[:1], [ClassifierOutputTarget(0)])
    assert_close(maps, unit(np.tensordot(weights, IMAGES[0], 1)[None]), 1e-5)


def test_the_probability_of_a_class_scales_the_gradient_of_its_logit():
    with mx.autograd.record():
        output = mx.nd.array([1.0, 3.0])
    assert ClassifierOutputSoftmaxTarget(1)(output).asscalar() == pytest.approx(0.8808, abs=1e-4)
    # of two classes: dp/dz1 = p(1 - p), dp/dz0 = -p(1 - p)
    maps = GradCAM(pooled_net())(IMAGES, [ClassifierOutputSoftmaxTarget(0)] * 2)
    assert_close(maps, unit(np.tensordot(IMAGES, WEIGHTS[0] - WEIGHTS[1], ([1], [0]))), 1e-5)


def test_pixels_of_a_class():
    net = nn.HybridSequential()
    net.add(nn.Activation("relu"), nn.Conv2D(2, 1, in_channels=3, use_bias=False))
    net.initialize()
    net[1].weight.set_data(mx.nd.array(WEIGHTS[..., None, None]))
    masks = np.zeros((2, 4, 4))
    masks[:, 1:, 2] = 1
    targets = [SemanticSegmentationTarget(0, mask) for mask in masks]
    # The gradient is the class's weight on the pixels, and 0 elsewhere.
    assert_close(
        LayerCAM(net, "0")(IMAGES, targets), unit((IMAGES[:, 0] + IMAGES[:, 2] / 2) * masks), 1e-6
    )
    maps = GradCAM(net, "0")(IMAGES, targets)
    assert_close(maps, unit(np.tensordot(IMAGES, WEIGHTS[0], ([1], [0]))), 1e-6)


def test_pixels_of_a_network_with_one_output():
    output = mx.nd.array([[[2.0, -1.0], [3.0, -4.0]]])
    assert SemanticSegmentationTarget(1)(output).asscalar() == 5
    assert SemanticSegmentationTarget(0)(output).asscalar() == 5
    assert SemanticSegmentationTarget(1, np.eye(2))(output).asscalar() == -2


# --- against PyTorch's gradients ------------------------------------------------------------------


@pytest.mark.parametrize("method", ["gradcam", "gradcamplusplus", "layercam"])
def test_gradients_are_those_of_pytorch(method):
    """The definitions of pytorch-grad-cam in PyTorch, on the same convolutions, norm and head."""
    torch = pytest.importorskip("torch", reason="needs the extra torch")
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(4, 3, padding=1, in_channels=3),
        nn.BatchNorm(in_channels=4),
        nn.Activation("relu"),
        nn.Conv2D(5, 3, strides=2, padding=1, in_channels=4),
        nn.Activation("relu"),
        nn.GlobalAvgPool2D(),
        nn.Flatten(),
        nn.Dense(3, in_units=5),
    )
    filled(net)
    values = {
        name: torch.tensor(each.data().asnumpy()) for name, each in structural_params(net).items()
    }
    x = input_value((2, 3, 8, 8))
    functional = torch.nn.functional
    a = functional.conv2d(torch.tensor(x.asnumpy()), values["0.weight"], values["0.bias"], 1, 1)
    norm = ("running_mean", "running_var", "gamma", "beta")
    a = functional.batch_norm(a, *[values["1." + name] for name in norm], eps=1e-5).relu()
    a.requires_grad_()
    head = functional.conv2d(a, values["3.weight"], values["3.bias"], 2, 1).relu().mean((2, 3))
    (head @ values["7.weight"].T)[[0, 1], [1, 0]].sum().backward()
    a, g = a.detach().numpy(), a.grad.numpy()
    if method == "layercam":
        expected = (np.maximum(g, 0) * a).sum(1)
    else:
        weights = g.mean((2, 3))
        if method == "gradcamplusplus":
            factor = g**2 / (2 * g**2 + a.sum((2, 3), keepdims=True) * g**3 + 1e-6)
            weights = (np.maximum(g, 0) * np.where(g != 0, factor, 0)).sum((2, 3))
        expected = (weights[..., None, None] * a).sum(1)
    targets = [ClassifierOutputTarget(1), ClassifierOutputTarget(0)]
    assert_close(METHODS[method](net, "2")(x, targets), unit(expected), 1e-4)


@pytest.mark.parametrize("shape", [(8, 8), (5, 9), (3, 1)])
def test_maps_are_resized_as_in_opencv(shape):
    cv2 = pytest.importorskip("cv2", reason="OpenCV comes with gluoncv")
    maps = input_value((2, 3, 4)).asnumpy()
    expected = np.stack([cv2.resize(each, shape[::-1]) for each in maps])
    assert_close(resized(maps, shape), expected, 1e-6)


def test_corners_aligned():
    assert_close(resized(np.array([[[0.0, 3.0]]]), (2, 4), True), [[[0, 1, 2, 3]] * 2])


# --- on networks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "name, layer, options",
    [
        ("aff_cifar_resnet8", "features.6", {}),
        ("iaff_cifar_inception_resnet8", "features.6", {}),
        ("aff_fpn_resnet8", "top_down.0", {"deep_stem": False}),
    ],
)
def test_every_method_by_the_default_layer(method, name, layer, options):
    net, x = small(name, **options), input_value((2, 3, 32, 32))
    cam = METHODS[method](net)
    maps = cam(x)
    assert cam.layer_names == [layer]
    assert maps.shape == (2, 32, 32) and maps.min() == 0
    # What pulls against the class alone leaves nothing to show.
    assert (maps.max((1, 2)) > 0.99).any()
    assert_close(cam.outputs, net(x))


def test_the_default_layer_is_behind_the_last_relu_where_a_map_is_good():
    net, x = small(), input_value((2, 3, 32, 32))
    name, block = default_layer(net, x)
    assert isinstance(block, nn.Activation) and named_blocks(net)[name] is block


def test_each_image_has_its_own_map():
    net, x = small(), input_value((3, 3, 32, 32))
    targets = [ClassifierOutputTarget(k) for k in (2, 0, 1)]
    together = GradCAM(net)(x, targets)
    alone = [GradCAM(net)(x[k : k + 1], [target])[0] for k, target in enumerate(targets)]
    assert_close(together, np.stack(alone), 1e-4)


def test_targets_are_the_predicted_classes_by_default():
    net, x = small(), input_value((3, 3, 32, 32))
    predicted = net(x).argmax(axis=1).asnumpy().astype(int)
    assert_close(GradCAM(net)(x), GradCAM(net)(x, [*map(ClassifierOutputTarget, predicted)]))


def test_a_mean_over_several_layers():
    net, x = small(), input_value((2, 3, 32, 32))
    names = ["features.3", "features.4"]
    maps = [LayerCAM(net, name)(x) for name in names]
    assert_close(LayerCAM(net, names)(x), scaled(np.mean(maps, axis=0)), 1e-4)


def test_arrays_of_numpy_do():
    net, x = small(), input_value((2, 3, 32, 32))
    assert_close(GradCAM(net)(x.asnumpy()), GradCAM(net)(x))


@pytest.mark.parametrize("method", METHODS)
def test_the_network_is_as_before(method):
    net, x = small(), input_value((2, 3, 32, 32))
    net.hybridize(static_alloc=True)
    with mx.autograd.record():
        net(x).sum().backward()
    params = structural_params(net)
    blocks = [net, *named_blocks(net).values()]
    outputs = net(x).asnumpy()
    values = {name: each.data().asnumpy() for name, each in params.items()}
    grads = {k: v.grad().asnumpy() for k, v in params.items() if v.grad_req != "null"}
    compiled = [(each._active, each._cached_op, len(each._forward_hooks)) for each in blocks]
    with mx.autograd.record():  # also within a recording of one's own
        METHODS[method](net)(x)
        assert mx.autograd.is_recording() and mx.autograd.is_training()
    assert [
        (each._active, each._cached_op, len(each._forward_hooks)) for each in blocks
    ] == compiled
    for name, each in params.items():
        assert np.array_equal(each.data().asnumpy(), values[name]), name
        assert name not in grads or np.array_equal(each.grad().asnumpy(), grads[name]), name
    assert np.array_equal(net(x).asnumpy(), outputs)


def test_hybridised_or_not_is_the_same():
    net, x = small(), input_value((2, 3, 32, 32))
    maps = GradCAM(net)(x)
    net.hybridize()
    net(x)
    assert np.array_equal(GradCAM(net)(x), maps)


def test_networks_whose_parameters_are_all_frozen():
    net, x = small(), input_value((2, 3, 32, 32))
    maps = GradCAM(net)(x)
    net.collect_params().setattr("grad_req", "null")
    assert_close(GradCAM(net)(x), maps)


# --- measures -------------------------------------------------------------------------------------


def test_energy_inside():
    maps = np.zeros((3, 2, 2))
    maps[0], maps[1, 0, 0] = 0.5, 3
    mask = np.array([[1, 0], [0, 0]])
    inside = energy_inside(maps, [mask] * 3)
    assert inside[:2].tolist() == [0.25, 1] and np.isnan(inside[2])


def test_deletion_falls_and_insertion_rises_with_the_right_map():
    """A network that looks at one pixel: the map that marks it, and the one that marks it last."""

    def net(x):
        z = 20 * x[:, 0, 1, 2]
        return mx.nd.stack(mx.nd.zeros_like(z), z, axis=1)

    images = mx.nd.zeros((2, 3, 8, 8))
    images[:, :, 1, 2] = 1
    maps = np.zeros((2, 8, 8))
    maps[0, 1, 2], maps[1, 1, 2] = 1, -1
    deletion, insertion = deletion_insertion(net, images, maps, [1, 1], steps=8)
    whole = deletion[0, 0]
    assert deletion.shape == insertion.shape == (2, 9) and whole > 0.99
    assert (deletion[0, 1:] == deletion[0, 1]).all() and deletion[0, 1] < whole
    assert (insertion[0, 1:] > 0.99).all()
    assert (deletion[1, :-1] > 0.99).all() and (insertion[1, :-1] == insertion[1, 0]).all()
    assert deletion[1, -1] == insertion[1, 0] < whole


def test_blurred_images_are_means_of_cells_with_smooth_borders():
    images = np.arange(2 * 3 * 4 * 6, dtype="float32").reshape(2, 3, 4, 6)
    whole = blurred(images, cells=1)
    assert whole.shape == images.shape and whole.dtype == images.dtype
    np.testing.assert_allclose(whole[:, :, 0, 0], images.mean((2, 3)), rtol=1e-6)
    assert (whole == whole[:, :, :1, :1]).all()
    quarters = blurred(images, cells=2)
    np.testing.assert_allclose(quarters[:, :, 0, 0], images[:, :, :2, :3].mean((2, 3)), rtol=1e-6)
    np.testing.assert_allclose(quarters[:, :, -1, -1], images[:, :, 2:, 3:].mean((2, 3)), rtol=1e-6)
    assert (np.diff(quarters[0, 0, 0]) >= 0).all()


# --- what is refused ------------------------------------------------------------------------------


class TwoOutputs(nn.HybridBlock):
    def __init__(self):
        super().__init__()
        self.body = nn.Activation("relu")

    def hybrid_forward(self, F, x):
        return self.body(x), self.body(x)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: GradCAM(small(), "features.44"),
            "no block 'features.44'; did you mean 'features.",
        ),
        (lambda: GradCAM(small(), nn.Dense(1)), "Dense is no block of this network"),
        (lambda: GradCAM(nn.Dense(2), "0"), "has no blocks inside"),
        (lambda: GradCAM(small())(np.zeros((3, 32, 32), "float32")), "not 3x32x32"),
        (
            lambda: GradCAM(small())(np.zeros((1, 3, 32, 32), "uint8")),
            "normalised floats, not uint8",
        ),
        (lambda: GradCAM(small(), "features.8")(input_value((1, 3, 32, 32))), "gives no map"),
        (
            lambda: GradCAM(small())(input_value((2, 3, 32, 32)), [ClassifierOutputTarget(0)]),
            "2 images need as many targets, not 1",
        ),
        (
            lambda: GradCAM(small())(input_value((1, 3, 32, 32)), [ClassifierOutputTarget(4)]),
            "no class 4: it has 4, from 0 on",
        ),
        (
            lambda: GradCAM(small())(input_value((1, 3, 32, 32)), [SemanticSegmentationTarget(0)]),
            "for networks that give maps of classes",
        ),
        (lambda: GradCAM(TwoOutputs(), "body")(input_value((1, 3, 4, 4))), "is used 2 times"),
        (lambda: ScoreCAM(small(), batch_size=0), "batch_size must be a positive integer"),
        (lambda: energy_inside(np.zeros((1, 2, 2)), np.zeros((1, 2, 3))), "must both be"),
        (
            lambda: deletion_insertion(None, mx.nd.zeros((1, 3, 2, 2)), np.zeros((1, 2, 3)), [0]),
            "must go together",
        ),
        (
            lambda: deletion_insertion(
                None, mx.nd.zeros((1, 3, 2, 2)), np.zeros((1, 2, 2)), [0], 0
            ),
            "steps must be a positive integer",
        ),
        *(
            (
                lambda wrong=wrong: deletion_insertion(
                    lambda x: x.mean((2, 3)),
                    mx.nd.zeros((1, 3, 2, 2)),
                    np.zeros((1, 2, 2)),
                    [wrong],
                ),
                rf"categories must be 0 to 2, not \[{wrong}\]",
            )
            for wrong in (-1, 3)
        ),
        (
            lambda: SemanticSegmentationTarget(0, np.ones((2, 2)))(mx.nd.zeros((2, 4, 4))),
            "the mask is 2x2, but the network's output 4x4",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_a_network_of_one_symbol_has_no_layers(tmp_path):
    net, x = small(), input_value((1, 3, 32, 32))
    net.hybridize()
    net(x)
    net.export(str(tmp_path / "net"))
    exported = mx.gluon.SymbolBlock.imports(
        str(tmp_path / "net-symbol.json"), ["data"], str(tmp_path / "net-0000.params")
    )
    with pytest.raises(UserError, match="no blocks inside"):
        GradCAM(exported)(x)
