"""Markdown: tables, and the marks on a page that they stand between."""

from .errors import UserError


def markdown(columns, rows):
    """Lines of a Markdown table of texts; columns after the first without any text are left out."""
    kept = [0] + [k for k in range(1, len(columns)) if any(row[k] for row in rows)]
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(line[k] for k in kept)} |" for line in lines]


def with_blocks(text, blocks, name, by="--report"):
    """A page's text with each block, key -> Markdown, between its two marks.

    ``by``: the flag that writes it, which the first mark names.

    Raises
    ------
    UserError
        The page, which ``name`` names in the message, lacks a mark.
    """
    for key, block in blocks.items():
        start, end = f"<!-- {key}: written by {by} -->", f"<!-- /{key} -->"
        head, found, rest = text.partition(start)
        _, closed, tail = rest.partition(end)
        if not (found and closed):
            raise UserError(f"{name} has no {start} ... {end}: put the table between these again")
        text = f"{head}{start}\n{block}\n{end}{tail}"
    return text
