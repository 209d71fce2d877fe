import mxnet as mx
import numpy as np
import pytest
from helpers import assert_close, filled, input_value, structural_params
from mxnet.gluon import nn

from openaff import MSCAM, UserError
from openaff.attention import GlobalPool, channel_context


def test_mscam_is_equation_3():
    block = filled(MSCAM(8, reduction=2))
    x = input_value((2, 8, 5, 4))
    expected = x * mx.nd.sigmoid(mx.nd.broadcast_add(block.local_att(x), block.global_att(x)))
    assert_close(block(x), expected)
    block.hybridize()
    assert_close(block(x), expected)


def test_mscam_every_parameter_gets_a_gradient():
    block = filled(MSCAM(8, reduction=2))
    x = input_value((2, 8, 5, 4))
    with mx.autograd.record():
        loss = (block(x) * input_value(x.shape, 1)).sum()
    loss.backward()
    for name, param in structural_params(block).items():
        if param.grad_req != "null":
            assert np.abs(param.grad().asnumpy()).max() > 0, name


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (1, 4, 7, 5), (3, 2, 32, 32)])
def test_global_pool_equals_gluons(shape):
    x = input_value(shape)
    assert_close(GlobalPool()(x), nn.GlobalAvgPool2D()(x))


@pytest.mark.parametrize(
    "channels, reduction, message",
    [
        (10, 4, "10 channels cannot be reduced by 4"),
        (2, 4, "2 channels cannot be reduced by 4"),
        (8, 0, "reduction must be a positive integer, not 0"),
        (8.0, 2, "channels must be a positive integer, not 8.0"),
    ],
)
def test_impossible_reduction(channels, reduction, message):
    with pytest.raises(UserError, match=message):
        MSCAM(channels, reduction)


def test_norm_layer_and_kwargs_reach_the_layers():
    body = channel_context(
        8, 4, norm_layer=nn.BatchNorm, norm_kwargs={"epsilon": 0.5, "momentum": 0.1}
    )
    norms = [layer for layer in body if isinstance(layer, nn.BatchNorm)]
    assert [layer._kwargs["eps"] for layer in norms] == [0.5, 0.5]
