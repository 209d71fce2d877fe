import csv
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from types import SimpleNamespace

import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from openaff import UserError
from openaff.data import DataConfig, load_dataset
from openaff.tasks import load_task
from openaff.tasks.classification import ACCURACY
from openaff.training.config import load_config
from openaff.training.curves import draw_curves, read_metrics
from openaff.training.report import report
from openaff.training.run_folder import BEST, Run
from openaff.training.session import train
from openaff.utils import files
from openaff.utils.devices import parse_devices
from openaff.utils.files import TEMPORARY
from openaff.utils.imports import import_modules
from openaff.utils.progress import progress_bar


def test_run_folder_holds_what_was_run_and_what_came_out(digits_run):
    folder, _ = digits_run
    names = {path.name.split(".tfevents")[0] for path in folder.iterdir()}
    assert sorted(names) == [
        "best.json",
        "best.params",
        "config.yaml",
        "curves.png",
        "environment.json",
        "events.out",
        "labels.txt",
        "last.ckpt",
        "last.params",
        "metrics.csv",
        "metrics.jsonl",
        "previous.ckpt",
        "report.md",
        "result.json",
    ]
    assert load_config(folder / "config.yaml").model.name == "aff_cifar_resnet8"
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_report_is_one_page_with_the_result(digits_run):
    folder, result = digits_run
    report = (folder / "report.md").read_text()
    for text in (
        "aff_cifar_resnet8 (width_multiplier=1)",
        result["protocol"],
        f"{result['best_accuracy']:.2%}, epoch 1, chosen on the test split",
        "![Metrics by epoch](curves.png)",
        f"| last top-5 accuracy | {result['last_top5']:.2%} |",
        f"| processor | {result['processor']} |",
        "| epoch | last rate | train loss | train accuracy | test loss | test accuracy |",
        f" | {result['last_accuracy']:.2%} |\n",
    ):
        assert text in report
    assert re.search(r"^\| duration \| 0:0\d:\d\d of training and evaluation \|$", report, re.M)
    assert result["seconds"] > 0 and "begun by" not in report
    assert len(report.splitlines()) < 40


def test_a_report_has_no_row_of_what_is_not_known(digits_run):
    task = load_task(load_dataset(DataConfig()))
    rows = read_metrics(digits_run[0])
    page = report("run", {**digits_run[1], "commit": "abc1234"}, rows, task)
    assert "| commit | abc1234 |" in page
    page = report("run", {**digits_run[1], "commit": None}, rows, task)
    assert "commit" not in page and "None" not in page
    page = report("run", {**digits_run[1], "begun_by": "openaff train a"}, rows, task)
    assert "| begun by | `openaff train a` |\n| command | `" in page
    earlier = {key: value for key, value in digits_run[1].items() if key != "seconds"}
    assert "duration" not in report("run", earlier, rows, task)


def test_tensorboard_gets_every_metric(digits_run):
    folder, _ = digits_run
    (events,) = folder.glob("events.out.tfevents.*")
    seen = {}
    data = events.read_bytes()
    while data:  # records of TFRecord's form: length, its checksum, the event, its checksum
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]
        for value in event.summary.value:
            seen[value.tag] = (event.step, value.simple_value or value.tensor.string_val)
    (row,) = read_metrics(folder)
    assert len(seen) == len(row)  # the recipe instead of the epoch
    assert seen["accuracy/test"] == (1, pytest.approx(row["test_accuracy"]))
    assert seen["loss/train"] == (1, pytest.approx(row["train_loss"]))
    assert seen["progress/lr"] == (1, pytest.approx(row["lr"]))
    assert b"    name: aff_cifar_resnet8" in seen["recipe/text_summary"][1][0]


def test_result_says_all_that_an_honest_result_says(digits_run):
    folder, returned = digits_run
    result = json.loads((folder / "result.json").read_text())
    assert result.items() >= returned.items()
    for key in (
        "model",
        "dataset",
        "labels",
        "split",
        "protocol",
        "seed",
        "versions",
        "threads",
        "command",
        "date",
        "best_selection",
        "best_epoch",
        "last_accuracy",
        "parameters",
    ):
        assert result[key] not in (None, ""), key
    assert result["fusion"] == "aff"
    assert result["parameters"] == 85118
    assert result["protocol"].startswith(
        "1 epochs; NAG, lr 0.01, momentum 0.9, weight decay 0.0001"
    )


def test_metrics_in_both_forms(digits_run):
    folder, result = digits_run
    rows = read_metrics(folder)
    assert len(rows) == 1 and rows[0]["epoch"] == 1
    assert rows[0]["test_accuracy"] == result["last_accuracy"] > 0.2
    with open(folder / "metrics.csv") as lines:
        table = list(csv.DictReader(lines))
    assert [float(row["train_loss"]) for row in table] == [row["train_loss"] for row in rows]


def test_existing_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "kept").write_text("mine")
    config = load_config("digits/add_resnet8")
    with pytest.raises(UserError, match="exists: take another --out"):
        train(config, tmp_path, parse_devices("cpu"))
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_folder_that_another_process_writes_is_refused(tmp_path):
    with Run.new(tmp_path / "run", "epochs: 1\n", task=None):
        pass
    # What a SIGKILL leaves of files, and of a folder.
    (tmp_path / "run" / f"{TEMPORARY}1-last.ckpt").touch()
    (tmp_path / "run" / f"{TEMPORARY}2-x").mkdir()
    hold = (
        "import fcntl, sys; lock = open(sys.argv[1], 'w'); fcntl.lockf(lock, fcntl.LOCK_EX); "
        "print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / "run" / Run.LOCK)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(UserError, match="another process is training in .*run: let it end"):
        Run.reopen(tmp_path / "run")
    assert (tmp_path / "run" / f"{TEMPORARY}1-last.ckpt").exists()  # it may be the other one's
    holder.communicate()
    Run.reopen(tmp_path / "run")
    left = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert left == ["config.yaml", "environment.json", Run.LOCK]


def test_the_lock_ends_after_its_file(tmp_path):
    """In the other order it may be the file of the next process by then."""
    with Run.new(tmp_path / "run", "epochs: 1\n", task=None) as run:
        pass
    path, there = tmp_path / "run" / Run.LOCK, []
    run._locked.close()
    run._locked = SimpleNamespace(close=lambda: there.append(path.exists()))
    assert path.exists()
    run.release()
    run.release()
    assert there == [False]


def test_a_lock_of_a_file_that_was_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    path, original, calls = tmp_path / "lock", files._lock, []

    def removed_first(handle, *rest):
        if not calls:
            path.unlink()  # between open and lock, as another process that ends does
        calls.append(handle)
        return original(handle, *rest)

    monkeypatch.setattr(files, "_lock", removed_first)
    handle, ours = files.lock(path)
    with handle:
        assert ours and len(calls) == 2 and path.exists()
        assert os.path.samestat(os.fstat(handle.fileno()), path.stat())


def test_which_epoch_the_best_weights_are_of(tmp_path, monkeypatch):
    run = Run(tmp_path, SimpleNamespace(headline=ACCURACY))
    rows = [{"epoch": epoch, "test_accuracy": 0.5 - abs(epoch - 2) / 10} for epoch in (1, 2, 3)]
    weights, written = tmp_path / "best.params", []
    monkeypatch.setattr(run, "save", lambda name, net: weights.write_text(net))
    for row in rows:
        run.save_best(str(row["epoch"]), row)
        written.append(weights.read_text())
    assert written == ["1", "2", "2"] and run._held(rows) == run.best == rows[1]
    assert run._held(rows[:1]) is None  # epoch 2 was taken back
    for content in ("null", "["):  # after a kill, or damaged
        (tmp_path / BEST).write_text(content)
        assert run._held(rows) is None
    (tmp_path / BEST).unlink()  # an earlier edition wrote none
    assert run._held(rows) == rows[1] and run._held([]) is None
    weights.unlink()
    assert run._held(rows) is None


def test_a_run_folder_appears_with_its_first_checkpoint_or_not_at_all(tmp_path):
    """What was killed before can be begun anew by the same command, which removes its remains."""
    killed = (
        "import os, sys; from openaff.training.run_folder import Run; "
        "begun = Run.new(sys.argv[1], 'epochs: 1', task=None); begun.__enter__(); "
        "print('begun', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", killed, str(tmp_path / "run")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"begun\n"
    (theirs,) = tmp_path.iterdir()
    with Run.new(tmp_path / "other", "epochs: 1\n", task=None), pytest.raises(KeyboardInterrupt):
        with Run.new(tmp_path / "run", "epochs: 1\n", task=None) as run:
            assert theirs.exists() and not (tmp_path / "run").exists()  # it is alive
            (run.path / "last.ckpt").touch()
            raise KeyboardInterrupt
    assert set(tmp_path.iterdir()) == {theirs, tmp_path / "other"}
    process.kill()
    process.communicate()
    with pytest.raises(UserError, match="there is no run folder .*begin the run with --config"):
        Run.reopen(tmp_path / "run")
    with Run.new(tmp_path / "run", "epochs: 1\n", task=None) as run:
        (run.path / "last.ckpt").touch()
    assert set(tmp_path.iterdir()) == {tmp_path / "run", tmp_path / "other"}
    assert run.path == tmp_path / "run" and (run.path / "last.ckpt").exists()


def test_modules_of_one_name_are_both_copied(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for path in ("one_x/__init__.py", "one_x/nets.py", "two_x/__init__.py", "two_x/nets.py"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(f"# {path}")
    names = ["one_x", "one_x.nets", "two_x", "two_x.nets"]
    import_modules(names)
    with Run.new(tmp_path / "run", "epochs: 1\n", task=None, imports=names):
        pass
    copies = [path for path in (tmp_path / "run" / "imports").rglob("*") if path.is_file()]
    assert len(copies) == 4
    for path in copies:
        assert path.read_text() == f"# {path.relative_to(tmp_path / 'run' / 'imports')}"
    (tmp_path / "empty_x").mkdir()
    with pytest.raises(UserError, match="imports: empty_x has no file, .* name a module in it$"):
        import_modules(["empty_x"])


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("exits_x", "import sys; sys.exit(0)", "exits_x cannot be imported: SystemExit: 0"),
        (
            "half_x",
            "import half_x.rest",
            "half_x cannot be imported: No module named 'half_x.rest'",
        ),
        ("half_x.rest", "", "there is no module 'half_x.rest': name a file of the working"),
        ("none_x.rest", "", "there is no module 'none_x.rest': name a file of the working"),
    ],
)
def test_modules_that_cannot_be_imported(tmp_path, monkeypatch, name, text, message):
    monkeypatch.syspath_prepend(tmp_path)
    if not name.startswith("none"):
        (tmp_path / name.partition(".")[0]).mkdir()
        (tmp_path / name.partition(".")[0] / "__init__.py").write_text(text)
    with pytest.raises(UserError, match=f"^imports: {message}"):
        import_modules([name])


def test_nothing_is_written_when_the_configuration_cannot_run(tmp_path):
    config = load_config("cifar/aff_resnet8", [f"data.root={tmp_path / 'absent'}"])
    with pytest.raises(UserError, match="cifar100: nothing in"):
        train(config, tmp_path / "run", parse_devices("cpu"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "devices, message", [("cpu", "has no effect on one device: name"), ("cpu:2", "needs GPUs: MX")]
)
def test_synchronised_batch_norms_are_for_several_gpus(tmp_path, devices, message):
    config = load_config("digits/add_resnet8", ["sync_batch_norm=true"])
    with pytest.raises(UserError, match=f"sync_batch_norm {message}"):
        train(config, tmp_path / "run", parse_devices(devices))
    assert list(tmp_path.iterdir()) == []


def write_curve(path, text):
    path.write_text(text)
    return path


def test_curves_of_others_are_read_from_csv_and_results(tmp_path):
    # as a spreadsheet may write it: with a byte order mark and spaces
    path = write_curve(tmp_path / "a.CSV", "\ufeffepoch, test_accuracy,note\n1,0.5,x\n2,,y\n")
    assert read_metrics(path) == [{"epoch": 1, "test_accuracy": 0.5}, {"epoch": 2}]
    path = write_curve(tmp_path / "a.json", '{"curve": [{"epoch": 1, "train_loss": 2.5}]}')
    assert read_metrics(path) == [{"epoch": 1, "train_loss": 2.5}]


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("metrics.jsonl", "{", "cannot read the metrics"),
        ("metrics.jsonl", "", "it has no epochs"),
        ("a.csv", "epoch,test_accuracy\n", "it has no epochs"),
        ("metrics.jsonl", "[1, 2]", "cannot read the metrics"),
        ("a.csv", "epoch,loss\n1,2\n", "it has no train_loss, "),
        ("a.csv", "step,train_loss\n1,2\n", "a row has no epoch"),
        ("a.csv", "epoch,test_accuracy\n1,93.5\n", "93.5 in epoch 1 is not a fraction"),
        ("a.csv", "epoch,train_loss\n1,two\n", "could not convert"),
        ("a.json", "{}", "it has no epochs"),
        ("a.json", '{"curve": [{"epoch": 1, "train_loss": null}]}', "it has no train_loss, "),
        ("a.json", '{"curve": [{"epoch": 1, "train_loss": ""}]}', "train_loss '' is not a number"),
        ("a.json", '{"curve": [{"epoch": "x", "train_loss": 1}]}', "epoch 'x' is not a number"),
        ("a.csv", "epoch,train_loss\n1e308,2\n", "the epoch 1e.308 is not a number from 0 to"),
        ("a.csv", "epoch,train_loss\nnan,2\n", "the epoch nan is not a number from 0 to"),
        ("a.csv", "epoch,train_loss\n1,1e308\n", "train_loss 1e.308 is not a number that can be"),
        ("a.json", '{"curve": [1]}', r"curve\[0\] must be a mapping"),
        ("a.json", "[" * 100000, "nested too deeply"),
        ("metrics.jsonl", "[" * 100000, "nested too deeply"),
    ],
)
def test_metrics_that_cannot_be_read(tmp_path, name, text, message):
    path = write_curve(tmp_path / name, text)
    with pytest.raises(UserError, match=message):
        read_metrics(path)


def test_a_folder_without_metrics(tmp_path):
    with pytest.raises(UserError, match="cannot read the metrics"):
        read_metrics(tmp_path)


def test_a_run_is_drawn_against_a_csv(digits_run, tmp_path, call):
    theirs = write_curve(tmp_path / "theirs.csv", "epoch,test_accuracy\n1,0.5\n2,0.9\n")
    picture = tmp_path / "curves.png"
    (tmp_path / "lr=0.1").symlink_to(digits_run[0])
    words = ("plot", "--out", picture, f"$ours={digits_run[0]}", theirs, tmp_path / "lr=0.1")
    printed = call(*words).out
    figure = draw_curves({"a": read_metrics(digits_run[0])})
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss", "accuracy (%)"]
    assert printed == f"written {picture}\n"
    assert Image.open(picture).width > 500
    with pytest.raises(UserError, match="two sources are called 'theirs'"):
        call(*words, theirs)
    with pytest.raises(UserError, match="name a .png"):
        call("plot", "--out", "x.txt", theirs)


def test_runs_on_several_data_sets_are_drawn_with_a_warning(digits_run, root, tmp_path, call):
    ours = next((root / "results/reduced").glob("aff_*-seed0.json"))
    words = ("plot", "--out", tmp_path / "curves.png", f"a={digits_run[0]}")
    unfinished = tmp_path / "unfinished"
    shutil.copytree(digits_run[0], unfinished)
    (unfinished / "result.json").unlink()
    masks = tmp_path / "masks"  # of how many classes nobody knows
    shutil.copytree(unfinished, masks)
    config = (masks / "config.yaml").read_text()
    (masks / "config.yaml").write_text(config.replace("name: digits", "name: masks"))
    for other, warned in (
        (digits_run[0], False),
        (unfinished, False),
        (masks, False),
        (ours, True),
    ):
        errors = call(*words, f"b={other}").err
        expected = "CIFAR-100, fine (100 classes) and on digits, 10 digits: do not compare them"
        assert (expected in errors) == warned


def test_a_peak_of_the_loss_does_not_flatten_the_rest():
    rows = [{"epoch": epoch, "test_loss": 1.0, "test_accuracy": 0.5} for epoch in range(20)]
    (axis, _) = draw_curves({"a": rows}).axes
    assert axis.get_ylabel() == "loss"
    rows[0] = {**rows[0], "test_loss": 14.0}
    (axis, other) = draw_curves({"a": rows}).axes
    assert axis.get_ylim() == (0, 1.5) and axis.get_ylabel() == "loss, peaks cut off"
    assert other.get_ylabel() == "accuracy (%)"


def test_bars_are_on_terminals_and_in_notebooks(monkeypatch):
    assert progress_bar([1]).disable  # pytest's stderr is a file
    monkeypatch.setitem(sys.modules, "ipykernel", None)
    assert not progress_bar([1], file=io.StringIO()).disable
    assert progress_bar([1], hidden=True).disable
