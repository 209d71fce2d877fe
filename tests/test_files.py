import os

import pytest

from openaff.utils.files import atomic, write_json, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_umask_holds(tmp_path):
    mask = os.umask(0o027)
    try:
        write_json(tmp_path / "file.json", {"ä": 1})
    finally:
        os.umask(mask)
    assert (tmp_path / "file.json").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "file.json").read_text() == '{\n  "ä": 1\n}\n'
