import errno
import os
import shutil
import subprocess
import sys

import mxnet as mx
import numpy as np
import pytest

from openaff import UserError
from openaff.utils import files
from openaff.utils.arrays import save_arrays
from openaff.utils.files import atomic, atomic_folder, check_size, write_json, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_device_or_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/null"):
        with pytest.raises(UserError, match=f"^{path} is not a regular file$"):
            write_text(path, "x")
    assert (tmp_path / "pipe").is_fifo()


def test_the_umask_holds(tmp_path):
    mask = os.umask(0o027)
    try:
        write_json(tmp_path / "file.json", {"ä": 1})
    finally:
        os.umask(mask)
    assert (tmp_path / "file.json").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "file.json").read_text() == '{\n  "ä": 1\n}\n'


@pytest.mark.parametrize("size", [10, 5000, 100_000])
def test_a_last_page_that_is_lost_is_an_error_that_names_the_file(tmp_path, longest_file, size):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with longest_file(size - 1), pytest.raises(OSError) as caught:
        write_text(path, "n" * size)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_what_a_library_wrote_is_checked_by_size(tmp_path, longest_file):
    """MXNet's record writer does not say that it could not close its file."""
    writer = mx.recordio.MXIndexedRecordIO(os.devnull, str(tmp_path / "a.rec"), "w")
    with longest_file(500):
        writer.write(b"x" * 600)
        size = writer.tell()
        writer.close()
    with pytest.raises(OSError, match="not all of it could be written: .*a.rec"):
        check_size(tmp_path / "a.rec", size)
    (tmp_path / "a.rec").write_bytes(bytes(size))
    check_size(tmp_path / "a.rec", size)


def test_where_a_library_does_not_say_why_the_disk_is_asked(tmp_path, monkeypatch):
    path = tmp_path / "a"
    with pytest.raises(mx.base.MXNetError, match="some other reason"), atomic(path):
        raise mx.base.MXNetError("some other reason")
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(files, "_disk_problem", lambda folder: full)
    with pytest.raises(OSError, match="No space left on device: .*a'"), atomic(path):
        raise mx.base.MXNetError("Check failed: std::fwrite")


def test_the_disk_is_asked_by_writing(tmp_path, longest_file):
    assert files._disk_problem(tmp_path) is None
    with longest_file(1000):
        assert files._disk_problem(tmp_path).errno == errno.EFBIG


def test_messages_name_the_final_path(tmp_path):
    out = tmp_path / "above" / "out"
    for error in (UserError, lambda message: FileNotFoundError(errno.ENOENT, "no", message)):
        with pytest.raises((UserError, OSError)) as caught, atomic_folder(out) as folder:
            raise error(f"{folder}/x")
        assert f"{out}/x" in str(caught.value) and files.TEMPORARY not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_link_to_a_link_is_one_to_the_file(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("x")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "a.jpg").symlink_to("../photos/a.jpg")
    files.link(tmp_path / "links" / "a.jpg", tmp_path / "b.jpg")
    assert not (tmp_path / "b.jpg").is_symlink() and (tmp_path / "b.jpg").read_text() == "x"


def test_a_user_that_is_not_there_is_one_line():
    with pytest.raises(UserError, match="^~no-such-user/x: "):
        files.expand("~no-such-user/x")


def test_of_two_at_once_the_slower_one_is_told_the_folder(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UserError, match=f"^{out} exists: name another folder"):
        with atomic_folder(out) as slow:
            (slow / "mine").touch()
            with atomic_folder(out) as fast:
                (fast / "theirs").touch()
    assert list(tmp_path.iterdir()) == [out] and [path.name for path in out.iterdir()] == ["theirs"]


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path):
    code = (
        "import os, signal, sys; from openaff.utils.files import atomic_folder\n"
        "with atomic_folder(sys.argv[1]) as folder:\n"
        "    (folder / 'file').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    out = tmp_path / "out[1]"
    subprocess.run([sys.executable, "-c", code, str(out)])
    (left,) = tmp_path.iterdir()
    with atomic_folder(out) as ours:
        assert not left.exists()
        with atomic_folder(tmp_path / "other"), pytest.raises(UserError, match="exists"):
            with atomic_folder(out):
                assert ours.exists()
                (out / "theirs").mkdir(parents=True)
        shutil.rmtree(out)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["other", "out[1]"]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8", "int8", "int32"])
def test_arrays_are_written_as_mxnet_does_it(tmp_path, dtype):
    values = np.arange(6).reshape(3, 2)
    arrays = {"ä.weight": mx.nd.array(values, dtype=dtype), "b": mx.nd.array([7], dtype=dtype)}
    save_arrays(tmp_path / "ours", arrays)
    mx.nd.save(str(tmp_path / "theirs"), arrays)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    save_arrays(tmp_path / "none", {})
    assert not mx.nd.load(str(tmp_path / "none"))
