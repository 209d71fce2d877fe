"""A task that the package does not know, a class for every pixel, goes all the way."""

import shutil

import pytest

from openaff import UserError
from openaff.data import DataConfig, load_dataset
from openaff.deploy.export import export_folder
from openaff.deploy.predict import Predictor
from openaff.deploy.subject import model_subject, run_data, run_subject
from openaff.tasks.evaluation import evaluate_network
from openaff.training.config import load_config
from openaff.training.curves import draw_curves, read_metrics
from openaff.training.session import resume, train
from openaff.utils.devices import parse_devices

CPU = parse_devices("cpu")
CONFIG = {
    "model": {"name": "aff_pixelnet1"},
    "data": {"name": "squares", "batch_size": 8, "crop_padding": 2},
    "optimizer": {"name": "adam", "lr": 0.01},
    "imports": ["pixel_task"],
    "epochs": 6,
}


@pytest.fixture(scope="module")
def pixel_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks") / "squares"
    return folder, train(load_config(CONFIG), folder, CPU)


def test_it_trains_and_its_best_epoch_is_the_headlines(pixel_run):
    folder, result = pixel_run
    rows = read_metrics(folder)
    assert result["task"] == "pixels" and result["headline"] == "pixel_accuracy"
    assert result["best_pixel_accuracy"] == max(row["test_pixel_accuracy"] for row in rows) > 0.9
    assert "| best pixel accuracy | " in (folder / "report.md").read_text()
    assert "Adam, lr 0.01, beta1 0.9" in result["protocol"]
    assert (folder / "imports" / "pixel_task.py").exists()
    axes = draw_curves({"squares": rows}).axes
    assert [axis.get_ylabel() for axis in axes] == ["loss", "pixel accuracy (%)"]


def test_it_resumes_bit_equal(pixel_run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(pixel_run[0], copy)
    before = (copy / "last.params").read_bytes()
    for name in ("result.json", "last.params"):
        (copy / name).unlink()
    (copy / "previous.ckpt").replace(copy / "last.ckpt")  # the end of the epoch before the last
    resume(copy, CPU)
    assert (copy / "last.params").read_bytes() == before
    for ours, theirs in zip(read_metrics(copy), read_metrics(pixel_run[0])):
        for key in ("train_loss", "test_loss", "test_pixel_accuracy"):
            assert ours[key] == theirs[key]


def test_it_is_evaluated_exported_and_run(pixel_run, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra [onnx]")
    folder, result = pixel_run
    subject, data = run_subject(folder), run_data(folder)
    dataset = load_dataset(data)
    measured, _ = evaluate_network(subject.net, dataset, CPU, batch_size=5)
    assert measured["pixel_accuracy"] == pytest.approx(result["best_pixel_accuracy"], abs=1e-6)
    description = export_folder(subject, tmp_path / "export")
    assert description["task"] == "pixels" and max(description["parity"].values()) < 1e-5
    images = list(dataset.test.images[:3])
    for engine in ("mxnet", "onnxruntime"):
        maps = Predictor(tmp_path / "export", engine)(images)
        assert maps.shape == (3, 16, 16)
        assert (maps == dataset.test.targets[:3]).mean() > 0.85


def test_the_scripts_take_it_too(pixel_run, call):
    words = ("evaluate", "--run", pixel_run[0])
    assert "aff_pixelnet1 on squares test, 3 classes: pixel accuracy 9" in call(*words).out
    for flag, message in (
        ("--per-class", "the task pixels has no figures by class"),
        ("--confusion", "the task pixels has no confusion table"),
    ):
        with pytest.raises(UserError, match=message):
            call(*words, flag, "x.csv")


def test_settings_without_effect_on_it_are_refused():
    with pytest.raises(UserError, match="data.mixup_alpha has no effect on squares, only on"):
        load_config(CONFIG, ["data.mixup_alpha=1"])
    with pytest.raises(UserError, match="loss.label_smoothing is not a setting of the pixels loss"):
        load_config(CONFIG, ["loss.label_smoothing=0.1"])
    assert load_config(CONFIG, ["loss.scale=2"]).loss == {"scale": 2}


def test_a_network_for_another_task_is_refused(pixel_run):
    reason = "aff_pixelnet1 is a network for pixels, and digits a data set for classification"
    with pytest.raises(UserError, match=reason):
        load_config({**CONFIG, "data": {"name": "digits"}})
    data = DataConfig(name="digits")
    with pytest.raises(UserError, match=reason):
        model_subject("aff_pixelnet1", pixel_run[0] / "best.params", data, load_dataset(data))
