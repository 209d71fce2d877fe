"""The evidence: what our runs of Table 4 show beside the paper's figures, and what a point costs.

The table ``evidence`` says which runs there are to be, and which lines are compared.
"""

import functools
import math
import statistics
from typing import NamedTuple, Optional

from scipy.special import stdtrit

from ..utils.markdown import markdown
from . import counts
from .recipes import row_config
from .results import ours

CONFIDENCE = 0.95
COMMAND = """OMP_NUM_THREADS=1 openaff tables --table evidence --run --protocol reduced \\
    cifar100.root=DIR camvid.root=DIR"""
_REDUCED = "reduced"


def render(table, results, catalog, only=None, speed=None):
    """All parts of the evidence in Markdown, or the group ``only``; see :func:`blocks`."""
    lines = [f"### {table.title}", "", f"Source: {table.source}."]
    titles = {group.key: group.title for group in table.groups}
    for key, block in blocks(table, results, catalog, only, speed).items():
        lines += ["", f"#### {titles.get(key, key)}", "", block]
    return "\n".join(lines) + "\n"


def blocks(table, results, catalog, only=None, speed=None):
    """Name -> Markdown of what ``docs/evidence.md`` shows: ``runs``, and the tables of each group.

    Parameters
    ----------
    table : Table
        Of the kind ``evidence``.
    results : dict
        See :func:`openaff.tables.results.read_results`.
    catalog : Catalog
        Whose recipes the rows have.
    only : str, optional
        The one group to show, without ``runs``.
    speed : dict, optional
        Row id -> training images a second, see :func:`openaff.tables.speed.read_speed`.
    """
    runs = {row.id: results.get((row.run, _REDUCED), []) for row in catalog.rows().values()}
    found = {} if only else {"runs": progress(table, runs)}

    images = {  # an epoch's; files of the first edition do not say it
        result["dataset"]: result["training_images"]
        for result in sum(results.values(), [])
        if "training_images" in result
    }

    @functools.lru_cache(maxsize=None)  # recipes are slow to read
    def cost(row_id):
        config = row_config(catalog.row(row_id), _REDUCED)
        parameters, rate = counts.parameters_of(config), (speed or {}).get(row_id)
        return _Cost(parameters, config.epochs, rate, images.get(config.data.name))

    for key, rows in groups(table).items():
        if only in (None, key):
            pairs = _pairs(rows, runs, catalog)
            parts = [_figures(rows, runs, cost), _differences(pairs), _costs(pairs, cost)]
            found[key] = "\n\n".join("\n".join(part) for part in parts if part)
    return found


def groups(table):
    """Key -> rows of each of the table's groups."""
    found = {}
    for row in table.rows:
        found.setdefault(row.group, []).append(row)
    return found


def progress(table, runs):
    """How many of the runs, row id -> results, are there, and what trains the others."""
    cells, there, planned = [], 0, 0
    for key, rows in groups(table).items():
        done = sum(len(_planned(row, runs[row.id])) for row in rows)
        asked = sum(row.seeds for row in rows)
        cells.append([key, str(done), str(asked)])
        there, planned = there + done, planned + asked
    lines = markdown(["part", "runs that are there", "planned"], cells)
    start = f"{there} of {planned} runs are there. A blank figure: not run yet."
    if there == planned:
        start = f"All {planned} runs are there."
    start += " What has no result yet is trained by:"
    return "\n".join([start, "", "```text", COMMAND, "```", "", *lines])


def _planned(row, runs):
    """Of a row's results those whose seeds are planned: there may be more."""
    return [run for run in runs if run["seed"] < row.seeds]


# --- Figures --------------------------------------------------------------------------------------


class _Cost(NamedTuple):
    """What a row's network costs."""

    parameters: int  # that are trained
    epochs: int
    rate: Optional[float]  # training images a second
    images: Optional[int]  # an epoch's

    def minutes(self):
        """Of the training, without evaluation, in words."""
        if None in (self.rate, self.images):
            return ""
        return f"{self.epochs * self.images / self.rate / 60:.0f}"

    def times(self, other):
        """How many times as long as another's the training takes, or None."""
        if None in (self.rate, other.rate):
            return None
        return self.epochs / self.rate * other.rate / other.epochs


def ranks(values):
    """The place of each value, 1 the largest; equal ones share theirs."""
    return [1 + sum(other > value for other in values) for value in values]


def _figures(rows, runs, cost):
    """The lines of a group's figures, in the paper's order."""
    columns = [rows[0].metric + ", %", "the paper", "rank", "ours", "rank", "by seed", "runs"]
    columns += ["parameters", "epochs", "images/s", "minutes"]
    paper = [row.published for row in rows]
    means = [statistics.mean(_percents(row, runs)) if runs[row.id] else None for row in rows]
    theirs = ranks(paper) if None not in paper else None
    mine = ranks(means) if theirs and None not in means else None
    cells = []
    for index, row in enumerate(rows):
        found, costs = runs[row.id], cost(row.id)
        by_seed = [f"{run['seed']}: {value:.2f}" for run, value in zip(found, _percents(row, runs))]
        cells.append(
            [
                row.fusion,
                "" if row.published is None else str(row.published),
                str(theirs[index]) if theirs else "",
                ours(row.figure, found),
                str(mine[index]) if mine else "",
                ", ".join(by_seed),
                f"{len(_planned(row, found))} of {row.seeds}",
                f"{costs.parameters:,}",
                str(costs.epochs),
                "" if costs.rate is None else f"{costs.rate:,.0f}",
                costs.minutes(),
            ]
        )
    return markdown(columns, cells)


def _percents(row, runs):
    return [row.figure.percent(run) for run in runs[row.id]]


# --- Differences ----------------------------------------------------------------------------------


class Difference(NamedTuple):
    """The mean difference of two rows over the seeds that both have, in points."""

    mean: float
    pairs: int
    half: Optional[float]  # of the confidence interval's width; None: one pair has none

    def in_words(self):
        text = f"{self.mean:+.2f}"
        if self.half is not None:
            text += f" ({self.mean - self.half:+.2f} to {self.mean + self.half:+.2f})"
        return text

    def shows(self, expected):
        """Whether the interval lies on the side of ``expected``, a difference, in words."""
        if not expected:
            return ""
        if self.half is None or abs(self.mean) <= self.half:
            return "open"
        return "yes" if (self.mean > 0) == (expected > 0) else "no, the reverse"


def difference(figure, ours, theirs):
    """The :class:`Difference` of two rows' results, paired by seed, or None without a pair."""
    others = {run["seed"]: figure.percent(run) for run in theirs}
    values = [figure.percent(run) - others[run["seed"]] for run in ours if run["seed"] in others]
    if not values:
        return None
    half = None
    if len(values) > 1:
        error = statistics.stdev(values) / math.sqrt(len(values))
        half = stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2) * error  # Student's t
    return Difference(statistics.mean(values), len(values), half)


def _pairs(rows, runs, catalog):
    """(row, the one it is compared with, their :class:`Difference`), ordered by the latter."""
    found = {}
    for row in rows:
        for other in map(catalog.row, row.compare):
            gap = difference(row.figure, runs[row.id], runs[other.id])
            if gap:
                found.setdefault(other.id, []).append((row, other, gap))
    return [each for pairs in found.values() for each in pairs]


def _differences(pairs):
    columns = ["difference, points", "minus", "the paper", "ours (95% interval)", "pairs"]
    columns += ["does it show?"]
    cells = []
    for row, other, gap in pairs:
        expected = None
        if None not in (row.published, other.published):
            expected = round(row.published - other.published, 2)
        cells.append(
            [
                row.fusion,
                other.fusion,
                "" if expected is None else f"{expected:+.1f}",
                gap.in_words(),
                str(gap.pairs),
                gap.shows(expected),
            ]
        )
    return markdown(columns, cells) if cells else []


def _costs(pairs, cost):
    """What a point over the first line of comparison costs."""
    columns = ["cost of a point", "over", "points", "parameters", "parameters a point"]
    columns += ["training time", "time a point"]
    cells = []
    for row, other, gap in pairs:
        if other.id != row.compare[0]:
            continue
        mine, base = cost(row.id), cost(other.id)
        more, times = mine.parameters - base.parameters, mine.times(base)
        dear = gap.mean > 0
        cells.append(
            [
                row.fusion,
                other.fusion,
                f"{gap.mean:+.2f}",
                f"{more:+,} ({more / base.parameters:+.1%})",
                f"{more / gap.mean:+,.0f}" if dear else "no gain",
                "" if times is None else f"{times - 1:+.0%}",
                "" if times is None else f"{(times - 1) / gap.mean:+.0%}" if dear else "no gain",
            ]
        )
    return markdown(columns, cells) if cells else []
