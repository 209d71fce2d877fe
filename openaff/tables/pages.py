"""The Markdown of the tables: docs/tables.md, and the two tables of the README."""

import statistics

from ..data import DATASETS
from ..utils.errors import UserError
from ..utils.files import write_text
from . import plots as table_plots
from .records import REDUCED_TABLE, costs, describe, describe_reduced, fusion_name, ours

ABOUT_REDUCED = (
    "All rows by one recipe, that of `configs/cifar/aff_resnet8.yaml`: ResNet-8 at a quarter of "
    "the paper's width (m = 1) and a fortieth of its length (10 epochs), without mixup, with a "
    "cosine for the steps and the pooled shortcut for the strided one, on the 100 fine labels, all "
    "50,000 training and 10,000 test images. Nothing was chosen or tuned by these results; the "
    "last epoch's accuracy counts.\n\n"
    "What this shows: every fusion trains, and how far each gets in so short a time. What it "
    "cannot show: the order that the paper reports for wider networks and 400 epochs. Networks "
    "this small are far from converged, and a fusion with more to learn may start later. Between "
    "rows of one seed, differences as small as the spread over seeds say nothing."
)
NETWORKS = ("cifar100-runs.2020-11.", "cifar10-runs.", "imagenet-runs.2020-11.")  # of the README


def render(table, results):
    """A table in Markdown, ours beside the published figures; columns without a cell left out."""
    rows = [_cells(table, row, results) for row in table.rows]
    kept = [key for key in rows[0] if key.startswith("ours, paper") or any(r[key] for r in rows)]
    lines = [f"## {table.title}", "", f"{table.metric}, %; {table.source}."]
    lines += [table.note] if table.note else []
    lines += ["", *_table(kept, [[row[key] for key in kept] for row in rows])]
    return "\n".join(lines) + "\n"


def _cells(table, row, results):
    parameters, multiply_adds = costs(table, row)
    reduced = results.get((row.run, "reduced"), []) if table.key == REDUCED_TABLE else []
    return {
        "row": row.name,
        "published": "" if row.published is None else str(row.published),
        "labels": row.labels or "",
        "ours, paper protocol": _ours(table, row, results),
        "ours, reduced protocol (m = 1, 10 epochs, fine labels)": ours(reduced, table.metric),
        "parameters": parameters,
        "parameters as printed": row.printed_parameters or "",
        "multiply-adds": multiply_adds,
        "model id": f"`{row.model}`" if row.model else "",
        "recipe": f"`{row.config}`" if row.config else "",
        "published checkpoint": f"`{row.checkpoint}`" if row.checkpoint else "",
        "note": row.note or "",
    }


def _ours(table, row, results):
    """By the paper protocol, with the labels where the published figure's are others."""
    runs = results.get((row.run, "paper"), [])
    labels = {run["labels"] for run in runs} if table.dataset == "cifar100" else set()
    return ", ".join([ours(runs, table.metric), *sorted(labels - {row.labels})])


def _table(columns, rows):
    return [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)]


def reduced_section(table, results):
    """The reduced protocol's results, best first, with what they can show; "" without any."""
    rows = [row for row in table.rows if (row.id, "reduced") in results]
    if not rows:
        return ""

    def mean(row, key="last_accuracy"):
        return 100 * statistics.mean(result[key] for result in results[row.id, "reduced"])

    cells, commands = [], []
    for row in sorted(rows, key=mean, reverse=True):
        runs = results[row.id, "reduced"]
        seeds = ", ".join(str(run["seed"]) for run in runs)
        best, parameters = f"{mean(row, 'best_accuracy'):.2f}", runs[0]["trainable_parameters"]
        cells.append([fusion_name(row), ours(runs, table.metric), best, f"{parameters:,}", seeds])
        commands += [describe_reduced(row, table, run["seed"]) for run in runs]
    columns = ["fusion", "last epoch", "best epoch", "parameters", "seeds"]
    lines = ["## The reduced protocol", "", ABOUT_REDUCED, "", *_table(columns, cells), ""]
    lines += ["The best epoch was chosen on the test split.", "", "```", *commands, "```"]
    return "\n".join(lines) + "\n"


def write_all(root, tables, results):
    """Write ``docs/tables.md``, its pictures and the README's tables; returns their paths.

    Raises
    ------
    UserError
        A README without the two marks that a table stands between; nothing is written then.
    """
    pictures = table_plots.draw_all(tables, results)
    page = tables_page(tables, results, [(name, caption) for name, _, caption in pictures])
    readme = (root / "README.md").read_text()
    for name, block in readme_tables(tables, results).items():
        readme = _between(
            readme, f"<!-- {name}: written by --report -->", f"<!-- /{name} -->", block
        )
    paths = table_plots.save_all(root / "docs", pictures)
    for path, text in ((root / "docs" / "tables.md", page), (root / "README.md", readme)):
        write_text(path, text)
        paths.append(path)
    return paths


def tables_page(tables, results, pictures):
    """All tables and the commands of all rows, as one Markdown page.

    ``pictures``: file names in ``docs``, with captions.
    """
    parts = [
        "# The published tables, and ours beside them\n",
        "Written by `python scripts/reproduce_tables.py --report` from `configs/tables` (published "
        "figures) and `results` (ours, each from a file that a run wrote; the last epoch's, so "
        "nothing is chosen on the test split). A blank is a run that was not made. Figures of one "
        "run that stand in several tables have one run folder.\n",
    ]
    parts += [f"![{caption}]({name})\n\n*{caption}*\n" for name, caption in pictures]
    parts += filter(None, [reduced_section(tables[REDUCED_TABLE], results)])
    for table in tables.values():
        parts.append(render(table, results))
        parts.append("```\n" + "\n".join(describe(row, table) for row in table.rows) + "\n```\n")
    return "\n".join(parts)


def readme_tables(tables, results):
    """Name -> Markdown of the README's tables."""
    return {
        "networks": _networks(tables, results),
        "fusions": _fusions(tables[REDUCED_TABLE], results),
    }


def _networks(tables, results):
    columns = ["model id", "parameters", "multiply-adds", "data, labels", "published", "ours"]
    rows = []
    for table in tables.values():
        for row in table.rows:
            if row.id.startswith(NETWORKS) and row.published is not None:
                continued = ", continued" if row.start_from else ""
                labels = f", {row.labels}" if row.labels else ""
                cells = [f"`{row.model}`{continued}", *costs(table, row)]
                cells += [
                    DATASETS[table.dataset].title + labels,
                    f"{row.published}% {table.metric}",
                ]
                rows.append([*cells, _ours(table, row, results)])
    return "\n".join(_table(columns, rows))


def _fusions(table, results):
    columns = ["fusion", "published", "ours", "parameters of ours"]
    rows = []
    for row in table.rows:
        runs = results.get((row.id, "reduced"), [])
        published = "" if row.published is None else str(row.published)
        parameters = f"{runs[0]['trainable_parameters']:,}" if runs else ""
        rows.append([fusion_name(row), published, ours(runs, table.metric), parameters])
    return "\n".join(_table(columns, rows))


def _between(text, start, end, block):
    head, found, rest = text.partition(start)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise UserError(f"README.md has no {start} ... {end}: put the table between these again")
    return f"{head}{start}\n{block}\n{end}{tail}"
