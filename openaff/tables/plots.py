"""Pictures of the tables: published figures, and ours from result files."""

import statistics

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..data import DATASETS
from ..utils.files import atomic
from . import evidence
from .counts import parameters
from .results import mean


def draw_all(catalog, results):
    """The pictures of ``docs/tables.md``: a list of file names, figures and captions.

    Parameters
    ----------
    catalog : Catalog
        See :func:`openaff.tables.catalog.load_tables`.
    results : dict
        See :func:`openaff.tables.results.read_results`.
    """
    figure7 = catalog["paper-figure7"]
    crosses = any((row.run, "paper") in results for row in figure7.rows)
    pictures = [
        (
            "tables_figure7.png",
            _by_depth(figure7, results),
            "The paper's Figure 7: accuracy or mean IoU against parameters, for b = 1 to 4 blocks "
            "per stage. Lines: the paper's figures, as its Table 4 prints them. Parameters: ours, "
            "counted." + (" Crosses: our runs by the same protocol." if crosses else ""),
        ),
        (
            "tables_parameters.png",
            _by_parameters(catalog["cifar100-runs"], results),
            "CIFAR-100 accuracy of the authors' runs against parameters. Left and right cannot be "
            "compared: 20 superclasses are not 100 classes.",
        ),
    ]
    table = catalog["fusions-resnet8"]
    rows = [row for row in table.rows if (row.run, "reduced") in results]
    if rows:
        pictures += [
            (
                "tables_reduced.png",
                _spread(rows, results),
                "ResNet-8 on CIFAR-100, 100 fine labels, by the reduced protocol (m = 1, 10 "
                "epochs): test accuracy after the last epoch. A dot is a seed, a bar the mean of "
                "several.",
            ),
            (
                "tables_curves.png",
                _curves(rows, results),
                "The same by epoch, means over seeds.",
            ),
        ]
    return pictures


def save_all(folder, pictures):
    """Write what :func:`draw_all` returned below ``folder``; the files' paths."""
    for name, figure, _ in pictures:
        with atomic(folder / name) as temporary:
            figure.savefig(temporary, dpi=120)
    return [folder / name for name, _, _ in pictures]


def _panels(count, width, height=4.2):
    figure = Figure(figsize=(width, height), constrained_layout=True)
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, count, squeeze=False)[0]
    for panel in panels:
        panel.grid(alpha=0.3)
    return figure, panels


def _by_depth(table, results):
    figure, panels = _panels(len(table.groups), 12)
    for panel, group in zip(panels, table.groups):
        panel.set_title(group.title, fontsize="medium")
        panel.set_xlabel("parameters (millions)")
        panel.set_ylabel(f"{group.metric} (%)")
        for index, series in enumerate(group.series):
            rows = [
                row for row in table.rows if (row.group, row.fusion) == (group.key, series.name)
            ]
            points = [(row, parameters(row) / 1e6) for row in rows]
            known = [(x, row.published) for row, x in points if row.published is not None]
            mine = [
                (x, mean(row.figure, results[row.run, "paper"]))
                for row, x in points
                if (row.run, "paper") in results
            ]
            color = f"C{index}"
            if known:
                panel.plot(*zip(*known), "-o", color=color, markersize=4, label=series.name)
            if mine:
                panel.plot(
                    *zip(*mine), "x", color=color, markersize=9, label=f"{series.name}, ours"
                )
        panel.legend(fontsize="small", loc="lower right")
    return figure


def _by_parameters(table, results):
    rows = [row for row in table.rows if row.published is not None]
    granularities = sorted({row.labels for row in rows}, reverse=True)
    figure, panels = _panels(len(granularities), 10)
    markers = dict(zip(sorted({row.model for row in rows}), "oDsv^<>ph"))
    for panel, labels in zip(panels, granularities):
        panel.set_title(DATASETS["cifar100"].granularity(labels).words)
        panel.set_xlabel("parameters (millions)")
        panel.set_ylabel("top-1 accuracy (%)")
        shown = set()
        for row in (row for row in rows if row.labels == labels):
            millions = parameters(row) / 1e6
            label = None if row.model in shown else row.model
            shown.add(row.model)
            panel.plot(millions, row.published, markers[row.model], color="C0", label=label)
            if (row.run, "paper") in results:
                mine = mean(row.figure, results[row.run, "paper"])
                panel.plot(millions, mine, "x", color="C1", markersize=9)
        panel.margins(0.15)
        panel.legend(fontsize="small")
    return figure


def _spread(rows, results):
    rows = sorted(rows, key=lambda row: mean(row.figure, results[row.run, "reduced"]))
    figure, (panel,) = _panels(1, 7)
    panel.set_xlabel("accuracy (%)")
    for place, row in enumerate(rows):
        runs = results[row.run, "reduced"]
        values = [row.figure.percent(run) for run in runs]
        if len(values) > 1:
            panel.plot(statistics.mean(values), place, "|", color="C0", markersize=16)
        panel.plot(values, [place] * len(values), "o", color="C0", alpha=0.6)
    panel.set_yticks(range(len(rows)), [row.fusion for row in rows])
    return figure


def draw_evidence(table, results):
    """The figure of ``docs/evidence.md``: one panel per scenario, rows in the paper's order."""
    figure, panels = _panels(len(table.groups), 14, 3.8)
    for panel, group in zip(panels, table.groups):
        rows = [row for row in table.rows if row.group == group.key]
        panel.set_title(group.title, fontsize="small")
        panel.set_xlabel(f"{group.metric} (%)")
        panel.set_yticks(range(len(rows)), [row.fusion for row in rows], fontsize="small")
        panel.set_ylim(len(rows) - 0.5, -1.2)
        text = {"transform": panel.get_yaxis_transform(), "fontsize": "small", "va": "center"}
        panel.text(1.02, -0.85, "paper", **text)
        paper = [row.published for row in rows]
        ranks = evidence.ranks(paper) if None not in paper else [None] * len(rows)
        for place, (row, rank) in enumerate(zip(rows, ranks)):
            if rank is not None:
                panel.text(1.02, place, f"{row.published} ({rank})", **text)
            values = [row.figure.percent(run) for run in results.get((row.run, "reduced"), [])]
            if len(values) > 1:
                panel.plot(statistics.mean(values), place, "|", color="C0", markersize=16)
            panel.plot(values, [place] * len(values), "o", color="C0", alpha=0.6)
        if not any((row.run, "reduced") in results for row in rows):
            panel.set_xticks([])
            panel.text(0.5, 0.5, "not run yet", transform=panel.transAxes, ha="center")
    return figure


def _curves(rows, results):
    figure, (panel,) = _panels(1, 8, 5)
    panel.set_xlabel("epoch")
    panel.set_ylabel("accuracy (%)")
    ends = []
    for index, row in enumerate(rows):
        curves = [result["curve"] for result in results[row.run, "reduced"]]
        means = [
            100 * statistics.mean(point["test_accuracy"] for point in points)
            for points in zip(*curves)
        ]
        color = f"C{index % 10}"
        line = "-" if index < 10 else "--"
        panel.plot(range(1, len(means) + 1), means, line, color=color)
        ends.append((means[-1], row.fusion, color, len(means)))
    # Names stand beside the curves' ends, in their order.
    bottom, top = panel.get_ylim()
    step, highest = (top - bottom) / 24, max(end[0] for end in ends)
    for place, (value, name, color, length) in enumerate(sorted(ends)):
        at = highest - step * (len(ends) - 1 - place)
        label = f"{name} {value:.1f}"
        panel.text(length + 0.4, at, label, color=color, fontsize="small", va="center")
    panel.set_xlim(0.5, 1.5 * ends[0][3])
    panel.set_xticks(range(1, ends[0][3] + 1))
    return figure
