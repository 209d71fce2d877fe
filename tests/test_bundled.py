"""Weights in the package: put there from a run, loaded, refused where anything is wrong."""

import json
import re
import shutil
import sys

import mxnet as mx
import numpy as np
import pytest
from helpers import load_command
from PIL import Image

import openaff
from openaff import UserError
from openaff.data import DataConfig, load_dataset
from openaff.data.transforms import Normalize
from openaff.deploy import bundle as bundling
from openaff.deploy.predict import Predictor
from openaff.deploy.subject import pretrained_subject, run_subject
from openaff.models import bundled
from openaff.training.config import load_config
from openaff.utils.files import sha256

MODEL, KEY = "aff_cifar_resnet8", "aff_cifar_resnet8-digits"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder in the place of the package's."""
    monkeypatch.setattr(bundled, "FOLDER", tmp_path / "weights")
    return tmp_path / "weights"


@pytest.fixture
def weights(folder, digits_run):
    """The folder with the weights of the digits run."""
    bundling.bundle([digits_run[0]], KEY)
    return folder


@pytest.fixture(scope="module")
def batch():
    digits = load_dataset(DataConfig())
    return mx.nd.array(Normalize(digits.mean, digits.std)(digits.test.images[:4]))


def test_the_last_weights_of_a_run_load_by_their_key(weights, digits_run, batch):
    folder, result = digits_run
    assert sorted(path.name for path in weights.iterdir()) == [f"{KEY}.json", f"{KEY}.params"]
    assert openaff.list_pretrained() == [KEY] and openaff.list_pretrained("iaff*") == []
    net = openaff.create_model(MODEL, pretrained=KEY)
    expected = run_subject(folder, which="last").net(batch).asnumpy()
    np.testing.assert_allclose(net(batch).asnumpy(), expected, rtol=1e-5, atol=1e-5)
    info = openaff.models.pretrained_info(KEY)
    assert (info["model"], info["options"]) == (MODEL, result["options"])
    assert (info["dataset"], info["outputs"], info["labels"]) == ("digits", 10, "10 digits")
    assert info["class_names"] == [str(digit) for digit in range(10)]
    assert (info["mean"], info["std"]) == (result["mean"], result["std"])
    score = info["score"]
    assert score["last_accuracy"] == result["last_accuracy"] and score["seed"] == result["seed"]
    assert score["selection"] == "last epoch" and "best_accuracy" not in score
    assert {"split", "protocol", "commit"} < set(score)
    assert info["sha256"] == sha256(weights / f"{KEY}.params") == sha256(folder / "last.params")


def test_given_again_is_no_contradiction(weights, batch):
    options = openaff.models.pretrained_info(KEY)["options"]
    net = openaff.create_model(MODEL, num_classes=10, pretrained=KEY, doubled=None, **options)
    assert net(batch).shape == (4, 10)
    stages = openaff.create_model(MODEL, pretrained=KEY, features_only=True)(batch)
    assert [each.shape[1] for each in stages] == [16, 32, 64]


@pytest.mark.parametrize(
    "name, values, message",
    [
        ("iaff_cifar_resnet8", {}, "for aff_cifar_resnet8, not for iaff_cifar_resnet8: write cre"),
        ("cifar_resnet8", {"fusion": "aff"}, "not for cifar_resnet8 with fusion='aff': write cre"),
        (
            MODEL,
            {"num_classes": 5},
            "has 10 outputs, not 5: leave num_classes out; for other",
        ),
        (MODEL, {"width_multiplier": 4}, "has width_multiplier=1, not 4: leave width_multiplier o"),
        (MODEL, {"deep_stem": True}, "has deep_stem=False, not True: leave deep_stem out"),
        (MODEL, {"pretrained": f"{KEY}s"}, f"no weights '{KEY}s'; did you mean '{KEY}'.; openaff."),
        (MODEL, {"pretrained": "../x"}, "the package has no weights '../x'; openaff.list_pretrai"),
        (MODEL, {"pretrained": True}, "the package has no weights True"),
        ("aff_cifar_resnet9x", {}, "unknown model 'aff_cifar_resnet9x'"),
    ],
)
def test_what_contradicts_is_refused(weights, name, values, message):
    with pytest.raises(UserError, match=message) as caught:
        openaff.create_model(name, **{"pretrained": KEY, **values})
    assert "\n" not in str(caught.value)


def test_without_any(folder):
    assert openaff.list_pretrained() == []
    with pytest.raises(UserError, match=f"no weights '{KEY}'; the package has none$"):
        openaff.create_model(MODEL, pretrained=KEY)


def test_damaged_weights_are_one_line(weights):
    path, record = bundled.weight_files(KEY)
    whole, said = path.read_bytes(), record.read_text()

    def refused(message):
        with pytest.raises(UserError, match=message) as caught:
            openaff.create_model(MODEL, pretrained=KEY)
        assert "\n" not in str(caught.value)

    path.write_bytes(whole[:-1] + b"x")
    refused(f"{KEY}.params is damaged: its SHA-256 is not the one in {KEY}.json; install")
    path.unlink()
    refused(f"cannot read .*{KEY}.params: No such file or directory; install openaff anew")
    path.write_bytes(whole)
    for change, message in (
        (("openaff weights 1", "openaff weights 2"), "its format is 'openaff weights 2', not"),
        (('"outputs": 10', '"outputs": "ten"'), "outputs must be an integer, not 'ten'"),
        (('"format"', '"from"'), "it has no format"),
        (("{", "["), "it is not JSON"),
        (('"10 digits"', "3"), "labels must be a string, not 3"),
    ):
        assert change[0] in said
        record.write_text(said.replace(*change, 1))
        refused(f"{KEY}.json is damaged: {message}.*; install openaff anew")
    record.write_text(said.replace('"1",', '"0",', 1))
    refused(f"{KEY}.json: the class name '0' stands there twice")


def test_what_is_not_put_into_the_package(folder, digits_run, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="is not the folder of a finished run: it has no result"):
        bundling.bundle([tmp_path], KEY)
    for key in ("", "AFF", "../x", ".x", "a b"):
        with pytest.raises(UserError, match="must be lower-case letters, digits"):
            bundling.bundle([digits_run[0]], key)
    run = shutil.copytree(digits_run[0], tmp_path / "run")
    (run / "last.params").write_bytes((run / "last.params").read_bytes()[:-1])
    with pytest.raises(UserError, match="last.params does not hold the parameters of .* damaged"):
        bundling.bundle([run], KEY)
    monkeypatch.setattr(bundling, "LARGEST", 1000)
    with pytest.raises(UserError, match="bytes, more than the 1,000 that the package takes: exp"):
        bundling.bundle([digits_run[0]], KEY)
    assert not folder.exists()
    monkeypatch.undo()


def test_a_key_is_given_once(weights, digits_run):
    before = (weights / f"{KEY}.params").stat().st_mtime_ns
    with pytest.raises(UserError, match=f"there are weights {KEY} already: take another key, or"):
        bundling.bundle([digits_run[0]], KEY)
    assert (weights / f"{KEY}.params").stat().st_mtime_ns == before


def test_the_best_of_several_seeds_says_so(folder, digits_run, tmp_path):
    runs = [digits_run[0], tmp_path / "better", tmp_path / "worse"]
    for seed, (run, figure) in enumerate(zip(runs[1:], (0.9, 0.05)), start=1):
        shutil.copytree(digits_run[0], run)
        result = json.loads((run / "result.json").read_text())
        result.update(seed=seed, last_accuracy=figure)
        (run / "result.json").write_text(json.dumps(result))
    with pytest.raises(UserError, match=r"the seeds of these runs are \[1, 1\]: name each once"):
        bundling.bundle([runs[1], runs[1]], KEY)
    score = bundling.bundle(runs, KEY)["score"]
    assert (score["seed"], score["last_accuracy"]) == (1, 0.9)
    assert score["selection"] == "last epoch, the best of 3 seeds on the test split"
    config = (runs[2] / "config.yaml").read_text()
    (runs[2] / "config.yaml").write_text(
        config.replace("checkpoint_steps: null", "checkpoint_steps: 3")  # changes no result
    )
    assert bundling.bundle(runs, "again")["score"] == score
    result["protocol"] += ", in PyTorch"
    whole = (runs[2] / "result.json").read_text()
    (runs[2] / "result.json").write_text(json.dumps(result))
    with pytest.raises(UserError, match="worse is of another configuration than"):
        bundling.bundle(runs, "another")
    (runs[2] / "result.json").write_text(whole)
    assert "power: " in config and "checkpoint_steps: null" in config
    (runs[2] / "config.yaml").write_text(re.sub("power: .*", "power: 0.5", config))
    with pytest.raises(UserError, match="worse is of another configuration than"):
        bundling.bundle(runs, "another")
    assert openaff.list_pretrained() == sorted([KEY, "again"])


def test_a_full_disk_leaves_no_weights_behind(folder, digits_run, longest_file):
    with longest_file(1000), pytest.raises(OSError):
        bundling.bundle([digits_run[0]], KEY)
    assert openaff.list_pretrained() == [] and list(folder.iterdir()) == []


def test_the_script(folder, digits_run, call):
    lines = call("bundle-weights", "--run", digits_run[0], "--key", KEY).out.splitlines()
    assert len(lines) == 3 and f"{KEY}.params (" in lines[0]
    assert lines[2].startswith(f"{MODEL} on digits, 10 digits: last_accuracy 0.")


def test_predictions_are_the_networks(weights, batch, tmp_path):
    image = load_dataset(DataConfig()).test.images[0]
    Image.fromarray(image).save(tmp_path / "photo.png")
    predictor = Predictor.pretrained(KEY)
    assert (predictor.engine, predictor.precision, predictor.dataset) == ("mxnet", "f32", "digits")
    expected = pretrained_subject(KEY).net(batch[:1]).asnumpy()
    np.testing.assert_allclose(predictor.logits([tmp_path / "photo.png"]), expected, 1e-4, 1e-4)


def test_every_program_takes_a_key(weights, tmp_path, monkeypatch, call):
    Image.fromarray(load_dataset(DataConfig()).test.images[0]).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)

    def printed(name, *arguments):
        return call(name, "--pretrained", KEY, *arguments).out

    score = openaff.models.pretrained_info(KEY)["score"]
    assert printed("predict", "photo.png", "--top", "2").count("%") == 2
    assert f"top-1 {score['last_accuracy']:.2%}" in printed("evaluate")
    assert json.loads(printed("evaluate", "--json"))["params"] == KEY
    assert MODEL in printed("explain", "photo.png", "--out", "figure.png")
    assert MODEL in printed("explain", "--test", "0", "--out", "figure.png")
    printed("export", "--out", "export", "--format", "symbol")
    described = json.loads((tmp_path / "export" / "export.json").read_text())
    assert described["score"] == score and described["dataset"] == "digits"
    for name, arguments, message in (
        ("predict", ("photo.png", "--engine", "mxnet"), "--engine is for --export: other netw"),
        ("evaluate", ("--params", "x"), "--params has no effect with --pretrained: the weigh"),
        ("evaluate", ("--dataset", "digits"), "--dataset has no effect with --pretrained"),
        ("export", ("--out", "x", "--option", "doubled=true"), "--option has no effect with --"),
        ("evaluate", ("--labels", "fine"), "--labels has no effect with --pretrained"),
    ):
        with pytest.raises(UserError, match=message):
            printed(name, *arguments)


def test_weights_are_no_option_of_a_training():
    path = "digits/aff_resnet8"
    with pytest.raises(UserError, match="model.options.pretrained cannot be set: training starts"):
        load_config(path, [f"model.options.pretrained={KEY}"])


@pytest.mark.parametrize("key", openaff.list_pretrained())
def test_what_the_package_has_is_whole_and_small(key):
    path, _ = bundled.weight_files(key)
    info = openaff.models.pretrained_info(key)
    assert path.stat().st_size <= bundled.LARGEST and sha256(path) == info["sha256"]
    net = openaff.create_model(info["model"], pretrained=key)
    assert net(mx.nd.zeros((1, *info["input_shape"]))).shape[1] == info["outputs"]
    assert info["score"]["selection"].startswith("last epoch") and info["score"]["commit"]


def test_the_package_has_no_other_files():
    files = bundled.FOLDER.iterdir() if bundled.FOLDER.exists() else []
    expected = {
        path.name for key in openaff.list_pretrained() for path in bundled.weight_files(key)
    }
    assert {path.name for path in files} == expected


def test_runs_may_be_named_in_several_flags(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "--run", "a", "--key", "k", "--run", "b", "c"])
    assert load_command("bundle_weights").parse_args().run == ["a", "b", "c"]
