"""The engines that run exports, above all OpenVINO, and the choice among them."""

import json
import subprocess
import sys
import types

import mxnet as mx
import numpy as np
import pytest
from helpers import initialized
from PIL import Image

from openaff import UserError
from openaff.data import DataConfig, load_dataset
from openaff.deploy import engines, openvino_model
from openaff.deploy.engines import Engine
from openaff.deploy.export import export_folder, read_export
from openaff.deploy.onnx_model import export_onnx
from openaff.deploy.openvino_model import OpenVINO
from openaff.deploy.predict import Predictor
from openaff.deploy.subject import run_subject
from openaff.deploy.symbol import export_symbol

pytest.importorskip("onnxruntime", reason="needs the extra [onnx]")
try:
    openvino_model.runtime()
except UserError:
    INSTALLED = False
else:
    INSTALLED = True
needs_openvino = pytest.mark.skipif(not INSTALLED, reason="needs the extra [openvino]")


def images(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def exported_onnx(net, folder, shape, batch=None):
    files, _ = export_symbol(net, folder, "net", shape)
    export_onnx(*files, folder / "net.onnx", shape, batch)
    return folder / "net.onnx"


@needs_openvino
@pytest.mark.parametrize("fusion", ["aff", "iaff"])
@pytest.mark.parametrize(
    "backbone, shapes",
    [
        ("cifar_resnet8", [(1, 3, 32, 32), (5, 3, 32, 32)]),
        ("cifar_inception_resnet8", [(1, 3, 32, 32), (3, 3, 32, 32)]),
        ("fpn_resnet8", [(1, 3, 32, 48), (2, 3, 37, 61), (1, 3, 64, 64)]),
    ],
)
def test_openvino_gives_what_mxnet_gives(fusion, backbone, shapes, tmp_path):
    net = initialized(f"{fusion}_{backbone}", width_multiplier=1, num_classes=7)
    run = OpenVINO(exported_onnx(net, tmp_path, shapes[0][1:]))
    assert (run.precision, run.batch) == ("f32", None)
    for shape in shapes:
        batch = images(*shape)
        expected = net(mx.nd.array(batch)).asnumpy()
        assert abs(run(batch) - expected).max() <= 1e-5 * max(1, abs(expected).max())


@needs_openvino
def test_shapes_that_come_again_get_a_network_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(openvino_model, "FIXED_AFTER", 2)
    monkeypatch.setattr(openvino_model, "MOST_FIXED", 1)
    net = initialized("aff_cifar_resnet8", width_multiplier=1)
    run = OpenVINO(exported_onnx(net, tmp_path, (3, 32, 32)), threads=1)
    one, two = images(1, 3, 32, 32), images(2, 3, 32, 32)
    first = run(one)
    kept = first.copy()
    np.testing.assert_allclose(run(one), first, rtol=1e-4, atol=1e-5)
    assert list(run._fixed) == [one.shape]
    for _ in range(3):
        outputs = run(two)
    assert list(run._fixed) == [one.shape] and outputs.shape == (2, 100)
    np.testing.assert_array_equal(first, kept)  # later calls do not write into it


@needs_openvino
def test_a_fixed_batch_size_and_float16(digits_run, tmp_path):
    subject = run_subject(digits_run[0])
    facts = export_folder(subject, tmp_path / "out", batch=4, dtype="float16")
    engine = Engine(tmp_path / "out", facts, "openvino", "auto")
    assert engine.precision in ("f32", "bf16", "f16")
    batch = mx.nd.array(images(6, *subject.input_shape))
    expected = subject.net(batch).asnumpy()
    assert abs(engine(batch).asnumpy() - expected).max() < 0.05 * abs(expected).max()


@needs_openvino
def test_signals_arrive_when_networks_have_gone(tmp_path):
    """In the order in which they came, see ``openvino_model._core``."""
    code = (
        "import os, signal, sys; from openaff.deploy.openvino_model import OpenVINO\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('arrived'))\n"
        "first, second = OpenVINO(sys.argv[1]), OpenVINO(sys.argv[1])\n"
        "del first\n"
        "del second\n"
        "os.kill(os.getpid(), signal.SIGTERM)"
    )
    net = initialized("add_cifar_resnet8", width_multiplier=1)
    path = exported_onnx(net, tmp_path, (3, 32, 32))
    done = subprocess.run([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (0, b"arrived\n")


def test_without_openvino_or_with_an_old_one(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"OpenVINO cannot be imported .*install -e .\[openvino\]"):
        OpenVINO("any.onnx")
    old = types.SimpleNamespace(__version__="2023.3.0-13775-releases")
    monkeypatch.setitem(sys.modules, "openvino", old)
    with pytest.raises(UserError, match="OpenVINO 2023.3.0 is too old, it must be 2024.4 or newer"):
        OpenVINO("any.onnx")


@needs_openvino
def test_errors_of_openvino(tmp_path):
    (tmp_path / "text.onnx").write_text("no model")
    for path, precision, message in (
        (tmp_path / "absent.onnx", "f32", "there is no file .*absent.onnx"),
        (tmp_path / "text.onnx", "f32", "text.onnx is not a model that OpenVINO can run: .+"),
        (tmp_path / "text.onnx", "f64", "precision must be f32 or auto, not 'f64'"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            OpenVINO(path, precision)
        assert "\n" not in str(caught.value)


# --- The choice -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(digits_run, tmp_path_factory):
    """An export with all files of the digits' network."""
    folder = tmp_path_factory.mktemp("engines") / "export"
    digits = load_dataset(DataConfig())
    batches = [images(8, *digits.test.image_shape)]
    export_folder(run_subject(digits_run[0]), folder, calibration=batches)
    return folder


def missing(*names):
    def fail():
        raise UserError("it is not installed")

    return {name: fail for name in names}


@pytest.mark.parametrize(
    "absent, chosen",
    [((), "openvino"), (("openvino",), "onnxruntime"), (("openvino", "onnxruntime"), "mxnet")],
)
def test_auto_takes_the_fastest_that_is_installed(exported, monkeypatch, absent, chosen):
    if chosen == "openvino" and not INSTALLED:
        pytest.skip("needs the extra [openvino]")
    for name, fail in missing(*absent).items():
        monkeypatch.setitem(engines.RUNTIMES, name, fail)
    predictor = Predictor(exported)
    assert (predictor.engine, predictor.precision) == (chosen, "f32")


@needs_openvino
def test_every_engine_says_the_same(exported, digits_run):
    batch = images(3, 3, 32, 32)
    expected = run_subject(digits_run[0]).net(mx.nd.array(batch)).asnumpy()
    facts = read_export(exported)
    for name in [name for name in engines.ENGINES if name != "pytorch"]:  # not in this export
        engine = Engine(exported, facts, name)
        tolerance = 0.1 if name.endswith("int8") else 1e-5
        outputs = engine(mx.nd.array(batch)).asnumpy()
        assert abs(outputs - expected).max() <= tolerance * abs(expected).max(), name
        assert engine.precision == ("int8, the rest f32" if name.endswith("int8") else "f32")


def test_errors_of_the_choice(exported, digits_run, tmp_path, monkeypatch):
    facts = read_export(exported)
    for arguments, message in (
        (("tvm",), "there is no engine 'tvm': there are auto, mxnet, onnxruntime"),
        (("mxnet", "f32"), "a precision is for OpenVINO: it has no effect on mxnet"),
    ):
        with pytest.raises(UserError, match=message):
            Engine(exported, facts, *arguments)
    facts = export_folder(run_subject(digits_run[0]), tmp_path / "symbol", ("symbol",))
    with pytest.raises(UserError, match="no file for the engine 'openvino': it has mxnet"):
        Engine(tmp_path / "symbol", facts, "openvino")
    facts = export_folder(run_subject(digits_run[0]), tmp_path / "onnx", ("onnx",))
    for name, fail in missing("openvino", "onnxruntime").items():
        monkeypatch.setitem(engines.RUNTIMES, name, fail)
    with pytest.raises(UserError, match="no engine can run the export .*: it is not installed"):
        Engine(tmp_path / "onnx", facts)


# --- The scripts ----------------------------------------------------------------------------------


@needs_openvino
def test_predict_says_which_engine(exported, call, tmp_path):
    path = tmp_path / "digit.png"
    Image.fromarray(load_dataset(DataConfig()).test.images[0]).save(path)
    printed = call("predict", "--export", exported, path)
    assert "engine: openvino, f32\n" in printed.err and printed.out.startswith(f"{path}: ")
    command = ("--engine", "openvino", "--precision", "auto", "--json")
    result = json.loads(call("predict", "--export", exported, path, *command).out)
    assert result["engine"] == "openvino" and result["precision"] in ("f32", "bf16", "f16")


def test_exports_are_evaluated_by_any_engine(exported, call, digits_run):
    expected = json.loads(call("evaluate", "--run", digits_run[0], "--json").out)
    assert expected["engine"] is None
    names = ["mxnet", "onnxruntime"] + ["openvino"] * INSTALLED
    for name in names:
        command = ("--export", exported, "--engine", name, "--batch-size", 50)
        result = json.loads(call("evaluate", *command, "--json").out)
        assert (result["engine"], result["precision"]) == (name, "f32")
        assert result["params"] == str(exported)
        for key in ("accuracy", "images", "model", "labels", "mean"):
            assert result[key] == expected[key]
        assert result["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    line = call("evaluate", "--export", exported, "--engine", "onnxruntime").out
    assert line.startswith("aff_cifar_resnet8 on digits test, 10 digits: top-1 ")
    assert line.endswith(" images/s); onnxruntime, f32\n")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--dataset", "digits"), "--dataset has no effect with --export: the export settles it"),
        (("--image-size", "8"), "--image-size has no effect with --export"),
        (("--devices", "cpu:2"), "--devices has no effect with --export: its engines run on the"),
        (("--engine", "mxnet", "--precision", "f32"), "a precision is for OpenVINO"),
    ],
)
def test_flags_without_effect_on_an_export(exported, call, arguments, message):
    with pytest.raises(UserError, match=message):
        call("evaluate", "--export", exported, *arguments)


def test_engines_are_for_exports(call, digits_run):
    for flag in ("engine", "precision"):
        value = "openvino" if flag == "engine" else "f32"
        with pytest.raises(UserError, match=f"--{flag} is for --export: other networks run in"):
            call("evaluate", "--run", digits_run[0], f"--{flag}", value)
