"""How scripts end: status and one line."""

import errno

import pytest

from openaff.utils import cli


@pytest.fixture
def ending(capsys):
    """(status, lines on stderr) of a ``main`` that raises an error."""

    def run(error):
        def main():
            raise error

        with pytest.raises(SystemExit) as ended:
            cli.run(main)
        return ended.value.code, capsys.readouterr().err.splitlines()

    return run


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_names_the_file_and_says_what_to_do(ending, number):
    error = OSError(number, "no space", "runs/a/last.ckpt")
    remedy = "free some space there, then repeat the command, or continue with --resume"
    assert ending(error) == (2, [f"error: no space: runs/a/last.ckpt: {remedy}"])
    other = OSError(errno.EACCES, "Permission denied", "a")
    assert ending(other) == (2, ["error: Permission denied: a"])
