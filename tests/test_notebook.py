"""The example notebook runs from top to bottom, and what it shows is there."""

import ast
import json

import matplotlib
from helpers import fewer_images
from matplotlib.figure import Figure


def run_cell(source, names):
    """Run a cell; the value of its last line, if that is an expression, as a notebook shows it."""
    *body, last = ast.parse(source).body
    exec(compile(ast.Module(body, []), "cell", "exec"), names)  # noqa: S102
    if isinstance(last, ast.Expr):
        return eval(compile(ast.Expression(last.value), "cell", "eval"), names)  # noqa: S307
    exec(compile(ast.Module([last], []), "cell", "exec"), names)  # noqa: S102
    return None


def test_first_steps(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fewer_images(monkeypatch, "digits", 240, 60)
    notebook = json.loads((root / "examples/first_steps.ipynb").read_text())
    backend, names = matplotlib.get_backend(), {}
    cells = ["".join(each["source"]) for each in notebook["cells"] if each["cell_type"] == "code"]
    assert "epochs=3" in cells[2]
    cells[2] = cells[2].replace("epochs=3", "epochs=1")
    assert all(not each.get("outputs") for each in notebook["cells"])
    shape, net, accuracy, curves, maps, parity, predictions = (run_cell(c, names) for c in cells)
    assert shape == (2, 64, 8, 8)
    assert len(repr(net).splitlines()) < 30
    assert accuracy == f"{names['result']['last_accuracy']:.2%} of the test digits after 1 epochs"
    assert isinstance(curves, Figure) and isinstance(maps, Figure)
    assert matplotlib.get_backend() == backend
    assert parity["onnx"] < 1e-5
    assert [len(each) for each in predictions] == [3, 3]
