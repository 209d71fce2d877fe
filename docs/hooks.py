"""For make docs: docstrings name things as Sphinx does, :func:`~package.name`; show the name."""

import re


def on_page_content(html, **_):
    return re.sub(r":(?:func|class|meth|mod|data|attr):<code>~?([\w.]+)</code>", _code, html)


def _code(match):
    shown = match[0].find("~") >= 0
    return f"<code>{match[1].rpartition('.')[2] if shown else match[1]}</code>"
