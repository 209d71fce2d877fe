"""The Markdown of the tables: docs/tables.md, and what README and docs/evidence.md show."""

from ..data import DATASETS
from ..utils.files import read_text, write_text
from ..utils.markdown import markdown, with_blocks
from . import counts, evidence, plots
from .catalog import EVIDENCE, KINDS
from .recipes import describe, describe_reduced, row_config
from .results import mean, ours

FUSIONS_TABLE = "fusions-resnet8"  # that the README shows


def render(table, results, catalog, only=None, speed=None):
    """A table in Markdown, ours beside the published figures; empty columns are left out.

    ``only``: key of the one group to show; ``speed``: see :func:`.evidence.blocks`.
    """
    if table.kind == EVIDENCE:
        return evidence.render(table, results, catalog, only, speed)
    lines = [f"### {table.title}", "", f"Source: {table.source}."]
    lines += [table.note] if table.note else []
    if only is None and table.counts:
        lines += ["", *_counts(table)]
    for group in (each for each in table.groups if only in (None, each.key)):
        lines += ["", *_group(table, group, results)]
    flat = [row for row in table.rows if row.group is None]
    if only is None and flat:
        lines += ["", *_flat(flat, results)]
    return "\n".join(lines) + "\n"


def _counts(table):
    rows = [
        [count.name, count.printed, counts.in_words(count), count.note] for count in table.counts
    ]
    return markdown(["row", "printed", "ours", "why they differ"], rows)


def _flat(rows, results):
    """The lines of rows, a network each; ours alone stand best first."""
    if not any(row.published for row in rows):
        key = lambda row: -mean(row.figure, results[row.run, "reduced"])  # noqa: E731
        rows = sorted((row for row in rows if (row.run, "reduced") in results), key=key)
        if not rows:
            return ["Not run yet."]
    columns = [rows[0].metric + ", %", "published", "labels", "ours", "ours, reduced", "best epoch"]
    columns += ["parameters, reduced", "seeds", "parameters", "parameters as printed"]
    columns += ["multiply-adds", "model id", "recipe", "published checkpoint", "note"]
    cells = []
    for row in rows:
        reduced = results.get((row.run, "reduced"), [])
        labels = row.labels and DATASETS[row.dataset].granularity(row.labels).words
        reduced_only = row.reduced and not row.config  # no network of a published figure
        cells.append(
            [
                row.name,
                _number(row.published),
                labels or "",
                ours(row.figure, results.get((row.run, "paper"), [])),
                ours(row.figure, reduced),
                f"{mean(row.figure, reduced, 'best'):.2f}" if reduced else "",
                f"{reduced[0]['trainable_parameters']:,}" if reduced else "",
                ", ".join(str(result["seed"]) for result in reduced),
                _millions(None if reduced_only else counts.parameters(row)),
                f"{row.printed_parameters}M" if row.printed_parameters else "",
                _billions(None if reduced_only else counts.multiply_adds(row)),
                f"`{row.model}`" if row.model else "",
                f"`{row.config or row.reduced}`" if row.config or row.reduced else "",
                f"`{row.checkpoint}`" if row.checkpoint else "",
                row.note or "",
            ]
        )
    return markdown(columns, cells)


def _group(table, group, results):
    """The lines of a group: one line per fusion, columns by blocks per stage."""
    rows = {}
    for row in table.rows:
        if row.group == group.key:
            rows.setdefault(row.fusion, []).append(row)
    ends = [f", b = {blocks}" for blocks in group.blocks] or [""]
    columns = [group.metric + ", %", "key", "options"]
    columns += ["published" + end for end in ends] + ["ours" + end for end in ends]
    columns += [f"ours, reduced: {_reduced_data(table, group)[0]}"]
    columns += ["parameters" + end for end in ends]
    cells = []
    for series in group.series:
        line = rows[series.name]
        figure = line[0].figure
        sizes = [_millions(counts.parameters(row)) for row in line]
        cells.append(
            [
                series.name,
                f"`{series.key}`",
                ", ".join(f"`{key}: {value}`" for key, value in line[0].reduced_options.items()),
                *(_number(row.published) for row in line),
                *(ours(figure, results.get((row.run, "paper"), [])) for row in line),
                ours(figure, results.get((line[0].run, "reduced"), [])),
                *sizes,
            ]
        )
    start = group.title[0].upper() + group.title[1:]
    lines = [f"#### {start}", "", _about(table, group)]
    return lines + ["", *markdown(columns, cells)]


def _about(table, group):
    """What all of a group's rows have in common, in sentences."""
    parts = [group.note] if group.note else []
    if group.labels:
        words = DATASETS[group.dataset].granularity(group.labels).words
        parts.append(f"Labels: {words}.")
    end = ".bB" if group.blocks else ""
    parts.append(f"Rows: `{table.key}.{group.key}.KEY{end}`.")
    networks = ", ".join(f"`KEY_{backbone}`" for backbone in group.backbones)
    parts.append(f"Networks: {networks}.")
    if group.config:
        parts.append(f"Recipe: `{group.config}`.")
    if group.reduced:
        title, labels = _reduced_data(table, group)
        parts.append(
            f"Reduced form, of the first network: `{group.reduced}`, on {title}, {labels}."
        )
    return " ".join(parts)


def _reduced_data(table, group):
    """The data set and labels of a group's reduced form, in words."""
    row = next((row for row in table.rows if row.group == group.key and row.reduced), None)
    if row is None:
        return "", ""
    config = row_config(row, "reduced")
    info = DATASETS[config.data.name]
    return info.title, info.granularity(config.data.labels).words


def _number(value):
    return "" if value is None else str(value)


def _millions(count):
    return "" if count is None else f"{count / 1e6:.2f}M"


def _billions(count):
    return "" if count is None else f"{count / 1e9:.3f}G"


def write_all(root, catalog, results, speed=None):
    """Write ``docs/tables.md``, all pictures, and the tables of README and ``docs/evidence.md``.

    ``root`` is the clone's folder; ``speed``: see :func:`.evidence.blocks`.

    Returns
    -------
    list of pathlib.Path

    Raises
    ------
    UserError
        A page without the two marks that a table stands between; nothing is written then.
    """
    docs, pictures = root / "docs", plots.draw_all(catalog, results)
    captions = [(name, caption) for name, _, caption in pictures]
    pages = {docs / "tables.md": tables_page(catalog, results, captions)}
    table = evidence_table(catalog)
    for path, blocks in (
        (root / "README.md", readme_tables(catalog, results)),
        (docs / "evidence.md", evidence.blocks(table, results, catalog, speed=speed)),
    ):
        pages[path] = with_blocks(read_text(path), blocks, path.name)
    pictures.append(("evidence.png", plots.draw_evidence(table, results), None))
    paths = plots.save_all(docs, pictures)
    for path, text in pages.items():
        write_text(path, text)
    return [*paths, *pages]


def evidence_table(catalog):
    """The table of the kind ``evidence``."""
    return next(table for table in catalog.values() if table.kind == EVIDENCE)


ABOUT = """# The published tables, and ours beside them

`openaff tables --report` writes this page from `openaff/configs/tables` (published figures) and
`results` (ours, each from a file that a run wrote). Ours are of the last epoch: nothing is chosen
on the test split. A column without a figure is left out. A blank published
figure: the source does not print it. A blank figure of ours: not run yet.

- One row: `openaff tables --row ID --run --devices gpu:0 data.root=DIR` trains it by the recipe of
  the published figure, in `runs/ID`, or goes on there. DIR is the folder of the data. `--list` has
  the command of each row, with its devices. `--results runs/results` keeps your result apart from
  ours. `openaff configs RECIPE` prints a recipe.
- `--protocol reduced` trains a row's reduced form, which two CPU cores can finish. The columns
  "ours, reduced" are of it. Do not compare them with published figures.
- A whole table: `openaff tables --table paper-table4 --run --protocol reduced --seeds 0,1,2
  cifar100.root=DIR camvid.root=DIR`. It skips what is there. Stopped, the same command goes on.
  `--group short-skip` takes one of its parts. Our runs had one thread, `OMP_NUM_THREADS=1`.

Figures of one run that stand in several tables have one run folder.
[evidence.md](evidence.md) has the reduced forms of Tables 3 and 4 side by side, with standard
deviations over seeds.
"""


def tables_page(catalog, results, pictures):
    """All tables and the commands of their rows, as one Markdown page.

    ``pictures``: file names in ``docs``, with captions.
    """
    parts = [ABOUT]
    parts += [f"![{caption}]({name})\n\n*{caption}*\n" for name, caption in pictures]
    for kind, heading in KINDS.items():
        parts.append(f"## {heading}\n")
        for table in catalog.values():
            if table.kind == kind:
                parts.append(render(table, results, catalog))
                parts += filter(None, [_commands(table, results)])
    return "\n".join(parts)


def _commands(table, results):
    """The commands of a table's rows; of groups, which have many, :data:`ABOUT` says them."""
    lines = []
    for row in table.rows:
        runs = results.get((row.run, "reduced"), [])
        if row.group is None and row.reduced:
            lines += [describe_reduced(row, run["dataset"], run["seed"]) for run in runs]
        elif row.group is None:
            lines.append(describe(row))
    return "```\n" + "\n".join(lines) + "\n```\n" if lines else ""


def readme_tables(catalog, results):
    """Name -> Markdown of the README's tables."""
    return {
        "networks": "\n".join(_networks(catalog, results)),
        "fusions": "\n".join(_fusions(catalog[FUSIONS_TABLE], results)),
    }


def _networks(catalog, results):
    columns = ["model id", "parameters", "multiply-adds", "data, labels", "published", "ours"]
    cells = []
    for row in catalog.rows().values():
        if row.checkpoint and row.run == row.id:  # that one can load
            info = DATASETS[row.dataset]
            labels = f", {info.granularity(row.labels).words}" if row.labels else ""
            cells.append(
                [
                    f"`{row.model}`{', continued' if row.start_from else ''}",
                    _millions(counts.parameters(row)),
                    _billions(counts.multiply_adds(row)),
                    info.title + labels,
                    f"{row.published}% {row.metric}",
                    ours(row.figure, results.get((row.run, "paper"), [])),
                ]
            )
    return markdown(columns, cells)


def _fusions(table, results):
    cells = []
    for row in table.rows:
        runs = results.get((row.run, "reduced"), [])
        count = f"{runs[0]['trainable_parameters']:,}" if runs else ""
        cells.append([row.fusion, ours(row.figure, runs), count])
    return markdown(["fusion", table.rows[0].metric + ", %", "parameters"], cells)
