import mxnet as mx
import pytest
from helpers import assert_close, filled, input_value

from openaff import UserError, create_model
from openaff.analysis.fusion_weights import fusion_weights

X = input_value((2, 3, 32, 32))


def network(fusion):
    return filled(create_model(fusion + "_cifar_resnet8", width_multiplier=1, num_classes=4))


@pytest.mark.parametrize(
    "fusion, shapes",
    [
        ("aff", [(2, 16, 32, 32), (2, 32, 16, 16), (2, 64, 8, 8)]),
        ("gau", [(2, 16, 1, 1), (2, 32, 1, 1), (2, 64, 1, 1)]),
    ],
)
def test_one_map_of_weights_a_fusion(fusion, shapes):
    weights = fusion_weights(network(fusion), X)
    assert [[weight.shape for weight in rounds] for rounds in weights] == [[s] for s in shapes]
    for (weight,) in weights:
        assert 0 <= weight.min() < weight.max() <= 1


def test_the_weights_are_those_of_the_first_fusion():
    net = network("aff")
    x = net.features[1](net.features[0](X))
    block = net.features[2][0]
    total = block.resfwd(x) + x
    context = mx.nd.broadcast_add(
        block.attention.local_att(total), block.attention.global_att(total)
    )
    assert_close(fusion_weights(net, X)[0][0], mx.nd.sigmoid(context))


def test_iaff_weighs_twice():
    weights = fusion_weights(network("iaff"), X)
    channels = [[weight.shape[1] for weight in rounds] for rounds in weights]
    assert channels == [[16, 16], [32, 32], [64, 64]]


def test_cells_are_fusions():
    net = create_model("aff_cifar_inception_resnet8", width_multiplier=1, num_classes=4)
    weights = fusion_weights(filled(net), X)
    shapes = [(16, 32, 32)] * 3 + [(16, 16, 16), (32, 16, 16), (32, 8, 8), (64, 8, 8)]
    assert [weight.shape[1:] for (weight,) in weights] == shapes


def test_gates_are_no_fusions():
    net = create_model("aff_cifar_resnext11_32x4d", num_classes=4, use_se=True)
    weights = fusion_weights(filled(net), X)
    shapes = [weight.shape[1:] for (weight,) in weights]
    assert shapes == [(256, 32, 32), (512, 16, 16), (1024, 8, 8)]


def test_a_plain_sum_has_no_weights():
    with pytest.raises(UserError, match="no fusion that computes weights"):
        fusion_weights(network("add"), X)
