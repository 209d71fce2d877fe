"""The evidence: which runs it needs, and what its tables and figure say of those that are there."""

import json
import re
from dataclasses import replace

import pytest
from helpers import load_command

from openaff import UserError, create_model
from openaff.analysis.complexity import count_parameters
from openaff.data import DATASETS
from openaff.tables import counts, evidence, pages, plots, recipes, speed
from openaff.tables import results as table_results
from openaff.tables.catalog import load_tables
from openaff.tables.plots import save_all
from openaff.training import benchmark as training_benchmark
from openaff.utils.markdown import with_blocks

SCENARIOS = ("short-skip", "same-layer", "long-skip")


@pytest.fixture(scope="module")
def table(known):
    return known["evidence"]


def result(value, seed=0, metric="accuracy", images=49920):
    dataset = "camvid" if metric == "mean_iou" else "cifar100"
    figures = {"dataset": dataset, "training_images": images, f"last_{metric}": value / 100}
    return {"seed": seed, **figures}


def part(known, found, key="short-skip", speed=None):
    """A group's tables as lists of lines, each a list of cells."""
    results = {(known.row(row).run, "reduced"): runs for row, runs in found.items()}
    text = evidence.blocks(known["evidence"], results, known, key, speed)[key]
    return [
        [line.strip("| ").split(" | ") for line in block.splitlines()]
        for block in text.split("\n\n")
    ]


def test_the_plan_is_the_issues(known, table):
    """Nine rows a scenario, at least three seeds for the plain sum, AFF and iAFF, else one."""
    keys = ["add", "concat", "ayforxplusyadd", "xplusayforyadd", "axyforxplusyadd"]
    keys += ["globglob", "localoca", "aff", "iaff"]
    found = evidence.groups(table)
    assert [*found] == [*SCENARIOS, "longer", "same-cost"]
    for scenario in SCENARIOS:
        rows = found[scenario]
        assert [row.id for row in rows] == [f"evidence.{scenario}.{key}" for key in keys]
        seeds = 5 if scenario == "short-skip" else 3
        assert [row.seeds for row in rows] == [seeds] + [1] * 6 + [seeds, 3]
        for row in rows:
            assert row.reduced and row.published == known.row(row.run).published is not None
    assert [row.seeds for row in found["longer"] + found["same-cost"]] == [1] * 7
    for row in found["longer"]:
        config = recipes.row_config(row, "reduced")
        ten = recipes.row_config(known.row(row.id.replace("longer", "short-skip")), "reduced")
        assert (config.epochs, ten.epochs) == (40, 10)
        assert config.model == ten.model and config.optimizer == ten.optimizer


@pytest.mark.parametrize("key", ["aff", "iaff"])
def test_plain_networks_of_the_same_cost(known, root, key):
    """No other width of three decimals is nearer; the epochs follow from the measured speeds."""
    row = known.row(f"evidence.same-cost.wider-as-{key}")
    config = recipes.row_config(row, "reduced")
    options = dict(config.model.options)
    width = options.pop("width_multiplier")
    other = recipes.row_config(known.row(f"evidence.short-skip.{key}"), "reduced")
    wanted = counts.parameters_of(other)

    def far(multiplier):
        net = create_model(
            config.model.name, num_classes=20, width_multiplier=multiplier, **options
        )
        return abs(count_parameters(net)[0] - wanted)

    assert far(width) == abs(counts.parameters_of(config) - wanted)
    assert far(width) == min(far(multiplier / 1000) for multiplier in range(1060, 1100, 2))
    longer = recipes.row_config(known.row(f"evidence.same-cost.longer-as-{key}"), "reduced")
    measured = speed.read_speed(root)
    ratio = measured["evidence.short-skip.add"] / measured[f"evidence.short-skip.{key}"]
    assert longer.epochs == pytest.approx(10 * ratio, abs=1)  # chosen once, measured again perhaps


def test_differences_are_paired_by_seed(known):
    figure = known.row("evidence.short-skip.add").figure
    ours = [result(60, 0), result(62, 1), result(70, 5)]
    gap = evidence.difference(figure, ours, [result(61, 1), result(58, 0), result(1, 7)])
    assert (gap.mean, gap.pairs) == (pytest.approx(1.5), 2)
    assert gap.half == pytest.approx(12.706 * 0.5, abs=1e-3)  # deviation 0.71 / root of 2
    assert gap.in_words() == "+1.50 (-4.85 to +7.85)" and gap.shows(1.0) == "open"
    one = evidence.difference(figure, ours[:1], [result(61, 0)])
    assert one.half is None and one.in_words() == "-1.00" and one.shows(-2) == "open"
    assert evidence.difference(figure, ours, [result(61, 3)]) is None
    assert evidence.difference(figure, ours, []) is None


@pytest.mark.parametrize(
    "mean, expected, words",
    [(1.0, 2.0, "yes"), (-1.0, 2.0, "no, the reverse"), (0.1, 2.0, "open"), (1.0, None, "")]
    + [(-1.0, -0.1, "yes"), (1.0, 0.0, "")],
)
def test_what_an_interval_shows(mean, expected, words):
    assert evidence.Difference(mean, 3, 0.5).shows(expected) == words


def test_the_tables_of_a_scenario(known):
    add = [result(58.0, 0), result(58.2, 1), result(58.4, 2)]
    aff = [result(59.0, 0), result(59.3, 1), result(59.6, 2)]
    concat = [result(57.0, 0), result(57.5, 9)]
    rows = ("add", "aff", "concat")
    found = dict(zip((f"evidence.short-skip.{key}" for key in rows), (add, aff, concat)))
    speed = {"evidence.short-skip.add": 400.0, "evidence.short-skip.aff": 200.0}
    figures, gaps, costs = part(known, found, speed=speed)
    assert costs[0][-1] == "time a point"
    lines = {line[0]: dict(zip(figures[0], line)) for line in figures}
    assert lines["Add"]["the paper"] == "74.0" and lines["Add"]["by seed"] == (
        "0: 58.00, 1: 58.20, 2: 58.40"
    )
    assert lines["Add"]["ours"] == "58.20 ± 0.20 (3 seeds)"
    assert (lines["Add"]["runs"], lines["Concatenation"]["runs"]) == ("3 of 5", "1 of 1")
    assert (lines["Add"]["images/s"], lines["Add"]["minutes"]) == ("400", "21")
    assert lines["AFF"]["minutes"] == "42" and lines["iAFF"]["ours"] == ""
    assert figures[0].count("rank") == 1 and lines["iAFF"]["rank"] == "1"  # ours: not all ran
    (line,) = (line for line in gaps if line[:2] == ["AFF", "Add"])
    assert line[2:] == ["+2.3", "+1.10 (+0.85 to +1.35)", "3", "yes"]
    (line,) = (line for line in gaps if line[:2] == ["Concatenation", "AFF"])
    assert line[2:] == ["-2.1", "-2.00", "1", "open"]
    assert len(gaps) == 2 + 3
    lines = {line[0]: line[1:] for line in costs[2:]}
    assert lines["AFF"] == ["Add", "+1.10", "+11,760 (+15.0%)", "+10,691", "+100%", "+91%"]
    assert lines["Concatenation"] == ["Add", "-1.00", "+11,312 (+14.4%)", "no gain"]


def test_ranks_of_ours_when_every_row_ran(known, table):
    assert evidence.ranks([3, 5, 5, 1]) == [3, 1, 1, 4]
    found = {
        row.id: [result(40 + index, metric="mean_iou")]
        for index, row in enumerate(evidence.groups(table)["long-skip"])
    }
    figures, _, _ = part(known, found, "long-skip")
    assert figures[0].count("rank") == 2
    assert [line[4] for line in figures[2:]] == list("987654321")


def test_longer_runs_and_plain_networks_are_compared(known):
    found = {
        "evidence.short-skip.add": [result(58)],
        "evidence.short-skip.iaff": [result(60)],
        "evidence.same-cost.longer-as-iaff": [result(59)],
    }
    speed = dict(zip(found, (400.0, 200.0, 400.0)))
    _, gaps, costs = part(known, found, "same-cost", speed)
    assert [line[1:] for line in gaps[2:]] == [["Add", "+1.00", "1"], ["iAFF", "-1.00", "1"]]
    assert costs[2] == [
        "Add, as long as iAFF",
        "Add",
        "+1.00",
        "+0 (+0.0%)",
        "+0",
        "+130%",
        "+130%",
    ]
    found = {f"evidence.longer.{key}": [result(65)] for key in ("add", "aff", "iaff")}
    _, gaps, _ = part(known, found, "longer")
    assert [line[:2] for line in gaps[2:]] == [
        ["AFF, 40 epochs", "Add, 40 epochs"],
        ["iAFF, 40 epochs", "Add, 40 epochs"],
        ["iAFF, 40 epochs", "AFF, 40 epochs"],
    ]


def test_what_is_missing_is_counted(known, table):
    none = evidence.blocks(table, {}, known)
    assert none["runs"].startswith("0 of 56 runs are there.") and evidence.COMMAND in none["runs"]
    assert "ours" not in none["short-skip"] and "difference" not in none["short-skip"]
    runs = {  # one seed more than planned
        row.id: [result(50, seed, row.figure.metric) for seed in range(row.seeds + 1)]
        for row in table.rows
    }
    whole = evidence.progress(table, runs)
    assert whole.startswith("All 56 runs are there.") and evidence.COMMAND in whole
    runs["evidence.long-skip.add"].pop(1)
    assert evidence.progress(table, runs).startswith("55 of 56 runs are there.")
    assert "| long-skip | 14 | 15 |" in evidence.progress(table, runs)


def test_the_figure_is_drawn_of_any_runs(table, tmp_path):
    some = {
        ("paper-table4.short-skip.add.b1", "reduced"): [result(58)],
        ("paper-table4.short-skip.aff.b1", "reduced"): [result(59), result(60, 1)],
    }
    for found in ({}, some):
        figure = plots.draw_evidence(table, found)
        save_all(tmp_path, [("evidence.png", figure, None)])
        titles = [panel.get_title() for panel in figure.axes]
        assert titles == [group.title for group in table.groups] and len(titles) == 3
        words = [[text.get_text() for text in panel.texts] for panel in figure.axes]
        assert [("not run yet" in each) for each in words] == [not found, True, True]
        assert "77.2 (1)" in words[0] and "74.0 (9)" in words[0]
    short = figure.axes[0]
    drawn = sorted(sum((list(line.get_xdata()) for line in short.lines), []))
    assert drawn == pytest.approx([58, 59, 59.5, 60])
    assert (tmp_path / "evidence.png").read_bytes().startswith(b"\x89PNG")


def test_an_unpublished_figure_has_no_rank(table):
    rows = [replace(table.rows[0], published=None), *table.rows[1:]]
    figure = plots.draw_evidence(replace(table, rows=rows), {})
    words = [[text.get_text() for text in panel.texts] for panel in figure.axes]
    assert "77.2 (1)" not in words[0] and "92.7 (1)" in words[2]


def test_the_table_is_printed_by_parts(known):
    text = pages.render(known["evidence"], {}, known, "longer")
    assert "#### longer" in text and "short skip" not in text
    text = pages.render(known["evidence"], {}, known, "short-skip")
    assert "#### short skip: ResNet-8 on CIFAR-100" in text and "52 runs" not in text


def test_a_page_without_marks_is_named():
    page = "a\n<!-- x: written by --report -->\nold\n<!-- /x -->\nb"
    assert with_blocks(page, {"x": "new"}, "p.md").splitlines()[2] == "new"
    for broken in (page.replace("/x", "/y"), page.replace("x: written", "written")):
        with pytest.raises(UserError, match="^p.md has no <!-- x: written by --report --> ... <!-"):
            with_blocks(broken, {"x": "new"}, "p.md")


def test_one_command_trains_what_is_missing(known, table, monkeypatch, tmp_path, call):
    """As many seeds as each row is to have, seed after seed, on both data sets."""
    script, trained = load_command("tables"), []
    monkeypatch.setattr(script, "load_tables", lambda: known)

    def train_row(args, catalog, results, row, protocol, seed, out):
        (setting,) = args.overrides
        trained.append((row.id, seed, setting))

    monkeypatch.setattr(script, "train_row", train_row)
    row = known.row("evidence.same-layer.aff")
    there = table_results.result_path(tmp_path, row, "reduced", 1)
    there.parent.mkdir()
    there.write_text("{}")
    words = evidence.COMMAND.replace("\\\n", "").split()
    call(*words[words.index("tables") :], "--results", tmp_path)
    assert len(trained) == 55 and (row.id, 1, "data.root=DIR") not in trained
    assert [seed for _, seed, _ in trained] == [0] * 34 + [1] * 8 + [2] * 9 + [3] * 2 + [4] * 2
    assert trained[0] == ("evidence.short-skip.add", 0, "data.root=DIR")


def test_what_the_plan_may_not_say(root, tmp_path):
    tables = root / "openaff/configs/tables"
    text = (tables / "evidence.yaml").read_text()
    for other in ("paper-table3", "paper-table4", "imagenet-runs", "cifar100-runs"):
        (tmp_path / f"{other}.yaml").write_text((tables / f"{other}.yaml").read_text())
    for change, message in (
        (
            ("[evidence.longer.add]", "[evidence.longer.ad]"),
            "with evidence.longer.ad, and",
        ),
        (("run: paper-table4.same-layer.add.b1, ", ""), "same-layer, add: a figure, or null, for"),
        (("kind: evidence", "kind: proof"), "kind 'proof' is none of paper, logs, ours, evidence"),
    ):
        assert change[0] in text
        (tmp_path / "evidence.yaml").write_text(text.replace(*change, 1))
        with pytest.raises(UserError, match=message):
            load_tables(tmp_path)


def test_speed_is_measured_of_every_network(table, tmp_path, monkeypatch, call):
    """A recipe's take turns, one that several rows train once; the page's times are made of it."""
    taken = []

    def turns(cases, count):
        taken.append((list(cases), count))
        return {name: 100.0 * (1 + number) for number, name in enumerate(cases)}

    monkeypatch.setattr(speed, "take_turns", turns)
    monkeypatch.setattr(speed, "steps_of", lambda *arguments: arguments[1:])
    monkeypatch.chdir(tmp_path)
    call(*"benchmark tables --turns 3 --out speed.json".split())
    groups = evidence.groups(table)
    ids = {key: [row.id for row in rows] for key, rows in groups.items()}
    wider = [f"evidence.same-cost.wider-as-{key}" for key in ("aff", "iaff")]
    expected = [ids["short-skip"] + wider, ids["same-layer"], ids["long-skip"]]
    assert taken == [(names, 3) for names in expected]
    written = json.loads((tmp_path / "speed.json").read_text())
    assert (written["kind"], written["turns"]) == ("tables", 3)
    assert {"processor", "threads", "versions", "commit", "command", "date"} <= set(written)
    ratio = {row["case"].partition(".")[2]: row["/first"] for row in written["figures"]}
    assert [ratio[f"short-skip.{key}"] for key in ("add", "concat", "aff", "iaff")] == [1, 2, 8, 9]
    assert [ratio[f"longer.{key}"] for key in ("add", "aff", "iaff")] == [1, 8, 9]
    assert ratio["same-cost.longer-as-iaff"] == 1 and ratio["same-cost.wider-as-iaff"] == 11
    with pytest.raises(UserError, match="cannot write none/speed.json: there is no such folder"):
        call("benchmark", "tables", "--out", "none/speed.json")
    assert len(taken) == 3  # before anything is measured
    (tmp_path / "measurements").mkdir()
    (tmp_path / "speed.json").rename(tmp_path / speed.FILE)
    assert speed.read_speed(tmp_path)["evidence.long-skip.concat"] == 200.0
    assert len(speed.read_speed(tmp_path)) == len(table.rows)


def test_the_measured_step_is_the_recipes(known):
    config = recipes.row_config(known.row("evidence.long-skip.aff"), "reduced")
    config.data.batch_size = 2
    assert training_benchmark.steps_of(config, 11, (32, 32))() == 4  # two steps of two images
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "steps_of", lambda of, *shape: found.update({of.model.name: shape}))
        for key in ("short-skip.iaff", "long-skip.iaff"):
            speed._steps(recipes.row_config(known.row(f"evidence.{key}"), "reduced"))
    assert found == {"iaff_cifar_resnet8": (20, (32, 32)), "iaff_fpn_resnet8": (11, (176, 176))}


def test_a_file_that_holds_no_speeds(tmp_path):
    assert speed.read_speed(tmp_path) == {} == speed.read_speed(None)
    (tmp_path / "measurements").mkdir()
    for value in ('"fast"', "0", "-1", "nothing"):
        text = f'{{"figures": [{{"case": "a", "images/s": {value}}}]}}'
        (tmp_path / speed.FILE).write_text(text)
        with pytest.raises(UserError, match="speed.json holds no speeds: .* openaff benchmark"):
            speed.read_speed(tmp_path)


def test_the_page_says_what_the_recipes_say(known, root):
    page = (root / "docs/evidence.md").read_text()
    for scenario in SCENARIOS:
        row = known.row(f"evidence.{scenario}.add")
        config = recipes.row_config(row, "reduced")
        (words,) = re.findall(rf"^- \*\*.*{DATASETS[config.data.name].title}.*$", page, re.M)
        assert f"batch {config.data.batch_size}, " in words
        assert f"with rate {config.optimizer.lr:g}" in words
        assert f"{config.epochs} epochs" in words and row.reduced in words
