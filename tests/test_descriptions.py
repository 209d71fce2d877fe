"""``result.json`` and ``export.json``: damaged ones are told in one line."""

import json
import os

import mxnet as mx
import pytest

from openaff import UserError
from openaff.deploy.engines import Engine
from openaff.deploy.export import read_export
from openaff.deploy.onnx_model import session
from openaff.deploy.subject import run_data
from openaff.training.config import load_config
from openaff.training.finetuning import load_start
from openaff.utils.descriptions import EXPORT_FORMAT, read_description, read_result
from openaff.utils.files import sha256

NETWORK = {
    "model": "aff_cifar_resnet8",
    "options": {},
    "input_shape": [3, 32, 32],
    "mean": [0, 0.5, 1.0],
    "std": [1, 1, 0.2],
    "dataset": "digits",
    "labels": "10 classes",
}
RESULT = {
    **NETWORK,
    "split": "x",
    "protocol": "x",
    "seed": 0,
    "commit": None,
    "best_accuracy": 0.5,
    "last_accuracy": 0.5,
    "best_epoch": 1,
    "best_selection": "x",
}
EXPORT = {**NETWORK, "format": EXPORT_FORMAT, "output": {"classes": 10}, "files": {}}
WRONG = [
    ("[" * 100000, "nested too deeply"),
    ("{", "not JSON"),
    ({"mean": {}}, "mean must be a list of 3 values, not {}"),
    ({"mean": [0, 0, "1"]}, r"mean\[2\] must be a finite number"),
    ({"std": [1, 0, 1]}, "std must be positive"),
    ({"input_shape": [3, 32]}, "input_shape must be a list of 3 values"),
    ({"input_shape": [3, 32, -1]}, "input_shape must be 3, H, W"),
    ({"input_shape": [3, 10**14, 1]}, "input_shape must be 3, H, W"),
    ({"options": None}, "options must be a mapping"),
    ({"model": 3}, "model must be a string"),
    ({"files": ["a"]}, "files must be a mapping"),
    ({"files": {"a": None}}, "files.a must be a string"),
]


def written(path, good, wrong):
    path.write_text(wrong if isinstance(wrong, str) else json.dumps({**good, **wrong}))


@pytest.mark.parametrize("wrong, message", [*WRONG, ({"headline": "miou"}, "has no best_miou")])
def test_a_damaged_result(tmp_path, wrong, message):
    written(tmp_path / "result.json", RESULT, {})
    assert read_result(tmp_path)["seed"] == 0
    written(tmp_path / "result.json", RESULT, wrong)
    with pytest.raises(UserError, match=f"result.json is damaged: .*{message}"):
        read_result(tmp_path)
    config = load_config(
        {
            "model": {"name": "aff_cifar_resnet8"},
            "epochs": 1,
            "schedule": {"warmup": 0},
            "start_from": str(tmp_path),
        }
    )
    with pytest.raises(UserError, match=f"start_from: .*result.json is damaged: .*{message}"):
        load_start(None, config)


@pytest.mark.parametrize(
    "wrong, message",
    [
        *WRONG[2:],
        ({"crop_ratio": 0}, "crop_ratio must be in"),
        ({"short_side": -1}, "short_side must be a number of pixels"),
        ({"dataset": 3}, "dataset must be null or a string"),
        ({"output": "logits"}, "output must be a mapping"),
        ({"output": {"classes": "10"}}, "output.classes must be an integer"),
        ({"files": {"../a": "x"}}, "no name of a file"),
    ],
)
def test_a_damaged_description(tmp_path, wrong, message):
    written(tmp_path / "export.json", EXPORT, {})
    assert read_description(tmp_path)["files"] == {}
    written(tmp_path / "export.json", EXPORT, wrong)
    with pytest.raises(UserError, match=f"export.json is damaged: .*{message}"):
        read_export(tmp_path)


def test_what_is_no_description(tmp_path):
    with pytest.raises(UserError, match="not the folder of a finished run: it has no result.json"):
        read_result(tmp_path)
    for content, message in (("[" * 100000, "nested"), ("[3]", "of another format")):
        (tmp_path / "export.json").write_text(content)
        with pytest.raises(UserError, match=message):
            read_export(tmp_path)


def test_a_pipe_in_the_place_of_an_exported_file(tmp_path):
    os.mkfifo(tmp_path / "a.onnx")
    written(tmp_path / "export.json", EXPORT, {"files": {"a.onnx": "x"}})
    with pytest.raises(UserError, match="a.onnx is not a regular file"):
        read_export(tmp_path)
    with pytest.raises(UserError, match="a.onnx is not a regular file"):
        sha256(tmp_path / "a.onnx")


@pytest.mark.parametrize("imports", ["5", "[1]", "{a: b}"])
def test_imports_of_another_kind(tmp_path, imports):
    written(tmp_path / "result.json", RESULT, {})
    (tmp_path / "config.yaml").write_text(f"imports: {imports}")
    with pytest.raises(UserError, match="config.yaml: imports must be a list of modules, not "):
        run_data(tmp_path)


def test_what_an_engine_raises_is_one_line(tmp_path):
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    sides = [1, 3, 2, 2]
    data, out = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sides)
        for name in ("data", "logits")
    )
    node = onnx.helper.make_node("Reshape", ["data", "shape"], ["logits"])
    shape = onnx.helper.make_tensor("shape", onnx.TensorProto.INT64, [4], [1, 3, 2, 3])
    graph = onnx.helper.make_graph([node], "x", [data], [out], [shape])
    opset = onnx.helper.make_opsetid("", 13)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    onnx.save(model, str(tmp_path / "x.onnx"))
    facts = {"model": "x", "files": {"x.onnx": ""}, "onnx_dtype": "float32"}
    with pytest.raises(UserError, match="x.onnx") as caught:
        Engine(tmp_path, facts, "onnxruntime")(mx.nd.zeros(sides))
    assert "\n" not in str(caught.value) and onnxruntime


def test_an_onnx_file_with_a_name_that_is_no_text_prints_nothing(tmp_path, capsys):
    onnx = pytest.importorskip("onnx")
    info = onnx.helper.make_tensor_value_info("data", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Relu", ["data"], ["logits"])
    out = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1])
    opset = onnx.helper.make_opsetid("", 13)
    graph = onnx.helper.make_graph([node], "x", [info], [out])
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    content = model.SerializeToString().replace(b"Relu", b"Re\xa5u")
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(UserError, match="x.onnx is not a model that ONNX Runtime can run"):
        session(tmp_path / "x.onnx")
    assert capsys.readouterr().out == ""
