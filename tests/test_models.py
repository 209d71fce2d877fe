import mxnet as mx
import numpy as np
import pytest
from helpers import assert_close, filled, golden, input_value, layout, structural_params
from mxnet.gluon import nn

from openaff import UserError, create_model, list_models
from openaff.fusion import FUSIONS

PUBLISHED = {
    "add_resnet8_c1_cifar100": ("add_cifar_resnet8", {"width_multiplier": 1}),
    "aff_resnet8_c1_cifar100": ("aff_cifar_resnet8", {"width_multiplier": 1}),
    "aff_resnet32_cifar100": ("aff_cifar_resnet32", {}),
}
published = pytest.mark.parametrize("name", PUBLISHED)
TINY = {"width_multiplier": 1, "num_classes": 7}


def build(name):
    model, options = PUBLISHED[name]
    return create_model(model, **options)


@published
def test_names_and_shapes_are_the_published_ones(name):
    shapes = {key: list(param.shape) for key, param in structural_params(build(name)).items()}
    assert shapes == layout(name)["params"]


@pytest.mark.parametrize("name", ["add_resnet8_c1_cifar100", "aff_resnet8_c1_cifar100"])
@pytest.mark.parametrize("hybrid", [False, True], ids=["imperative", "hybridised"])
def test_golden_logits(name, hybrid):
    expected = golden(name)
    net = filled(build(name))
    if hybrid:
        net.hybridize()
    logits = net(input_value(expected["input_shape"], expected["input_seed"]))
    assert_close(logits[:, : expected["logits_shown"]], expected["logits"], 1e-4)


def test_golden_logits_of_the_ill_conditioned_network():
    """AFF-ResNet-32 under the rule's values saturates every sigmoid: changing its input by one part
    in 10 million changes the logits by 14%, and float64 lies 11% away.  So the golden logits can be
    met in direction only; names, shapes and the small networks' logits pin the rest.
    """
    expected = golden("aff_resnet32_cifar100")
    net = filled(build("aff_resnet32_cifar100"))
    logits = net(input_value(expected["input_shape"], expected["input_seed"])).asnumpy()
    for actual, wanted in zip(logits, expected["logits"]):
        assert np.corrcoef(actual, wanted)[0, 1] > 0.95


@pytest.mark.parametrize("key", list(FUSIONS))
def test_every_fusion_in_the_backbone(key):
    net = create_model(key + "_cifar_resnet8", **TINY)
    net.initialize(mx.init.Xavier())
    x = input_value((2, 3, 33, 30))  # odd sizes too
    with mx.autograd.record():
        loss = (net(x) ** 2).sum()
    loss.backward()
    for name, param in structural_params(net).items():
        # A bias before a batch norm has no effect in training.
        if param.grad_req != "null" and not (name.endswith("bias") and "attention" in name):
            assert np.abs(param.grad().asnumpy()).max() > 0, name
    imperative = net(x)
    assert imperative.shape == (2, 7)
    net.hybridize()
    assert_close(net(x), imperative)


def test_bare_backbone_is_the_plain_sum_and_takes_a_fusion():
    plain = create_model("cifar_resnet8", **TINY)
    assert (
        structural_params(plain).keys()
        == structural_params(create_model("add_cifar_resnet8", **TINY)).keys()
    )
    for fusion in ("aff", "AFF", "ASKCFuse", FUSIONS["aff"]):
        net = create_model("cifar_resnet8", fusion=fusion, **TINY)
        assert "features.2.0.attention.local_att.0.weight" in structural_params(net)


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


@pytest.mark.parametrize(
    "options, present, absent",
    [
        ({"first_fused_stage": 3}, "features.4.0.attention", "features.3.0.attention"),
        ({"deep_stem": True}, "features.7.weight", "features.4.0"),
        ({"avg_down": False}, "features.3.0.downsample.0.weight", "features.3.0.downsample.1"),
        ({"reduction": 16}, "features.2.0.attention", "none"),
    ],
)
def test_options(options, present, absent):
    net = filled(create_model("aff_cifar_resnet8", **TINY, **options))
    names = list(structural_params(net))
    assert any(name.startswith(present) for name in names)
    assert not any(name.startswith(absent) for name in names)
    assert net(input_value((2, 3, 32, 32))).shape == (2, 7)


def test_width_reduction_and_deep_stem_shapes():
    net = create_model("aff_cifar_resnet8", width_multiplier=2, reduction=8, deep_stem=True)
    shapes = {name: param.shape for name, param in structural_params(net).items()}
    assert shapes["features.1.weight"] == (16, 3, 3, 3)
    assert shapes["features.7.weight"] == (32, 16, 3, 3)
    assert shapes["features.8.0.attention.local_att.0.weight"] == (4, 32, 1, 1)
    assert shapes["output.weight"] == (100, 128)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("aff_cifar_resnet9", {}, "no CIFAR ResNet has depth 9: it must be 6b"),
        ("aff_cifar_resnet2", {}, "no CIFAR ResNet has depth 2"),
        ("aff_cifar_resnt32", {}, "unknown model 'aff_cifar_resnt32'; did you mean"),
        ("af_cifar_resnet32", {}, "unknown model 'af_cifar_resnet32'; did you mean"),
        ("aff_cifar_resnet8", {"fusion": "iaff"}, "has a fusion already"),
        ("aff_cifar_resnet8", {"num_classes": 0}, "num_classes must be a positive integer"),
        ("aff_cifar_resnet8", {"width": 2}, "no option 'width'.*width_multiplier"),
        ("aff_cifar_resnet8", {"width_multiplier": "2"}, "width_multiplier must be a positive"),
        ("aff_cifar_resnet8", {"first_fused_stage": 5}, "must be 1 to 4 for 3 stages"),
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
