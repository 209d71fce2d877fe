"""The Markdown of the tables: docs/tables.md, and the two tables of the README."""

import statistics

from .errors import UserError
from .files import write_text
from .tables import costs, describe, describe_reduced, fusion_name, ours

REDUCED = (
    "All rows by one recipe, that of `configs/cifar/aff_resnet8.yaml`: ResNet-8 at a quarter of "
    "the paper's width (m = 1, some 0.08M parameters) and a fortieth of its length (10 epochs), "
    "on the 100 fine labels, all 50,000 training and 10,000 test images. Nothing was chosen or "
    "tuned by these results; the last epoch's accuracy counts.\n\n"
    "What this shows: every fusion trains, and how far each gets in so short a time. What it "
    "cannot show: the order that the paper reports for wider networks and 400 epochs. Networks "
    "this small are far from converged, and a fusion with more to learn may start later. Between "
    "rows of one seed, differences as small as the spread over seeds say nothing."
)
NETWORKS = ("cifar100-runs.2020-11.", "cifar10-runs.", "imagenet-runs.2020-11.")  # of the README


def render(table, results):
    """A table in Markdown, ours beside the published figures."""
    labels = any(row.labels for row in table.rows)
    columns = ["row", "published"] + (["labels"] if labels else [])
    columns += ["parameters", "multiply-adds", "ours, paper protocol"]
    reduced = any((row.id, "reduced") in results for row in table.rows)
    columns += ["ours, reduced protocol (m = 1, 10 epochs, fine labels)"] if reduced else []
    lines = [f"## {table.title}", "", f"{table.metric}, %; {table.source}."]
    lines += [table.note] if table.note else []
    lines += ["", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in table.rows:
        cells = [row.name, "" if row.published is None else f"{row.published:g}"]
        cells += [row.labels or ""] if labels else []
        cells += [*costs(table, row), ours(results.get((row.id, "paper"), []), table.metric)]
        cells += [ours(results.get((row.id, "reduced"), []), table.metric)] if reduced else []
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def reduced_section(table, results):
    """The reduced protocol's results, best first, with what they can show."""
    lines = ["## The reduced protocol", "", REDUCED, ""]
    columns = ["fusion", "last epoch", "best epoch", "parameters", "seeds"]
    lines += ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    rows = [row for row in table.rows if (row.id, "reduced") in results]

    def mean(row, key="last_accuracy"):
        return 100 * statistics.mean(result[key] for result in results[row.id, "reduced"])

    for row in sorted(rows, key=mean, reverse=True):
        runs = results[row.id, "reduced"]
        cells = [fusion_name(row), ours(runs, table.metric)]
        cells += [f"{mean(row, 'best_accuracy'):.2f}", f"{runs[0]['trainable_parameters']:,}"]
        cells += [", ".join(str(seed) for seed in sorted(run["seed"] for run in runs))]
        lines.append("| " + " | ".join(cells) + " |")
    commands = [
        describe_reduced(row, run["seed"]) for row in rows for run in results[row.id, "reduced"]
    ]
    lines += ["", "The best epoch was chosen on the test split.", "", "```", *commands, "```"]
    return "\n".join(lines) + "\n"


def write_all(root, tables, results, pictures):
    """Write ``docs/tables.md`` and the README's two tables; returns their paths.

    ``pictures``: file names in ``docs``, with captions.

    Raises
    ------
    UserError
        A README without the two marks that a table stands between.
    """
    page, readme = root / "docs" / "tables.md", root / "README.md"
    text = readme.read_text()
    for name, block in readme_tables(tables, results).items():
        text = _between(text, f"<!-- {name}: written by --report -->", f"<!-- /{name} -->", block)
    write_text(page, tables_page(root, tables, results, pictures))
    write_text(readme, text)
    return page, readme


def tables_page(root, tables, results, pictures):
    """All tables and the commands of all rows, as one Markdown page."""
    parts = [
        "# The published tables, and ours beside them\n",
        "Written by `python scripts/reproduce_tables.py --report` from `configs/tables` (published "
        "figures) and `results` (ours, each from a file that a run wrote; the last epoch's, so "
        "nothing is chosen on the test split). A blank is a run that was not made.\n",
    ]
    parts += [f"![]({name})\n\n*{caption}*\n" for name, caption in pictures]
    parts.append(reduced_section(tables["fusions-resnet8"], results))
    for table in tables.values():
        parts.append(render(table, results))
        parts.append("```\n" + "\n".join(describe(root, row) for row in table.rows) + "\n```\n")
    return "\n".join(parts)


def readme_tables(tables, results):
    """Name -> Markdown of the README's tables."""
    return {
        "networks": _networks(tables, results),
        "fusions": _fusions(tables["fusions-resnet8"], results),
    }


def _networks(tables, results):
    columns = ["model id", "parameters", "multiply-adds", "data, labels", "published", "ours"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for table in tables.values():
        for row in table.rows:
            if not row.id.startswith(NETWORKS):
                continue
            data = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet": "ImageNet"}
            labels = f", {row.labels}" if row.labels else ""
            continued = ", continued" if "continued" in row.id else ""
            cells = [f"`{row.model}`{continued}", *costs(table, row)]
            cells += [data[table.dataset] + labels, f"{row.published:g}% {table.metric}"]
            cells += [ours(results.get((row.id, "paper"), []), table.metric)]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _fusions(table, results):
    columns = ["fusion", "published", "ours", "parameters of ours"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in table.rows:
        runs = results.get((row.id, "reduced"), [])
        published = "" if row.published is None else f"{row.published:.1f}"
        parameters = f"{runs[0]['trainable_parameters']:,}" if runs else ""
        cells = [fusion_name(row), published, ours(runs, table.metric), parameters]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _between(text, start, end, block):
    head, found, rest = text.partition(start)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise UserError(f"README.md has no {start} ... {end}: put the table between these again")
    return f"{head}{start}\n{block}\n{end}{tail}"
