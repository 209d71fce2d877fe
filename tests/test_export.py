import dataclasses
import shutil
import sys

import mxnet as mx
import numpy as np
import pytest
from helpers import assert_close, filled, initialized, input_value
from mask_files import write_masks
from photo_files import write_folder

from openaff import UserError, create_model
from openaff.data import DATASETS, DataConfig, Dataset, ImageSet, load_dataset
from openaff.data.packing import folder_items, pack
from openaff.deploy import export, onnx_model, symbol
from openaff.deploy.quantization import accuracies, calibration_batches
from openaff.deploy.subject import run_data, run_subject
from openaff.fusion import FUSIONS
from openaff.models import pretrained, resnet

onnx = pytest.importorskip("onnx", reason="needs the extra [onnx]")
pytest.importorskip("onnxruntime", reason="needs the extra [onnx]")


@pytest.mark.parametrize("key", list(FUSIONS))
def test_reimported_symbol_equals_the_network(tmp_path, key):
    net = filled(create_model(key + "_cifar_resnet8", num_classes=7, width_multiplier=1))
    files, difference = symbol.export_symbol(net, tmp_path, "net", (3, 32, 32))
    assert difference <= export.TOLERANCE
    imported = mx.gluon.SymbolBlock.imports(str(files[0]), ["data"], str(files[1]))
    odd = input_value((3, 3, 29, 35))  # another batch and image size
    assert_close(imported(odd), net(odd))
    assert mx.sym.load(str(files[0])).list_outputs() == ["logits_output"]


def test_exporting_twice_gives_the_same_files(tmp_path):
    written = []
    for name in "ab":  # two networks in one process: Gluon's own names would count on
        net = filled(create_model("aff_cifar_resnet8", width_multiplier=1))
        written.append(symbol.export_symbol(net, tmp_path / name, "net", (3, 32, 32))[0])
    for first, second in zip(*written):
        assert first.read_bytes() == second.read_bytes()


def test_parameters_carry_structural_names(tmp_path):
    net = filled(create_model("aff_cifar_resnet8", width_multiplier=1))
    (_, params), _ = symbol.export_symbol(net, tmp_path, "net", (3, 32, 32))
    names = mx.nd.load(str(params))
    assert "arg:features.2.0.attention.local_att.0.weight" in names
    assert "aux:features.5.running_mean" in names


def test_a_difference_is_an_error(tmp_path, monkeypatch):
    net = filled(create_model("add_cifar_resnet8", width_multiplier=1))
    monkeypatch.setattr(symbol, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match="differs from the network by"):
        symbol.export_symbol(net, tmp_path, "net", (3, 32, 32))
    assert list(tmp_path.iterdir()) == []


def test_a_runs_subject(digits_run):
    folder, result = digits_run
    subject, data = run_subject(folder), run_data(folder)
    assert (subject.model, subject.task) == (result["model"], "classification")
    assert data.name == subject.dataset == "digits" and data.crop_padding == 2
    assert subject.net(input_value((2, 3, 32, 32))).shape == (2, 10)


def test_a_runs_subject_errors(digits_run, tmp_path):
    with pytest.raises(UserError, match="is not the folder of a finished run"):
        run_subject(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(digits_run[0], copy)
    (copy / "best.params").write_bytes(b"\0" * 20)
    with pytest.raises(UserError, match="best.params does not hold the parameters of aff_cifar"):
        run_subject(copy)
    other = create_model("add_cifar_resnet14", num_classes=10)
    other.initialize()
    other.save_parameters(str(copy / "best.params"))
    with pytest.raises(UserError, match="best.params does not hold the parameters of aff_cifar"):
        run_subject(copy)


@pytest.fixture
def run_export(digits_run, tmp_path):
    """The export folder of a run on the digits, and what its export.json says."""
    subject = run_subject(digits_run[0])
    return tmp_path / "export", export.export_folder(subject, tmp_path / "export")


def test_a_runs_export_folder_describes_itself(run_export, digits_run):
    folder, description = run_export
    result = digits_run[1]
    assert export.read_export(folder) == description
    assert sorted(path.name for path in folder.iterdir()) == [
        "aff_cifar_resnet8-0000.params",
        "aff_cifar_resnet8-symbol.json",
        "aff_cifar_resnet8.onnx",
        "export.json",
        "labels.txt",
    ]
    assert description["model"] == "aff_cifar_resnet8" and description["dataset"] == "digits"
    assert description["labels"] == "10 digits" and description["input_shape"] == [3, 32, 32]
    assert description["mean"] == list(result["mean"])
    assert description["score"]["best_accuracy"] == result["best_accuracy"]
    assert description["input"] == {
        **{"name": "data", "dtype": "float32", "batch": "free", "colours": "RGB"}
    }
    assert description["output"] == {"name": "logits", "classes": 10}
    assert max(description["parity"].values()) <= export.TOLERANCE
    assert (folder / "labels.txt").read_text().split() == list("0123456789")


def test_a_changed_or_missing_file_is_found(run_export):
    folder, _ = run_export
    symbol = folder / "aff_cifar_resnet8-symbol.json"
    symbol.write_text(symbol.read_text() + " ")
    with pytest.raises(UserError, match="symbol.json was changed after the export"):
        export.read_export(folder)
    symbol.unlink()
    with pytest.raises(UserError, match="is not whole: .*symbol.json is missing"):
        export.read_export(folder)
    (folder / "export.json").write_text("{}")
    with pytest.raises(UserError, match="is of another format"):
        export.read_export(folder)
    with pytest.raises(UserError, match="is not an export folder"):
        export.read_export(folder.parent)


def test_formats_batch_and_types(digits_run, tmp_path):
    subject = run_subject(digits_run[0])
    symbol = export.export_folder(subject, tmp_path / "symbol", ["symbol"])
    assert not any(name.endswith(".onnx") for name in symbol["files"])
    fixed = export.export_folder(subject, tmp_path / "fixed", ["onnx"], batch=2)
    assert [name for name in fixed["files"] if "aff" in name] == ["aff_cifar_resnet8.onnx"]
    path = tmp_path / "fixed" / "aff_cifar_resnet8.onnx"
    assert onnx_model.session(path).get_inputs()[0].shape == [2, 3, 32, 32]
    images = input_value((5, 3, 32, 32))  # three runs, the last of one image and a filler
    assert_close(onnx_model.network(path)(images), subject.net(images))
    half = export.export_folder(subject, tmp_path / "half", ["onnx"], dtype="float16")
    assert 1e-6 < half["parity"]["onnx"] < 0.05
    assert (tmp_path / "half" / path.name).stat().st_size < 0.7 * path.stat().st_size
    assert onnx_model.session(tmp_path / "half" / path.name).get_inputs()[0].type == "tensor(float)"


def test_int8_is_smaller_and_close(digits_run, tmp_path):
    subject = run_subject(digits_run[0])
    digits = load_dataset(DataConfig())
    batches = calibration_batches(digits, DataConfig(), 64)
    written = export.export_folder(subject, tmp_path / "int8", calibration=batches)
    assert written["parity"]["int8"] > 1e-3  # it is another arithmetic
    measured = accuracies(subject.net, tmp_path / "int8", written, digits)
    rates = measured["accuracy"]
    assert rates["network"] == rates["aff_cifar_resnet8.onnx"] == digits_run[1]["best_accuracy"]
    assert rates["network"] > 0.2  # of 10 classes: there is something to lose
    assert abs(rates["aff_cifar_resnet8-int8.onnx"] - rates["network"]) < 0.1
    small, whole = (tmp_path / f"int8/aff_cifar_resnet8{kind}.onnx" for kind in ("-int8", ""))
    assert small.stat().st_size < 0.6 * whole.stat().st_size
    scaled = (digits.test.images.transpose(0, 3, 1, 2) / 255 - digits.mean[0]) / digits.std[0]
    found, expected = (
        onnx_model.network(path)(mx.nd.array(scaled)).argmax(axis=1).asnumpy()
        for path in (small, whole)
    )
    assert (found == expected).mean() > 0.8
    with pytest.raises(UserError, match="1437 training images, too few to calibrate on 2000"):
        calibration_batches(digits, DataConfig(), 2000)
    for count, size, sizes in ((10, 32, [10]), (70, 32, [32, 32, 6]), (1437, 1000, [1000, 437])):
        assert [
            len(each) for each in calibration_batches(digits, DataConfig(), count, size)
        ] == sizes


def test_images_that_the_file_does_not_take_are_refused_before_it_is_written(
    tmp_path, monkeypatch, call
):
    monkeypatch.chdir(tmp_path)
    digits = ("--pretrained", "aff_cifar_resnet8-digits", "--out", "out", "--input", "3x48x48")
    for smaller in (["--int8"], ["--dtype", "float16"]):
        message = "takes 48x48 pixels only, and there are images of 32x32 to measure it on: leave"
        with pytest.raises(UserError, match=message):
            call("export", *digits, *smaller)
    scenes = ("--pretrained", "aff_fpn_resnet8-scenes", "--out", "out", "--fixed-size", "--int8")
    monkeypatch.setitem(
        DATASETS._entries, "scenes", dataclasses.replace(DATASETS["scenes"], load=small_scenes)
    )
    with pytest.raises(UserError, match="takes 64x64 pixels only, and there are images of 20x24"):
        call("export", *scenes)
    for text in ("32x32", "1x32x32", "3x0x5", "3xax5", "3x40000x8"):
        with pytest.raises(UserError, match=f"--input '{text}': write 3xHxW, such as 3x32x32"):
            call("export", *digits[:-1], text)
    assert not (tmp_path / "out").exists()


def small_scenes(config):
    images = ImageSet(np.zeros((4, 20, 24, 3), "uint8"), np.zeros((4, 20, 24), "int32"))
    names = tuple(map(str, range(11)))
    return Dataset("scenes", "x", "x", names, images, images, (0.5,) * 3, (0.5,) * 3)


def test_settings_of_an_export_that_change_nothing(tmp_path, call):
    digits = ("--pretrained", "aff_cifar_resnet8-digits", "--out", tmp_path / "out")
    for flags, message in (
        (["--setting", "skip=[a]"], "--setting has no effect without --int8 or --dtype float16"),
        (["--image-size", "90"], "--image-size has no effect with a network that is trained for"),
        (["--crop-ratio", "1"], "--crop-ratio has no effect with a network that is trained for"),
        (
            ["--int8", "--images", "50", "--batch", "20"],
            "--images 50: a file for batches of 20 need",
        ),
        (["--int8", "--setting", "batch_size=4"], "batch_size=4: it has an effect on trainings o"),
        (["--int8", "--setting", "root=x"], "--setting root=x: write --data"),
        (["--int8", "--setting", "rot=x"], "unknown key 'rot'; did you mean 'root'"),
    ):
        with pytest.raises(UserError, match=message):
            call("export", *digits, *flags)


def test_calibration_needs_training_images(tmp_path, monkeypatch, call):
    load = dataclasses.replace(DATASETS["digits"], load=lambda config: no_training_images())
    monkeypatch.setitem(DATASETS._entries, "digits", load)
    digits = ("--pretrained", "aff_cifar_resnet8-digits", "--out", tmp_path / "out")
    with pytest.raises(UserError, match="digits: there are no training images in "):
        call("export", *digits, "--int8")
    assert not (tmp_path / "out").exists()


def no_training_images():
    images = ImageSet(np.zeros((4, 32, 32, 3), "uint8"), np.zeros(4, "int32"))
    names = tuple(map(str, range(10)))
    return Dataset("digits", "x", "x", names, None, images, (0.5,) * 3, (0.5,) * 3)


def test_calibration_takes_what_training_takes(tmp_path):
    """Masks of several sizes are cropped as the run's are; record files need MXNet's reader."""
    root = str(write_masks(tmp_path / "masks"))
    config = DataConfig(name="masks", root=root, crop_size=16, scale_range=[0.5, 2.0], jitter=0.4)
    (batch,) = calibration_batches(load_dataset(config), config, 4, 4)
    assert batch.shape == (4, 3, 16, 16)
    config = DataConfig(name="masks", root=root)
    with pytest.raises(UserError, match="have 2 sizes.*set data.crop_size"):
        calibration_batches(load_dataset(config), config, 4, 4)
    write_folder(tmp_path / "photos" / "train")
    classes, items = folder_items(tmp_path / "photos" / "train")
    pack("train", classes, items, tmp_path / "records")
    config = DataConfig(name="images", root=str(tmp_path / "records"), image_size=32)
    (batch,) = calibration_batches(load_dataset(config), config, 4, 4)
    assert batch.shape == (4, 3, 32, 32)


def test_folder_errors(digits_run, tmp_path, monkeypatch):
    subject = run_subject(digits_run[0])
    with pytest.raises(UserError, match="formats are symbol, onnx, pytorch, not tflite"):
        export.export_folder(subject, tmp_path / "x", ["tflite"])
    with pytest.raises(UserError, match="have an effect on the format onnx only"):
        export.export_folder(subject, tmp_path / "x", ["symbol"], dtype="float16")
    with pytest.raises(UserError, match="dtype must be float32 or float16, not 'float64'"):
        export.export_folder(subject, tmp_path / "x", dtype="float64")
    for batch in (-1, "8"):
        with pytest.raises(UserError, match="batch must be a positive integer, not "):
            export.export_folder(subject, tmp_path / "x", batch=batch)
    with pytest.raises(UserError, match="fixed_size has an effect on the ONNX files of networks"):
        export.export_folder(subject, tmp_path / "x", fixed_size=True)
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="the export folder .*there exists"):
        export.export_folder(subject, tmp_path / "there")
    monkeypatch.setattr(export, "largest_difference", lambda *_: 1.0)
    with pytest.raises(UserError, match="differs from the network by 1.0e"):
        export.export_folder(subject, tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]  # nothing half-written


def test_an_onnx_version_that_the_exporter_cannot_use(monkeypatch):
    monkeypatch.setitem(sys.modules, "mxnet.onnx", None)
    monkeypatch.delattr(mx, "onnx", raising=False)
    with pytest.raises(UserError, match="MXNet's exporter cannot use onnx .* 'onnx>=1.15,<1.17'"):
        onnx_model.exporter()
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"pip install -e .\[onnx\]"):
        onnx_model.exporter()


def test_sessions_errors(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        onnx_model.session(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("x")
    with pytest.raises(UserError, match="text.onnx is not a model that ONNX Runtime can run"):
        onnx_model.session(tmp_path / "text.onnx")


def test_opset_ir_and_domains_of_every_kind_of_file(digits_run, tmp_path):
    """What readers of 2022 take, whatever the installed onnx and ONNX Runtime would write."""
    subject = run_subject(digits_run[0])
    ranges = [input_value((4, 3, 32, 32)).asnumpy()]
    export.export_folder(subject, tmp_path / "int8", calibration=ranges)
    written = export.export_folder(subject, tmp_path / "half", ["onnx"], 2, "float16")
    assert written["onnx_opset"] == 17
    paths = sorted(tmp_path.glob("*/*.onnx"))
    assert len(paths) == 3
    for path in paths:
        model = onnx.load(str(path))
        assert [(each.domain, each.version) for each in model.opset_import] == [("", 17)], path
        assert model.ir_version == 8
        assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
        assert not model.functions
        onnx.checker.check_model(model, full_check=True)
        # Of a newer form: from opset 18 on, axes of reductions are inputs.
        assert not any(node.op_type.startswith("Reduce") for node in model.graph.node)


def test_a_model_with_other_operators_is_refused(tmp_path):
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("FusedConv", ["x"], ["x"], domain="com.microsoft")
    graph = onnx.helper.make_graph([node], "g", [value], [value])
    with pytest.raises(UserError, match="operators of {'com.microsoft'}, not plain opset 17"):
        onnx_model._write(onnx.helper.make_model(graph), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


OPENCV = [
    ("aff_cifar_resnet8", (3, 32, 32)),
    ("iaff_cifar_resnet8", (3, 32, 32)),
    ("aff_cifar_inception_resnet8", (3, 32, 32)),
    ("iaff_cifar_inception_resnet8", (3, 32, 32)),
    ("aff_fpn_resnet8", (3, 64, 96)),
    ("iaff_fpn_resnet8", (3, 64, 96)),
]


@pytest.mark.parametrize("name, shape", OPENCV)
def test_opencv_reads_it(tmp_path, name, shape):
    cv2 = pytest.importorskip("cv2", reason="needs opencv-python, which gluoncv brings")
    net = initialized(name, num_classes=3, width_multiplier=1)
    net.hybridize()
    images = input_value((2,) + shape)
    net(images)
    files, _ = symbol.export_symbol(net, tmp_path, "net", shape)
    path = tmp_path / "net.onnx"
    onnx_model.export_onnx(*files, path, shape, fixed_size="fpn" in name)
    reader = cv2.dnn.readNetFromONNX(str(path))
    reader.setInput(images.asnumpy(), "data")
    assert_close(reader.forward(), net(images), 2e-5)


def test_a_fixed_size_is_held_and_other_sizes_are_refused(tmp_path):
    net = initialized("add_fpn_resnet8", num_classes=3, width_multiplier=1)
    files, _ = symbol.export_symbol(net, tmp_path, "net", (3, 32, 48))
    path = tmp_path / "net.onnx"
    onnx_model.export_onnx(*files, path, (3, 32, 48), fixed_size=True)
    assert onnx_model.session(path).get_inputs()[0].shape == ["N", 3, 32, 48]
    images = input_value((2, 3, 32, 48))
    assert_close(onnx_model.network(path)(images), net(images))
    with pytest.raises(UserError, match="takes images of 32 x 48 pixels .* not of 32 x 32: resize"):
        onnx_model.network(path)(input_value((2, 3, 32, 32)))


def check_onnx(net, folder, shape, batch=3):
    """An ONNX file of ``net`` that is valid, light, free in its batch, silent and equal."""
    files, _ = symbol.export_symbol(net, folder, "net", shape)
    path = folder / "net.onnx"
    onnx_model.export_onnx(*files, path, shape)
    model = onnx.load(str(path))
    onnx.checker.check_model(model, full_check=True)
    assert [each.name for each in model.graph.input] == ["data"]
    assert [each.name for each in model.graph.output] == ["logits"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    images = input_value((batch,) + shape)
    assert_close(onnx_model.network(path)(images), net(images))
    return model


@pytest.mark.parametrize("key", list(FUSIONS))
def test_onnx_of_every_fusion(tmp_path, key, capfd):
    """At an odd input size; with the batch norms behind convolutions folded into them."""
    net = filled(create_model(key + "_cifar_resnet8", num_classes=7, width_multiplier=1))
    capfd.readouterr()
    model = check_onnx(net, tmp_path, (3, 33, 30))
    assert "warn" not in capfd.readouterr().err.lower()
    taken = [name for node in model.graph.node for name in node.input]
    alone = {
        name
        for node in model.graph.node
        for name in node.output
        if node.op_type == "Conv" and taken.count(name) == 1
    }
    behind = [node.input[0] for node in model.graph.node if node.op_type == "BatchNormalization"]
    assert alone and not alone & set(behind)


@pytest.mark.parametrize(
    "name, shape",
    [
        ("aff_cifar_inception_resnet8", (3, 33, 30)),
        ("iaff_cifar_inception_resnet8", (3, 33, 30)),
        ("concat_cifar_inception_resnet8", (3, 33, 30)),
        ("aff_cifar_resnext11_32x4d", (3, 33, 30)),
        ("iaff_cifar_resnext11_32x4d", (3, 33, 30)),
        ("aff_resnet50", (3, 65, 70)),
        ("sk_resnet50", (3, 65, 70)),
        ("aff_resnext50_32x4d", (3, 65, 70)),
    ],
)
def test_onnx_of_every_family(tmp_path, monkeypatch, name, shape):
    """With one block a stage."""
    monkeypatch.setitem(resnet.BLOCKS, 50, (1, 1, 1, 1))
    net = filled(create_model(name, num_classes=7))
    check_onnx(net, tmp_path, shape)


@pytest.mark.parametrize("options", [{}, {"reduction": 2, "doubled": True}])
def test_dilated_convolutions_stay_dilated(tmp_path, options):
    net = create_model("aff_cifar_inception_resnet8", num_classes=7, width_multiplier=1, **options)
    net.initialize(mx.init.Xavier())  # the rule's values amplify rounding where w is doubled
    model = check_onnx(net, tmp_path, (3, 33, 30))
    found = [
        list(attribute.ints)
        for node in model.graph.node
        for attribute in node.attribute
        if node.op_type == "Conv" and attribute.name == "dilations"
    ]
    assert found.count([2, 2]) == 7  # one a cell: the stem's, and two in each of three blocks


@pytest.mark.long
@pytest.mark.parametrize("name", pretrained.list_published())
def test_onnx_of_every_published_network(tmp_path, name):
    known = pretrained.PUBLISHED[name]
    net = create_model(known.model, num_classes=known.outputs, **known.options)
    net.initialize(mx.init.Xavier())
    check_onnx(net, tmp_path, (3, 224, 224) if known.dataset == "imagenet" else (3, 32, 32))
