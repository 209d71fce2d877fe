"""Metrics by epoch: reading them, and drawing them."""

import csv
import math
import pathlib

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..tasks import METRICS
from ..utils.errors import UserError
from ..utils.files import atomic, refuse_special
from ..utils.json_files import read_json, read_json_lines

PARTS = ("train", "test")
MOST_EPOCHS, LARGEST = 10**6, 1e30  # that an axis can show


def known_curves():
    """``train_KEY`` and ``test_KEY`` of every metric."""
    return [f"{part}_{key}" for key in METRICS for part in PARTS]


def read_metrics(source):
    """Metrics by epoch, of this project's runs or of others'.

    Parameters
    ----------
    source : path-like
        A run folder; a result file (``.json``) with its curve; or a ``.csv`` file whose header
        names ``epoch`` and ``train_KEY`` or ``test_KEY`` of a metric, such as ``test_loss`` or
        ``test_accuracy`` (a fraction of 1).  What is not known is blank there, and null in JSON.

    Returns
    -------
    list of dict

    Raises
    ------
    UserError
        A file that cannot be read, or holds something else.
    """
    path = pathlib.Path(source)
    path = path / "metrics.jsonl" if path.is_dir() else path
    kind = path.suffix.lower()
    refuse_special(path)
    try:
        if kind == ".csv":
            with open(path, newline="", encoding="utf-8-sig") as content:
                rows = [_numbers(row) for row in csv.DictReader(content, skipinitialspace=True)]
        elif kind == ".jsonl":
            rows = read_json_lines(path, {str: object})
        else:
            rows = read_json(path, {"curve?": [{str: object}]}).get("curve")
        _check_curves(rows)
    except (OSError, ValueError, TypeError, AttributeError, csv.Error) as error:
        raise UserError(f"cannot read the metrics {path}: {error}") from None
    return rows


def _numbers(row):
    return {key: float(row[key]) for key in ("epoch", *known_curves()) if row.get(key)}


def _check_curves(rows):
    curves = known_curves()
    if not rows:
        raise ValueError("it has no epochs")
    if not any(row.get(key) is not None for row in rows for key in curves):
        raise ValueError("it has no " + ", ".join(curves[:-1]) + " or " + curves[-1])
    for row in rows:
        if "epoch" not in row:
            raise ValueError("a row has no epoch")
        check_epoch(row["epoch"])
        for key in ("epoch", *curves):
            value = row.get(key)
            if value is None:
                continue
            if type(value) not in (int, float) or abs(value) > LARGEST:  # not a nan: it diverged
                raise ValueError(f"{key} {value!r} is not a number that can be drawn")
            metric = METRICS[key.partition("_")[2]] if key != "epoch" else None
            if metric and metric.percent and not 0 <= value <= 1:
                raise ValueError(
                    f"{key} {value:g} in epoch {row['epoch']:g} is not a fraction between 0 and 1"
                )


def check_epoch(value):
    """A ValueError for what cannot be an epoch's number."""
    if type(value) not in (int, float) or not 0 <= value <= MOST_EPOCHS:
        raise ValueError(f"the epoch {value!r} is not a number from 0 to {MOST_EPOCHS:,}")


def draw_curves(runs):
    """A matplotlib figure: a panel a metric, training dashed, test solid.

    ``runs``: name -> rows of metrics.  The figure belongs to no backend: a notebook shows it, and
    ``savefig`` writes it.
    """
    keys = [
        key
        for key in METRICS
        if any(f"{part}_{key}" in row for rows in runs.values() for row in rows for part in PARTS)
    ]
    figure = Figure(figsize=(4.5 * len(keys), 3.5), constrained_layout=True)
    FigureCanvasAgg(figure)
    for axis, key in zip(figure.subplots(1, len(keys), squeeze=False)[0], keys):
        metric = METRICS[key]
        scale, drawn = 100 if metric.percent else 1, []
        for index, (name, rows) in enumerate(runs.items()):
            for part, line in zip(PARTS, ("--", "-")):
                known = [row for row in rows if row.get(f"{part}_{key}") is not None]
                epochs = [row["epoch"] for row in known]
                values = [scale * row[f"{part}_{key}"] for row in known]
                marker = "." if len(epochs) <= 40 else ""
                # Not a formula, and not a name that matplotlib leaves out of the legend.
                shown = name.replace("$", r"\$").replace("_", " _", name.startswith("_"))
                curve = f"{shown}, {part}" if known else None
                axis.plot(epochs, values, line, color=f"C{index}", marker=marker, label=curve)
                drawn += filter(math.isfinite, values)
        top = None if metric.percent else _top(drawn)
        if top is not None:
            axis.set_ylim(0, top)
        axis.set_xlabel("epoch")
        cut = ", peaks cut off" * (top is not None)
        axis.set_ylabel(metric.title + " (%)" * metric.percent + cut)
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize="small")
    return figure


def _top(values):
    """Where an axis ends, so that a peak of some epochs does not flatten all others; or None."""
    if len(values) < 10:
        return None
    usual = sorted(values)[int(0.9 * len(values)) - 1]
    return 1.5 * usual if max(values) > 3 * usual > 0 else None


def plot_curves(path, runs):
    """Write the picture of :func:`draw_curves`, whole or not at all."""
    with atomic(path) as temporary:
        draw_curves(runs).savefig(temporary, dpi=120)
