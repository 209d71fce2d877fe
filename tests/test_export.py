import shutil

import mxnet as mx
import numpy as np
import pytest
from helpers import assert_close, filled, input_value

from openaff import UserError, create_model, export
from openaff.fusion import FUSIONS


@pytest.mark.parametrize("key", list(FUSIONS))
def test_reimported_symbol_equals_the_network(tmp_path, key):
    net = filled(create_model(key + "_cifar_resnet8", num_classes=7, width_multiplier=1))
    files, difference = export.export_symbol(net, tmp_path, "net", (3, 32, 32))
    assert difference <= export.TOLERANCE
    imported = mx.gluon.SymbolBlock.imports(str(files[0]), ["data"], str(files[1]))
    odd = input_value((3, 3, 29, 35))  # another batch and image size
    assert_close(imported(odd), net(odd))
    assert mx.sym.load(str(files[0])).list_outputs() == ["logits_output"]


def test_exporting_twice_gives_the_same_files(tmp_path):
    written = []
    for name in "ab":  # two networks in one process: Gluon's own names would count on
        net = filled(create_model("aff_cifar_resnet8", width_multiplier=1))
        written.append(export.export_symbol(net, tmp_path / name, "net", (3, 32, 32))[0])
    for first, second in zip(*written):
        assert first.read_bytes() == second.read_bytes()


def test_parameters_carry_structural_names(tmp_path):
    net = filled(create_model("aff_cifar_resnet8", width_multiplier=1))
    (_, params), _ = export.export_symbol(net, tmp_path, "net", (3, 32, 32))
    names = mx.nd.load(str(params))
    assert "arg:features.2.0.attention.local_att.0.weight" in names
    assert "aux:features.5.running_mean" in names


def test_a_difference_is_an_error(tmp_path, monkeypatch):
    net = filled(create_model("add_cifar_resnet8", width_multiplier=1))
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match="differs from the network by"):
        export.export_symbol(net, tmp_path, "net", (3, 32, 32))
    assert list(tmp_path.iterdir()) == []


def test_load_run(digits_run):
    folder, result = digits_run
    net, config, loaded = export.load_run(folder)
    assert config.model.name == result["model"] == loaded["model"]
    assert net(input_value((2, 3, 32, 32))).shape == (2, 10)


def test_load_run_errors(digits_run, tmp_path):
    with pytest.raises(UserError, match="no folder of a finished run"):
        export.load_run(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(digits_run[0], copy)
    (copy / "best.params").write_bytes(b"\0" * 20)
    with pytest.raises(UserError, match="best.params does not hold the parameters of aff_cifar"):
        export.load_run(copy)
    other = create_model("add_cifar_resnet14", num_classes=10)
    other.initialize()
    other.save_parameters(str(copy / "best.params"))
    with pytest.raises(UserError, match="best.params does not hold the parameters of aff_cifar"):
        export.load_run(copy)


@pytest.mark.parametrize("key", list(FUSIONS))
def test_mxnets_exporter_makes_an_equal_onnx_file(tmp_path, key):
    pytest.importorskip("onnx", reason="needs the extra [onnx]")
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra [onnx]")
    exporter = pytest.importorskip("mxnet.onnx")
    net = filled(create_model(key + "_cifar_resnet8", num_classes=7, width_multiplier=1))
    (symbol, params), _ = export.export_symbol(net, tmp_path, "net", (3, 32, 32))
    images = input_value((2, 3, 33, 30))
    path = str(tmp_path / "net.onnx")
    exporter.export_model(str(symbol), str(params), [images.shape], [np.float32], path)
    (output,) = onnxruntime.InferenceSession(path).run(None, {"data": images.asnumpy()})
    assert_close(output, net(images))
