import re

import mxnet as mx
import numpy as np
import pytest
from helpers import (
    assert_close,
    assert_every_parameter_gets_a_gradient,
    filled,
    golden,
    initialized,
    input_value,
    layout,
    structural_params,
)
from mxnet.gluon import nn

from openaff import UserError, create_model, list_models
from openaff.analysis.complexity import count_parameters
from openaff.analysis.reference import printed
from openaff.fusion import FUSIONS, fusion_factory
from openaff.models import model_info
from openaff.models.factory import fusion_of

PUBLISHED = {
    "add_resnet8_c1_cifar100": ("add_cifar_resnet8", {"width_multiplier": 1}),
    "aff_resnet8_c1_cifar100": ("aff_cifar_resnet8", {"width_multiplier": 1}),
    "aff_resnet32_cifar100": ("aff_cifar_resnet32", {}),
    "aff_resnext38_32x4d_cifar100": ("aff_cifar_resnext38_32x4d", {}),
    "aff_resnext47_32x4d_cifar100": ("aff_cifar_resnext47_32x4d", {}),
    "aff_resnet50_imagenet": ("aff_resnet50", {}),
    "aff_resnext50_32x4d_imagenet": ("aff_resnext50_32x4d", {}),
    "iaff_resnet50_imagenet": ("iaff_resnet50", {}),
    "iaff_resnext50_32x4d_imagenet": ("iaff_resnext50_32x4d", {}),
}
published = pytest.mark.parametrize("name", PUBLISHED)
TINY = {"width_multiplier": 1, "num_classes": 7}
# One small member of each family, with an input that keeps its maps a few pixels large.
FAMILIES = {
    "cifar_resnet8": (TINY, (2, 3, 33, 30)),
    "cifar_inception_resnet8": (TINY, (2, 3, 17, 14)),
    "cifar_resnext11_32x4d": ({"num_classes": 7}, (2, 3, 17, 14)),
    "resnet18": ({"num_classes": 7}, (2, 3, 65, 70)),
    "resnet50": ({"num_classes": 7}, (2, 3, 65, 70)),
    "resnext50_32x4d": ({"num_classes": 7}, (2, 3, 65, 70)),
}
family = pytest.mark.parametrize("backbone", FAMILIES)


def build(name):
    model, options = PUBLISHED[name]
    return create_model(model, **options)


def golden_logits(name, net):
    expected = golden(name)
    logits = net(input_value(expected["input_shape"], expected["input_seed"]))
    return logits[:, : expected["logits_shown"]].asnumpy(), np.array(expected["logits"])


@published
def test_names_and_shapes_are_the_published_ones(name):
    shapes = {key: list(param.shape) for key, param in structural_params(build(name)).items()}
    assert shapes == layout(name)["params"]


@pytest.mark.parametrize("name", ["add_resnet8_c1_cifar100", "aff_resnet8_c1_cifar100"])
@pytest.mark.parametrize("hybrid", [False, True], ids=["imperative", "hybridised"])
def test_golden_logits(name, hybrid):
    net = filled(build(name))
    if hybrid:
        net.hybridize()
    assert_close(*golden_logits(name, net), 1e-4)


@pytest.mark.parametrize("name", list(PUBLISHED)[2:])
def test_golden_logits_of_ill_conditioned_networks(name):
    """Deep networks under the rule's values amplify rounding: the fusions' sigmoids saturate, and
    one part in a million of the input moves the logits by 7 to 17% of their largest, which float64
    does as well.  The golden logits, from another processor, can be met no closer.  Networks with
    one thing wrong (no ReLU after the fusion, its inputs swapped, max for average pooling in the
    shortcut) are 53% or more away.
    """
    actual, expected = golden_logits(name, filled(build(name)))
    assert_close(actual, expected, 0.25)


@pytest.mark.parametrize(
    "backbone, key", [("cifar_resnet8", "iaff")] + [(backbone, "aff") for backbone in FAMILIES]
)
def test_networks_equal_their_printed_form(backbone, key):
    """Well-conditioned values: the initialisation's, and statistics of a first batch."""
    options, shape = FAMILIES[backbone]
    options = dict(options, first_fused_stage=1)
    net = initialized(backbone, fusion=key, **options)
    x = input_value(shape)
    with mx.autograd.record():
        net(x)  # moves the running statistics
    oracle = create_model(backbone, fusion=printed(key), **options)
    oracle.initialize()
    params = structural_params(oracle)
    assert params.keys() == structural_params(net).keys()
    for name, param in structural_params(net).items():
        params[name].set_data(param.data())
    assert_close(net(x), oracle(x))


@pytest.mark.parametrize(
    "backbone, key",
    [(backbone, key) for backbone in list(FAMILIES)[:2] for key in FUSIONS]
    + [(backbone, key) for backbone in list(FAMILIES)[2:] for key in ("aff", "gau")],
)
def test_fusions_train_in_a_small_network_and_networks_with_a_few_fusions(backbone, key):
    options, shape = FAMILIES[backbone]
    net = initialized(f"{key}_{backbone}", last_gamma=False, **options)
    x = input_value(shape)
    assert_every_parameter_gets_a_gradient(net, x)
    imperative = net(x)
    assert imperative.shape == (2, 7)
    net.hybridize()
    assert_close(net(x), imperative)


@family
def test_last_gamma_starts_every_branch_at_zero(backbone):
    """With it, every block of the plain network starts as its shortcut alone."""
    options, shape = FAMILIES[backbone]
    x = input_value(shape)
    for last_gamma in (True, False):
        net = initialized(backbone, last_gamma=last_gamma, **options)
        blocks = []
        net.apply(lambda b, blocks=blocks: blocks.append(b) if hasattr(b, "downsample") else None)
        assert blocks
        zero = []
        for block in blocks:
            block.attention.register_forward_hook(
                lambda _, inputs, __, zero=zero: zero.append(not inputs[0].asnumpy().any())
            )
        net(x)
        assert zero == [last_gamma] * len(blocks)


@pytest.mark.parametrize("backbone", list(FAMILIES)[2:])
def test_squeeze_excitation_gets_gradients(backbone):
    options, shape = FAMILIES[backbone]
    net = initialized(f"aff_{backbone}", last_gamma=False, use_se=True, **options)
    assert any(".se." in name for name in structural_params(net))
    assert_every_parameter_gets_a_gradient(net, input_value(shape))


@family
def test_features_only_gives_the_maps_that_feature_info_describes(backbone):
    options, shape = FAMILIES[backbone]
    net = initialized(f"aff_{backbone}", features_only=True, **options)
    x = input_value(shape)
    outputs = net(x)
    assert [output.shape for output in outputs] == [
        (2, channels, -(-shape[2] // stride), -(-shape[3] // stride))
        for _, channels, stride in net.feature_info
    ]
    net.hybridize()
    for imperative, hybrid in zip(outputs, net(x)):
        assert_close(hybrid, imperative)
    names = list(structural_params(net))
    assert not any(name.startswith(("output", "fc")) for name in names)
    for name, *_ in net.feature_info:
        assert any(each.startswith(name + ".0.") for each in names)


@pytest.mark.parametrize("backbone", [*FAMILIES, "resnext50_64x4d"])
def test_what_is_known_of_a_model_is_what_is_built(backbone):
    fusion, name, family = model_info(f"aff_{backbone}")
    assert (fusion, name) == ("aff", backbone)
    assert model_info(backbone) == (None, backbone, family)
    net = create_model(f"aff_{backbone}")
    assert tuple(feature.channels for feature in net.feature_info) == family.widths
    assert tuple(feature.stride for feature in net.feature_info) == family.strides
    head = list(structural_params(net).values())[-1]
    assert head.shape == (family.num_classes,) == (net.options.num_classes,)
    assert family.task == "classification"
    assert family.input_shape == ((3, 32, 32) if family.num_classes == 100 else (3, 224, 224))


def test_the_norm_on_the_input_can_be_frozen():
    """Then no backward pass goes through a frozen network for its sake."""
    net = initialized("add_cifar_resnet8", **TINY)
    x = input_value((2, 3, 8, 8))
    norm = net.features[0]

    def mean_after_a_step():
        with mx.autograd.record():
            loss = net(x).sum()
        loss.backward()
        return norm.running_mean.data().asnumpy().copy()

    net.features.collect_params().setattr("grad_req", "null")
    assert not mean_after_a_step().any()
    net.features.collect_params().setattr("grad_req", "write")
    assert mean_after_a_step().any() and norm.gamma.grad_req == "null"


def test_gradients_of_the_images():
    net = initialized("aff_cifar_resnet8", **TINY)
    x = input_value((2, 3, 8, 8))
    x.attach_grad()
    for hybrid in (False, True):
        net.hybridize(hybrid)
        with mx.autograd.record(train_mode=False):
            loss = net(x).sum()
        loss.backward()
        assert np.abs(x.grad.asnumpy()).max() > 0
        x.grad[:] = 0


@family
def test_norm_layer_and_kwargs_reach_every_norm(backbone):
    options, shape = FAMILIES[backbone]

    class Own(nn.BatchNorm):
        pass

    net = initialized(f"aff_{backbone}", norm_layer=Own, norm_kwargs={"epsilon": 0.5}, **options)
    norms = []
    net.apply(lambda b: norms.append(b) if isinstance(b, nn.BatchNorm) else None)
    assert len(norms) > 10
    assert all(type(norm) is Own and norm._kwargs["eps"] == 0.5 for norm in norms)
    assert net(input_value(shape)).shape == (2, 7)


def test_dilated_resnet_has_output_stride_8():
    options = {"features_only": True, "dilated": True}
    outputs = initialized("aff_resnet50", **options)(input_value((1, 3, 64, 64)))
    assert [output.shape[2] for output in outputs] == [16, 8, 8, 8]
    small = create_model("aff_resnet18", dilated=True)
    assert [feature.stride for feature in small.feature_info] == [4, 8, 8, 8]
    dilated = structural_params(create_model("aff_resnet50", dilated=True))
    plain = structural_params(create_model("aff_resnet50"))
    assert {k: p.shape for k, p in dilated.items()} == {k: p.shape for k, p in plain.items()}


@pytest.mark.parametrize(
    "name, options, gained, lost",
    [
        ("cifar_resnet8", {"first_fused_stage": 3}, None,
         "features.3.0.attention.local_att.0.weight"),
        ("cifar_resnet8", {"deep_stem": True}, "features.7.weight", "features.2.0.resfwd.0.gamma"),
        ("cifar_resnet8", {"avg_down": False}, "features.3.0.downsample.0.weight",
         "features.3.0.downsample.1.weight"),
        ("cifar_inception_resnet8", {"reduction": 2},
         "features.2.0.resfwd.2.attention.local_att.3.weight", None),
        ("cifar_inception_resnet8", {"first_fused_stage": 3}, None,
         "features.3.0.resfwd.2.branch2.1.gamma"),
        ("cifar_inception_resnet8", {"deep_stem": True}, "features.7.branch2.0.weight",
         "features.2.0.resfwd.0.gamma"),
        ("cifar_inception_resnet8", {"avg_down": True}, "features.3.0.downsample.1.weight",
         "features.3.0.downsample.0.weight"),
        ("cifar_resnext29_32x4d", {"deep_stem": True}, "features.9.0.body.0.weight",
         "features.3.0.body.0.weight"),
        ("cifar_resnext29_32x4d", {"avg_down": False}, "features.3.0.downsample.0.weight",
         "features.3.0.downsample.2.gamma"),
        ("resnet18", {"deep_stem": False}, "conv1.weight", "conv1.0.weight"),
        ("resnet18", {"avg_down": False}, "layer2.0.downsample.0.weight",
         "layer2.0.downsample.2.gamma"),
        ("resnet18", {"first_fused_stage": 4}, None, "layer3.0.attention.local_att.0.weight"),
        ("resnet50", {"use_se": True}, "layer1.0.se.1.weight", None),
        ("resnext50_32x4d", {"deep_stem": False}, "features.4.0.body.0.weight",
         "features.10.2.body.0.weight"),
        ("resnext50_32x4d", {"avg_down": False}, "features.11.0.downsample.0.weight",
         "features.11.0.downsample.2.gamma"),
    ],
)  # fmt: skip
def test_options_change_parameters(name, options, gained, lost):
    changed = set(structural_params(create_model(f"aff_{name}", **options)))
    default = set(structural_params(create_model(f"aff_{name}")))
    for found, expected in ((changed - default, gained), (default - changed, lost)):
        assert expected in found if expected else not found


@pytest.mark.parametrize(
    "name, blocks",
    [
        ("resnet18", (2, 2, 2, 2)),
        ("resnet34", (3, 4, 6, 3)),
        ("resnet152", (3, 8, 36, 3)),
        ("resnext101_32x4d", (3, 4, 23, 3)),
    ],
)
def test_depths(name, blocks):
    net = create_model(name)
    names = structural_params(net)
    for feature, count in zip(net.feature_info, blocks):
        found = {each.split(".")[feature.name.count(".") + 1] for each in names
                 if each.startswith(feature.name + ".")}  # fmt: skip
        assert found == set(map(str, range(count)))


def test_table_lines_of_resnet_18_and_64x4d():
    shapes = {name: p.shape for name, p in structural_params(create_model("resnet18")).items()}
    assert shapes["layer1.1.conv2.weight"] == (64, 64, 3, 3)
    assert shapes["layer4.0.downsample.1.weight"] == (512, 256, 1, 1)
    assert "layer1.0.downsample.1.weight" not in shapes  # nothing changes its shape there
    assert shapes["fc.weight"] == (1000, 512)
    shapes = {n: p.shape for n, p in structural_params(create_model("resnext50_64x4d")).items()}
    assert shapes["features.10.0.body.0.weight"] == (256, 128, 1, 1)
    assert shapes["features.10.0.body.3.weight"] == (256, 4, 3, 3)


@family
def test_float16_casts(backbone):
    """MXNet has no float16 convolution on a CPU: what can be tested here is the graph's types."""
    options, _ = FAMILIES[backbone]
    net = initialized(f"aff_{backbone}", **options)
    net.cast("float16")
    symbol = net(mx.sym.var("data", dtype="float16"))
    assert symbol.infer_type(data="float16")[1] == [np.float16]


def test_bare_backbone_is_the_plain_sum_and_takes_a_fusion():
    plain = create_model("cifar_resnet8", **TINY)
    assert (
        structural_params(plain).keys()
        == structural_params(create_model("add_cifar_resnet8", **TINY)).keys()
    )
    for fusion in ("aff", "AFF", "ASKCFuse", FUSIONS["aff"]):
        net = create_model("cifar_resnet8", fusion=fusion, **TINY)
        assert "features.2.0.attention.local_att.0.weight" in structural_params(net)


@pytest.mark.parametrize(
    "name, options, fusion",
    [
        ("iaff_resnet50", {"width_multiplier": 2}, "iaff"),
        ("cifar_resnet8", {}, "add"),
        ("cifar_resnet8", {"fusion": "my_fusions:BranchAFF"}, "my_fusions:BranchAFF"),
    ],
)
def test_what_a_network_fuses_with(name, options, fusion):
    assert fusion_of(name, options) == fusion


def test_ones_own_fusion_without_registering_it():
    class Scaled(nn.HybridBlock):
        def __init__(self, channels, **kwargs):
            super().__init__(**kwargs)
            self.scale = self.params.get("scale", shape=(1, channels, 1, 1), init="ones")

        def hybrid_forward(self, F, x, residual, scale):
            return F.broadcast_mul(x, scale) + residual

    net = create_model("cifar_resnet8", fusion=Scaled, **TINY)
    net.initialize()
    assert structural_params(net)["features.4.0.attention.scale"].shape == (1, 64, 1, 1)
    x = input_value((2, 3, 32, 32))
    imperative = net(x)
    net.hybridize()
    assert_close(net(x), imperative)


def test_width_reduction_and_deep_stem_shapes():
    net = create_model("aff_cifar_resnet8", width_multiplier=2, reduction=8, deep_stem=True)
    shapes = {name: param.shape for name, param in structural_params(net).items()}
    assert shapes["features.1.weight"] == (16, 3, 3, 3)
    assert shapes["features.7.weight"] == (32, 16, 3, 3)
    assert shapes["features.8.0.attention.local_att.0.weight"] == (4, 32, 1, 1)
    assert shapes["output.weight"] == (100, 128)


def test_a_width_between_whole_multiples_is_rounded():
    net = create_model("add_cifar_resnet8", width_multiplier=1.075)
    assert [feature.channels for feature in net.feature_info] == [17, 34, 69]
    host = create_model("add_fpn_resnet8", width_multiplier=0.5, features_only=True)
    assert host.feature_info[0].channels * 2 == 16


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("aff_cifar_resnet9", {}, "no CIFAR ResNet has depth 9: it must be 6b"),
        ("aff_cifar_resnet2", {}, "no CIFAR ResNet has depth 2"),
        ("aff_cifar_resnext30_32x4d", {}, "no CIFAR ResNeXt has depth 30: it must be 9b"),
        ("aff_resnet19", {}, r"no ResNet has depth 19: it is one of \[18, 34, 50, 101, 152\]"),
        ("aff_resnext18_32x4d", {}, "no ResNeXt has depth 18"),
        ("aff_resnet50", {"first_fused_stage": 6}, "must be 1 to 5 for 4 stages"),
        ("aff_resnet50", {"first_fused_stage": 5, "reduction": 8}, "reduction=8 has no effect: no"),
        ("aff_cifar_resnt32", {}, "unknown model 'aff_cifar_resnt32'; did you mean"),
        ("af_cifar_resnet32", {}, "unknown model 'af_cifar_resnet32'; did you mean"),
        ("aff_cifar_resnet8", {"fusion": "iaff"}, "has a fusion already"),
        ("aff_cifar_resnet8", {"num_classes": 0}, "num_classes must be a positive integer"),
        ("aff_cifar_resnet8", {"width": 2}, "no option 'width'.*width_multiplier"),
        ("aff_resnet50", {"deep_stm": True}, "no option 'deep_stm'; did you mean 'deep_stem'"),
        ("aff_resnet18", {"width_multiplier": 2}, "aff_resnet18 has no option 'width_multiplier'"),
        ("aff_cifar_resnet8", {"width_multiplier": "2"}, "width_multiplier must be a positive"),
        ("aff_cifar_resnet8", {"width_multiplier": True}, "width_multiplier must be a positive"),
        ("aff_cifar_resnet8", {"width_multiplier": 0.02}, "that leaves a channel, not 0.02"),
        ("aff_cifar_resnet8", {"width_multiplier": float("nan")}, "must be a positive number"),
        (
            "add_cifar_resnet8",
            {"width_multiplier": 0.05, "deep_stem": True},
            "the deep stem's hidden channels must be a positive integer, not 0",
        ),
        (
            "add_fpn_resnet8",
            {"width_multiplier": 0.1},
            "a fourth of the pyramid's channels",
        ),
        (
            "add_fpn_resnet8",
            {"width_multiplier": 0.5, "use_se": True},
            "the gates' 8 // 16 channels must be a positive integer, not 0",
        ),
        ("aff_cifar_resnet8", {"first_fused_stage": 5}, "must be 1 to 4 for 3 stages"),
        ("aff_cifar_resnet8", {"deep_stem": "maybe"}, "deep_stem must be true or false"),
        ("aff_cifar_resnet8", {"norm_layer": "x"}, "norm_layer must be a class of layers"),
        ("aff_cifar_resnet8", {"norm_kwargs": 3}, "norm_kwargs=3: "),
        ("aff_cifar_resnet8", {"norm_kwargs": {"epsilonn": 3}}, "epsilonn"),
        ("aff_cifar_resnet8", {"norm_kwargs": {"prefix": "a_"}}, "network sets prefix itself"),
        ("aff_cifar_resnet8", {"norm_kwargs": {"beta_initializer": "foo"}}, "norm_kwargs=.*: ."),
        ("aff_cifar_resnet8", {"width_multiplier": 1e308}, "must be a positive number"),
        (None, {}, "unknown model None"),
        ("aff_cifar_resnet8", {"reduction": 3}, "64 channels cannot be reduced by 3"),
        ("add_cifar_resnet8", {"reduction": 4}, "reduction=4 has no effect"),
    ],
)
def test_errors(name, options, message):
    with pytest.raises(UserError, match=message):
        create_model(name, **options)


def test_list_models():
    names = list_models("aff_cifar_*")
    assert "aff_cifar_resnet32" in names and names == sorted(names)
    assert all(name.startswith("aff_cifar_") for name in names)
    assert list_models("nothing*") == []
    assert {name.split("_")[0] for name in list_models()} == set(FUSIONS)


@pytest.mark.parametrize("hybrid", [False, True], ids=["imperative", "hybridised"])
def test_the_norm_on_the_input_keeps_its_statistics_however_it_is_wrapped(hybrid):
    net = initialized("add_cifar_resnet8", **TINY)
    wrapper = nn.HybridSequential()
    wrapper.add(net, nn.Dense(2))
    wrapper[1].initialize()
    if hybrid:
        wrapper.hybridize()
    images = 2 * input_value((8, 3, 16, 16)) + 3
    for _ in range(60):
        with mx.autograd.record():
            loss = wrapper(images).sum()
        loss.backward()
    norm, pixels = net.features[0], images.asnumpy()
    assert_close(norm.running_mean.data(), pixels.mean((0, 2, 3)), 1e-2)
    assert_close(norm.running_var.data(), pixels.var((0, 2, 3)), 1e-2)
    before = norm.running_mean.data().asnumpy()
    wrapper(images + 1)  # inference
    np.testing.assert_array_equal(norm.running_mean.data().asnumpy(), before)
    assert norm.gamma.grad_req == "null" and (norm.gamma.data().asnumpy() == 1).all()


@pytest.mark.parametrize("name", ["aff_cifar_resnet32", "aff_resnet50", "aff_fpn_resnet20"])
def test_a_network_is_shown_on_a_screen(name):
    net = create_model(name)
    lines = repr(net).splitlines()
    assert len(lines) <= 15 and all(len(line) <= 100 for line in lines)
    assert lines[0] == f"{type(net).__name__}("
    shown = sum(int(re.search(r"([\d,]+) parameters", line)[1].replace(",", "")) for line in lines
                if "parameters" in line)  # fmt: skip
    assert shown == count_parameters(net)[0]
    assert "Dense(" in lines[-2] or "Conv2D(" in lines[-2]


def test_a_fusion_is_shown_in_a_line_a_context():
    part = "Conv2D, BatchNorm, Activation, Conv2D, BatchNorm; 188 parameters"
    lines = [f"  (local_att): {part}", f"  (global_att): GlobalPool, {part}"]
    assert repr(fusion_factory("aff")(16)).splitlines() == ["ASKCFuse(", *lines, ")"]
    assert repr(fusion_factory("add")(16)) == "DirectAddFuse()"
