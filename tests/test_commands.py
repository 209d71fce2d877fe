"""The command ``openaff``: what it lists, what it answers, and how it calls itself."""

import pathlib
import re
import runpy
import signal
import subprocess
import sys

import pytest
from helpers import load_command

from openaff import UserError, __version__, commands
from openaff.utils import packaged, program
from openaff.utils.interrupt import Stopped
from openaff.utils.packaged import CONFIGS, PACKAGE, clone, config_names


@pytest.fixture
def openaff(monkeypatch, capsys):
    """Run ``openaff ...`` in this process: status, stdout, stderr."""

    def run(*words):
        monkeypatch.setattr("sys.argv", ["/somewhere/bin/openaff", *words])
        status = 0
        try:
            commands.main()
        except SystemExit as ended:
            status = ended.code or 0
        return (status, *capsys.readouterr())

    return run


def test_help_lists_every_command_in_a_line(openaff):
    status, out, _ = openaff("--help")
    assert status == 0 and openaff()[1] == openaff("-h")[1] == out
    for name, line in commands.COMMANDS.items():
        assert f"  {name}" in out and line in out
    assert all(len(line) <= 100 for line in out.splitlines())
    modules = {path.stem.replace("_", "-") for path in (PACKAGE / "commands").glob("[a-z]*.py")}
    assert modules | {"doctor"} == set(commands.COMMANDS)


def test_the_version_names_what_is_installed(openaff):
    line = f"openaff {__version__} \\(mxnet[-cu0-9]* 1.9.1, Python [0-9.]+\\)\n"
    assert re.fullmatch(line, openaff("--version")[1])


@pytest.mark.parametrize(
    "name, near",
    [("trian", "; did you mean 'train'?"), ("evaluat", "; did you mean 'evaluate'?"), ("x", "")],
)
def test_near_commands_are_suggested(openaff, name, near):
    line = f"error: there is no command {name!r}{near}; openaff --help lists them\n"
    assert openaff(name) == (2, "", line)


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_every_command_says_how_it_is_called(openaff, name):
    """With an example that begins with its name."""
    status, out, err = openaff(name, "--help")
    assert status == 0 and err == ""
    assert out.startswith(f"usage: openaff {name} [-h]") and f"\n    openaff {name}" in out


@pytest.mark.parametrize(
    "words, name",
    [
        (("train", "digits/aff_resnet8", "--out", ""), "--out"),
        (("train", "digits/aff_resnet8", "--out="), "--out"),
        (("summary", "aff_cifar_resnet8", ""), "MODEL"),
        (("evaluate", "--run", "runs/a", "--option", ""), "--option"),
    ],
)
def test_an_empty_value_is_refused(openaff, words, name):
    """It is most often of a shell's variable that is not set."""
    line = f"error: argument {name}: the value is empty; see --help\n"
    assert openaff(*words) == (2, "", line)


@pytest.mark.parametrize(
    "argv, words, arguments",
    [
        (["/usr/bin/openaff", "train", "x"], ["openaff", "train"], ["x"]),
        (["openaff"], ["openaff"], []),
        ([f"{PACKAGE}/__main__.py", "train", "x"], ["python", "-m", "openaff", "train"], ["x"]),
        ([f"{PACKAGE}/doctor/__main__.py", "-h"], ["python", "-m", "openaff.doctor"], ["-h"]),
        (["scripts/plot_runs.py", "x"], ["python", "scripts/plot_runs.py"], ["x"]),
        (["/usr/bin/pytest", "-q"], ["pytest"], ["-q"]),
        (["", "x"], ["-"], ["x"]),
    ],
)
def test_a_program_knows_how_it_was_started(argv, words, arguments):
    assert program.split(argv) == (words, arguments)


@pytest.mark.parametrize(
    "argv, recorded",
    [
        (["/usr/bin/openaff", "train", "a b"], "openaff train 'a b'"),
        (["/home/x/openaff/scripts/train_cifar.py", "y"], "python scripts/train_cifar.py y"),
        (["/home/x/mine.py", "y"], "python mine.py y"),
    ],
)
def test_records_name_no_folder_of_the_program(monkeypatch, argv, recorded):
    monkeypatch.setattr("sys.argv", argv)
    assert program.command() == recorded


def test_the_help_of_a_script_names_the_script(root, monkeypatch, capsys):
    path = str(root / "scripts" / "train_cifar.py")
    monkeypatch.setattr("sys.argv", [path, "--help"])
    with pytest.raises(SystemExit, match="^0$"):
        runpy.run_path(path, run_name="__main__")
    out = capsys.readouterr().out
    assert "train_cifar.py [-h]" in out and f"\n    python {path} cifar/aff_resnet8 data" in out


def test_configs_are_listed_with_their_first_line(openaff, tmp_path):
    _, out, _ = openaff("configs")
    assert [line.split()[0] for line in out.splitlines()] == config_names()
    _, out, _ = openaff("configs", "digits/a*")
    assert len(out.splitlines()) == 2 and "AFF-ResNet-8 (m = 1) on the embedded digits, a" in out
    text = (CONFIGS / "digits/aff_resnet8.yaml").read_text()
    assert openaff("configs", "digits/aff_resnet8") == (0, text, "")
    assert "did you mean 'digits/aff_resnet8'" in openaff("configs", "digits/aff_resnet")[2]
    assert "no config matches 'x*'" in openaff("configs", "x*")[2]
    (tmp_path / "a.yaml").write_bytes(b"a: \xe9")
    line = f"error: cannot read {tmp_path / 'a.yaml'}: it is not UTF-8\n"
    assert openaff("configs", str(tmp_path / "a.yaml")) == (2, "", line)


@pytest.mark.parametrize(
    "command", ["openaff --help", "openaff configs", "openaff doctor", "openaff.doctor"]
)
def test_a_reader_that_has_read_enough_gets_no_error(root, command):
    words = f"{sys.executable} -m {command} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, cwd=str(root))
    assert done.stdout.splitlines()[1:] == ["141"] or done.stdout.endswith("\n0\n")
    assert done.stderr == ""


# --- openaff train --------------------------------------------------------------------------------


@pytest.fixture
def train(monkeypatch, call):
    """Call ``openaff train`` with a training that does nothing: the config, folder and so on."""
    seen = []
    monkeypatch.setattr(load_command("train"), "train", lambda *given: seen.append(given))

    def run(*words):
        seen.clear()
        call("train", *words)
        return seen[0]

    return run


@pytest.mark.parametrize(
    "words",
    [
        ("digits/aff_resnet8", "epochs=2"),
        ("epochs=2", "--config", "digits/aff_resnet8"),
        ("--config", "configs/digits/aff_resnet8.yaml", "epochs=2"),
        ("--devices", "cpu", "digits/aff_resnet8", "epochs=2"),
    ],
)
def test_a_recipe_is_named_in_several_ways(train, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    config, out, *_ = train(*words)
    assert (config.epochs, config.data.name) == (2, "digits")
    assert out == "runs/aff_resnet8"


def test_the_folder_has_the_recipes_name_and_a_number(train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("runs/aff_resnet8").mkdir(parents=True)
    assert train("digits/aff_resnet8")[1] == "runs/aff_resnet8-2"
    pathlib.Path("runs/aff_resnet8-2").mkdir()
    assert train("digits/aff_resnet8")[1] == "runs/aff_resnet8-3"
    assert train("digits/aff_resnet8", "--out", "mine")[1] == "mine"


def test_photographs_let_cudnn_measure(train, monkeypatch):
    variable = "MXNET_CUDNN_AUTOTUNE_DEFAULT"
    for name, expected in (("digits/aff_resnet8", None), ("imagenet/smoke", "2")):
        monkeypatch.delenv(variable, raising=False)
        config, _, _, engine = train(name, *["data.root=x"] * (expected is not None))
        engine(config)
        assert load_command("train").os.environ.get(variable) == expected
    monkeypatch.setenv(variable, "0")
    engine(config)
    assert load_command("train").os.environ[variable] == "0"
    monkeypatch.delenv(variable)


@pytest.mark.parametrize(
    "words, message",
    [
        ((), "name a config, such as digits/aff_resnet8, or a run to go on with, --resume DIR"),
        (("epochs=3",), "name a config"),
        (("digits/aff_resnet8", "fast"), "'fast' is not an override"),
        (("--resume", "x", "digits/aff_resnet8"), "--resume takes its settings from the run"),
        (("digits/aff_resnet8", "--checkpoint", "last.ckpt"), "--checkpoint has no effect without"),
    ],
)
def test_what_cannot_be_trained(train, words, message):
    with pytest.raises(UserError, match=message):
        train(*words)


@pytest.mark.parametrize(
    "argv, command",
    [
        (["openaff", "train", "digits/aff_resnet8", "--out", "a b"], "train --resume 'a b'"),
        (["openaff", "train", "--resume", "r", "--devices", "cpu:2"], "--resume r --devices cpu:2"),
    ],
)
def test_a_stopped_training_prints_the_whole_command(monkeypatch, argv, command):
    script = load_command("train")

    def stop(*_):
        raise Stopped(f"{signal.SIGINT.name}: stopped after step 7")

    monkeypatch.setattr(script, "train", stop)
    monkeypatch.setattr(script, "resume", stop)
    monkeypatch.setattr("sys.argv", argv)
    with pytest.raises(Stopped) as stopped:
        script.main()
    assert str(stopped.value).startswith("SIGINT: stopped after step 7; go on with: openaff train")
    assert str(stopped.value).endswith(command)


# --- Outside a clone ------------------------------------------------------------------------------


def test_a_clone_is_found_where_it_is(root):
    assert clone() == root


def test_tables_outside_a_clone(openaff, tmp_path, monkeypatch):
    monkeypatch.setattr(load_command("tables"), "clone", lambda: None)
    monkeypatch.chdir(tmp_path)
    status, out, err = openaff("tables", "--report")
    assert (status, out) == (2, "") and err.startswith("error: --report writes docs/tables.md and ")
    assert len(err.splitlines()) == 1
    status, out, _ = openaff("tables", "--table", "fusions-resnet8")
    assert status == 0 and "Not run yet." in out


def test_pages_of_figures_are_a_clones(monkeypatch, tmp_path):
    script = load_command("measure_heat_maps")
    monkeypatch.setattr(script, "clone", lambda: None)
    (tmp_path / "page.md").write_text("x")
    with pytest.raises(UserError, match="--page writes the figures of a clone"):
        script.write_page(tmp_path / "page.md")
    monkeypatch.setattr(script, "clone", lambda: tmp_path)
    file = tmp_path / "measurements/heat_maps/a.json"
    file.parent.mkdir(parents=True)
    for text in ("{", "[]", '{"rows": []}', '{"rows": [{"fusion": "aff", "seeds": 1}]}'):
        file.write_text(text)
        with pytest.raises(UserError, match=f"{file} holds no figures of heat maps: ."):
            script.write_page(tmp_path / "page.md")
    file.unlink()
    (tmp_path / "page.md").write_bytes(b"\xe9")
    with pytest.raises(UserError, match="cannot read .*page.md: it is not UTF-8"):
        script.write_page(tmp_path / "page.md")


def test_a_stopped_demo_says_how_it_is_begun_again(call, monkeypatch, tmp_path):
    def stop(*_):
        raise Stopped("SIGINT: stopped after step 3")

    monkeypatch.setattr(load_command("demo"), "train", stop)
    with pytest.raises(
        Stopped, match=f"after step 3; remove {tmp_path / 'x'}, then begin the demo"
    ):
        call("demo", "--out", tmp_path / "x")


@pytest.mark.parametrize("where, command", [(1, "-e .[onnx]"), (None, "'openaff[onnx]'")])
def test_what_is_missing_is_installed_by_another_command_outside_a_clone(
    monkeypatch, where, command
):
    monkeypatch.setattr(packaged, "clone", lambda: where)
    assert packaged.pip_install("onnx") == f"pip install {command}"
