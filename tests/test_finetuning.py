"""What a training starts from, keeps as it is, and trains at another rate."""

import dataclasses
import json

import mxnet as mx
import numpy as np
import pytest
from helpers import fewer_images, filled, initialized, input_value, structural_params
from test_resume import assert_same_end

from openaff import UserError, create_model
from openaff.deploy.export import export_folder
from openaff.deploy.subject import run_subject
from openaff.models.bundled import pretrained_info
from openaff.models.parameters import load_with_new_outputs
from openaff.models.pretrained import PUBLISHED
from openaff.tasks.classification import CrossEntropy
from openaff.training import session
from openaff.training.config import load_config
from openaff.training.engine import Engine, initialize
from openaff.training.finetuning import freeze, load_start, scale_rates
from openaff.training.optimizers import OptimizerConfig
from openaff.training.run_folder import Run
from openaff.utils.devices import parse_devices

NAME, OPTIONS = "add_cifar_resnet8", {"width_multiplier": 1}
OUTPUTS = ["output.weight", "output.bias"]


def network(classes=4, name=NAME, **options):
    return initialized(name, num_classes=classes, **{**OPTIONS, **options})


def values(net):
    return {
        name: param.data(param.list_ctx()[0]).asnumpy()
        for name, param in structural_params(net).items()
    }


def assert_equal(one, two, names):
    assert names
    for name in names:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def saved(tmp_path, classes=7, name=NAME, **options):
    """A file of rule-made parameters, and its values."""
    net = filled(create_model(name, num_classes=classes, **{**OPTIONS, **options}))
    net.save_parameters(str(tmp_path / "start.params"))
    return tmp_path / "start.params", values(net)


def config(start_from=None, *more, name=NAME):
    overrides = [f"{key}={value}" for key, value in more]
    model = {"name": name, "options": OPTIONS}
    settings = {"model": model, "data": {"name": "digits"}, "epochs": 1}
    return load_config({**settings, "start_from": start_from and str(start_from)}, overrides)


# --- The start ------------------------------------------------------------------------------------


def test_another_number_of_classes_leaves_the_output_layer_new(tmp_path):
    path, theirs = saved(tmp_path)
    net = network()
    before = values(net)
    assert load_with_new_outputs(net, path) == OUTPUTS
    after = values(net)
    assert_equal(after, before, OUTPUTS)
    assert_equal(after, theirs, sorted(set(after) - set(OUTPUTS)))


def test_as_many_classes_load_all(tmp_path):
    path, theirs = saved(tmp_path)
    net = network(7)
    assert load_with_new_outputs(net, path) == []
    assert_equal(values(net), theirs, sorted(theirs))


@pytest.mark.parametrize("classes", [(3, 1), (1, 5)])
def test_a_segmentation_networks_last_convolution_is_new(tmp_path, classes):
    path, theirs = saved(tmp_path, classes[0], "aff_fpn_resnet8")
    net = network(classes[1], "aff_fpn_resnet8")
    before = values(net)
    assert load_with_new_outputs(net, path) == OUTPUTS
    assert before["output.weight"].shape == (classes[1], 4, 1, 1)
    assert_equal(values(net), before, OUTPUTS)
    assert_equal(values(net), theirs, sorted(set(theirs) - set(OUTPUTS)))


def test_an_imagenet_networks_output_layer_is_new(tmp_path):
    net = filled(create_model("add_resnet18", num_classes=7))
    net.save_parameters(str(tmp_path / "start.params"))
    new = load_with_new_outputs(
        initialized("add_resnet18", num_classes=4), tmp_path / "start.params"
    )
    assert new == ["fc.weight", "fc.bias"]


@pytest.mark.parametrize(
    "name, options, message",
    [
        (NAME, {"width_multiplier": 2}, r"\d+ of another shape \(features.1.weight expected"),
        ("aff_cifar_resnet8", {}, r"\d+ missing \(features.2.0.attention.*, \.\.\.\)"),
        ("add_cifar_resnet14", {}, r"\d+ missing \(features.2.1."),
    ],
)
def test_all_else_must_fit(tmp_path, name, options, message):
    path, _ = saved(tmp_path)
    net = network(4, name, **options)
    before = values(net)
    with pytest.raises(UserError, match=message) as caught:
        load_with_new_outputs(net, path, name)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert_equal(values(net), before, sorted(before))  # nothing was loaded


def test_a_run_and_an_export_are_a_start(digits_run, tmp_path):
    folder, _ = digits_run
    export_folder(run_subject(folder), tmp_path / "export", ["symbol"])
    name = "aff_cifar_resnet8"
    expected = mx.nd.load(str(folder / "best.params"))
    expected = {key: value.asnumpy() for key, value in expected.items()}
    options = json.loads((folder / "result.json").read_text())["options"]
    for source in (folder, tmp_path / "export", tmp_path / "export" / f"{name}-0000.params"):
        net = network(4, name, **options)
        start = load_start(net, config(source, name=name))
        assert start == {"from": str(source), "loaded": len(expected) - 2, "new": OUTPUTS}
        assert_equal(values(net), expected, sorted(set(expected) - {*OUTPUTS, "features.0.gamma"}))


def test_a_published_name_with_its_file_is_a_start(tmp_path, monkeypatch):
    path, theirs = saved(tmp_path)
    known = next(PUBLISHED[name] for name in PUBLISHED)
    small = dataclasses.replace(known, model=NAME, options=OPTIONS)
    monkeypatch.setitem(PUBLISHED._entries, "cifar100/small/0.5", small)
    net = network()
    settings = config("cifar100/small/0.5", ("start_params", path))
    assert load_start(net, settings)["new"] == OUTPUTS
    assert_equal(values(net), theirs, ["features.1.weight"])
    with pytest.raises(
        UserError, match="has width_multiplier=1, the network to train 2: set model"
    ):
        load_start(net, _with(settings, options={"width_multiplier": 2}))
    with pytest.raises(
        UserError, match="0.5 has the network add_cifar_resnet8, and model.name is aff_"
    ):
        load_start(net, _with(settings, name="aff_cifar_resnet8"))


def test_a_key_of_the_package_is_a_start():
    key, name = "aff_cifar_resnet8-coarse", "aff_cifar_resnet8"
    options = pretrained_info(key)["options"]
    net, theirs = network(4, name, **options), values(create_model(name, pretrained=key))
    settings = _with(config(key, name=name), options=options)
    assert load_start(net, settings) == {"from": key, "loaded": len(theirs) - 2, "new": OUTPUTS}
    assert_equal(values(net), theirs, sorted(set(theirs) - {*OUTPUTS, "features.0.gamma"}))
    with pytest.raises(UserError, match=f"{key} has avg_down=False, the network to train True: se"):
        load_start(net, config(key, name=name))
    with pytest.raises(UserError, match="start_params has no effect without a published name"):
        config(key, ("start_params", "x"), name=name)


def _with(settings, **model):
    return dataclasses.replace(settings, model=dataclasses.replace(settings.model, **model))


def test_what_is_no_start(digits_run, tmp_path):
    export = tmp_path / "export"
    name, params = "aff_cifar_resnet8", export / "aff_cifar_resnet8-0000.params"
    net = network(4, name)

    def refused(source, message, name=name):
        with pytest.raises(UserError, match=message) as caught:
            load_start(net, config(source, name=name))
        assert "\n" not in str(caught.value)

    refused(tmp_path / "absent.params", "^cannot read .*absent.params: No such file")
    message = f"^start_from: {tmp_path} is neither the folder of a finished run .* nor an export"
    refused(tmp_path, message)
    run = digits_run[0]
    refused(run, f"^start_from: {run} has the network {name}, and model.name is {NAME}$", NAME)
    export_folder(run_subject(run), export, ["symbol"])
    facts = json.loads((export / "export.json").read_text())
    params.write_bytes(b"x")
    refused(export, f"^start_from: {params} is missing or was changed after the export")
    params.unlink()
    refused(export, f"^start_from: {params} is missing or was changed after the export")
    (export / "export.json").write_text(json.dumps({**facts, "files": {}}))
    refused(export, f"^start_from: {export} has no {params.name}: export the format symbol, too")
    for text in ("{", "[]", "{}"):
        (export / "export.json").write_text(text)
        refused(export, f"^start_from: {export}.* (is not an export folder|of another format)")


# --- What stays -----------------------------------------------------------------------------------


def train_some(net, steps=2, lr=0.1, **optimizer):
    """Train on random images; returns the engine."""
    engine = Engine(net, CrossEntropy(), lambda step: lr, OptimizerConfig(**optimizer))
    classes = structural_params(net)["output.bias"].shape[0]
    for step in range(steps):
        images = input_value((8, 3, 16, 16), step) * 2 + 1
        engine.train_step(images, mx.nd.array(np.arange(8) % classes), _Nothing())
    mx.nd.waitall()
    return engine


class _Nothing:
    def add(self, *_):
        pass


@pytest.mark.parametrize("devices", ["cpu", "cpu:2"])
def test_what_is_frozen_stays_and_the_rest_is_trained(devices):
    net = create_model("aff_cifar_resnet8", num_classes=4, **OPTIONS)
    initialize(net, parse_devices(devices))
    before = values(net)
    frozen = freeze(net, ["features.[0-3].*"])
    assert "features.1.weight" in frozen and not frozen & set(OUTPUTS)
    assert net.features[0].gamma._data[0].grad is None  # nothing asks the backward pass that far
    kept = [name for name in before if name.startswith(tuple(f"features.{i}." for i in range(4)))]
    train_some(net)
    after = values(net)
    assert_equal(after, before, kept)
    assert any(name.endswith("running_mean") for name in kept)
    for name in set(before) - set(kept):
        unchanged = "attention" in name and name.endswith("bias")  # before a batch norm
        assert unchanged or not np.array_equal(after[name], before[name]), name


@pytest.mark.parametrize(
    "patterns", [["features.*"], ["*.gamma", "*.beta", "features.0.*"], ["*.running_*"]]
)
def test_a_frozen_norm_uses_its_statistics(patterns):
    """In training, the network then gives what it gives in evaluation."""
    net = filled(create_model(NAME, num_classes=4, **OPTIONS))
    images = input_value((4, 3, 16, 16))
    net.hybridize(static_alloc=True)
    with mx.autograd.record():
        net(images)  # a graph with the usual norms
    before = values(net)
    expected = net(images).asnumpy()
    freeze(net, patterns)
    with mx.autograd.record():
        outputs = net(images)
    np.testing.assert_allclose(outputs.asnumpy(), expected, rtol=1e-4, atol=1e-5)
    outputs.backward()
    train_some(net, 1)
    assert_equal(values(net), before, [name for name in before if "running" in name])


def test_a_frozen_norms_gradient_is_that_of_a_scale_and_a_shift():
    norm = mx.gluon.nn.BatchNorm(in_channels=3)
    net = mx.gluon.nn.HybridSequential()
    net.add(norm, mx.gluon.nn.Dense(1, in_units=48))
    filled(net)
    freeze(net, ["0.*"])
    images = input_value((2, 3, 4, 4))
    images.attach_grad()
    with mx.autograd.record():
        out = net(images)
    out.backward()
    weight = net[1].weight.data().asnumpy().reshape(3, 4, 4)
    scale = norm.gamma.data().asnumpy() / np.sqrt(norm.running_var.data().asnumpy() + 1e-5)
    expected = np.broadcast_to(weight * scale[:, None, None], images.shape)
    np.testing.assert_allclose(images.grad.asnumpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("pattern", ["*.gamma", "*.weight"])
def test_a_norm_that_still_trains_something_is_not_frozen(pattern):
    net = network()
    before = values(net)
    freeze(net, [pattern])
    train_some(net)
    after = values(net)
    assert_equal(after, before, [name for name in before if name.endswith(pattern[1:])])
    for name in before:
        if "running" in name:
            assert not np.array_equal(after[name], before[name]), name


@pytest.mark.parametrize(
    "patterns, message",
    [
        (
            ["feature.*"],
            "'feature.*' matches no parameter to freeze.*such as features.0.running_me",
        ),
        (
            ["features.0.gamma"],
            "'features.0.gamma' matches no parameter to freeze",
        ),  # never trained
        (["features.*", "outputs.*"], "'outputs.*' matches no parameter to freeze"),
        (["*"], r"freeze: \* leaves nothing to train"),
        (["features.*", "output.*"], "freeze: features.*, output.* leaves nothing to train"),
        (["features.5.running_mean"], "only features.5.running_mean of features.5's running stat"),
    ],
)
def test_what_cannot_be_frozen(patterns, message):
    with pytest.raises(UserError, match=message) as caught:
        freeze(network(), patterns)
    assert "\n" not in str(caught.value)


# --- What is trained at another rate --------------------------------------------------------------


@pytest.mark.parametrize(
    "optimizer", [{"name": "sgd", "momentum": 0.0, "weight_decay": 0.0}, {"name": "nag"}]
)
def test_a_factor_has_the_effect_of_that_rate_exactly(optimizer):
    """One step: as with ten times the rate where the factor is ten, as without it elsewhere."""
    trained = {}
    for key, lr, factors in (("slow", 0.1, {}), ("fast", 1.0, {}), ("both", 0.1, {"out*": 10.0})):
        net = network()
        scale_rates(net, factors)
        train_some(net, 1, lr, **optimizer)
        trained[key] = values(net)
    assert not np.array_equal(trained["fast"]["output.weight"], trained["slow"]["output.weight"])
    assert_equal(trained["both"], trained["fast"], OUTPUTS)
    others = sorted(set(trained["both"]) - set(OUTPUTS))
    assert_equal(trained["both"], trained["slow"], others)


def test_the_last_pattern_that_matches_counts():
    net = network()
    scale_rates(net, {"*": 0.1, "output.*": 2})
    params = structural_params(net)
    assert (params["output.bias"].lr_mult, params["features.1.weight"].lr_mult) == (2, 0.1)


@pytest.mark.parametrize(
    "factors, message",
    [
        ({"feature.*": 2.0}, "lr_mult: 'feature..' matches no trainable parameter.*such as"),
        ({"*.running_mean": 2.0}, "matches no trainable parameter"),
        (
            {"features.1.*": 2.0},
            "lr_mult: 'features.1.*' matches what is frozen: features.1.weight",
        ),
        ({"output.*": 2.0, "out*": 3.0}, "'output.*' has no effect: later patterns match the same"),
    ],
)
def test_factors_that_cannot_be(factors, message):
    net = network()
    frozen = freeze(net, ["features.1.*"])
    with pytest.raises(UserError, match=message) as caught:
        scale_rates(net, factors, frozen)
    assert "\n" not in str(caught.value)


# --- Whole runs -----------------------------------------------------------------------------------

RUN = [
    ("epochs", 2),
    ("data.batch_size", 20),
    ("freeze", "[features.0.*,features.1.*,features.2.*]"),
    ("lr_mult", '{"output.*": 5}'),
]


@pytest.mark.parametrize(
    "setting, message",
    [
        (("lr_mult", '{"output.*": 0}'), r"lr_mult of 'output.\*' must be positive"),
        (("lr_mult", '{"output.*": -1}'), "lr_mult of .* must be positive"),
        (("lr_mult", '{"output.*": .inf}'), "lr_mult of .* must be positive"),
        (("lr_mult", '{"output.*": fast}'), "lr_mult.*fast"),
        (("lr_mult.output.weight", "2"), "lr_mult"),
        (("freeze", "features"), "freeze"),
        (("start_params", "a.params"), "start_params has no effect without a published name"),
        (("start_from", next(iter(PUBLISHED))), "start_params is needed: the file of cifar100/"),
    ],
)
def test_settings_that_cannot_be(setting, message):
    with pytest.raises(UserError, match=message) as caught:
        config(None, setting)
    assert "\n" not in str(caught.value)


def test_a_run_says_what_it_did_and_resumes_bit_equal(tmp_path, capsys, monkeypatch):
    path, theirs = saved(tmp_path)
    settings = config(path, *RUN)
    fewer_images(monkeypatch, "digits", 60, 60)
    result = session.train(settings, tmp_path / "whole", parse_devices("cpu"))
    line = f"{path}: {len(theirs) - 2} parameters loaded; new: output.weight, output.bias"
    assert f"start from {line}" in capsys.readouterr().out
    assert result["start"] == {"from": str(path), "loaded": len(theirs) - 2, "new": OUTPUTS}
    assert "frozen features.0.*, features.1.*, features.2.*; learning" in result["protocol"]
    assert "learning rate times 5 on output.*" in result["protocol"]
    report = (tmp_path / "whole" / "report.md").read_text()
    assert f"| start | {line} |" in report and r"rate times 5 on output.\*" in report
    last = mx.nd.load(str(tmp_path / "whole" / "last.params"))
    last = {name: value.asnumpy() for name, value in last.items()}
    kept = [name for name in theirs if name.startswith(tuple(f"features.{i}." for i in range(3)))]
    kept.remove("features.0.gamma")  # of a norm without scale: MXNet writes 1
    assert_equal(last, theirs, kept)
    assert not np.array_equal(
        last["features.3.0.resfwd.2.weight"], theirs["features.3.0.resfwd.2.weight"]
    )

    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            session.train(settings, tmp_path / "run", parse_devices("cpu"))
    path.unlink()  # what it started from is not needed again
    resumed = session.resume(tmp_path / "run", parse_devices("cpu"))
    assert_same_end(tmp_path / "run", tmp_path / "whole")
    assert resumed["start"] == result["start"]


def _interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("setting", [("freeze", "[x]"), ("lr_mult", '{"x": 2}')])
def test_a_pattern_that_matches_nothing_leaves_no_folder(tmp_path, setting):
    with pytest.raises(UserError, match="'x' matches no"):
        session.train(config(None, setting), tmp_path / "run", parse_devices("cpu"))
    assert not (tmp_path / "run").exists()
