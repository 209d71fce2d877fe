import os
import subprocess

import pytest

from openaff.utils import provenance


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A source tree of openaff that holds its provenance alone; gives the folder."""
    package = tmp_path / "tree/openaff/utils"
    package.mkdir(parents=True)
    (package / "provenance.py").write_text("")
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    return tmp_path / "tree"


def git(folder, *arguments):
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    env["GIT_CONFIG_GLOBAL"] = os.devnull  # which may ask for signatures
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=env)


def commit(folder):
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--no-verify", "--message", "one")


def test_the_commit_is_that_of_our_own_tree(tree, monkeypatch):
    commit(tree)
    found = provenance._commit()
    assert len(found) >= 7 and not found.endswith("+")
    (tree / "openaff/utils/provenance.py").write_text("changed")
    assert provenance._commit() == found + "+"
    monkeypatch.setenv("GIT_DIR", "/absent")  # as in a hook of another repository
    assert provenance._commit() == found + "+"


def test_another_repositorys_commit_is_not_ours(tree):
    assert provenance._commit() is None
    commit(tree.parent)  # openaff is somewhere inside it, such as in its virtual environment
    assert provenance._commit() is None
    assert provenance.provenance()["commit"] is None
