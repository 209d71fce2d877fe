"""Which room may import which, and what importing openaff does not load."""

import ast
import pathlib
import subprocess
import sys

import pytest

from openaff.commands import COMMANDS
from openaff.data import DATASETS
from openaff.fusion import FUSIONS
from openaff.models import list_models
from openaff.tasks import TASKS

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "openaff"
MODULES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))
PRODUCT = {"attention", "fusion", "blocks"}
# Room -> the rooms that it may import from.
ALLOWED = {
    "__init__": {"utils", "models"} | PRODUCT,  # on first use
    "utils": set(),
    "attention": {"utils"},
    "fusion": {"attention", "utils"},
    "blocks": {"attention", "fusion", "utils"},
    "models": {"utils"} | PRODUCT,
    "data": {"utils"},
    "tasks": {"models", "data", "utils"},
    "deploy": {"models", "data", "tasks", "utils"} | PRODUCT,
    "analysis": {"models", "data", "tasks", "deploy", "utils"} | PRODUCT,
    "training": {"models", "data", "tasks", "analysis", "utils"},
    "tables": {"models", "data", "tasks", "analysis", "training", "utils"} | PRODUCT,
    "doctor": {"data", "training", "utils", "__init__"},
    "commands": {"models", "data", "tasks", "deploy", "analysis", "training", "tables", "utils"}
    | {"doctor", "__init__"},
    "__main__": {"commands"},
}


def imported(path):
    """The openaff modules that a file imports, as lists of names below the package."""
    package = path.relative_to(PACKAGE).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = list(package[: len(package) - node.level + 1])
            elif (node.module or "").partition(".")[0] in ("openaff", "scripts", "configs"):
                base = [] if node.module.startswith("openaff") else None
            else:
                continue
            assert base is not None, f"{path} imports {node.module}"
            module = (node.module or "").split(".") if node.level else node.module.split(".")[1:]
            where = base + [name for name in module if name]
            yield from ([where] if where else [[alias.name] for alias in node.names])
        elif isinstance(node, ast.Import):
            for alias in node.names:
                assert alias.name.partition(".")[0] not in ("openaff", "scripts", "configs"), path


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_arrows(module):
    path = PACKAGE / module
    room = path.relative_to(PACKAGE).parts[0].replace(".py", "")
    for where in imported(path):
        target = where[0] if where[0] in ALLOWED else "__init__"  # a name of openaff itself
        assert target == room or target in ALLOWED[room] or where == ["__version__"], where


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("training/")])
def test_training_names_no_model_data_set_or_task(module):
    tree = ast.parse((PACKAGE / module).read_text())
    documents = {
        ast.get_docstring(node, clean=False)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
    }
    names = {*DATASETS, *TASKS, *FUSIONS, *list_models()}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert node.value in documents or node.value not in names, node.value
    families = {"cifar_resnet", "resnet", "resnext", "cifar", "digits", "imagenet", "records"}
    for where in imported(PACKAGE / module):
        assert not families & set(where), where


def loaded_by(code):
    """The modules that a program has loaded in the end."""
    code += "\nimport sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=str(ROOT)
    )
    return set(done.stdout.split())


def test_importing_openaff_loads_no_more_than_it_must():
    heavy = {"mxnet", "gluoncv", "matplotlib", "onnx", "onnxruntime", "tensorboardX", "sklearn"}
    heavy |= {"torch", "safetensors"}
    assert not heavy & loaded_by("import openaff")
    loaded = loaded_by("import openaff; openaff.create_model('aff_cifar_resnet8')")
    assert not heavy & (loaded - loaded_by("import mxnet"))  # mxnet takes what is there
    assert not any(name.startswith(("openaff.data", "openaff.training")) for name in loaded)


def test_the_command_answers_before_mxnet_is_imported():
    begin = "import sys; from openaff.commands import main; sys.argv = ['openaff', {}]; main()"
    for name in ("--help", "--version", "configs"):
        assert not {"mxnet", "numpy", "omegaconf"} & loaded_by(begin.format(repr(name)))


def test_training_loads_no_pytorch():
    """Which tensorboardX imports where it is."""
    assert "torch" not in loaded_by("import openaff.training.session")


def test_scripts_are_doors_alone():
    """What a script does is a command of the package."""
    for path in (ROOT / "scripts").glob("*.py"):
        body = ast.parse(path.read_text()).body[1:]  # after the docstring
        assert [type(node) for node in body] == [ast.ImportFrom, ast.If], path
        (call,) = body[1].body
        assert call.value.func.id == "run" and call.value.args[0].value in COMMANDS, path


def test_running_an_export_loads_no_training():
    loaded = loaded_by("import openaff.deploy.predict, openaff.deploy.export, openaff.analysis")
    assert not {"matplotlib", "tensorboardX", "gluoncv", "torch"} & loaded
    assert not any(name.startswith("openaff.training") for name in loaded)


def test_the_file_that_exports_copy_needs_pytorch_alone():
    tree = ast.parse((PACKAGE / "deploy/pytorch/network.py").read_text())
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.level
            roots.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
    standard = {"functools", "inspect", "json", "pathlib", "re", "types"}
    assert roots - standard == {"torch", "safetensors"}
