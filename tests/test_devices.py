import mxnet as mx
import pytest

from openaff import UserError
from openaff.utils.devices import parse_devices


def test_cpu_forms():
    assert parse_devices("cpu") == [mx.cpu(0)]
    assert parse_devices("cpu:3") == [mx.cpu(0), mx.cpu(1), mx.cpu(2)]


@pytest.mark.parametrize(
    "text", ["", "gpu", "cpu:", "cpu:a", "gpu:0,", "gpu:0;1", "tpu:0", "cpu,1"]
)
def test_other_forms_are_an_error(text):
    with pytest.raises(UserError, match="write cpu, cpu:N"):
        parse_devices(text)


def test_impossible_counts():
    with pytest.raises(UserError, match="at least one device"):
        parse_devices("cpu:0")
    with pytest.raises(UserError, match="at most 64"):
        parse_devices("cpu:99999999999")
    with pytest.raises(UserError, match="named twice"):
        parse_devices("gpu:1,1")


def test_absent_gpu_is_an_error_and_never_the_cpu():
    cuda = mx.runtime.Features().is_enabled("CUDA")
    with pytest.raises(
        UserError, match="mxnet finds" if cuda else "this mxnet is for the CPU only"
    ):
        parse_devices("gpu:99")
