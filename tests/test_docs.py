"""The pages say nothing that is still to be filled in, and their files exist."""

import re

import pytest

PAGES = ["README.md", "docs/networks.md", "docs/training.md"]


@pytest.mark.parametrize("page", PAGES)
def test_no_placeholder_is_left(root, page):
    assert not re.search(r"@[A-Z_]+@", (root / page).read_text())


@pytest.mark.parametrize("page", PAGES)
def test_every_file_named_exists(root, page):
    text = (root / page).read_text()
    named = re.findall(r"(?:scripts|configs)/[\w/.-]+\.(?:py|yaml)", text)
    folder = (root / page).parent
    linked = [folder / link for link in re.findall(r"\]\(([\w./-]+)\)", text)]
    assert named or linked
    for path in [root / name for name in named] + linked:
        assert path.exists(), path


def test_the_readmes_block_works(root):
    code = re.search(r"```python\n(import openaff\n.*?)```", (root / "README.md").read_text(), re.S)
    names = {}
    exec(code.group(1), names)  # noqa: S102
    block = names["Block"](8)
    block.initialize()
    assert block(names["mx"].nd.ones((2, 8, 5, 5))).shape == (2, 8, 5, 5)
