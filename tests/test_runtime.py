"""What the import of mxnet is prepared with, and what is said where it fails."""

import collections
import subprocess
import sys

import pytest

from openaff import UserError
from openaff.analysis.benchmark import photos
from openaff.data.digits import digit_splits
from openaff.utils import cuda
from openaff.utils import framework as runtime

Version = collections.namedtuple("Version", "major minor micro releaselevel serial")


def explain(monkeypatch, error, builds=("mxnet",), numpy="1.23.5"):
    monkeypatch.setattr(cuda, "mxnet_builds", lambda: dict.fromkeys(builds, "1.9.1"))
    monkeypatch.setattr(runtime, "installed_version", {"numpy": numpy}.get)
    return runtime.explain(error)


def missing(library):
    return OSError(f"{library}: cannot open shared object file: No such file or directory")


@pytest.mark.parametrize(
    "error, builds, numpy, expected",
    [
        (ModuleNotFoundError(name="mxnet"), (), None, "not installed: pip install -e .[cpu]"),
        (ModuleNotFoundError(name="mxnet"), ("mxnet",), "1.23.5", "--force-reinstall --no-deps"),
        (ModuleNotFoundError(name="requests"), ("mxnet",), "1.23.5", "needs requests, which is"),
        (AttributeError("no bool"), ("mxnet",), "1.26.4", "numpy is 1.26.4: pip install 'numpy<1"),
        (AttributeError("no bool"), ("mxnet",), "2.0.0", "numpy is 2.0.0: pip install 'numpy<1"),
        (RuntimeError("a\nb"), ("mxnet",), "1.23.5", "mxnet cannot be imported: RuntimeError: b"),
        (missing("libfoo.so.1"), (), "1.23.5", "libfoo.so.1 is missing: on Debian"),
        (missing("libgomp.so.1"), ("mxnet",), "1.23.5", "apt install libgomp1"),
        (missing("libquadmath.so.0"), ("mxnet",), "1.23.5", "apt install libquadmath0"),
        (
            missing("libcuda.so.1"),
            ("mxnet-cu117",),
            "1.23.5",
            "NVIDIA's driver: install the driver, or",
        ),
        (missing("libcudnn.so.8"), ("mxnet-cu117",), "1.23.5", "nvidia-cudnn-cu11 has it"),
        (missing("libcudnn.so.8"), ("mxnet", "mxnet-cu117"), "1.23.5", "overwrite each other's"),
    ],
)
def test_a_failed_import_is_explained_in_one_line(monkeypatch, error, builds, numpy, expected):
    message = explain(monkeypatch, error, builds, numpy)
    assert expected in message and "\n" not in message


def test_other_pythons_and_platforms_are_refused_first(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "version_info", Version(3, 12, 0, "final", 0))
        with pytest.raises(runtime.FrameworkError, match="Python 3.12: use Python 3.8 to 3.11"):
            runtime.import_mxnet()
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delattr(runtime.os, "sched_getaffinity")
    with pytest.raises(runtime.FrameworkError, match="openaff runs on Linux x86-64, not on"):
        runtime.import_mxnet()


def test_cores_are_counted_within_a_containers_quota(monkeypatch):
    monkeypatch.setattr(runtime, "usable_processors", lambda: range(1000, 1008))  # of no topology
    assert runtime.physical_cores() <= 8
    for quota, cores in (("250000 100000", 2), ("50000 100000", 1), ("max 100000", 8)):
        monkeypatch.setattr(
            runtime.pathlib.Path,
            "read_text",
            lambda path, quota=quota: quota if path.name == "cpu.max" else str(path),
        )
        assert runtime.physical_cores() == cores


@pytest.fixture
def broken(tmp_path, root):
    """An environment whose mxnet misses the driver."""
    (tmp_path / "mxnet.py").write_text(f"raise OSError({str(missing('libcuda.so.1'))!r})\n")
    return {"PYTHONPATH": f"{tmp_path}:{root}", "PATH": "/usr/bin:/bin"}


@pytest.mark.parametrize(
    "words", [["-c", "import openaff; openaff.AFF"], ["scripts/train_cifar.py", "--help"]]
)
def test_without_mxnet_there_is_one_line_and_no_traceback(broken, root, words):
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=broken, cwd=str(root)
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "libcuda.so.1" in done.stderr


def test_another_error_goes_to_the_hook_that_was_there(capsys):
    seen = []
    runtime._one_line(lambda *error: seen.append(error), ValueError, ValueError("x"), None)
    assert seen[0][0] is ValueError and capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "module, call, message",
    [
        ("sklearn", digit_splits, r"the digits come with scikit-learn .*pip install -e .\[demo\]"),
        ("sklearn.datasets", photos, r"the photographs come with scikit-learn .*-e .\[demo\]"),
    ],
)
def test_a_library_that_is_missing_is_named_with_its_command(monkeypatch, module, call, message):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
