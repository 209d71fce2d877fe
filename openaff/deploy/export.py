"""From a network to files that outlive the framework: symbol and params, ONNX, and PyTorch."""

import pathlib

import mxnet as mx

from ..tasks import TASKS
from ..utils.descriptions import EXPORT, EXPORT_FORMAT, read_description
from ..utils.errors import UserError, positive_int
from ..utils.files import atomic_folder, refuse_existing, sha256, write_json
from ..utils.labels import read_labels, write_labels
from ..utils.provenance import provenance
from .onnx_model import INPUT, OUTPUT, export_onnx, network, to_float16, to_int8
from .pytorch.weights import export_pytorch, import_torch
from .symbol import TOLERANCE, check_difference, export_symbol, largest_difference

FLOAT16_TOLERANCE = 0.05
FORMATS = ("symbol", "onnx", "pytorch")
USUAL = ("symbol", "onnx")  # formats unless others are asked for


def export_folder(
    subject,
    out,
    formats=USUAL,
    batch=None,
    dtype="float32",
    calibration=None,
    fixed_size=False,
):
    """Write a new export folder, whole or not at all.

    ``NAME-symbol.json`` and ``NAME-0000.params``, ``NAME.onnx``, ``NAME-int8.onnx``,
    ``NAME.safetensors`` and ``network.py``, ``labels.txt``, and ``export.json``, which describes
    them.

    Parameters
    ----------
    subject : Subject
        What to export.
    out : path-like
        The folder, which must not exist.
    formats : sequence of str
        Of ``symbol``, ``onnx`` and ``pytorch``; by default the first two.
    batch : int, optional
        A fixed batch size of the ONNX files; by default it stays free.
    dtype : str
        ``float32`` or ``float16``: of the ONNX file.
    calibration : iterable of numpy.ndarray, optional
        float32 (N, 3, H, W), scaled: writes an INT8 file whose ranges are measured on these.
    fixed_size : bool
        Dense tasks: ONNX files for the subject's height and width only; by default they stay free.

    Returns
    -------
    dict
        What ``export.json`` says.

    Raises
    ------
    UserError
        The folder exists, an exported file differs from the network, or ONNX or PyTorch cannot be
        written here.
    """
    out = pathlib.Path(out)
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown or not formats:
        raise UserError(f"formats are {', '.join(FORMATS)}, not {', '.join(unknown) or 'none'}")
    if dtype not in ("float32", "float16"):
        raise UserError(f"dtype must be float32 or float16, not {dtype!r}")
    if batch is not None:
        positive_int("batch", batch)
    if "onnx" not in formats and (dtype != "float32" or calibration is not None or batch):
        raise UserError("dtype, batch and int8 have an effect on the format onnx only")
    if fixed_size and not ("onnx" in formats and TASKS[subject.task].dense):
        raise UserError(
            "fixed_size has an effect on the ONNX files of networks that give maps only: others "
            "have a fixed size anyway"
        )
    refuse_existing(out, "the export folder ")
    if "pytorch" in formats:
        import_torch()  # before anything is written
    with atomic_folder(out) as folder:
        return _write(subject, folder, formats, batch, dtype, calibration, fixed_size)


def _check_outputs(subject):
    """Refuse labels that are not those of the network's outputs."""
    outputs = subject.net(mx.nd.zeros((1, *subject.input_shape))).shape[1]
    classes, dense = len(subject.class_names), TASKS[subject.task].dense
    if outputs < classes and (outputs, classes, dense) != (1, 2, True):
        raise UserError(f"the network has {outputs} outputs, too few for {classes} classes")
    if outputs > classes and dense:
        raise UserError(
            f"the network has {outputs} outputs, and {subject.dataset} {classes} classes"
        )


def _write(subject, folder, formats, batch, dtype, calibration, fixed_size):
    _check_outputs(subject)
    name = subject.model
    files, parity = export_symbol(subject.net, folder, name, subject.input_shape)
    parity = {"symbol": parity}
    if "onnx" in formats:
        path = folder / f"{name}.onnx"
        export_onnx(*files, path, subject.input_shape, batch, fixed_size)
        parity["onnx"] = _check_onnx(subject, path, TOLERANCE)
        if calibration is not None:
            to_int8(path, folder / f"{name}-int8.onnx", calibration)
            parity["int8"] = _onnx_difference(subject, folder / f"{name}-int8.onnx")
        if dtype == "float16":
            to_float16(path, path)
            parity["onnx"] = _check_onnx(subject, path, FLOAT16_TOLERANCE)
    if "pytorch" in formats:
        shape, options = subject.input_shape, subject.options
        parity["pytorch"] = export_pytorch(subject.net, folder, name, options, shape)
    if "symbol" not in formats:
        for file in files:
            file.unlink()
        del parity["symbol"]
    write_labels(folder, subject.class_names)
    description = {
        "format": EXPORT_FORMAT,
        **subject.facts(),
        "input": {"name": INPUT, "dtype": "float32", "batch": batch or "free", "colours": "RGB"},
        "output": {"name": OUTPUT, "classes": len(subject.class_names)},
        "onnx_dtype": dtype if "onnx" in formats else None,
        "onnx_opset": _opset(folder / f"{name}.onnx") if "onnx" in formats else None,
        "parity": parity,
        "files": {path.name: sha256(path) for path in sorted(folder.iterdir())},
        **provenance(),
    }
    write_json(folder / EXPORT, description)
    return read_export(folder)


def add_to_description(folder, **facts):
    """Say more in an export folder's ``export.json``."""
    write_json(pathlib.Path(folder) / EXPORT, {**read_description(folder), **facts})


def read_export(folder):
    """What an export folder's ``export.json`` says, once every file has the checksum it names.

    Raises
    ------
    UserError
        No export folder, a missing file, or a changed one.
    """
    folder = pathlib.Path(folder)
    description = read_description(folder)
    for name, digest in description["files"].items():
        if not (folder / name).exists():
            raise UserError(f"{folder} is not whole: {name} is missing; export the network anew")
        if sha256(folder / name) != digest:
            raise UserError(f"{folder / name} was changed after the export: export it anew")
    return description


def export_labels(folder, description):
    """The class names of an export folder that :func:`read_export` describes.

    Raises
    ------
    UserError
        See :func:`~openaff.utils.labels.read_labels`.
    """
    return read_labels(folder, description["output"]["classes"])


def _opset(path):
    import onnx

    return onnx.load(str(path), load_external_data=False).opset_import[0].version


def _check_onnx(subject, path, tolerance):
    difference = _onnx_difference(subject, path)
    check_difference(path, difference, tolerance)
    return difference


def _onnx_difference(subject, path):
    return largest_difference(network(path), subject.net, subject.input_shape)
