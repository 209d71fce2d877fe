import json
import re
import shutil

import pytest
from helpers import finished_run

from openaff import UserError, list_models
from openaff.models.pretrained import PUBLISHED, list_published
from openaff.tables import counts, evidence, pages, recipes
from openaff.tables import results as table_results
from openaff.tables.catalog import EVIDENCE, load_tables
from openaff.tables.plots import draw_all, save_all
from openaff.tables.speed import read_speed
from openaff.utils.markdown import with_blocks
from openaff.utils.packaged import TABLES, config_path


def test_every_row_of_a_network_that_is_here_has_a_command(known):
    """And its recipe trains that very network, on the labels of the published figure."""
    trained = 0
    for row in known.rows().values():
        if row.config is None:
            assert "--run" not in recipes.describe(row)
            continue
        assert f"--devices {recipes.gpus(row.devices)} data." in recipes.describe(row)
        header = config_path(row.config).read_text()
        assert re.search(r"--devices (\S+)", header).group(1) == recipes.gpus(row.devices)
        assert ("start_from=FILE" in header) == bool(row.start_from)
        config = recipes.row_config(row)
        trained += 1
        assert (config.model.name, config.data.name) == (row.model, row.dataset)
        assert row.options.items() <= config.model.options.items()
        if row.labels:
            assert row.labels == config.data.labels
    assert trained > 150 and list_models()


def test_coarse_figures_are_marked_wherever_they_stand(known):
    for row in known.rows().values():
        if row.dataset == "cifar100" and row.published is not None:
            assert row.labels, row.id
            assert row.labels == "coarse" or row.published < 86 or row.model is None, row.id
            assert row.labels == "coarse" or not row.id.startswith("paper"), row.id


def test_reduced_forms(known):
    """Every fusion of Tables 3, 4 and 6 at b = 1; on CIFAR-100 as the issue of labels demands."""
    count = 0
    for table in ("paper-table3", "paper-table4", "paper-table6"):
        for row in known[table].rows:
            if row.group == "imagenet":
                continue
            assert bool(row.reduced) == (row.blocks == 1), row.id
            if row.blocks != 1:
                continue
            count += 1
            config = recipes.row_config(row, "reduced", ["seed=2"])
            assert (config.model.name, config.seed) == (row.model, 2)
            if row.dataset == "cifar100":
                options = {"width_multiplier": 1, **row.reduced_options}
                assert options.items() <= config.model.options.items()
                assert (config.data.labels, config.epochs) == ("coarse", 10)
                assert (config.data.mixup_alpha, config.schedule.name) == (0, "cosine")
    assert count == 9 + 21 + 5
    row = known.row("paper-table4.short-skip.aff.b1")
    assert recipes.row_config(row, "reduced").model.options["reduction"] == 2
    assert recipes.row_config(row).model.options["width_multiplier"] == 4
    config = recipes.row_config(known.row("fusions-resnet8.sk"), "reduced")
    assert config.model.options == {"width_multiplier": 1} and config.data.labels == "fine"


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
            printed = [(row.name, row.published, f"{row.printed_parameters}M") for row in rows]
            assert printed == expected


@pytest.fixture(scope="module")
def paper(root):
    return json.loads((root / "tests/data/paper_tables.json").read_text())


@pytest.mark.parametrize("table", ["table3", "table4", "table6"])
def test_the_papers_figures_by_fusion_and_blocks(known, paper, table):
    printed = {
        (fusion, group, blocks): figure and pytest.approx(100 * figure)
        for fusion, groups in paper[table].items()
        for group, figures in groups.items()
        for blocks, figure in enumerate(figures, start=1)
    }
    rows = {
        (row.fusion.replace(" (AFF)", ""), row.group, row.blocks or 1): row.published
        for row in known[f"paper-{table}"].rows
    }
    assert rows == printed
    for row in known[f"paper-{table}"].rows:  # depth 6b + 2
        run = known.row(row.run)
        if run.blocks:
            assert run.model.endswith(f"resnet{6 * row.blocks + 2}") and run.blocks == row.blocks


def test_the_papers_other_tables(known, paper):
    rows = known["paper-table5"].rows
    assert [[row.name, row.published, row.printed_parameters] for row in rows] == paper["table5"]
    percents = [re.findall(r"[\d.]+%", count.printed) for count in known["paper-table7"].counts]
    assert sum(percents, []) == paper["table7"]
    table4 = known["paper-table4"].rows
    figures = {(row.group, row.model): row.published for row in table4}
    for row in known["paper-figure7"].rows:
        assert row.published == figures.get((row.group, row.model))


def test_counted_rows(known):
    ours = {
        count.id.rpartition(".")[2]: counts.in_words(count)
        for count in known["paper-table7"].counts
    }
    assert ours == {
        "basic-doubling": "0.502 C² of 14 C² (3.59%)",
        "basic": "0.502 C² of 18 C² (2.79%)",
        "bottleneck-doubling": "2.01 C² of 29 C² (6.93%)",
        "bottleneck": "2.01 C² of 17 C² (11.82%)",
        "resnet-50": "4.09G multiply-adds",
        "aff-resnet-50": "4.32G multiply-adds",
    }


def test_runs_are_those_of_the_specification(known, source):
    for dataset in ("cifar10", "cifar100", "imagenet"):
        rows = [row for row in known[f"{dataset}-runs"].rows if row.published is not None]
        runs = [run for run in source["training_runs"] if run["dataset"] == dataset]
        assert len(rows) == len(runs)
        for row, run in zip(rows, runs):
            check_run(row, run, recipes.row_config(row))


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
    if row.labels:
        assert run["labels"].startswith(row.labels)
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
    rows = known.rows()
    aliases = [row for row in rows.values() if row.run != row.id]
    # printed, Table 5, Table 3, Figure 7, the evidence
    assert len(aliases) == 11 + 4 + 15 + 36 + 27
    for row in aliases:
        run = rows[row.run]
        published = row.published
        if published is None or run.published is None:
            continue
        if row.metric != run.metric:
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


@pytest.fixture
def results(known, tmp_path, digits_run):
    """A folder of results: three of AFF by the reduced protocol."""
    row = known.row("fusions-resnet8.aff")
    for seed, accuracy in ((0, 0.36), (1, 0.37), (2, 0.38)):
        values = {"seed": seed, "last_accuracy": accuracy}
        run = finished_run(tmp_path / f"run{seed}", digits_run, **values)
        table_results.record(tmp_path / "results", run, known, row, "reduced")
    return tmp_path / "results"


def test_ours_come_from_results_alone_with_mean_and_spread(known, results):
    read = table_results.read_results(results, known)
    found = read["fusions-resnet8.aff", "reduced"]
    assert {each["command"] for each in found} == {"train.py configs/a.yaml --out run data.root=c"}
    (_, _, line, *rest) = pages.render(known["fusions-resnet8"], read, known).splitlines()[5:]
    assert line.startswith("| ResNet-8, AFF | 37.00 ± 1.00 (3 seeds) |") and not rest
    row = known.row("paper-table5.aff-resnet-50")
    assert table_results.ours(row.figure, [{"last_accuracy": 0.8}]) == "20.00"
    assert table_results.ours(row.figure, []) == ""


def test_a_figure_in_two_tables_has_one_run(known, tmp_path, digits_run):
    row = known.row("paper-table3.short-skip.aff.b1")
    values = {"options": recipes.row_config(row).model.options}
    values["labels"] = "coarse (20 superclasses)"
    run = finished_run(tmp_path / "run", digits_run, last_accuracy=0.75, **values)
    path = table_results.record(tmp_path / "results", run, known, row, "paper")
    assert json.loads(path.read_text())["row"] == row.run == "paper-table4.short-skip.aff.b1"
    assert f"--row {row.id} --run --out runs/{row.run} " in recipes.describe(row)
    read = table_results.read_results(tmp_path / "results", known)
    for table in ("paper-table3", "paper-table4", "paper-figure7"):
        page = pages.render(known[table], read, known, "short-skip")
        (line,) = (each for each in page.splitlines() if re.match(r"\| .*AFF\)? \| `aff`", each))
        cells = line.split(" | ")
        assert "76.3" in cells and cells.count("75.00") == 1
        assert page.count("ours, b = ") == 1  # where there is none, there is no column


@pytest.mark.parametrize(
    "values, message",
    [
        ({"last_accuracy": 48.67}, "last_accuracy is no fraction of 1: 48.67"),
        ({"last_accuracy": "0.4"}, "last_accuracy is no fraction of 1: '0.4'"),
        ({"best_accuracy": float("nan")}, "best_accuracy is no fraction of 1: nan"),
        ({"seed": None}, "seed must be an integer, not None"),
        ({"model": "add_cifar_resnet8"}, "model is 'add_cifar_resnet8', of the row it is 'aff_"),
        ({"fusion": "add"}, "fusion is 'add', of the row it is 'aff'"),
        ({"dataset": "cifar10"}, "dataset is 'cifar10', of the row it is 'cifar100'"),
        (
            {"labels": "coarse (20 superclasses)"},
            "labels is 'coarse .20 superclasses.', of the row",
        ),
        ({"command": 3}, "command must be a string, not 3"),
        ({"command": "a 'b"}, "No closing quotation"),
        ({"devices": ["cpu(0)"] * 2}, "of the row it is 1 devices"),
        ({"options": {"width_multiplier": 2}}, "options is {'width_multiplier': 2}, of the row"),
    ],
)
def test_a_run_of_something_else_is_not_recorded(known, tmp_path, digits_run, values, message):
    row = known.row("fusions-resnet8.aff")
    run = finished_run(tmp_path / "run", digits_run, **values)
    with pytest.raises(UserError, match=f"run is no finished run of {row.id}: .*{message}"):
        table_results.record(tmp_path / "results", run, known, row, "reduced")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda result: {}, "it has no row"),
        (lambda result: [], "it must be a mapping"),
        (lambda result: {**result, "row": "fusions-resnet8.af"}, "did you mean 'fusions-resnet8.a"),
        (lambda result: {**result, "protocol_name": "quick"}, "there is no protocol 'quick'"),
        (lambda result: {**result, "curve": []}, "its curve is empty"),
        (lambda result: {**result, "curve": "abc"}, "curve must be a list, not 'abc'"),
        (lambda result: {**result, "curve": [{"test_accuracy": 2}]}, r"no curve\[0\].epoch"),
        (
            lambda result: {**result, "curve": [{"epoch": 1, "test_accuracy": 2}]},
            "test_accuracy is no fraction",
        ),
        (lambda result: {**result, "curve": [{"epoch": 10**400}]}, "the epoch 1000"),
        (lambda result: result, "seed 0 of fusions-resnet8.aff stands twice"),
    ],
)
def test_a_file_that_is_no_result_is_named(known, results, change, message):
    first = next((results / "reduced").glob("*seed0.json"))
    changed = change(json.loads(first.read_text()))
    (results / "reduced" / "zz.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match=f"zz.json is no result of ours: .*{message}"):
        table_results.read_results(results, known)


def test_a_missing_folder_of_results(known, tmp_path):
    with pytest.raises(UserError, match="there is no folder of results"):
        table_results.read_results(tmp_path / "results", known)


def test_report_and_its_pictures(known, results, tmp_path):
    for read, count in (({}, 2), (table_results.read_results(results, known), 4)):
        pictures = draw_all(known, read)
        paths = save_all(tmp_path, pictures)
        assert len(paths) == count
        captions = [(name, caption) for name, _, caption in pictures]
        page = pages.tables_page(known, read, captions)
        for path, (name, caption) in zip(paths, captions):
            assert path.name == name and path.read_bytes().startswith(b"\x89PNG")
            assert f"({name})" in page and caption in page
        assert known["evidence"].title not in page  # it has a page of its own
        for table in (each for each in known.values() if each.kind != EVIDENCE):
            assert f"### {table.title}" in page
            for row in table.rows:
                assert row.name in page or row.fusion in page or table.kind == "ours"
            for group in table.groups:
                assert f"`{table.key}.{group.key}.KEY" in page
            for count in table.counts:
                assert f"| {count.name} | {count.printed} |" in page
    command = "--row fusions-resnet8.aff --run --protocol reduced --seed 0"
    command += " --out runs/reduced/fusions-resnet8.aff-seed0 --results runs/results"
    assert f"{command} data.download=true" in page


def test_the_command_prints_tables(tables_command, call):
    def tables(*arguments):
        return call("tables", "--table", *arguments).out

    assert tables("paper-table3", "--group", "imagenet").count("Global") == 4
    assert "**" not in tables("paper-table7")
    short = tables("all", "--group", "short-skip")
    assert "#### Short skip: ResNet on CIFAR-100" in short
    titles = [line for line in short.splitlines() if line.startswith("### ")]
    assert len(titles) == 5 and tables("all").count("\n### ") > 10
    assert not any("training runs" in title for title in titles)


def test_no_column_is_empty(known, root):
    read = table_results.read_results(root / "results", known)
    for table in known.values():
        for part in re.split(r"\n\n", pages.render(table, read, known)):
            rows = [line.split(" | ") for line in part.splitlines() if line.startswith("| ")]
            for column in zip(*rows[2:]):
                assert any(cell.strip("| ") for cell in column), rows[0]


def test_pages_are_those_of_the_committed_results(known, root):
    """docs/tables.md, the README and docs/evidence.md hold what --report would write."""
    results = table_results.read_results(root / "results", known)
    pictures = re.findall(r"\]\((tables_.+?)\)\n\n\*(.+)\*", (root / "docs/tables.md").read_text())
    assert (root / "docs/tables.md").read_text() == pages.tables_page(known, results, pictures)
    readme = (root / "README.md").read_text()
    for block in pages.readme_tables(known, results).values():
        assert block in readme
    page = (root / "docs/evidence.md").read_text()
    blocks = evidence.blocks(known["evidence"], results, known, speed=read_speed(root))
    assert with_blocks(page, blocks, "evidence.md") == page


def test_a_readme_without_marks_is_left_alone(known, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("# mine\n")
    with pytest.raises(UserError, match="has no <!-- networks"):
        pages.write_all(tmp_path, known, {})
    assert (tmp_path / "README.md").read_text() == "# mine\n"
    assert list((tmp_path / "docs").iterdir()) == []


def test_costs_are_counted_now(known):
    row = known.row("imagenet-2020-11.aff-resnet-50")
    assert (counts.parameters(row), counts.multiply_adds(row)) == (30373192, 4562395136)
    row = known.row("paper-table4.short-skip.aff.b1")
    assert counts.parameters(row) == 1405460


@pytest.mark.parametrize(
    "change, message",
    [
        (("model: se_cifar_resnet8", "published: '74,0'"), "'74,0' of type 'str' could not be con"),
        (("metric: top-1 accuracy", "metric: top-1 acc"), "top-1 acc on cifar100 is not known"),
        (("dataset: cifar100", "dataset: cifar"), "top-1 accuracy on cifar is not known"),
        (("id: fusions-resnet8.se", "id: other.se"), "other.se does not begin with fusions-resnet"),
        (("id: fusions-resnet8.se", "id: fusions-resnet8.sk"), "fusions-resnet8.sk stands twice"),
        (("model: se_cifar_resnet8", "modle: x"), "Key 'modle' not in 'Row'"),
        (("title", "tittle"), "tittle"),
        (("kind: ours", "kind: mine"), "kind 'mine' is none of paper, logs, ours"),
        (("name: ResNet-8, SE", "name: null"), "is no table"),
        (("model: se_cifar_resnet8", "devices: two"), "could not be converted to Integer"),
        (("model: se_cifar_resnet8", "labels: medium"), "labels 'medium' are none of fine, coarse"),
        (("model: se_cifar_resnet8", "run: fusions-resnet8.sk"), "what trains it stands there"),
        (("model: se_cifar_resnet8", "start_from: fusions-resnet8.x"), "there is no such row"),
        (
            ("model: se_cifar_resnet8", "start_from: paper-table5.resnet-101"),
            "start_from is paper-table5.resnet-101, which is no run on cifar100",
        ),
        (("rows:", "rows: []\nnothing:"), "nothing"),
    ],
)
def test_a_file_that_is_no_table_is_named(tmp_path, change, message):
    check_damaged(tmp_path, "fusions-resnet8.yaml", change, message)


@pytest.mark.parametrize(
    "change, message",
    [
        (("key: iaff", "key: iaf"), "unknown fusion 'iaf'; did you mean 'iaff'"),
        (("[74.0, 78.6, 79.7, 80.8]", "[74.0]"), "short-skip, add: a figure, or null, for each b"),
        (("[74.0, 78.6,", "['74,0', 78.6,"), "short-skip, add: '74,0' is no figure"),
        (("key: short-skip", "key: same-layer"), "the id paper-table4.same-layer.add.b1 stands tw"),
        (("key: aff, ", "key: se, "), "run is paper-table4.same-layer.aff.b1, and there is no suc"),
    ],
)
def test_a_group_that_is_none_is_named(tmp_path, change, message):
    check_damaged(tmp_path, "paper-table4.yaml", change, message)


def test_a_table_without_rows(tmp_path):
    (tmp_path / "a.yaml").write_text("{title: x, kind: ours, source: x}")
    with pytest.raises(UserError, match="a.yaml is no table: it has no rows"):
        load_tables(tmp_path)
    (tmp_path / "a.yaml").write_text("[" * 3000)
    with pytest.raises(UserError, match="a.yaml is no table: ."):
        load_tables(tmp_path)
    (tmp_path / "a.yaml").unlink()
    with pytest.raises(UserError, match="holds no tables, which are .yaml files"):
        load_tables(tmp_path)


def check_damaged(tmp_path, name, change, message):
    """Beside the tables that the damaged one or its change names."""
    folder = tmp_path / "tables"
    folder.mkdir()
    for each in {name, "paper-table3.yaml", "paper-table5.yaml", "imagenet-runs.yaml"}:
        shutil.copy(TABLES / each, folder)
    path = folder / name
    assert change[0] in path.read_text()
    path.write_text(path.read_text().replace(*change, 1))
    with pytest.raises(UserError, match=message):
        load_tables(folder)
