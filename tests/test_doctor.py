"""What the doctor finds, here and in environments that something is wrong with."""

import hashlib
import importlib.metadata
import json
import signal
import subprocess
import sys

import pytest
from helpers import write_cifar100

from openaff.doctor import __main__ as doctor
from openaff.doctor import checks, child, machine
from openaff.doctor.data import check_data
from openaff.utils import cuda


def run_doctor(root, folder, *arguments, **environment):
    """In ``folder``, whose data/ it would look into."""
    done = subprocess.run(
        [sys.executable, "-m", "openaff.doctor", "--json", *arguments],
        capture_output=True,
        text=True,
        cwd=str(folder),
        env={"PATH": "/usr/bin:/bin", "HOME": "/nowhere", "PYTHONPATH": str(root), **environment},
    )
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert done.returncode == (0 if report["can_train"] else 1)
    return report["can_train"], {each["subject"]: each for each in report["findings"]}


def test_training_can_run_here(root, tmp_path):
    can_train, findings = run_doctor(root, tmp_path, "--devices", "cpu:2")
    assert can_train, findings
    assert findings["mxnet"]["status"] == findings["--devices"]["status"] == "ok"
    assert "1.9.1" in findings["mxnet"]["text"]
    assert "oneDNN for" in findings["cpu"]["text"]
    assert {"Python", "packages", "GPUs", "cores", "memory", "/dev/shm", "data"} <= set(findings)


def test_called_from_python_it_changes_no_signal(monkeypatch):
    before = signal.getsignal(signal.SIGPIPE)
    monkeypatch.setattr(doctor, "examine", lambda args: iter(()))
    monkeypatch.setattr(sys, "argv", ["openaff", "doctor"])
    with pytest.raises(SystemExit):
        doctor.main()
    assert signal.getsignal(signal.SIGPIPE) == before  # else a worker's death would end the caller


@pytest.mark.parametrize("text", ["abc", "0", "-1", "inf", "nan", "1e300"])
def test_a_time_limit_is_a_positive_number_and_a_day_at_most(monkeypatch, capsys, text):
    monkeypatch.setattr(sys, "argv", ["openaff", "doctor", f"--time-limit={text}"])
    with pytest.raises(SystemExit):
        doctor.main()
    message = (
        f"argument --time-limit: '{text}': write a number of seconds, a day at most; see --help"
    )
    assert capsys.readouterr().err == f"error: {message}\n"


def test_it_works_where_mxnet_cannot_be_imported(root, tmp_path):
    (tmp_path / "mxnet.py").write_text("raise OSError('libgomp.so.1: cannot open shared object')\n")
    can_train, findings = run_doctor(root, tmp_path, PYTHONPATH=f"{tmp_path}:{root}")
    assert not can_train
    assert findings["mxnet"]["status"] == "error"
    assert "apt install libgomp1" in findings["mxnet"]["text"]
    assert findings["data"]["status"] == "ok"


def findings_of(generator):
    return {each.subject: each for each in generator}


@pytest.fixture
def children(monkeypatch):
    """What child processes end with, by device or code, instead of being run."""
    answers = {"cpu": child.Outcome('cpu,isa:Intel AVX2\n{"version": "1.9.1", "cuda": true}', None)}

    def answer(code, *arguments, limit, **environment):
        return answers.get((*arguments, code)[0], child.Outcome("", None))

    monkeypatch.setattr(checks, "run_python", answer)
    monkeypatch.setattr(checks, "nvidia_gpus", lambda: ([], None))
    monkeypatch.setattr(cuda, "mxnet_builds", lambda: {"mxnet-cu117": "1.9.1"})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return answers


def gpu(capability, index=0):
    return machine.GPU(index, "NVIDIA Test", capability, "525.60.13")


def check_gpus(monkeypatch, *gpus, devices="cpu"):
    monkeypatch.setattr(checks, "nvidia_gpus", lambda: (list(gpus), None))
    return findings_of(checks.check_devices(devices, 1))


@pytest.mark.parametrize(
    "capability, code",
    [
        ("3.7", None),
        ("5.2", "5.0"),
        ("6.1", "6.0"),
        ("7.5", "7.0"),
        ("8.0", "8.0"),
        ("8.6", "8.6"),
        ("8.9", "8.6"),
        ("9.0", None),
        ("12.0", None),
        (None, None),
    ],
)
def test_which_code_a_gpu_runs(capability, code):
    assert gpu(capability).code == code


def test_gpus_are_tried_or_said_to_be_of_no_use(monkeypatch, children):
    gpus = gpu("8.9"), gpu("9.0", index=1), gpu(None, index=2)
    found = check_gpus(monkeypatch, *gpus, devices="gpu:0")
    assert found["GPU 0"].status == found["GPU 2"].status == found["--devices"].status == "ok"
    assert "by code for 8.6" in found["GPU 0"].text and "unknown" in found["GPU 2"].text
    assert (
        found["GPU 1"].status == "warning"
        and "have code for 5.0 to 8.9 only" in found["GPU 1"].text
    )


def test_a_gpu_that_fails_is_an_error_only_where_it_is_asked_for(monkeypatch, children):
    children["gpu:0"] = child.Outcome("", "CUDA: out of memory")
    found = check_gpus(monkeypatch, gpu("8.0"))
    assert found["GPU 0"].status == "warning" and "--devices" not in found
    found = check_gpus(monkeypatch, gpu("8.0"), devices="gpu:0")
    assert found["--devices"].status == "error" and "out of memory" in found["--devices"].text


def test_the_cpu_build_beside_a_gpu_is_told(monkeypatch, children):
    children["cpu"] = child.Outcome('{"version": "1.9.0", "cuda": false}', None)
    found = check_gpus(monkeypatch, gpu("8.0"))
    assert "for the CPU only; openaff needs 1.9.1" in found["mxnet"].text
    assert "pip install -e .[cu117]" in found["GPU 0"].text


def test_a_missing_package_is_not_taken_for_a_broken_mxnet(children):
    children["cpu"] = child.Outcome("", "ModuleNotFoundError: No module named 'tensorboardX'")
    found = findings_of(checks.check_devices("cpu", 1))
    assert found["packages"].status == "error" and "mxnet" not in found
    assert found["packages"].text.endswith("'tensorboardX': pip install -e .[cpu]")


def test_a_driver_that_fails_and_a_choice_of_gpus_are_told(monkeypatch, children):
    monkeypatch.setattr(checks, "nvidia_gpus", lambda: ([], "nvidia-smi lists none: mismatch"))
    assert findings_of(checks.check_devices("cpu", 1))["GPUs"].status == "warning"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    found = check_gpus(monkeypatch, gpu("8.0"))
    assert found["GPUs"].text == "CUDA_VISIBLE_DEVICES=3: gpu:0 is the first of these"


def test_gluoncv_without_libgl_is_told(monkeypatch, children):
    monkeypatch.setattr(checks.runtime, "installed_version", lambda name: "1")
    problem = "ImportError: libGL.so.1: cannot open shared object file: No such file or directory"
    children["import cv2"] = child.Outcome("", problem)
    found = findings_of(checks.check_devices("cpu", 1))
    assert "apt install libgl1" in found["gluoncv"].text
    assert found["gluoncv"].status == "warning"
    children[checks.GLUONCV] = child.Outcome("", "ImportError: no")
    found = findings_of(checks.check_devices("cpu", 1))
    assert "cannot be teachers: ImportError: no" in found["gluoncv"].text


def test_two_builds_of_mxnet_are_told(monkeypatch):
    monkeypatch.setattr(cuda, "mxnet_builds", lambda: dict.fromkeys(("mxnet", "mxnet-cu117"), "1"))
    first = next(checks.check_requirements())
    assert first.text.startswith("mxnet and mxnet-cu117 overwrite each other's files")


def test_wrong_and_missing_packages_are_told(monkeypatch):
    versions = {"numpy": "1.23.5", "onnx": "1.19.0", "gluoncv": "0.10.5.post0"}
    monkeypatch.setattr(checks.runtime, "installed_version", versions.get)
    asked = ["numpy<1.24", "gluoncv==0.10.5.post0", "tqdm", 'onnx>=1.15,<1.17; extra == "onnx"']
    asked += ['onnxruntime<1.20; extra == "onnx"', 'ruff; extra == "dev"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: asked)
    texts = [each.text for each in checks.check_requirements()]
    assert texts == [
        "1.19.0 is installed, but exporting needs <1.17,>=1.15: pip install 'onnx<1.17,>=1.15'",
        "openaff needs tqdm: pip install -e .[cpu]",
        "exporting needs onnxruntime: pip install -e .[onnx]",
        "numpy 1.23.5, gluoncv 0.10.5.post0",
    ]


def test_children_that_fail_end_or_hang():
    assert child.run_python("print(1)", limit=20) == child.Outcome("1\n", None)
    assert child.run_python("raise SystemExit('error: no')", limit=20).problem == "no"
    crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    assert child.run_python(crash, limit=20).problem == "ended by SIGSEGV"
    sleep = "import time; time.sleep(20)"
    assert child.run_python(sleep, limit=0.2).problem == "no answer within 0.2 seconds"


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Writes the program of that name, a shell script."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def write(script):
        program = tmp_path / "nvidia-smi"
        program.write_bytes(b"#!/bin/sh\n" + script)
        program.chmod(0o755)

    return write


def test_nvidia_smi_is_read(nvidia_smi):
    assert machine.nvidia_gpus() == ([], None)
    nvidia_smi(
        b"echo 'Warning: a, b, c'; echo '0, NVIDIA A100, 40GB \377, 8.0, 525.60.13'\n"
        b"echo '1, Tesla K80, [N/A], 470.1'; exit 15\n"
    )
    first, second = machine.nvidia_gpus()[0]
    assert (first.index, first.capability, first.driver) == (0, "8.0", "525.60.13")
    assert first.name.startswith("NVIDIA A100, 40GB")
    assert second == machine.GPU(1, "Tesla K80", None, "470.1")


def test_a_driver_that_knows_no_capabilities(nvidia_smi):
    nvidia_smi(
        b'case "$*" in *compute_cap*) echo not a valid field to query; exit 2;; esac\n'
        b"echo '0, Tesla V100, 450.80.02'\n"
    )
    assert machine.nvidia_gpus() == ([machine.GPU(0, "Tesla V100", None, "450.80.02")], None)


def test_nvidia_smi_that_fails(nvidia_smi):
    nvidia_smi(b"echo 'Failed to initialize NVML: mismatch'; echo 'NVML version 535'; exit 18\n")
    reason = "nvidia-smi lists none: Failed to initialize NVML: mismatch"
    assert machine.nvidia_gpus() == ([], reason)


def write_records(folder, content=b"records"):
    """A record file, and the manifest of one whose content is ``records``."""
    (folder / "train.rec").write_bytes(content)
    facts = {"images": 3, "bytes": 7, "sha256": hashlib.sha256(b"records").hexdigest()}
    (folder / "manifest.json").write_text(json.dumps({"splits": {"train": facts}}))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Gluon's folder of data sets, in an empty home; and an empty working folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / ".mxnet" / "datasets"
    folder.mkdir(parents=True)
    return folder


def test_data_sets_are_found_and_checked(home, monkeypatch):
    assert "none in" in findings_of(check_data(None))["data"].text
    wrong, rest = check_data("wrong")
    assert wrong.status == "warning" and wrong.text == "--data wrong is not a folder"
    folder = write_cifar100(home / "cifar100", monkeypatch)
    (found,) = check_data(str(home))  # once, though it is named twice
    assert found.status == "ok" and "40 + 40 images, sizes and labels" in found.text
    with open(folder / "test.bin", "ab") as content:
        content.write(b"x")
    found = findings_of(check_data(None))["cifar100"]
    assert found.status == "warning" and "test.bin has" in found.text


def test_folders_that_cannot_be_read_are_told(home, monkeypatch):
    def refuse(name, root):
        raise PermissionError(13, "Permission denied", str(root))

    monkeypatch.setattr("openaff.data.cifar.locate", refuse)
    found, *_ = check_data(None)
    assert found.status == "warning" and found.text.startswith("cannot read ")


def test_an_archive_of_another_checksum_is_told(tmp_path):
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"x")
    found = findings_of(check_data(str(tmp_path)))["cifar10"]
    assert found.status == "warning" and "not the official" in found.text


def test_records_are_compared_with_their_manifest(home):
    folder = home / "imagenet"
    folder.mkdir()
    write_records(folder)
    assert "size (--data checks SHA-256)" in findings_of(check_data(None))["photos"].text
    assert "SHA-256 as in its manifest" in findings_of(check_data(str(folder)))["photos"].text
    write_records(folder, content=b"changed")
    found = findings_of(check_data(str(folder)))["photos"]
    assert found.status == "warning" and "pack it again" in found.text
    write_records(folder, content=b"short")
    assert findings_of(check_data(None))["photos"].status == "warning"
    (folder / "manifest.json").write_text('{"splits": {}}')
    assert "an empty manifest" in findings_of(check_data(None))["photos"].text
    (folder / "manifest.json").write_text("{")
    assert "cannot be read" in findings_of(check_data(None))["photos"].text
