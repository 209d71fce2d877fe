"""What runs the files of an export folder: MXNet, ONNX Runtime, OpenVINO, PyTorch."""

import pathlib

import mxnet as mx

from ..utils.errors import UserError, one_line
from ..utils.params import import_symbol
from . import onnx_model, openvino_model
from .pytorch.weights import import_torch, runner

# Engine -> the end of its file's name.
ENGINES = {
    "mxnet": "-symbol.json",
    "onnxruntime": ".onnx",
    "onnxruntime-int8": "-int8.onnx",
    "openvino": ".onnx",
    "openvino-int8": "-int8.onnx",
    "pytorch": ".safetensors",
}
FASTEST = (
    "openvino",
    "onnxruntime",
    "mxnet",
    "pytorch",
)  # see docs/export.md; all compute in float32
RUNTIMES = {
    "onnxruntime": onnx_model.runtime,
    "openvino": openvino_model.runtime,
    "mxnet": lambda: mx,
    "pytorch": import_torch,
}


class Engine:
    """An exported network, run on the CPU: NDArray (N, 3, H, W) -> NDArray outputs.

    Parameters
    ----------
    folder : path-like
        The export folder.
    description : dict
        What :func:`~openaff.deploy.export.read_export` says of it.
    name : str
        A key of :data:`ENGINES`, or ``auto``: the fastest of :data:`FASTEST` that is installed and
        has a file.
    precision : str, optional
        Of OpenVINO: ``f32``, the default, or ``auto``, its choice for this processor.

    Attributes
    ----------
    name : str
        The engine's, never ``auto``.
    precision : str
        What it computes in: ``f32``, ``f16``, ``bf16`` or ``int8``.

    Raises
    ------
    UserError
        An unknown engine; one that has no file or is not installed; a precision for another engine.
    """

    def __init__(self, folder, description, name="auto", precision=None):
        folder = pathlib.Path(folder)
        model, files = description["model"], description["files"]
        there = [each for each, end in ENGINES.items() if model + end in files]
        if name == "auto":
            name = _fastest(there, folder)
        elif name not in ENGINES:
            raise UserError(f"there is no engine {name!r}: there are auto, {', '.join(ENGINES)}")
        elif name not in there:
            raise UserError(
                f"{folder} has no file for the engine {name!r}: it has {', '.join(there)}"
            )
        self.name = name
        self._path = path = folder / (model + ENGINES[name])
        if precision is not None and not name.startswith("openvino"):
            raise UserError(f"a precision is for OpenVINO: it has no effect on {name}")
        if name == "mxnet":
            self.precision = "f32"
            params = folder / f"{model}-0000.params"
            self._run = import_symbol(path, params)
            self._run.hybridize(static_alloc=True)
        elif name == "pytorch":
            self.precision = "f32"
            self._run = runner(path)
        elif name.startswith("onnxruntime"):
            self.precision = "f16" if description.get("onnx_dtype") == "float16" else "f32"
            self._run = onnx_model.network(path)
        else:
            run = openvino_model.OpenVINO(path, precision or "f32")
            self.precision = run.precision
            self._run = onnx_model.on_ndarrays(run, run.batch)
        if name.endswith("-int8"):
            self.precision = f"int8, the rest {self.precision}"

    def __call__(self, images):
        try:
            return self._run(images)
        except (UserError, MemoryError):
            raise
        except Exception as error:  # the engines raise many kinds, for what the files say
            raise UserError(f"{self.name} cannot run {self._path}: {one_line(error)}") from error


def _fastest(there, folder):
    """The first of :data:`FASTEST` that has a file and is installed."""
    problem = "it has none of their files"
    for name in FASTEST:
        if name in there:
            try:
                RUNTIMES[name]()
                return name
            except UserError as error:
                problem = error
    raise UserError(f"no engine can run the export {folder}: {problem}")
