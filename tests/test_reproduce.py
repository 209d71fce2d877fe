"""openaff tables: rows and tables are trained once, go on, and are recorded."""

import json

import pytest
from conftest import ROOT
from helpers import finished_run

from openaff import UserError
from openaff.tables import recipes
from openaff.tables import results as table_results
from openaff.training.config import to_yaml
from openaff.utils.interrupt import Stopped


def test_all_tables_have_the_seeds_of_the_evidence(tables_command, call, monkeypatch, tmp_path):
    planned = []
    monkeypatch.setattr(
        tables_command,
        "train_row",
        lambda *given: planned.append((given[3].run, given[5])) or "a file",
    )
    command = "tables --table all --run --protocol reduced cifar100.root=x camvid.root=x"
    call(*command.split(), "--results", tmp_path)
    for key, seeds in (("aff", 5), ("concat", 1)):
        run = f"paper-table4.short-skip.{key}.b1"
        assert [seed for each, seed in planned if each == run] == list(range(seeds))
    assert len(planned) == len(set(planned)) >= 56


def test_script(tables_command, known, tmp_path, digits_run, call):
    def tables(*arguments):
        return call("tables", *arguments).out

    listing = tables("--list")
    for table in known.values():
        for row in table.rows:
            assert f"{row.id}:" in listing or f"--row {row.id} --run --out" in listing
            reduced = row.reduced and row.run == row.id
            assert (f"--row {row.id} --run --protocol reduced" in listing) == bool(reduced)
    assert "\nopenaff tables --row fusions-resnet8.aff --run --protocol" in listing
    assert "paper-table7.basic: counted, not trained" in listing
    aff = ("--row", "fusions-resnet8.aff")
    reduced = ("--run", "--protocol", "reduced")
    for arguments, message in (
        (("--table", "fusions"), "there is no table 'fusions'"),
        (("--row", "fusions-resnet8.afff", "--run", "--out", "x"), "did you mean 'fusions-resnet8"),
        (aff, "--row needs --run"),
        ((*aff, "--run", "--out", "x", "epochs=3"), "epochs=3 would be another protocol"),
        ((*aff, "--run", "--out", "x", "--protocol", "quick"), "--protocol must be paper or red"),
        ((*aff, *reduced, "--out", digits_run[0]), "is a run of another configuration"),
        ((*aff, *reduced, "--out", tmp_path), "is there, and no run folder: take another --out"),
        (("--list", "--run"), "are for training: --row or --table with --run"),
        (("--list", "--seed", "0"), "are for training: --row or --table with --run"),
        (("--report", "--start-from", "x"), "are for training: --row or --table with --run"),
        (("--table", "all", "--seeds", "0"), "are for training: --row or --table with --run"),
        (("--list", "--group", "short-skip"), "--group has an effect with --table only"),
        (("--table", "paper-table4", "--group", "skip"), "paper-table4 has no group 'skip': same-"),
        (("--table", "paper-table4", "--run"), "--table --run needs --protocol reduced"),
        (("--table", "paper-table5", *reduced), "no row of paper-table5 has a reduced form"),
        (
            ("--table", "paper-table4", *reduced, "data.root=x"),
            "data.root=x: paper-table4 is on camvid and cifar100: write camvid.root=DIR cifar100.",
        ),
        (
            ("--table", "paper-table6", *reduced, "camvid.root=x"),
            "paper-table6 is on cifar100: wr",
        ),
        (("--table", "paper-table6", *reduced, "data.flip=false"), "would be another protocol: on"),
        (("--table", "paper-table6", *reduced, "--seed", "1"), "--seed has no effect with --table"),
        (("--table", "paper-table6", *reduced, "--seeds", "0,x"), "--seeds '0,x': write numbers"),
        (("--table", "paper-table6", *reduced, "--seeds", "0,0"), "a seed stands twice"),
        (("--table", "paper-table6", *reduced, "--seeds", "0,-1"), "seed must be in"),
        (
            ("--table", "paper-table6", *reduced, "--devices", "cpu:2"),
            "take --devices gpu:0 or cpu",
        ),
        ((*aff, "--run", "--out", "x", "--seeds", "0"), "--seeds has no effect with --row"),
        (("--list", "--results", tmp_path), "--results has no effect on --list"),
        ((*aff, *reduced, "--out", "x", "--results", __file__), "test_reproduce.py is no folder"),
        (("--report", "--results", tmp_path), "holds no results: a report without any would be"),
        (("--table", "all", "--results", ROOT / "results/reduced"), "name the folder above it"),
        ((*aff, *reduced, "--out", "x", "--devices", "-"), "--devices '-': write cpu"),
        ((*aff, *reduced, "--out", "x", "--devices", "cpu:2"), "on 1 device: take --devices gpu:0"),
        ((*aff, *reduced, "--out", "x", "--start-from", "y"), "--start-from has no effect on fus"),
        ((*aff, "--run", "--out", "x"), "cannot be trained by the paper protocol: its recipe is"),
        (
            ("--row", "cifar100-runs.2020-11.aff-resnet32", "--run", "--out", "x"),
            "on 2 devices: take --devices gpu:0,1 or cpu:2",
        ),
        (
            ("--row", "paper-table3.imagenet.aff", "--run", "--out", "x", "--devices", "cpu:2"),
            "is trained in float16, on GPUs only: take --devices gpu:0,1",
        ),
        (
            ("--row", "cifar100-2020-11.aff-resnet-32", "--run", "--out", "x"),
            "needs --start-from, a finished run of cifar100-runs.2020-11.aff-resnet32-coarse$",
        ),
        (
            ("--row", "cifar10-runs.2020-09.aff-resnet32-cifar10", "--run", "--out", "x")
            + ("--protocol", "reduced"),
            "by the reduced protocol: it has no reduced form; --list",
        ),
        (
            ("--row", "paper-table5.resnet-101", "--run", "--out", "x"),
            "paper-table5.resnet-101 cannot be trained: its network is not here",
        ),
        (
            ("--row", "paper-table3.imagenet.aff", "--run", "--out", "x", "--protocol", "reduced"),
            "has no reduced form",
        ),
    ):
        with pytest.raises(UserError, match=message):
            tables(*arguments)


def test_a_continued_row_starts_from_the_run_that_it_continues(known, tmp_path, digits_run):
    """The two continued runs have one recipe, and start from different ones."""
    first = "cifar100-runs.2020-11.aff-resnext47-32x4d-coarse"
    second, third = f"{first}-continued", f"{first}-continued-twice"
    values = {"model": "aff_cifar_resnext47_32x4d", "labels": "coarse (20 superclasses)"}
    values["options"] = recipes.row_config(known.row(first)).model.options

    def run(name, row_id, start_from=None, count=4):
        devices = [f"gpu({index})" for index in range(count)]
        folder = finished_run(tmp_path / name, digits_run, devices=devices, **values)
        config = recipes.row_config(known.row(row_id), "paper", ["seed=7"])
        config.start_from = start_from and str(start_from / "best.params")
        (folder / "config.yaml").write_text(to_yaml(config))
        return folder

    scratch = run("first", first)
    once = run("second", second, scratch)
    row = known.row(third)
    assert f"--start-from runs/{second} " in recipes.describe(row)
    assert table_results.starting_weights(known, row, once) == once / "best.params"
    for wrong in (scratch, run("unstarted", second), tmp_path):
        with pytest.raises(UserError, match=f"must be a run of {second}, which {third} continues"):
            table_results.starting_weights(known, row, wrong)
    with pytest.raises(UserError, match="it ran on .'gpu.0.'., of the row it is 4 devices"):
        table_results.starting_weights(known, row, run("small", second, scratch, count=1))
    (once / "result.json").unlink()
    with pytest.raises(UserError, match="is no finished run of"):
        table_results.starting_weights(known, row, once)


def test_a_stopped_row_goes_on_as_it_began(tables_command, call, known, monkeypatch, tmp_path):
    resumed = []
    row = known.row("fusions-resnet8.aff")
    config = recipes.row_config(row, "reduced", ["data.root=here"])
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.yaml").write_text(to_yaml(config))

    def stop(folder, devices):
        resumed.append(folder)
        raise Stopped("SIGTERM: stopped after step 3")

    monkeypatch.setattr(tables_command, "resume", stop)
    words = ["tables", "--row", row.id, "--run", "--protocol", "reduced", "--out", out]
    with pytest.raises(UserError, match="aff-seed0.json is there already: take another --seed"):
        call(*words)
    words += ["--results", tmp_path]
    with pytest.raises(UserError, match="goes on with data.root=here, as it began: leave data.ro"):
        call(*words, "data.root=there")
    for override in ([], ["data.root=here"]):
        with pytest.raises(Stopped, match="after step 3; the same command goes on"):
            call(*words, *override)
    assert resumed == [out, out]


def test_a_row_is_trained_once_and_recorded(tables_command, call, known, tmp_path, digits_run):
    """A finished run folder is recorded without training again."""
    row = known.row("fusions-resnet8.aff")
    run = finished_run(tmp_path / "run", digits_run)
    config = recipes.row_config(row, "reduced", ["seed=0", "data.root=elsewhere"])
    (run / "config.yaml").write_text(to_yaml(config))
    words = ["tables", "--row", row.id, "--run", "--protocol", "reduced", "--out", run]
    words += ["--results", tmp_path / "results", "data.root=here"]
    call(*words)
    (path,) = (tmp_path / "results").rglob("*.json")
    recorded = json.loads(path.read_text())
    call(*words)  # the same again
    (run / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text() * 2)
    for there in (path.read_text(), "{"):
        path.write_text(there)
        with pytest.raises(UserError, match="seed0.json is another run's result: name another fol"):
            call(*words)
        assert path.read_text() == there
    assert recorded["row"] == "fusions-resnet8.aff" and len(recorded["curve"]) == 1
    assert recorded["last_accuracy"] == digits_run[1]["last_accuracy"]


def test_a_whole_table_is_trained_once(tables_command, call, known, monkeypatch, tmp_path):
    """Seed after seed, in one folder a run; what has a result is skipped, a stop goes on."""
    trained = []

    def train_row(args, catalog, results, row, protocol, seed, out):
        assert args.overrides == ["data.root=here"]
        trained.append((row.id, protocol, seed, str(out)))
        path = table_results.result_path(results, row, protocol, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
        if len(trained) == 7:
            raise Stopped("SIGTERM")
        return path

    monkeypatch.setattr(tables_command, "train_row", train_row)
    words = ["tables", "--table", "paper-table6", "--run", "--protocol", "reduced"]
    words += ["--seeds", "0,1", "--results", tmp_path, "cifar100.root=here"]
    with pytest.raises(Stopped):
        call(*words)
    printed = call(*words).out
    runs = [f"paper-table6.short-skip.{key}.b1" for key in known_keys(known)]
    assert trained == [
        (run, "reduced", seed, f"runs/reduced/{run}-seed{seed}") for seed in (0, 1) for run in runs
    ]
    assert "[7/10] paper-table6.short-skip.concataff.b1, seed 1: " in printed
    call(*words, "--group", "short-skip", "--out", "elsewhere")
    assert len(trained) == 10


def known_keys(known):
    return [series.key for group in known["paper-table6"].groups for series in group.series]


def test_a_row_has_a_run_folder_of_its_own_by_default(
    tables_command, call, known, monkeypatch, tmp_path
):
    folders = []

    def train_row(args, catalog, results, row, protocol, seed, out):
        folders.append(str(out))

    monkeypatch.setattr(tables_command, "train_row", train_row)
    name = "paper-table4.long-skip.aff.b1"
    for options in (["--protocol", "reduced", "--seed", "2"], [], ["--seed", "1"], ["--out", "x"]):
        call("tables", "--row", name, "--run", "--results", tmp_path, *options)
    assert folders == [f"runs/reduced/{name}-seed2", f"runs/{name}", f"runs/{name}-seed1", "x"]
    assert f"--out {folders[1]} " in recipes.describe(known.row(name))
