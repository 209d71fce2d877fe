"""Pictures of the tables: published figures, and ours from result files."""

import statistics

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..utils.files import atomic
from .records import REDUCED_TABLE, costs, fusion_name


def draw_all(tables, results):
    """The pictures of ``docs/tables.md``: a list of file names, figures and captions.

    Parameters
    ----------
    tables : dict of str to Table
        See :func:`openaff.tables.records.load_tables`.
    results : dict
        See :func:`openaff.tables.records.read_results`.
    """
    pictures = [
        (
            "tables_depth.png",
            _depth(tables["fusion-by-depth"], results),
            "CIFAR-100 accuracy against blocks a stage: the paper's Table 4 (lines; on which "
            "labels is not established), ours by the paper protocol on the 100 fine labels "
            "(crosses), where there are any.",
        ),
        (
            "tables_parameters.png",
            _parameters(tables["cifar100-runs"], results),
            "CIFAR-100 accuracy of the authors' runs against parameters, by labels: 20 "
            "superclasses are not 100 classes.",
        ),
    ]
    if any(protocol == "reduced" for _, protocol in results):
        table = tables[REDUCED_TABLE]
        pictures += [
            (
                "tables_reduced.png",
                _spread(table, results),
                "ResNet-8 on CIFAR-100 by the reduced protocol (m = 1, 10 epochs, 100 fine "
                "labels): test accuracy after the last epoch. A dot is a seed, a bar their mean.",
            ),
            (
                "tables_curves.png",
                _curves(table, results),
                "The same by epoch, means over seeds. The dotted lines are the paper's figures for "
                "the same fusions (400 epochs, m = 4, on which labels is not established).",
            ),
        ]
    return pictures


def save_all(folder, pictures):
    """Write what :func:`draw_all` returned below ``folder``; the files' paths."""
    for name, figure, _ in pictures:
        with atomic(folder / name) as temporary:
            figure.savefig(temporary, dpi=120)
    return [folder / name for name, _, _ in pictures]


def _axes(xlabel):
    figure = Figure(figsize=(7, 4), constrained_layout=True)
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.set_xlabel(xlabel)
    axis.set_ylabel("accuracy (%)")
    axis.grid(alpha=0.3)
    return figure, axis


def _mean(results, key=lambda result: result["last_accuracy"]):
    return 100 * statistics.mean(map(key, results))


def _depth(table, results):
    figure, axis = _axes("blocks a stage, b")
    families = {}
    for row in table.rows:
        family, _, blocks = row.name.rpartition(", b = ")
        families.setdefault(family, []).append((int(blocks), row))
    for index, (family, rows) in enumerate(families.items()):
        known = [(blocks, row.published) for blocks, row in rows if row.published is not None]
        line = "-" if family.startswith("ResNet") else "--"
        axis.plot(*zip(*known), line, color=f"C{index}", marker="o", label=family)
        for blocks, row in rows:
            if (row.run, "paper") in results:
                mine = _mean(results[row.run, "paper"])
                axis.plot(blocks, mine, "x", color=f"C{index}", markersize=10)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(fontsize="small")
    return figure


def _parameters(table, results):
    figure, axis = _axes("parameters without running statistics (millions)")
    rows = [row for row in table.rows if row.published is not None]
    markers = dict(zip(sorted({row.model for row in rows}), "oDsv^<>ph"))
    colors = {labels: f"C{index}" for index, labels in enumerate({row.labels: 0 for row in rows})}
    for row in rows:
        millions = float(costs(table, row)[0].rstrip("M"))
        axis.plot(millions, row.published, markers[row.model], color=colors[row.labels])
        if (row.run, "paper") in results:
            mine = _mean(results[row.run, "paper"])
            axis.plot(millions, mine, "x", color=colors[row.labels], markersize=10)
    for labels, color in colors.items():
        axis.plot([], [], color=color, linewidth=5, label=labels)
    for model, marker in markers.items():
        axis.plot([], [], marker, color="0.4", label=model)
    axis.legend(fontsize="x-small", loc="lower left", bbox_to_anchor=(0.02, 0.05))
    return figure


def _spread(table, results):
    rows = [row for row in table.rows if (row.id, "reduced") in results]
    rows.sort(key=lambda row: _mean(results[row.id, "reduced"]))
    figure, axis = _axes("accuracy (%)")
    axis.set_ylabel("")
    for place, row in enumerate(rows):
        runs = results[row.id, "reduced"]
        values = [100 * run["last_accuracy"] for run in runs]
        axis.plot(_mean(runs), place, "|", color="C0", markersize=16)
        axis.plot(values, [place] * len(values), "o", color="C0", alpha=0.6)
    axis.set_yticks(range(len(rows)), list(map(fusion_name, rows)))
    return figure


def _curves(table, results):
    figure, axis = _axes("epoch")
    rows = [row for row in table.rows if (row.id, "reduced") in results]
    for index, row in enumerate(rows):
        curves = [result["curve"] for result in results[row.id, "reduced"]]
        means = [
            100 * statistics.mean(point["test_accuracy"] for point in points)
            for points in zip(*curves)
        ]
        color = f"C{index % 10}"
        line = "-" if index < 10 else "--"
        axis.plot(range(1, len(means) + 1), means, line, color=color, label=fusion_name(row))
        if row.published is not None:
            axis.axhline(row.published, color=color, linestyle=":")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(fontsize="small", ncols=2)
    return figure
