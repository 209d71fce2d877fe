"""OpenVINO as an engine of exported ONNX files, on the CPU."""

import collections
import functools
import pathlib

from ..utils.errors import UserError, last_line, one_line
from ..utils.packaged import pip_install

OLDEST = (2024, 4)  # year and release; see setup.py
PRECISIONS = ("f32", "auto")
FIXED_AFTER = 10  # inputs of one shape, before the network is compiled for it
MOST_FIXED = 4  # shapes


def runtime():
    """The module ``openvino``.

    Raises
    ------
    UserError
        It is missing, or too old.
    """
    install = pip_install("openvino")
    try:
        import openvino
    except ImportError as error:
        raise UserError(f"OpenVINO cannot be imported ({one_line(error)}): {install}") from None
    version = tuple(int(part) for part in openvino.__version__.split("-")[0].split(".")[:2])
    if version < OLDEST:
        raise UserError(
            "OpenVINO {} is too old, it must be {}.{} or newer: {}".format(
                openvino.__version__.split("-")[0], *OLDEST, install
            )
        )
    return openvino


@functools.lru_cache(maxsize=None)
def _core(openvino):
    """OpenVINO's core, one for the process, as long as it lives.

    Each core gives the main thread a stack for signals, and takes it away when it goes.  Of two
    that go in the order in which they came, the second one puts the first one's back, which is no
    longer there: the next Ctrl-C then ends the process with a segmentation fault.
    """
    return openvino.Core()


class OpenVINO:
    """An ONNX file as a callable from float32 (N, 3, H, W) to float32 outputs, in NumPy.

    Where the file leaves sizes free, it is compiled for free sizes first, and for the first few
    shapes that come again and again once more: that is up to a third faster, and takes up to some
    seconds.

    Parameters
    ----------
    path : path-like
        The ONNX file.
    precision : str
        Of the arithmetic: ``f32``, or ``auto``, OpenVINO's choice for this processor, such as
        bf16.  Neither changes the 8-bit parts of a quantised file.
    threads : int, optional
        By default one a core.

    Attributes
    ----------
    precision : str
        What it computes in, as OpenVINO says.
    batch : int or None
        The file's batch size; None: free.

    Raises
    ------
    UserError
        See :func:`runtime`; an unknown precision; a file that is missing or not an ONNX model.
    """

    def __init__(self, path, precision="f32", threads=None):
        if precision not in PRECISIONS:
            raise UserError(f"precision must be {' or '.join(PRECISIONS)}, not {precision!r}")
        self._core = _core(runtime())
        if not pathlib.Path(path).exists():
            raise UserError(f"there is no file {path}")
        self._path = str(path)
        self._options = {"PERFORMANCE_HINT": "LATENCY"}
        if precision != "auto":
            self._options["INFERENCE_PRECISION_HINT"] = precision
        if threads:
            self._options["INFERENCE_NUM_THREADS"] = threads
        self._counts, self._fixed = collections.Counter(), {}
        self._free = self._compile()
        kind = self._free.get_property("INFERENCE_PRECISION_HINT")
        self.precision = kind.get_type_name()
        first = self._free.input(0).partial_shape[0]
        self.batch = first.get_length() if first.is_static else None

    def _compile(self, shape=None):
        try:
            model = self._core.read_model(self._path)
            if shape is not None:
                model.reshape(list(shape))
            return self._core.compile_model(model, "CPU", self._options)
        except RuntimeError as error:
            raise UserError(
                f"{self._path} is not a model that OpenVINO can run: {last_line(error)}"
            ) from None

    def __call__(self, images):
        shape = images.shape
        model = self._fixed.get(shape, self._free)
        if model is self._free and self._free.input(0).partial_shape.is_dynamic:
            self._counts[shape] += 1
            if self._counts[shape] == FIXED_AFTER and len(self._fixed) < MOST_FIXED:
                model = self._fixed[shape] = self._compile(shape)
        # A copy: the model writes its next output to the same place.
        return model(images, share_inputs=True)[0].copy()
