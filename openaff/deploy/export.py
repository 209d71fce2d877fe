"""From a network to files that outlive the framework: symbol JSON and params, and ONNX."""

import json
import os
import pathlib
import tempfile
import warnings
from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

import mxnet as mx
import numpy as np

from ..attention import plain_graph
from ..data.imagenet import CROP_RATIO
from ..models.pretrained import load_model, load_published
from ..training.config import PHOTOS, load_config
from ..training.run_folder import provenance
from ..utils.errors import UserError
from ..utils.files import atomic, sha256, write_json, write_text
from .onnx_model import INPUT, OUTPUT, export_onnx, network, to_float16, to_int8

TOLERANCE = 1e-5  # largest difference allowed, relative to the largest output
FLOAT16_TOLERANCE = 0.05
FORMATS = ("symbol", "onnx")
DESCRIPTION = "export.json"
FORMAT = "openaff export 1"


@dataclass
class Subject:
    """A network, and what somebody who runs it has to know."""

    net: Any  # initialised, float32 (N, 3, H, W) -> logits (N, classes)
    model: str
    options: Dict[str, Any]
    dataset: Optional[str]
    labels: Optional[str]  # their granularity, in words
    class_names: Tuple[str, ...]
    input_shape: Tuple[int, int, int]
    mean: Tuple[float, float, float]  # of pixel values in [0, 1]
    std: Tuple[float, float, float]
    crop_ratio: Optional[float] = None  # photographs: the centre's share of the short side
    score: Optional[Dict[str, Any]] = None  # what was measured of it, and how


def load_run(folder):
    """The trained network of a run folder, and the run's configuration and result.

    Raises
    ------
    UserError
        No run folder, or one whose training has not finished.
    """
    folder = pathlib.Path(folder)
    try:
        result = json.loads((folder / "result.json").read_text())
    except (OSError, ValueError):
        raise UserError(
            f"{folder} is no folder of a finished run: it has no result.json, or a damaged one"
        ) from None
    config = load_config(folder / "config.yaml")
    net = load_model(
        config.model.name,
        folder / "best.params",
        **config.model.options,
    )
    return net, config, result


def run_subject(folder):
    """The :class:`Subject` of a finished run: its best parameters.

    Raises
    ------
    UserError
        See :func:`load_run`; or the folder has no ``labels.txt``.
    """
    net, config, result = load_run(folder)
    path = pathlib.Path(folder) / "labels.txt"
    try:
        class_names = tuple(path.read_text().splitlines())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    photos = config.data.name in PHOTOS
    keys = ("best_accuracy", "best_epoch", "best_selection", "split", "protocol", "seed", "commit")
    return Subject(
        net,
        result["model"],
        result["options"],
        result["dataset"],
        result["labels"],
        class_names,
        tuple(result["input_shape"]),
        tuple(result["mean"]),
        tuple(result["std"]),
        (config.data.crop_ratio or CROP_RATIO) if photos else None,
        {key: result[key] for key in keys},
    )


def published_subject(name, params):
    """The :class:`Subject` of a published checkpoint, from the authors' file ``params``."""
    net, known = load_published(name, params)
    photos = known.dataset in PHOTOS
    return Subject(
        net,
        known.model,
        known.options,
        known.dataset,
        known.labels and f"{known.labels} ({known.classes} classes)",
        tuple(map(str, range(known.outputs))),
        (3, 224, 224) if photos else (3, 32, 32),
        known.mean,
        known.std,
        CROP_RATIO if photos else None,
        {known.metric: known.score, "selection": known.selection, "source": "published"},
    )


def export_folder(subject, out, formats=FORMATS, batch=None, dtype="float32", calibration=None):
    """Write a new export folder, whole or not at all.

    ``NAME-symbol.json`` and ``NAME-0000.params``, ``NAME.onnx``, ``NAME-int8.onnx``,
    ``labels.txt``, and ``export.json``, which describes them.

    Parameters
    ----------
    subject : Subject
        What to export.
    out : path-like
        The folder, which must not exist.
    formats : sequence of str
        ``symbol`` and ``onnx``, or one of them.
    batch : int, optional
        A fixed batch size of the ONNX files; by default it stays free.
    dtype : str
        ``float32`` or ``float16``: of the ONNX file.
    calibration : iterable of numpy.ndarray, optional
        float32 (N, 3, H, W), scaled: writes an INT8 file whose ranges are measured on these.

    Returns
    -------
    dict
        What ``export.json`` says.

    Raises
    ------
    UserError
        The folder exists, an exported file differs from the network, or ONNX cannot be written
        here.
    """
    out = pathlib.Path(out)
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown or not formats:
        raise UserError(f"formats are {' and '.join(FORMATS)}, not {', '.join(unknown) or 'none'}")
    if "onnx" not in formats and (dtype != "float32" or calibration is not None or batch):
        raise UserError("dtype, batch and int8 have an effect on the format onnx only")
    if out.exists():
        raise UserError(f"the export folder {out} exists: take another --out, or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=str(out.parent), prefix=out.name + ".") as folder:
        folder = pathlib.Path(folder) / "export"
        description = _write(subject, folder, formats, batch, dtype, calibration)
        os.rename(folder, out)
    return description


def _write(subject, folder, formats, batch, dtype, calibration):
    name = subject.model
    files, parity = export_symbol(subject.net, folder, name, subject.input_shape)
    parity = {"symbol": parity}
    if "onnx" in formats:
        path = folder / f"{name}.onnx"
        export_onnx(*files, path, subject.input_shape, batch)
        parity["onnx"] = _check_onnx(subject, path, TOLERANCE)
        if calibration is not None:
            to_int8(path, folder / f"{name}-int8.onnx", calibration)
            parity["int8"] = _onnx_difference(subject, folder / f"{name}-int8.onnx")
        if dtype == "float16":
            to_float16(path, path)
            parity["onnx"] = _check_onnx(subject, path, FLOAT16_TOLERANCE)
    if "symbol" not in formats:
        for file in files:
            file.unlink()
        del parity["symbol"]
    write_text(folder / "labels.txt", "\n".join(subject.class_names) + "\n")
    facts = {
        key: value for key, value in vars(subject).items() if key not in ("net", "class_names")
    }
    description = {
        "format": FORMAT,
        **facts,
        "input": {"name": INPUT, "dtype": "float32", "batch": batch or "free", "colours": "RGB"},
        "output": {"name": OUTPUT, "classes": len(subject.class_names)},
        "onnx_dtype": dtype if "onnx" in formats else None,
        "onnx_opset": _opset(folder / f"{name}.onnx") if "onnx" in formats else None,
        "parity": parity,
        "files": {path.name: sha256(path) for path in sorted(folder.iterdir())},
        **provenance(),
    }
    write_json(folder / DESCRIPTION, description)
    return read_export(folder)


def add_to_description(folder, **facts):
    """Say more in an export folder's ``export.json``."""
    path = pathlib.Path(folder) / DESCRIPTION
    write_json(path, {**json.loads(path.read_text()), **facts})


def read_export(folder):
    """What an export folder's ``export.json`` says, once every file has the checksum it names.

    Raises
    ------
    UserError
        No export folder, a missing file, or a changed one.
    """
    folder = pathlib.Path(folder)
    path = folder / DESCRIPTION
    try:
        description = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} is no export folder: cannot read {DESCRIPTION} ({error}); "
            "scripts/export.py writes one"
        ) from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise UserError(f"{path} is of another format: export the network anew")
    for name, digest in description["files"].items():
        if not (folder / name).exists():
            raise UserError(f"{folder} is not whole: {name} is missing; export the network anew")
        if sha256(folder / name) != digest:
            raise UserError(f"{folder / name} was changed after the export: export it anew")
    return description


def _opset(path):
    import onnx

    return onnx.load(str(path), load_external_data=False).opset_import[0].version


def _check_onnx(subject, path, tolerance):
    difference = _onnx_difference(subject, path)
    if not difference <= tolerance:
        raise UserError(
            f"the exported {path.name} differs from the network by {difference:.1e}, more than "
            f"{tolerance:.0e}"
        )
    return difference


def _onnx_difference(subject, path):
    """The largest over two batch sizes."""
    run = network(path)
    shapes = [(size,) + tuple(subject.input_shape) for size in (1, 3)]
    return max(_relative_difference(run, subject.net, shape) for shape in shapes)


def _relative_difference(actual, expected, shape):
    images = mx.nd.array(np.random.default_rng(0).standard_normal(shape))
    actual, expected = actual(images).asnumpy(), expected(images).asnumpy()
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def export_symbol(net, folder, name, input_shape):
    """Write ``name-symbol.json`` and ``name-0000.params``, import them again and compare.

    Both load with plain MXNet.  Parameters carry their structural names
    (``arg:features.1.weight``), not Gluon's scope names with their counters: exporting twice gives
    the same symbol.

    Parameters
    ----------
    net : HybridBlock
        An initialised network.
    folder : path-like
        Made where it does not exist.
    name : str
        Stem of both files.
    input_shape : tuple of int
        Shape of one input, (3, H, W); the batch size stays free.

    Returns
    -------
    files : list of pathlib.Path
    difference : float
        Largest absolute difference between the network and the re-imported files on random
        input, relative to the largest output.

    Raises
    ------
    UserError
        The re-imported network differs by more than ``TOLERANCE``; the files are removed.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    symbol, params = folder / (name + "-symbol.json"), folder / (name + "-0000.params")
    structural = {param.name: key for key, param in net._collect_params_with_prefix().items()}
    with plain_graph():
        graph = json.loads(net(mx.sym.var("data")).tojson())
    for node in graph["nodes"]:
        node["name"] = structural.get(node["name"]) or _without_prefix(node["name"], net.prefix)
    graph["nodes"][graph["heads"][0][0]]["name"] = "logits"
    auxiliary = set(mx.sym.load_json(json.dumps(graph)).list_auxiliary_states())
    arrays = {
        ("aux:" if key in auxiliary else "arg:") + key: param.data(param.list_ctx()[0])
        for key, param in net._collect_params_with_prefix().items()
    }
    for node in graph["nodes"]:
        if node["op"] == "BatchNorm" and node["attrs"].get("fix_gamma") == "True":
            # MXNet takes such a gamma for 1, whatever is stored; converters take what is stored.
            gamma = "arg:" + graph["nodes"][node["inputs"][1][0]]["name"]
            arrays[gamma] = mx.nd.ones_like(arrays[gamma])
    with atomic(params) as temporary:
        mx.nd.save(str(temporary), arrays)
    write_text(symbol, json.dumps(graph, indent=2) + "\n")
    difference = _difference(net, symbol, params, input_shape)
    if not difference <= TOLERANCE:
        symbol.unlink()
        params.unlink()
        raise UserError(
            f"the exported {symbol} differs from the network by {difference:.1e}, more than "
            f"{TOLERANCE:.0e}"
        )
    return [symbol, params], difference


def _without_prefix(name, prefix):
    return name[len(prefix) :] if name.startswith(prefix) else name


def _difference(net, symbol, params, input_shape):
    with warnings.catch_warnings():
        # The importer makes an input without a type, which the graph then settles.
        warnings.filterwarnings("ignore", message="Cannot decide type")
        imported = mx.gluon.SymbolBlock.imports(str(symbol), ["data"], str(params))
    return _relative_difference(imported, net, (2,) + tuple(input_shape))
