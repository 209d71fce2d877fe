"""The scripts as a user runs them: exit status, one clear line, files."""

import runpy

import pytest

from openaff.utils import cli


@pytest.fixture
def fails_with(root, monkeypatch, capfd):
    """Run a script in this process, which is quicker: one line, and status 2."""

    def run(message, name, *arguments):
        monkeypatch.setattr("sys.argv", [name, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(root / "scripts" / name), run_name="__main__")
        assert ended.value.code == 2
        output, errors = capfd.readouterr()
        assert output == "" and errors.startswith("error:") and message in errors
        assert len(errors.splitlines()) == 1

    return run


def test_train_errors(fails_with, tmp_path):
    config = "cifar/aff_resnet8"
    out = ("--out", tmp_path / "run")
    fails_with("there is no config", "train_cifar.py", "--config", tmp_path / "no.yaml", *out)
    fails_with("'epochs'", "train_cifar.py", "--config", config, *out, "epoch=3")
    fails_with("exists", "train_cifar.py", "--config", config, "--out", tmp_path)
    fails_with("gpu:7", "train_cifar.py", "--config", config, *out, "--devices", "gpu:7")
    fails_with("not the folder of a finished run", "export.py", "--run", tmp_path, *out)
    assert list(tmp_path.iterdir()) == []


def test_counts_on_command_lines_are_small_and_ascii(fails_with, tmp_path):
    export = ("export.py", "--run", tmp_path, "--out", tmp_path / "out")
    for text in ("\u0663", "9" * 14, "0", "-1", "1.0"):
        fails_with(f"--batch {text!r}: write a number from 1 to", *export, f"--batch={text}")
    fails_with("--batch 9999: at most 4,096", *export, "--batch", 9999)


def test_more_processes_than_a_machine_can_carry_are_refused(fails_with, tmp_path):
    message = "--workers 100000: at most "
    fails_with(
        message, "prepare_imagenet.py", "--out", tmp_path, "--train", ".", "--workers", 100000
    )
    fails_with(message, "evaluate.py", "--run", tmp_path, "--workers", 100000)
    fails_with("-n 100000: at most ", "launch_local.py", "-n", 100000, "true")


def test_flags_without_effect_are_refused(fails_with, tmp_path):
    export = ("export.py", "--run", tmp_path, "--out", tmp_path / "out")
    fails_with("--images has no effect without --int8", *export, "--images", 5)
    fails_with("--data has no effect without --int8 or", *export, "--data", tmp_path)
    fails_with(f"{tmp_path} exists: take another --out", "demo.py", "--out", tmp_path)


def test_names_that_are_no_text_are_refused(fails_with, tmp_path, capfd):
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    fails_with(r"caf\udce9' is not in UTF-8", "predict.py", "--export", tmp_path / name, "x.jpg")

    def main():
        print(f"{tmp_path / name}".encode())

    with pytest.raises(SystemExit):
        cli.run(main)
    errors = capfd.readouterr().err
    assert errors.startswith("error: ") and r"caf\udce9' is not in UTF-8: rename" in errors


def test_a_letter_that_the_output_lacks_is_one_line(capfd):
    def main():
        "58.33 \xb1 0.35".encode("ascii")

    with pytest.raises(SystemExit):
        cli.run(main)
    assert capfd.readouterr().err == (
        "error: the output's encoding, ascii, has no '\\xb1': set PYTHONUTF8=1\n"
    )


@pytest.mark.parametrize("role", [None, "worker"])
def test_a_broken_pipe_ends_a_worker_at_once(role, monkeypatch, capfd):
    left = []

    def main():
        raise BrokenPipeError

    monkeypatch.setattr(cli.os, "_exit", left.append)
    monkeypatch.setattr(cli.os, "dup2", lambda *_: None)
    if role:
        monkeypatch.setenv("DMLC_ROLE", role)
    with pytest.raises(SystemExit) as exit:
        cli.run(main)
    assert exit.value.code == 141 and left == ([141] if role else [])


def test_errors_of_the_command_line_are_one_line(fails_with):
    fails_with("arguments are required: MODEL; see --help", "summary.py")
