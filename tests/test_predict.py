import json
import shutil

import mxnet as mx
import numpy as np
import pytest
from PIL import Image

from openaff import UserError
from openaff.data import DataConfig, load_dataset
from openaff.data.image_folder import MEAN, STD, CenterCrop
from openaff.data.transforms import Normalize
from openaff.deploy import export
from openaff.deploy.predict import Predictor
from openaff.deploy.subject import run_subject

pytest.importorskip("onnxruntime", reason="needs the extra [onnx]")


@pytest.fixture(scope="module")
def exported(digits_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict") / "export"
    export.export_folder(run_subject(digits_run[0]), folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three digits as image files, one of them in grey."""
    folder = tmp_path_factory.mktemp("digits")
    paths = [folder / f"{index}.png" for index in range(3)]
    for path, image in zip(paths, load_dataset(DataConfig()).test.images):
        Image.fromarray(image).convert("L" if path.stem == "1" else "RGB").save(path)
    return paths


@pytest.mark.filterwarnings("error:Cannot decide type")
def test_mxnet_loads_an_export_without_a_warning(exported):
    Predictor(exported, "mxnet")


@pytest.mark.parametrize("engine", ["mxnet", "onnxruntime"])
def test_predictions_are_the_networks_on_what_evaluation_sees(exported, photos, engine, digits_run):
    digits = load_dataset(DataConfig())
    net = run_subject(digits_run[0]).net
    batch = Normalize(digits.mean, digits.std)(digits.test.images[:3])
    predictor = Predictor(exported, engine, batch_size=2)
    np.testing.assert_allclose(predictor.preprocess(photos), batch, atol=1e-6)
    np.testing.assert_allclose(
        predictor.logits(photos), net(mx.nd.array(batch)).asnumpy(), 1e-4, 1e-4
    )
    rows = predictor(photos, top=10)
    assert all(sum(share for _, share in row) == pytest.approx(1, abs=1e-5) for row in rows)
    assert all(row == sorted(row, key=lambda each: -each[1]) for row in rows)


def test_engines_agree_and_images_come_in_many_forms(exported, photos):
    by_path = Predictor(exported, "onnxruntime")(photos)
    images = [Image.open(photos[0]), np.asarray(Image.open(photos[1])), photos[2]]
    assert Predictor(exported, "onnxruntime")(images) == by_path
    for one, two in zip(Predictor(exported, "mxnet")(photos), by_path):
        assert [label for label, _ in one] == [label for label, _ in two]
        assert [share for _, share in one] == pytest.approx([s for _, s in two], abs=1e-5)


def test_photographs_are_cropped_as_in_evaluation(exported, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype="uint8")
    assert Predictor(exported).preprocess([pixels]).shape == (1, 3, 32, 32)  # fitted
    shutil.copytree(exported, tmp_path / "photos")
    path = tmp_path / "photos" / "export.json"
    description = json.loads(path.read_text())
    path.write_text(json.dumps({**description, "crop_ratio": 0.875, "mean": MEAN, "std": STD}))
    expected = Normalize(MEAN, STD)(CenterCrop(32, 0.875)(Image.fromarray(pixels))[None])
    np.testing.assert_allclose(Predictor(tmp_path / "photos").preprocess([pixels]), expected)


def test_script(exported, photos, call):
    words = ("predict", "--export", exported, *photos)
    lines = call(*words, "--top", 2).out.splitlines()
    assert len(lines) == 3 and lines[0].startswith(f"{photos[0]}: ") and lines[0].count("%") == 2
    printed = json.loads(call(*words, "--json", "--engine", "mxnet").out)
    assert printed["engine"] == "mxnet" and len(printed["predictions"][str(photos[1])]) == 5


def test_errors(exported, photos, tmp_path):
    predictor = Predictor(exported)
    (tmp_path / "short.png").write_bytes(photos[0].read_bytes()[:40])
    for images, message in (
        ([tmp_path / "short.png"], "cannot read the image .*short.png"),
        ([tmp_path / "absent.png"], "absent.png: No such file"),
        ([np.zeros((4, 4, 3))], r"must be uint8 \(H, W, 3\) or \(H, W\), not float64 \(4, 4, 3\)"),
        ([np.zeros((4, 4, 4), "uint8")], r"not uint8 \(4, 4, 4\)"),
        ([np.zeros((0, 4, 3), "uint8")], r"not uint8 \(0, 4, 3\)"),
        ([], "there are no images"),
        (str(photos[0]), r"a list of images is needed"),
        (np.zeros((20, 24, 3), "uint8"), r"a list of images is needed"),
    ):
        with pytest.raises(UserError, match=message):
            predictor(images)
        with pytest.raises(UserError, match=message):
            predictor.logits(images)
    with pytest.raises(UserError, match="top must be a positive integer"):
        predictor(photos, top=0)
    with pytest.raises(UserError, match="no file for the engine 'onnxruntime-int8': it has mxnet"):
        Predictor(exported, "onnxruntime-int8")
    with pytest.raises(UserError, match="is not an export folder"):
        Predictor(tmp_path)
