import json
import re
import shutil

import pytest
from conftest import ROOT
from helpers import load_script

from openaff import UserError, list_models, table_pages, tables
from openaff.table_plots import draw_all


@pytest.fixture(scope="module")
def known():
    return tables.load_tables(ROOT)


def test_every_row_of_a_network_that_is_here_has_a_command(known, root):
    """And its recipe trains that very network, on the labels of the published figure."""
    trained = 0
    for table in known.values():
        for row in table.rows:
            if row.config is None:
                assert "--run" not in tables.describe(root, row)
                continue
            command = tables.describe(root, row).split()
            assert command[-2].startswith("gpu:0") and command[-1].startswith("data.")
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


def test_published_figures_are_those_of_the_specification(known, root):
    source = json.loads((root / "tests/data/published_results.json").read_text())
    for revision in ("2020-09", "2020-11"):
        for kind, name in (("cifar100", "cifar100-sota"), ("imagenet", "imagenet-sota")):
            expected = {
                row["model"]: row["value"]
                for row in source["headline_tables"]
                if row["table"] == name and row["revision"].startswith(revision)
            }
            rows = known[f"{kind}-{revision}"].rows
            assert {row.name: row.published for row in rows} == expected
    runs = [row for key in known if key.endswith("-runs") for row in known[key].rows]
    best = [100 * run.get("best", run.get("best_top1_error")) for run in source["training_runs"]]
    assert sorted(row.published for row in runs) == pytest.approx(sorted(best), abs=0.006)
    depth = source["paper_tables"]["cifar100_fusion_by_depth"]
    quoted = [value for key, values in depth.items() if key != "columns" for value in values]
    assert [row.published for row in known["fusion-by-depth"].rows] == quoted


def result(tmp_path, digits_run, seed, accuracy, row):
    run = tmp_path / f"run{seed}"
    shutil.copytree(digits_run[0], run)
    values = json.loads((run / "result.json").read_text())
    values.update(
        seed=seed,
        last_accuracy=accuracy,
        command="train.py configs/a.yaml --out /home/x/run data.root=/d/c",
    )
    (run / "result.json").write_text(json.dumps(values))
    return tables.record(tmp_path / "results", run, row, "reduced")


def test_ours_come_from_results_alone_with_mean_and_spread(known, tmp_path, digits_run):
    row, table = tables.find_row(known, "fusions-resnet8.aff")
    with pytest.raises(UserError, match="there is no folder of results"):
        tables.read_results(tmp_path / "results")
    for seed, accuracy in ((0, 0.36), (1, 0.37), (2, 0.38)):
        result(tmp_path, digits_run, seed, accuracy, row)
    results = tables.read_results(tmp_path / "results")
    commands = {each["command"] for each in results[row.id, "reduced"]}
    assert commands == {"train.py configs/a.yaml --out run data.root=c"}
    text = table_pages.render(table, results)
    (line,) = (each for each in text.splitlines() if each.startswith("| ResNet-8, AFF |"))
    assert "| 76.3 | not established |" in line and "37.00 ± 1.00 (3 seeds)" in line
    (line,) = (each for each in text.splitlines() if "ResNet-8, SK |" in each)
    assert line.endswith("|  |  |")  # not run: blank
    assert tables.ours([{"last_accuracy": 0.8}], "top-1 error") == "20.00"
    (tmp_path / "results" / "reduced" / "bad.json").write_text("{}")
    with pytest.raises(UserError, match="bad.json is no result of ours"):
        tables.read_results(tmp_path / "results")


def test_report_and_its_pictures(known, root, tmp_path, digits_run):
    row, _ = tables.find_row(known, "fusions-resnet8.aff")
    result(tmp_path, digits_run, 0, 0.36, row)
    for results, count in (({}, 2), (tables.read_results(tmp_path / "results"), 4)):
        pictures = draw_all(tmp_path, known, results)
        assert len(pictures) == count
        page = table_pages.tables_page(root, known, results, pictures)
        for name, caption in pictures:
            assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
            assert f"({name})" in page and caption in page
        for table in known.values():
            assert f"## {table.title}" in page
            for each in table.rows:
                assert each.id in page
    assert "| AFF | 36.00 | " in page
    command = "--row fusions-resnet8.aff --run --protocol reduced --seed 0 --out runs/reduced/aff-0"
    assert command in page


def test_pages_are_those_of_the_committed_results(known, root):
    """docs/tables.md and the README's tables hold what --report would write."""
    results = tables.read_results(root / "results")
    pictures = re.findall(r"!\[\]\((.+?)\)\n\n\*(.+)\*", (root / "docs/tables.md").read_text())
    page = table_pages.tables_page(root, known, results, pictures)
    assert (root / "docs/tables.md").read_text() == page
    readme = (root / "README.md").read_text()
    for block in table_pages.readme_tables(known, results).values():
        assert block in readme


def test_a_readme_without_marks_is_left_alone(known, root, tmp_path):
    (tmp_path / "docs").mkdir()
    shutil.copytree(root / "configs", tmp_path / "configs")
    (tmp_path / "README.md").write_text("# mine\n")
    with pytest.raises(UserError, match="has no <!-- networks"):
        table_pages.write_all(tmp_path, known, {}, [])
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
        (("--list", "--run"), "have an effect with --row only"),
        (("--list", "--seed", "0"), "have an effect with --row only"),
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


def test_a_row_is_trained_once_and_recorded(monkeypatch, tmp_path, digits_run):
    """A finished run folder is recorded without training again."""
    script = load_script("reproduce_tables.py")
    monkeypatch.setattr(script.tables, "same_run", lambda run, config: True)
    command = ["x", "--row", "fusions-resnet8.aff", "--run", "--protocol", "reduced"]
    command += ["--out", str(digits_run[0]), "--results", str(tmp_path)]
    monkeypatch.setattr("sys.argv", command)
    script.main()
    (path,) = tmp_path.rglob("*.json")
    recorded = json.loads(path.read_text())
    assert recorded["row"] == "fusions-resnet8.aff" and len(recorded["curve"]) == 1
    assert recorded["last_accuracy"] == digits_run[1]["last_accuracy"]
