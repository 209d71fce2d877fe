"""How scripts end: status and one line."""

import errno
import subprocess
import sys

import mxnet as mx
import pytest

from openaff import UserError
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
    remedy = "free some space, then repeat the command; a training goes on with --resume"
    assert ending(error) == (2, [f"error: no space: runs/a/last.ckpt: {remedy}"])
    other = OSError(errno.EACCES, "Permission denied", "a")
    assert ending(other) == (2, ["error: Permission denied: a"])


@pytest.mark.parametrize(
    "error",
    [UserError("why"), OSError("why"), mx.base.MXNetError("where\nStack trace:\nwhy")],
    ids=lambda error: type(error).__name__,
)
def test_a_variable_shows_the_traceback_of_an_error(ending, monkeypatch, error):
    assert ending(error) == (2, ["error: why"])
    monkeypatch.setenv("OPENAFF_TRACEBACK", "1")
    status, lines = ending(error)
    assert status == 2 and lines[0].startswith("Traceback") and lines[-1] == "error: why"
    assert any("raise error" in line for line in lines)


def test_pytorch_without_memory_is_one_line(ending):
    lines = "CUDA out of memory. Tried to allocate 3638.41 GiB.\nSee documentation"
    assert ending(RuntimeError(lines)) == (2, ["error: See documentation"])
    with pytest.raises(RuntimeError, match="^another$"):
        ending(RuntimeError("another"))


def test_control_characters_do_not_reach_the_terminal(ending):
    line = r"error: there is no folder a\x1b[31mb\nc\udc80"
    assert ending(UserError("there is no folder a\x1b[31mb\nc\udc80")) == (2, [line])


@pytest.mark.parametrize("closed, shown", [(">&-", ""), ("2>&-", "1 2"), (">&- 2>&- <&-", "")])
def test_closed_streams_do_not_matter(tmp_path, closed, shown):
    """Their numbers are not given to the next files, either."""
    code = (
        "import sys\n"
        "from openaff.utils.cli import run\n"
        "from openaff.utils.quiet import without_lines\n"
        "def main():\n"
        "    with open(sys.argv[1], 'w') as file, without_lines(b'x'):\n"
        "        assert file.fileno() > 2\n"
        "        file.write('whole')\n"
        "        print(1, end=' ')\n"
        "        print(2, end='')\n"
        "        print('error', file=sys.stderr)\n"
        "run(main)"
    )
    line = f'"$0" -c "$1" "$2" {closed}'
    command = ["sh", "-c", line, sys.executable, code, str(tmp_path / "file")]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (0, shown)
    assert (tmp_path / "file").read_text() == "whole"
