"""The documentation builds as a site."""

import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("mkdocstrings", reason="needs the extra [docs]")
pytest.importorskip("material", reason="needs the extra [docs]")


def test_it_builds_without_warnings_and_with_every_page(root, tmp_path):
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=root,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},  # an advertisement
    )
    assert (built.returncode, built.stderr) == (0, "")
    pages = {page.stem for page in (root / "docs").glob("*.md")} - {"index"}
    assert {page.parent.name for page in (tmp_path / "site").glob("*/index.html")} == pages
    reference = (tmp_path / "site/reference/index.html").read_text()
    assert "ResGlobLocaChaFuse" in reference and not re.search(r":(func|class|mod):", reference)
