import json
import re
import shutil

import pytest
from conftest import ROOT
from helpers import load_script

from openaff import UserError, list_models
from openaff.models.pretrained import PUBLISHED, list_published
from openaff.tables import pages as table_pages
from openaff.tables import records as tables
from openaff.tables.plots import draw_all, save_all
from openaff.training.config import to_yaml
from openaff.utils.interrupt import Stopped


@pytest.fixture(scope="module")
def known():
    return tables.load_tables(ROOT)


def test_every_row_of_a_network_that_is_here_has_a_command(known, root):
    """And its recipe trains that very network, on the labels of the published figure."""
    trained = 0
    for table in known.values():
        for row in table.rows:
            if row.config is None:
                assert "--run" not in tables.describe(row, table)
                continue
            assert f"--devices {tables.gpus(row.devices)} data." in tables.describe(row, table)
            header = (root / row.config).read_text()
            assert re.search(r"--devices (\S+)", header).group(1) == tables.gpus(row.devices)
            assert ("start_from=FILE" in header) == bool(row.start_from)
            config = tables.row_config(root, row)
            trained += 1
            assert config.model.name == row.model
            assert config.data.name == table.dataset
            if row.labels and row.labels != "not established":
                assert row.labels.split()[0] == config.data.labels
    assert trained > 50 and list_models()


def test_coarse_figures_are_marked_wherever_they_stand(known):
    for table in known.values():
        for row in table.rows:
            if table.dataset == "cifar100" and row.published is not None:
                assert row.labels, row.id
            if table.dataset == "cifar100" and row.model and (row.published or 0) > 86:
                assert row.labels.startswith("coarse"), row.id


@pytest.fixture(scope="module")
def source(root):
    return json.loads((root / "tests/data/published_results.json").read_text())


def test_printed_figures_are_those_of_the_specification(known, source):
    for revision in ("2020-09", "2020-11"):
        for kind, name in (("cifar100", "cifar100-sota"), ("imagenet", "imagenet-sota")):
            expected = [
                (row["model"], row["value"], row["params"])
                for row in source["headline_tables"]
                if row["table"] == name and row["revision"].startswith(revision)
            ]
            rows = known[f"{kind}-{revision}"].rows
            assert [(row.name, row.published, row.printed_parameters) for row in rows] == expected
    paper = source["paper_tables"]
    depth = paper["cifar100_fusion_by_depth"]
    quoted = {
        f"{family}, b = {blocks}": value
        for family, values in depth.items()
        if family != "columns"
        for blocks, value in enumerate(values, start=1)
    }
    assert {row.name: row.published for row in known["fusion-by-depth"].rows} == quoted
    scale = {row.name: row.published for row in known["context-scale"].rows}
    assert scale == paper["imagenet_context_scale_top1_accuracy"]


def test_runs_are_those_of_the_specification(known, source, root):
    for dataset in ("cifar10", "cifar100", "imagenet"):
        rows = [row for row in known[f"{dataset}-runs"].rows if row.published is not None]
        runs = [run for run in source["training_runs"] if run["dataset"] == dataset]
        assert len(rows) == len(runs)
        for row, run in zip(rows, runs):
            check_run(row, run, tables.row_config(root, row))


def check_run(row, run, config):
    best = run.get("best", run.get("best_top1_error"))
    assert (row.name, row.devices) == (run["model"], run["gpus"])
    assert row.published == pytest.approx(100 * best, abs=0.006)
    note = f"best of {run['epochs']} epochs (epoch {run['best_epoch']}), chosen on the "
    if "last" in run:
        note += f"test split; last {100 * run['last']:.2f}"
    else:
        note += f"validation split; top-5 error {100 * run['top5_error']:.2f}"
    assert row.note == note
    assert (row.labels or run["labels"]).split(" (")[0] == run["labels"].split(" (")[0]
    data, optimizer = config.data, config.optimizer
    assert (config.epochs, optimizer.lr) == (run["epochs"], run["lr"])
    assert config.loss.get("label_smoothing", 0) == run["label_smoothing"]
    assert optimizer.no_wd is (run["no_wd"] is True)
    assert bool(data.autoaugment) is (run.get("autoaugment") is True)
    assert data.batch_size == run.get("batch_per_gpu", 128)
    assert bool(data.mixup_alpha) is (run["mixup"] != "off")
    alpha, off = re.search(r"alpha ([0-9.]+)", run["mixup"]), re.search(r"last (\d+)", run["mixup"])
    assert alpha is None or data.mixup_alpha == float(alpha.group(1))
    assert off is None or data.mixup_off_epochs == int(off.group(1))
    steps = re.match(r"step (\d+),(\d+) x0.1", run["schedule"])
    warmup = re.match(r"(\d+) warm-up epochs, cosine", run["schedule"])
    assert config.schedule.name == ("step" if steps else "cosine")
    if steps:
        assert config.schedule.milestones == [float(step) for step in steps.groups()]
    else:
        assert config.schedule.warmup == float(warmup.group(1))


def test_a_figure_of_another_table_is_that_of_its_run(known):
    rows = {row.id: (row, table) for table in known.values() for row in table.rows}
    aliases = [each for each in rows.values() if each[0].run != each[0].id]
    assert len(aliases) == 17
    for row, table in aliases:
        run, its_table = rows[row.run]
        published = row.published
        if table.metric != its_table.metric:
            published = 100 - published
        if row.published != 89.3:  # as its note says
            assert published == pytest.approx(run.published, abs=0.1)
        if "2020" in row.id:
            assert re.search(r"2020-\d+", row.id).group() in row.run


def test_names_of_checkpoints(known):
    runs = [row for key in known if key.endswith("-runs") for row in known[key].rows]
    runs = [row for row in runs if row.checkpoint]
    assert sorted(row.checkpoint for row in runs) == list_published()
    for row in runs:
        checkpoint = PUBLISHED[row.checkpoint]
        assert checkpoint.model == row.model
        assert 100 * checkpoint.score == pytest.approx(row.published, abs=0.006)


def finished(folder, digits_run, **values):
    """A run folder with the files of a finished run that ``record`` reads."""
    folder.mkdir()
    shutil.copy(digits_run[0] / "metrics.jsonl", folder)
    result = json.loads((digits_run[0] / "result.json").read_text())
    command = "train.py configs/a.yaml --out /home/x/run data.root=/d/c"
    result.update(model="aff_cifar_resnet8", dataset="cifar100", labels="fine (100 classes)")
    result.update({"command": command, **values})
    (folder / "result.json").write_text(json.dumps(result))
    return folder


@pytest.fixture
def results(known, tmp_path, digits_run):
    """A folder of results: three of AFF by the reduced protocol."""
    row, _ = tables.find_row(known, "fusions-resnet8.aff")
    for seed, accuracy in ((0, 0.36), (1, 0.37), (2, 0.38)):
        values = {"seed": seed, "last_accuracy": accuracy}
        run = finished(tmp_path / f"run{seed}", digits_run, **values)
        tables.record(tmp_path / "results", run, known, row, "reduced")
    return tmp_path / "results"


def test_ours_come_from_results_alone_with_mean_and_spread(known, results):
    read = tables.read_results(results, known)
    table = known["fusions-resnet8"]
    commands = {each["command"] for each in read["fusions-resnet8.aff", "reduced"]}
    assert commands == {"train.py configs/a.yaml --out run data.root=c"}
    lines = table_pages.render(table, read).splitlines()
    (line,) = (each for each in lines if each.startswith("| ResNet-8, AFF |"))
    assert "| 76.3 | not established |  | 37.00 ± 1.00 (3 seeds) |" in line
    (line,) = (each for each in lines if "ResNet-8, SK |" in each)
    assert line.startswith("| ResNet-8, SK |  |  |  |  |")  # not run: blank
    assert tables.ours([{"last_accuracy": 0.8}], "top-1 error") == "20.00"


def test_a_figure_in_two_tables_has_one_run(known, tmp_path, digits_run):
    row, _ = tables.find_row(known, "fusion-by-depth.resnet-b1-aff")
    run = finished(tmp_path / "run", digits_run, last_accuracy=0.75)
    path = tables.record(tmp_path / "results", run, known, row, "paper")
    assert json.loads(path.read_text())["row"] == row.run == "fusions-resnet8.aff"
    assert "--row fusion-by-depth.resnet-b1-aff --run --out runs/fusions-resnet8.aff " in (
        tables.describe(row, known["fusion-by-depth"])
    )
    read = tables.read_results(tmp_path / "results", known)
    for table in (known["fusion-by-depth"], known["fusions-resnet8"]):
        # Labels are named where those of the published figure are not known.
        assert "| 76.3 | not established | 75.00, fine (100 classes) |" in (
            table_pages.render(table, read)
        )


@pytest.mark.parametrize(
    "values, message",
    [
        ({"last_accuracy": 48.67}, "last_accuracy is no share of 1: 48.67"),
        ({"last_accuracy": "0.4"}, "last_accuracy is no share of 1: '0.4'"),
        ({"best_accuracy": float("nan")}, "best_accuracy is no share of 1: nan"),
        ({"seed": None}, "seed cannot be None"),
        ({"model": "add_cifar_resnet8"}, "model is 'add_cifar_resnet8', of the row it is 'aff_"),
        ({"dataset": "cifar10"}, "dataset is 'cifar10', of the row it is 'cifar100'"),
        (
            {"labels": "coarse (20 superclasses)"},
            "labels are 'coarse .20 superclasses.', of the row",
        ),
        ({"command": 3}, "command cannot be 3"),
        ({"command": "a 'b"}, "No closing quotation"),
        ({"devices": ["cpu(0)"] * 2}, "of the row it is 1 devices"),
    ],
)
def test_a_run_of_something_else_is_not_recorded(known, tmp_path, digits_run, values, message):
    row, _ = tables.find_row(known, "fusions-resnet8.aff")
    run = finished(tmp_path / "run", digits_run, **values)
    with pytest.raises(UserError, match=f"run is no finished run of {row.id}: .*{message}"):
        tables.record(tmp_path / "results", run, known, row, "reduced")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda result: {}, "it has no 'row'"),
        (lambda result: [], "list indices"),
        (lambda result: {**result, "row": "fusions-resnet8.af"}, "did you mean 'fusions-resnet8.a"),
        (lambda result: {**result, "protocol_name": "quick"}, "there is no protocol 'quick'"),
        (lambda result: {**result, "curve": []}, "its curve is empty"),
        (lambda result: {**result, "curve": "abc"}, "string indices"),
        (lambda result: {**result, "curve": [{"test_accuracy": 2}]}, "test_accuracy is no share"),
        (lambda result: result, "seed 0 of fusions-resnet8.aff stands twice"),
    ],
)
def test_a_file_that_is_no_result_is_named(known, results, change, message):
    first = next((results / "reduced").glob("*seed0.json"))
    changed = change(json.loads(first.read_text()))
    (results / "reduced" / "zz.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match=f"zz.json is no result of ours: .*{message}"):
        tables.read_results(results, known)


def test_a_missing_folder_of_results(known, tmp_path):
    with pytest.raises(UserError, match="there is no folder of results"):
        tables.read_results(tmp_path / "results", known)


def test_report_and_its_pictures(known, results, tmp_path):
    for read, count in (({}, 2), (tables.read_results(results, known), 4)):
        pictures = draw_all(known, read)
        paths = save_all(tmp_path, pictures)
        assert len(paths) == count
        captions = [(name, caption) for name, _, caption in pictures]
        page = table_pages.tables_page(known, read, captions)
        for path, (name, caption) in zip(paths, captions):
            assert path.name == name and path.read_bytes().startswith(b"\x89PNG")
            assert f"({name})" in page and caption in page
        for table in known.values():
            assert f"## {table.title}" in page
            for each in table.rows:
                assert each.id in page
        assert ("## The reduced protocol" in page) == bool(read)
    assert "| AFF | 37.00 ± 1.00 (3 seeds) | " in page
    command = "--row fusions-resnet8.aff --run --protocol reduced --seed 0 --out runs/reduced/aff-0"
    command += " --results runs/results data.download=true"
    assert command in page


def test_pages_are_those_of_the_committed_results(known, root):
    """docs/tables.md and the README's tables hold what --report would write."""
    results = tables.read_results(root / "results", known)
    pictures = re.findall(r"\]\((tables_.+?)\)\n\n\*(.+)\*", (root / "docs/tables.md").read_text())
    page = table_pages.tables_page(known, results, pictures)
    assert (root / "docs/tables.md").read_text() == page
    readme = (root / "README.md").read_text()
    for block in table_pages.readme_tables(known, results).values():
        assert block in readme


def test_a_readme_without_marks_is_left_alone(known, root, tmp_path):
    (tmp_path / "docs").mkdir()
    shutil.copytree(root / "configs", tmp_path / "configs")
    (tmp_path / "README.md").write_text("# mine\n")
    with pytest.raises(UserError, match="has no <!-- networks"):
        table_pages.write_all(tmp_path, known, {})
    assert (tmp_path / "README.md").read_text() == "# mine\n"
    assert list((tmp_path / "docs").iterdir()) == []


def test_costs_are_counted_now(known):
    row, table = tables.find_row(known, "imagenet-2020-11.aff-resnet-50")
    assert tables.costs(table, row) == ("30.37M", "4.562G")


def test_reduced_protocol(known, root):
    row, _ = tables.find_row(known, "fusions-resnet8.sk")
    config = tables.row_config(root, row, "reduced", ["seed=2"])
    assert config.model.name == "sk_cifar_resnet8" and config.seed == 2
    assert config.model.options == {"width_multiplier": 1} and config.epochs == 10
    assert config.data.labels == "fine" and config.optimizer.lr == 0.2


def test_script(known, monkeypatch, capsys, tmp_path, digits_run):
    script = load_script("reproduce_tables.py")

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["reproduce_tables.py", *map(str, arguments)])
        script.main()
        return capsys.readouterr().out

    listing = call("--list")
    for table in known.values():
        for row in table.rows:
            assert row.id in listing
    assert "the Inception network is not here yet" in listing
    assert call("--table", "context-scale").count("ResNet-50") == 3
    aff = ("--row", "fusions-resnet8.aff")
    for arguments, message in (
        (("--table", "fusions"), "there is no table 'fusions'"),
        (("--row", "fusions-resnet8.afff", "--run", "--out", "x"), "did you mean 'fusions-resnet8"),
        (aff, "--row needs --run and --out"),
        ((*aff, "--run", "--out", "x", "epochs=3"), "epochs=3 would be another protocol"),
        ((*aff, "--run", "--out", "x", "--protocol", "quick"), "--protocol must be paper or red"),
        ((*aff, "--run", "--out", "x", "--protocol", ""), "--protocol must be paper or reduced"),
        ((*aff, "--run", "--out", digits_run[0]), "is a run of another configuration"),
        ((*aff, "--run", "--out", tmp_path), "is there, and no run folder: take another --out"),
        (("--list", "--run"), "have an effect with --row only"),
        (("--list", "--seed", "0"), "have an effect with --row only"),
        (("--report", "--start-from", "x"), "have an effect with --row only"),
        (("--list", "--results", tmp_path), "--results has no effect on --list"),
        ((*aff, "--run", "--out", "x", "--results", __file__), "test_tables.py is no folder"),
        (("--report", "--results", tmp_path), "holds no results: a report without any would be"),
        (("--table", "all", "--results", ROOT / "results/reduced"), "name the folder above it"),
        ((*aff, "--run", "--out", "x", "--devices", ""), "--devices '': write cpu"),
        ((*aff, "--run", "--out", "x", "--devices", "cpu:2"), "on 1 device: take --devices gpu:0 "),
        ((*aff, "--run", "--out", "x", "--start-from", "y"), "--start-from has no effect on fusi"),
        (
            ("--row", "cifar100-runs.2020-11.aff-resnet32", "--run", "--out", "x"),
            "on 2 devices: take --devices gpu:0,1 or cpu:2",
        ),
        (
            ("--row", "context-scale.aff", "--run", "--out", "x", "--devices", "cpu:2"),
            "is trained in float16, on GPUs only: take --devices gpu:0,1",
        ),
        (
            ("--row", "cifar100-2020-11.aff-resnet-32", "--run", "--out", "x"),
            "needs --start-from, a finished run of cifar100-runs.2020-11.aff-resnet32-coarse$",
        ),
        (
            ("--row", "cifar10-runs.2020-09.aff-resnet32-cifar10", "--run", "--out", "x")
            + ("--protocol", "reduced"),
            "has no reduced form: only the table fusions-resnet8 has",
        ),
        (("--row", ""), "there is no row ''"),
        (
            ("--row", "fusion-by-depth.inception-b1-aff", "--run", "--out", "x"),
            "cannot be trained: the Inception network is not here",
        ),
        (
            ("--row", "context-scale.aff", "--run", "--out", "x", "--protocol", "reduced"),
            "has no reduced form",
        ),
    ):
        with pytest.raises(UserError, match=message):
            call(*arguments)


def test_a_continued_row_starts_from_the_run_that_it_continues(known, tmp_path, digits_run):
    """The two continued runs have one recipe, and start from different ones."""
    first = "cifar100-runs.2020-11.aff-resnext47-32x4d-coarse"
    second, third = f"{first}-continued", f"{first}-continued-twice"
    values = {"model": "aff_cifar_resnext47_32x4d", "labels": "coarse (20 superclasses)"}

    def run(name, row_id, start_from=None, count=4):
        devices = [f"gpu({index})" for index in range(count)]
        folder = finished(tmp_path / name, digits_run, devices=devices, **values)
        config = tables.row_config(ROOT, tables.find_row(known, row_id)[0], "paper", ["seed=7"])
        config.start_from = start_from and str(start_from / "best.params")
        (folder / "config.yaml").write_text(to_yaml(config))
        return folder

    scratch = run("first", first)
    once = run("second", second, scratch)
    row, table = tables.find_row(known, third)
    assert f"--start-from runs/{second} " in tables.describe(row, table)
    assert tables.starting_weights(ROOT, known, row, once) == once / "best.params"
    for wrong in (scratch, run("unstarted", second), tmp_path):
        with pytest.raises(UserError, match=f"must be a run of {second}, which {third} continues"):
            tables.starting_weights(ROOT, known, row, wrong)
    with pytest.raises(UserError, match="it ran on .'gpu.0.'., of the row it is 4 devices"):
        tables.starting_weights(ROOT, known, row, run("small", second, scratch, count=1))
    (once / "result.json").unlink()
    with pytest.raises(UserError, match="is no finished run of"):
        tables.starting_weights(ROOT, known, row, once)


def test_a_stopped_row_goes_on_as_it_began(known, monkeypatch, tmp_path):
    script, resumed = load_script("reproduce_tables.py"), []
    row, _ = tables.find_row(known, "fusions-resnet8.aff")
    config = tables.row_config(ROOT, row, "reduced", ["data.root=here"])
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.yaml").write_text(to_yaml(config))

    def stop(folder, devices):
        resumed.append(folder)
        raise Stopped("SIGTERM: stopped after step 3")

    monkeypatch.setattr(script, "resume", stop)
    command = ["x", "--row", row.id, "--run", "--protocol", "reduced", "--out", str(out)]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(UserError, match="aff-seed0.json is there already: take another --seed"):
        script.main()
    command += ["--results", str(tmp_path)]
    monkeypatch.setattr("sys.argv", [*command, "data.root=there"])
    with pytest.raises(UserError, match="goes on with data.root=here, as it began: leave data.ro"):
        script.main()
    for override in ([], ["data.root=here"]):
        monkeypatch.setattr("sys.argv", command + override)
        with pytest.raises(Stopped, match="after step 3; the same command goes on"):
            script.main()
    assert resumed == [out, out]


def test_a_row_is_trained_once_and_recorded(known, monkeypatch, tmp_path, digits_run):
    """A finished run folder is recorded without training again."""
    row, _ = tables.find_row(known, "fusions-resnet8.aff")
    run = finished(tmp_path / "run", digits_run)
    config = tables.row_config(ROOT, row, "reduced", ["seed=0", "data.root=elsewhere"])
    (run / "config.yaml").write_text(to_yaml(config))
    command = ["x", "--row", row.id, "--run", "--protocol", "reduced"]
    command += ["--out", str(run), "--results", str(tmp_path / "results"), "data.root=here"]
    monkeypatch.setattr("sys.argv", command)
    load_script("reproduce_tables.py").main()
    (path,) = (tmp_path / "results").rglob("*.json")
    recorded = json.loads(path.read_text())
    load_script("reproduce_tables.py").main()  # the same again
    (run / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text() * 2)
    for there in (path.read_text(), "{"):
        path.write_text(there)
        with pytest.raises(UserError, match="seed0.json is another run's result: name another fol"):
            load_script("reproduce_tables.py").main()
        assert path.read_text() == there
    assert recorded["row"] == "fusions-resnet8.aff" and len(recorded["curve"]) == 1
    assert recorded["last_accuracy"] == digits_run[1]["last_accuracy"]


@pytest.mark.parametrize(
    "change, message",
    [
        (("published: 74.0", "published: '74,0'"), "'74,0' of type 'str' could not be converted"),
        (("metric: top-1 accuracy", "metric: top-1 acc"), "top-1 acc on cifar100 is not known"),
        (("dataset: cifar100", "dataset: cifar"), "top-1 accuracy on cifar is not known"),
        (("id: fusions-resnet8.se", "id: other.se"), "other.se does not begin with fusions-resnet"),
        (("id: fusions-resnet8.se", "id: fusions-resnet8.sk"), "fusions-resnet8.sk stands twice"),
        (("model: se_cifar_resnet8", "modle: x"), "Key 'modle' not in 'Row'"),
        (("title", "tittle"), "tittle"),
        (
            ("id: fusions-resnet8.aff", "id: fusions-resnet8.af"),
            "resnet-b1-aff: run is fusions-resnet8.aff",
        ),
        (("name: ResNet-8, SE", "name: null"), "is no table"),
        (("model: se_cifar_resnet8", "devices: two"), "could not be converted to Integer"),
        (("labels: not established", "labels: fine"), "labels 'fine' are none of"),
        (("model: se_cifar_resnet8", "run: fusions-resnet8.sk"), "what trains it stands there"),
        (("model: se_cifar_resnet8", "start_from: fusions-resnet8.x"), "there is no such row"),
        (
            ("model: se_cifar_resnet8", "start_from: context-scale.aff"),
            "start_from is context-scale.aff, which is no run on cifar100",
        ),
        (("rows:", "rows: 3 #"), "is no table"),
    ],
)
def test_a_file_that_is_no_table_is_named(root, tmp_path, change, message):
    folder = tmp_path / "configs" / "tables"
    shutil.copytree(root / "configs" / "tables", folder)
    path = folder / "fusions-resnet8.yaml"
    path.write_text(path.read_text().replace(*change, 1))
    with pytest.raises(UserError, match=message):
        tables.load_tables(tmp_path)
