"""Heat maps as figures: the function, the command, and what is measured by it."""

import argparse
import dataclasses
import functools
import json
import shutil
import subprocess
import sys

import mxnet as mx
import numpy as np
import pytest
from helpers import assert_close, filled, load_command
from PIL import Image

from openaff import UserError, create_model
from openaff.analysis.cam import GradCAM, SemanticSegmentationTarget
from openaff.analysis.cam.measures import deletion_insertion
from openaff.analysis.cam.study import (
    Figures,
    energy_of_objects,
    fall_and_rise,
    objects_of,
    summarise,
)
from openaff.analysis.explain import draw, explain, records
from openaff.data.base import Dataset, ImageSet
from openaff.data.preprocessing import Preprocessing
from openaff.data.transforms import IGNORE, Normalize
from openaff.deploy.subject import Subject, run_subject
from openaff.tasks import TASKS
from openaff.tasks.base import Task

RNG = np.random.RandomState(0)
PICTURES = [RNG.randint(0, 256, (32, 32, 3)).astype("uint8") for _ in range(2)]
NAMES = ("cat", "dog", "cow", "eel")
MEAN, STD = (0.5,) * 3, (0.25,) * 3


def subject(name="aff_cifar_resnet8", task="classification", **options):
    net = filled(create_model(name, num_classes=4, width_multiplier=1, **options))
    facts = ("none", None, NAMES, (3, 32, 32), MEAN, STD)
    return Subject(net, name, options, task, *facts)


def pyramid(fusion="aff"):
    return subject(fusion + "_fpn_resnet8", "segmentation", deep_stem=False)


# --- the function ---------------------------------------------------------------------------------


def test_the_map_is_the_methods_on_what_the_network_sees():
    aff = subject()
    (row, _) = explain({"aff": aff}, PICTURES)
    batch = Normalize(MEAN, STD)(PICTURES[0][None])
    assert_close(row.views[0].maps["gradcam"], GradCAM(aff.net)(batch)[0])
    logits = aff.net(mx.nd.array(batch))
    assert row.views[0].predicted == row.views[0].target == NAMES[int(logits.argmax(1).asscalar())]
    assert row.views[0].share == pytest.approx(float(logits.softmax().max().asscalar()))
    assert np.array_equal(row.picture, PICTURES[0])


def test_a_wrong_prediction_is_marked_where_the_label_is_known():
    aff = subject()
    (row,) = explain({"aff": aff}, PICTURES[:1])
    guess = NAMES.index(row.views[0].predicted)
    rows = explain({"aff": aff}, [PICTURES[0]] * 3, truth=[guess, (guess + 1) % 4, None])
    assert [each.views[0].right for each in rows] == [True, False, None]
    assert [each.views[0].words()[-1] for each in rows] == ["%", "*", "%"]
    assert [each.label for each in rows] == [NAMES[guess], NAMES[(guess + 1) % 4], None]


def test_another_class_can_be_explained():
    rows = explain({"aff": subject()}, PICTURES[:1], target="dog")
    other = "cat" if rows[0].views[0].predicted == "dog" else "dog"
    (row,) = explain({"aff": subject()}, PICTURES[:1], target=other)
    assert row.views[0].target == other
    if row.views[0].predicted != other:
        assert row.views[0].words().endswith(f"\nmap: {other}")


def test_photographs_are_seen_as_in_evaluation(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(RNG.randint(0, 256, (50, 80, 3)).astype("uint8")).save(path)
    (row,) = explain({"aff": subject()}, [path])
    assert np.array_equal(row.picture, Preprocessing((3, 32, 32), MEAN, STD).see(path))
    strip = Image.fromarray(RNG.randint(0, 256, (1, 400, 3)).astype("uint8"))
    see = Preprocessing((3, 32, 32), MEAN, STD, dense=True, short_side=600).see
    with pytest.raises(UserError, match="400 x 1 is too long to be seen as 240000 x 600: crop it"):
        see(strip)
    strip.save(path)
    with pytest.raises(UserError, match="photo.png of 400 x 1 is too long to be seen as 240000 x"):
        see(path)
    long = Image.fromarray(np.zeros((1, 32768, 3), "uint8"))
    with pytest.raises(UserError, match="32768 x 1 is too long to be seen as 32768 x 1: crop it"):
        Preprocessing((3, 32, 32), MEAN, STD, dense=True).see(long)


def test_a_pyramid_explains_the_pixels_of_a_class_and_measures_them_against_the_truth():
    aff, truth = pyramid(), np.zeros((32, 32), "int32")
    truth[4:12, 4:12] = 2
    truth[0] = -1  # does not count
    (row,) = explain(
        {"aff": aff}, PICTURES[:1], truth=[truth], target="cow", measures=True, weights=True
    )
    (view,) = row.views
    batch = Normalize(MEAN, STD)(PICTURES[0][None])
    expected = GradCAM(aff.net)(batch, [SemanticSegmentationTarget(2)])[0]
    assert_close(view.maps["gradcam"], expected)
    inside = expected[truth == 2].sum() / expected.sum()
    assert view.measures["gradcam"]["energy_inside"] == pytest.approx(inside, rel=1e-5)
    found = aff.net(mx.nd.array(batch)).argmax(axis=1).asnumpy()[0] == 2
    found[0] = False
    assert view.iou == pytest.approx((found & (truth == 2)).sum() / (found | (truth == 2)).sum())
    shapes = {name: each.shape for name, each in view.weights.items()}
    assert shapes == {"fusion 1": (32, 16, 16), "fusion 2": (16, 32, 32)}


def test_the_figure_has_a_row_an_image_and_a_column_a_map():
    rows = explain(
        {"aff": subject(), "add": subject("add_cifar_resnet8")},
        PICTURES,
        methods=("gradcam", "layercam"),
        weights=True,
    )
    figure = draw(rows)
    *panels, bar = figure.axes
    assert len(panels) == 2 * (1 + 2 * 2 + 3)  # pictures, methods by networks, fusions of AFF
    assert bar.get_ylabel() == "mean weight of the learned branch"
    titles = [axis.get_title() for axis in panels[:8]]
    assert titles[1] == "aff\ngradcam" and titles[5] == "aff\nfusion 1, 16x32x32"
    assert panels[1].get_xlabel() == rows[0].views[0].words()
    assert json.dumps(records(rows))


def test_drawing_chooses_no_backend():
    code = (
        "import matplotlib, sys, openaff.analysis.explain as e; import numpy as np;"
        "view = e.View('a', 'b', 1.0, 'b', maps={'gradcam': np.ones((4, 4))});"
        "e.draw([e.Row(np.zeros((4, 4, 3), 'uint8'), '', None, [view])]).canvas.draw_idle();"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"methods": ("gradcamm",)}, "no method 'gradcamm'; did you mean 'gradcam'"),
        ({"target": "cat s"}, "no class 'cat s'; did you mean 'cat'"),
        ({"layer": "features.77"}, "no block 'features.77'"),
        ({"subjects": {"add": subject("add_cifar_resnet8")}, "weights": True}, "none of the netw"),
        ({"subjects": {"a": pyramid()}, "measures": True}, "need the truth: a test image's"),
        ({"images": ["nothing.png"]}, "nothing.png"),
        ({"titles": []}, "1 images, 0 titles and 1 true classes or maps: give as many of each"),
        ({"truth": [77]}, "the true class 77 is none of 4"),
        ({"images": [np.zeros((32, 32, 3))]}, r"must be uint8 \(H, W, 3\), not float64 \(32, 32"),
    ],
)
def test_what_cannot_be_explained(arguments, message):
    with pytest.raises(UserError, match=message):
        explain(**{"subjects": {"aff": subject()}, "images": PICTURES[:1], **arguments})


def test_measures_are_of_the_probability_that_is_shown(monkeypatch):
    """Published networks for 20 classes have 100 outputs."""
    module, curves = sys.modules["openaff.analysis.explain"], []

    def measure(*arguments):
        curves.append(deletion_insertion(*arguments))
        return curves[-1]

    monkeypatch.setattr(module, "deletion_insertion", measure)
    few = subject()
    few.class_names = NAMES[:2]
    ((view,),) = (row.views for row in explain({"a": few}, PICTURES[:1], measures=True))
    ((deletion, insertion),) = curves
    assert deletion[0, 0] == insertion[0, -1] == pytest.approx(view.share)


def test_other_tasks_have_no_class_to_explain(monkeypatch):
    class Tags(Task):
        key = "tags"

    monkeypatch.setitem(TASKS._entries, "tags", Tags)
    with pytest.raises(UserError, match="heat maps explain classes, not what tags predicts"):
        explain({"a": subject(task="tags")}, PICTURES[:1])


def test_networks_of_other_classes_do_not_compare():
    other = subject()
    other.class_names = ("ant", "bee", "cod", "doe")
    with pytest.raises(UserError, match="b has other classes than a"):
        explain({"a": subject(), "b": other}, PICTURES)


# --- the command ----------------------------------------------------------------------------------


def test_the_command(digits_run, tmp_path, call):
    folder = tmp_path / "3"  # a class of the digits
    folder.mkdir()
    Image.fromarray(PICTURES[0]).save(folder / "photo.png")
    options = ["--test", "0,5", "--methods", "gradcam,eigencam", "--weights", "--measures"]
    options += ["--out", tmp_path / "figure.png"]
    printed = call("explain", "--run", digits_run[0], folder, *options).out
    written = json.loads((tmp_path / "figure.json").read_text())
    assert [each["image"] for each in written["images"]] == ["photo.png", "test 0", "test 5"]
    assert written["images"][0]["label"] == "3"
    (view,) = written["images"][1]["networks"]
    assert view["methods"] == ["gradcam", "eigencam"] and list(view["mean_weights"]) == [
        *("fusion 1", "fusion 2", "fusion 3")
    ]
    figures = view["measures"]["gradcam"]
    assert 0 <= figures["deletion"] <= 1 and 0 <= figures["insertion"] <= 1
    assert view["right"] == (view["predicted"] == written["images"][1]["label"])
    assert written["command"].startswith("openaff explain --run") and written["date"]
    assert Image.open(tmp_path / "figure.png").width > 500
    assert "test 0: aff_cifar_resnet8: " in printed


def test_files_of_one_name_and_links(tmp_path):
    """A link's folder counts, not that of the file that it leads to."""
    for folder, name in (("dog", "a.png"), ("eel", "a.png"), ("dog", "b.png")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).touch()
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "c.png").symlink_to("../dog/b.png")
    script = load_command("explain")
    given = argparse.Namespace(images=[tmp_path / "cat", tmp_path / "dog/b.png"])
    assert script.given_images(given, subject())[1:] == (["c.png", "b.png"], [0, 1])
    given = argparse.Namespace(images=[tmp_path / "dog/a.png", tmp_path / "eel"])
    paths, titles, labels = script.given_images(given, subject())
    assert titles == list(map(str, paths)) and labels == [1, 3]


def test_nothing_is_known_of_a_photographs_pixels(tmp_path, call):
    """Though its folder has a class's name."""
    (tmp_path / "car").mkdir()
    Image.fromarray(RNG.randint(0, 256, (48, 64, 3)).astype("uint8")).save(tmp_path / "car/a.png")
    arguments = ["--pretrained", "aff_fpn_resnet8-camvid", tmp_path / "car/a.png"]
    arguments += ["--out", tmp_path / "a.png"]
    assert "IoU" not in call("explain", *arguments).out
    (image,) = json.loads((tmp_path / "a.json").read_text())["images"]
    assert image["label"] is None and image["networks"][0]["iou"] is None
    with pytest.raises(UserError, match="measures of networks for segmentation need the truth"):
        call("explain", *arguments, "--measures")
    for flag in ("--data", "--setting", "--image-size", "--crop-ratio"):
        with pytest.raises(UserError, match=f"{flag} has no effect with image files: it is for --"):
            call("explain", *arguments, flag, "1")


def test_another_run_beside(digits_run, tmp_path, call):
    shutil.copytree(digits_run[0], tmp_path / "other")
    options = ["--compare", tmp_path / "other", "--test", "1", "--out", tmp_path / "figure.png"]
    call("explain", "--run", digits_run[0], *options)
    (image,) = json.loads((tmp_path / "figure.json").read_text())["images"]
    assert [each["network"] for each in image["networks"]] == ["digits", "other"]
    (tmp_path / "result.json").write_text("{}")
    (tmp_path / "folder.json").mkdir()
    for name, message in (
        ("result", "result.json is there, of something else: take another name"),
        ("folder", "cannot write .*folder.json: it is a folder"),
    ):
        with pytest.raises(UserError, match=message):
            call("explain", "--run", digits_run[0], *options[:-1], tmp_path / f"{name}.png")
    assert (tmp_path / "result.json").read_text() == "{}"
    for first, message in (
        (("--run", tmp_path / "other"), "--compare names a run twice"),
        (("--pretrained", "aff_cifar_resnet8-digits"), "--compare needs --run: it sets other"),
    ):
        with pytest.raises(UserError, match=message):
            call("explain", *first, *options)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "name image files or folders"),
        (["--test", "0", "--out", "figure.pdf"], "must be the name of a PNG file"),
        (["--test", "0", "--out", "nowhere/figure.png"], "in a folder that is there"),
        (["--test", "zero"], "--test 'zero': write numbers"),
        (["--test", "0,360"], "--test 360: there are 360 test images, from 0 on"),
        (["--test", "0", "--devices", "cpu:2"], "one device is enough"),
        (["--test", "0", "--compare", "runs/none"], "runs/none is not the folder of a finished"),
        (["--test", "0", "--methods", "cam"], "there is no method 'cam'"),
        (["missing.png"], "missing.png"),
        (["./figure.png"], "--out figure.png is one of the images to explain: take another name"),
    ],
)
def test_wrong_commands(digits_run, tmp_path, monkeypatch, call, arguments, message):
    monkeypatch.chdir(tmp_path)
    out = [] if "--out" in arguments else ["--out", "figure.png"]
    with pytest.raises(UserError, match=message):
        call("explain", "--run", digits_run[0], *arguments, *out)
    assert not list(tmp_path.iterdir())


# --- the study ------------------------------------------------------------------------------------


def test_objects_are_classes_of_one_part():
    target = np.zeros((16, 16), int)
    target[:4, :4] = 1
    target[8:12, :4] = 1  # two parts
    target[:4, 10:15] = 2
    target[15, 15] = 3  # too small
    assert objects_of([target], 4) == [(0, 0, 256 - 52 - 1), (0, 2, 20)]


class FixedMap:
    """A method whose map is half on the left half, a quarter above."""

    def __init__(self, logits):
        self.outputs = logits

    def __call__(self, images, targets):
        heat = np.zeros((1, 8, 8), "float32")
        heat[0, :, :4] = 1
        return heat


def test_energy_of_objects():
    truth = np.zeros((8, 8), "int32")
    truth[:4, :4] = 1
    test = ImageSet(np.zeros((1, 8, 8, 3), "uint8"), truth[None])
    logits = np.zeros((1, 2, 8, 8), "float32")
    logits[0, 1, :4] = 1  # the whole upper half is taken for class 1
    figures = energy_of_objects(
        lambda: FixedMap(mx.nd.array(logits)), Normalize(MEAN, STD), test, [(0, 1, 16)]
    )
    assert figures.values["energy"].tolist() == [0.5] and figures.values["iou"].tolist() == [0.5]
    one = mx.nd.array(logits[:, 1:] - 0.5)  # the same of a network with one output
    figures = energy_of_objects(lambda: FixedMap(one), Normalize(MEAN, STD), test, [(0, 1, 16)])
    assert figures.values["iou"].tolist() == [0.5]


def test_pixels_that_do_not_count_are_in_neither_share():
    truth = np.zeros((8, 8), "int32")
    truth[:4, :4] = 1
    truth[:4, 4:] = IGNORE
    truth[4:, :2] = IGNORE
    logits = np.zeros((1, 2, 8, 8), "float32")
    logits[0, 1, :4] = 1  # right wherever it counts
    test = ImageSet(np.zeros((1, 8, 8, 3), "uint8"), truth[None])
    make = functools.partial(FixedMap, mx.nd.array(logits))
    values = energy_of_objects(make, Normalize(MEAN, STD), test, [(0, 1, 16)]).values
    assert values["iou"].tolist() == [1] and values["energy"].tolist() == [16 / 24]


def test_fall_and_rise_of_a_real_network():
    net = subject().net
    images = Normalize(MEAN, STD)(np.stack(PICTURES))
    figures = fall_and_rise(lambda: GradCAM(net), net, images, [0, 1], batch_size=1)
    values = figures.values
    probabilities = net(mx.nd.array(images)).softmax().asnumpy()
    assert_close(values["probability"], probabilities[[0, 1], [0, 1]])
    assert_close(values["difference"], values["insertion"] - values["deletion"])


def test_a_summary_pairs_objects_and_spreads_over_seeds():
    runs = [Figures({"x": np.array(each)}) for each in ([1.0, 3.0, 9.0], [3.0, 5.0, 9.0])]
    baseline = [Figures({"x": np.array([1.0, 1.0, 9.0])})]
    row = summarise("x", runs, baseline, np.array([True, True, False]))
    assert row["mean"] == 3 and row["std"] == pytest.approx(2**0.5)
    assert row["difference"] == 2 and row["interval"] == pytest.approx(1.96)
    assert summarise("x", baseline, baseline, np.array([True] * 3))["std"] is None


def test_the_study_of_classifiers_compares_on_images_that_all_classify_right():
    script = load_command("measure_heat_maps")
    by_fusion = {name: [subject(name + "_cifar_resnet8")] for name in ("add", "aff")}
    pixels = np.concatenate([PICTURES, PICTURES])
    guesses, others = (
        script.predictions(by_fusion[name][0].net, Normalize(MEAN, STD)(pixels))
        for name in by_fusion
    )
    np.testing.assert_array_equal(guesses, others)
    guesses[0] = (guesses[0] + 1) % 4  # one that is not
    test = ImageSet(pixels.reshape(4, 32, 32, 3), guesses.astype("int32"))
    dataset = Dataset("none", "four", "4", NAMES, test, test, MEAN, STD)
    rows = script.measure_fall_and_rise(by_fusion, "gradcam", dataset, 4)
    assert [(row["fusion"], row["images"]) for row in rows] == [("add", 3), ("aff", 3)]
    assert rows[0]["difference"]["difference"] == 0
    assert "| aff | 1 |" in script.table({"rows": rows})


def test_the_study_of_pyramids_groups_objects_by_size():
    script = load_command("measure_heat_maps")
    by_fusion = {name: [pyramid(name)] for name in ("add", "aff")}
    maps = np.zeros((3, 32, 32), "int32")
    for index, side in enumerate((4, 8, 16)):
        maps[index, :side, :side] = 1
    test = ImageSet(RNG.randint(0, 256, (3, 32, 32, 3)).astype("uint8"), maps)
    names = ("background", *NAMES[1:])
    dataset = Dataset("none", "four", "3", names, test, test, MEAN, STD)
    rows = script.measure_energy(by_fusion, "layercam", dataset, 10)
    assert [(row["size"], row["objects"], row["fusion"]) for row in rows] == [
        (size, 1, fusion) for size in script.SIZES for fusion in by_fusion
    ]
    assert [row["area"] for row in rows[::2]] == [16 / 1024, 64 / 1024, 256 / 1024]
    test.targets[1:] = 0  # one object: one size
    rows = script.measure_energy(by_fusion, "layercam", dataset, 10)
    assert [row["objects"] for row in rows] == [1, 1]
    test.targets[:] = 0
    with pytest.raises(UserError, match="none: no test image has a class that is one object"):
        script.measure_energy(by_fusion, "layercam", dataset, 10)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--page", "page.md", "--out", "x.json"], "--out has no effect with --page: it writes"),
        (["--page", "page.md", "runs/a"], "--runs has no effect with --page"),
        (["--page", "page.md", "--images", "3"], "--images has no effect with --page"),
        (["--page", "page.md", "--method", "scorecam"], "--method has no effect with --page"),
        (["runs/a"], "and --out for the figures"),
        (["runs/a", "--out", "none/x.json"], "there is no such folder"),
        (["runs/a", "--out", "."], "cannot write .: it is a folder; name a file"),
        (["runs/a", "--out", "x.json"], "runs/a is not the folder of a finished run"),
    ],
)
def test_wrong_studies(arguments, message, tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        call("measure-heat-maps", *arguments)


def test_a_study_needs_the_plain_sum(digits_run):
    with pytest.raises(UserError, match="name a run of the plain sum, too"):
        load_command("measure_heat_maps").load_runs([digits_run[0]])


def study(monkeypatch, *subjects):
    """What ``load_runs`` makes of runs with these subjects."""
    script = load_command("measure_heat_maps")
    named = [dataclasses.replace(e, score={"seed": n // 2}) for n, e in enumerate(subjects)]
    monkeypatch.setattr(script, "run_subject", lambda folder, which: named[int(folder)])
    return script.load_runs([str(index) for index in range(len(subjects))])


def test_runs_of_a_study_are_grouped_by_fusion_however_it_is_given(monkeypatch):
    bare, aff = subject("cifar_resnet8"), subject("cifar_resnet8", fusion="aff")
    found = study(monkeypatch, aff, bare, subject("iaff_cifar_resnet8"), bare)
    assert {fusion: len(seeds) for fusion, seeds in found.items()} == {
        "add": 2,
        "aff": 1,
        "iaff": 1,
    }
    assert next(iter(found)) == "add"
    with pytest.raises(UserError, match="1 has the seed of another run of cifar_resnet8: name one"):
        study(monkeypatch, bare, bare)
    deeper = dataclasses.replace(bare, model="add_cifar_resnet14")
    with pytest.raises(UserError, match="1 is no other seed of cifar_resnet8: its network or its"):
        study(monkeypatch, bare, deeper)
    others = dataclasses.replace(aff, class_names=("a", "b", "c", "d"))
    with pytest.raises(UserError, match="the runs of cifar_resnet8 and .* have other classes"):
        study(monkeypatch, bare, others)
    with pytest.raises(UserError, match="the runs are of several data sets: "):
        study(monkeypatch, bare, dataclasses.replace(aff, dataset="digits"))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"class_names": ("a",)}, "the runs have other classes than the data: name theirs with"),
        ({"test": None}, "digits: there are no validation images"),
    ],
)
def test_data_of_a_study(digits_run, monkeypatch, call, change, message):
    script = load_command("measure_heat_maps")
    load = script.load_dataset
    known = run_subject(digits_run[0])
    monkeypatch.setattr(script, "load_runs", lambda _: {"add": [known]})
    monkeypatch.setattr(
        script, "load_dataset", lambda data: dataclasses.replace(load(data), **change)
    )
    words = ("measure-heat-maps", digits_run[0], "--out", "x.json")
    with pytest.raises(UserError, match=message):
        call(*words)
    with pytest.raises(UserError, match="--data has no effect on digits"):
        call(*words, "--data", "y")


def test_the_pages_tables_are_those_of_the_results(root):
    script, page = load_command("measure_heat_maps"), (root / "docs/heat_maps.md").read_text()
    files = sorted((root / "measurements/heat_maps").glob("*.json"))
    assert files
    for file in files:
        result = json.loads(file.read_text())
        assert script.table(result) in page, file
        assert {"split", "method", "networks", "command", "date", "commit"} <= set(result)


def test_runs_can_be_explained_from_python(digits_run):
    (row,) = explain({"aff": run_subject(digits_run[0])}, PICTURES[:1])
    assert row.views[0].maps["gradcam"].shape == (32, 32)


def test_a_published_network_has_a_heading(monkeypatch):
    command = load_command("explain")
    monkeypatch.setattr(command, "subject_from_arguments", lambda *_: subject())
    args = argparse.Namespace(
        run=None, pretrained=None, model=None, published="cifar100/X/0.8", compare=[]
    )
    assert list(command.networks(args, None, None, None)) == ["aff_cifar_resnet8"]
