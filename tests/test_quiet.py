import os
import subprocess
import sys

import pytest

from openaff.utils.quiet import POOLING, without_lines


def test_other_lines_stay_whoever_writes_them(capfd):
    with without_lines(POOLING):
        os.write(2, b"one\n[12:00:00] a.cc:58: " + POOLING + b"\ntwo\n")  # as C++ does
    os.write(2, b"four: " + POOLING + b"\n")
    lines = capfd.readouterr().err.splitlines()
    assert lines[:2] == ["one", "two"] and lines[2].startswith("four: MKLDNN")


def test_an_error_ends_it(capfd):
    with pytest.raises(KeyError), without_lines(b"x"):
        os.write(2, b"x\ny")
        raise KeyError
    os.write(2, b"x\n")
    assert capfd.readouterr().err == "yx\n"


def test_a_closed_stream():
    code = (
        "import os; from openaff.utils.quiet import without_lines; os.close(2)\n"
        "with without_lines(b'x'): print('done')"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (0, b"done\n")
