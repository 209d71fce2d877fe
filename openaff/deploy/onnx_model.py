"""From an exported symbol to an ONNX model that is ready for inference.

Every file has opset 17 and IR 8, with ONNX's own operators only: readers of 2022 and later take it.
MXNet's exporter writes the operators of opset 13, and none of them changed for our use until 17;
from 18 on ``Resize`` and the reductions have another form.
"""

import contextlib
import io
import os
import pathlib
import tempfile

import mxnet as mx
import numpy as np

from ..utils.errors import UserError, first_line
from ..utils.files import atomic
from ..utils.packaged import pip_install
from ..utils.params import read_arrays

INPUT, OUTPUT = "data", "logits"
OPSET, IR = 17, 8


def exporter():
    """MXNet's ONNX exporter, the class that translates graphs.

    Raises
    ------
    UserError
        onnx or onnxruntime is missing, or of a version that the exporter cannot use.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"ONNX export needs onnx and onnxruntime ({error}): {pip_install('onnx')}"
        ) from None
    try:
        from mxnet import onnx as mx_onnx  # noqa: F401
        from mxnet.onnx.mx2onnx._export_onnx import MXNetGraph

        # Taken before the exporter's own, which is registered for opset 12.
        MXNetGraph.register("_contrib_BilinearResize2D", 13)(_bilinear_resize)
        return MXNetGraph
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"MXNet's exporter cannot use onnx {onnx.__version__} ({error}): "
            "pip install 'onnx>=1.15,<1.17'"
        ) from None


def _bilinear_resize(node, **graph):
    """The nodes of ``BilinearResize2D``, also to another map's size, which the exporter lacks."""
    from mxnet.onnx.mx2onnx._export_onnx import MXNetGraph
    from onnx import helper, numpy_helper

    attributes, name = node.get("attrs", {}), node["name"]
    if attributes.get("mode") != "like":
        return MXNetGraph.registry_[12][node["op"]](node, **graph)
    corners = attributes.get("align_corners", "True") == "True"
    outputs = graph["outputs_lookup"]
    x, like = (outputs[index][output].name for index, output, *_ in node["inputs"])
    ends = {axis: f"{name}_{axis}" for axis in (0, 2, 4)}
    for axis, end in ends.items():
        graph["initializer"].append(numpy_helper.from_array(np.array([axis]), end))
    return [
        helper.make_node("Shape", [x], [f"{name}_shape"]),
        helper.make_node("Slice", [f"{name}_shape", ends[0], ends[2]], [f"{name}_nc"]),
        helper.make_node("Shape", [like], [f"{name}_like"]),
        helper.make_node("Slice", [f"{name}_like", ends[2], ends[4]], [f"{name}_hw"]),
        helper.make_node("Concat", [f"{name}_nc", f"{name}_hw"], [f"{name}_sizes"], axis=0),
        helper.make_node(
            "Resize",
            [x, "", "", f"{name}_sizes"],
            [name],
            name,
            mode="linear",
            # PyTorch's and MXNet's: a single pixel is the first one, not the middle.
            coordinate_transformation_mode="align_corners" if corners else "pytorch_half_pixel",
        ),
    ]


def export_onnx(symbol, params, path, input_shape, batch=None, fixed_size=False):
    """Write the ONNX form of exported files: weights as initialisers, batch norms folded.

    The height and the width of a network that gives maps of its input's size stay free, ``H`` and
    ``W``; other networks take the given ones.

    What a graph does with constants alone is done now: batch norms that follow a convolution go
    into its weights.  ONNX Runtime does it, by rewritings that leave standard operators only.

    Parameters
    ----------
    symbol, params : path-like
        What :func:`openaff.deploy.symbol.export_symbol` wrote.
    path : path-like
        The ONNX file.
    input_shape : tuple of int
        (3, H, W).
    batch : int, optional
        A fixed batch size; by default it stays free, ``N``.
    fixed_size : bool
        Fix the height and the width of all networks, for readers that need them.

    Raises
    ------
    UserError
        See :func:`exporter`.
    """
    Graph = exporter()
    import onnx
    import onnxruntime

    shape = (batch or 1,) + tuple(input_shape)
    size = ("H", "W") if _gives_maps(symbol, shape) and not fixed_size else shape[2:]
    wanted = (batch or "N", shape[1]) + size
    free = {} if wanted == shape else {"dynamic_input_shapes": [wanted]}
    weights = read_arrays(params) or {}  # MXNet gives a list where there are none
    # Not by the exporter's export_model, which takes the newest opset and IR that onnx knows.
    graph = Graph().create_onnx_graph_proto(
        mx.sym.load(str(symbol)),
        {key.partition(":")[2]: value for key, value in weights.items()},
        [shape],
        [onnx.TensorProto.FLOAT],
        opset_version=OPSET,
        dynamic=bool(free),
        **free,
    )
    _weights_are_no_inputs(graph)
    _name_output(graph)
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR
    )
    with tempfile.TemporaryDirectory() as folder:
        plain, folded = (os.path.join(folder, f"{name}.onnx") for name in "ab")
        onnx.save(model, plain)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = folded
        onnxruntime.InferenceSession(plain, options, providers=["CPUExecutionProvider"])
        _write(onnx.load(folded), path)


def _write(model, path):
    """Write a model that ONNX's checker accepts, with opset 17, IR 8 and no other operators.

    ONNX Runtime names all of its own domains in what it writes, and its own IR.
    """
    import onnx

    foreign = {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    opsets = {each.version for each in model.opset_import if each.domain in ("", "ai.onnx")}
    if foreign or opsets != {OPSET}:
        raise UserError(
            f"the installed onnxruntime wrote opset {opsets} and the operators of {foreign}, not "
            f"plain opset {OPSET}: {pip_install('onnx')}"
        )
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    model.ir_version = IR
    onnx.checker.check_model(model, full_check=True)
    with atomic(path) as temporary:
        onnx.save(model, str(temporary))


def _gives_maps(symbol, shape):
    """Whether outputs are maps (N, C, H, W) of the input's height and width."""
    _, (output, *_), _ = mx.sym.load(str(symbol)).infer_shape(data=shape)
    return len(output) == 4 and output[2:] == shape[2:]


def _weights_are_no_inputs(graph):
    weights = {weight.name for weight in graph.initializer}
    inputs = [each for each in graph.input if each.name not in weights]
    del graph.input[:]
    graph.input.extend(inputs)


def _name_output(graph):
    (output,) = graph.output
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == output.name:
                    names[index] = OUTPUT
    output.name = OUTPUT


def to_float16(path, out):
    """Write the model with float16 weights and arithmetic; input and output stay float32."""
    exporter()
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(onnx.load(str(path)), keep_io_types=True)
    _casts_of_the_input_first(model.graph)
    _write(model, out)


def _casts_of_the_input_first(graph):
    """The converter appends them, but a node must stand behind those that it reads."""
    nodes = sorted(graph.node, key=lambda node: INPUT not in node.input)  # stable
    del graph.node[:]
    graph.node.extend(nodes)


def to_int8(path, out, batches):
    """Write the model with 8-bit convolutions, whose activations' ranges come from ``batches``.

    ONNX Runtime's static quantisation, QDQ form, weights by channel; the rest stays float32.

    Parameters
    ----------
    path, out : path-like
        The float32 model and the quantised one.
    batches : iterable of numpy.ndarray
        float32 (N, 3, H, W), scaled as for the network: what the ranges are measured on.
    """
    exporter()
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self.batches = iter(batches)

        def get_next(self):
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch}

    with tempfile.TemporaryDirectory() as folder:
        prepared, quantized = (os.path.join(folder, f"{name}.onnx") for name in "ab")
        quant_pre_process(str(path), prepared, skip_symbolic_shape=True)
        with _quiet_root_logger():
            quantization.quantize_static(
                prepared,
                quantized,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                # Only where the time goes: sums and products of maps gain nothing.
                op_types_to_quantize=["Conv", "Gemm"],
                per_channel=True,
                # 7 bits: on a CPU without VNNI, sums of products of 8 bits overflow (measured: a
                # network's 34% on CIFAR-100 became 19%).
                reduce_range=True,
                weight_type=quantization.QuantType.QInt8,
                activation_type=quantization.QuantType.QUInt8,
            )
        _write(onnx.load(quantized), out)


@contextlib.contextmanager
def _quiet_root_logger():
    """The quantiser gives general advice through the root logger."""
    import logging

    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def runtime():
    """The module ``onnxruntime``, or a :class:`UserError` where it is missing."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{error}: {pip_install('onnx')}") from None
    return onnxruntime


def session(path):
    """An ONNX Runtime session on the CPU, with a thread a core.

    Raises
    ------
    UserError
        onnxruntime is missing, or the file is not an ONNX model.
    """
    onnxruntime = runtime()
    if not pathlib.Path(path).exists():
        raise UserError(f"there is no file {path}")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # where it prints that it tries again
            providers = ["CPUExecutionProvider"]
            return onnxruntime.InferenceSession(str(path), providers=providers)
    except Exception as error:  # of several kinds, from C++
        raise UserError(
            f"{path} is not a model that ONNX Runtime can run: {first_line(error)}"
        ) from None


def network(path):
    """An ONNX model as a callable from NDArray (N, 3, H, W) to NDArray logits (N, classes).

    Images of another size than the model's are a :class:`UserError`.
    """
    runner = session(path)
    size, _, *pixels = runner.get_inputs()[0].shape

    def run(images):
        if any(isinstance(a, int) and a != b for a, b in zip(pixels, images.shape[2:])):
            raise UserError(
                "{} takes images of {} x {} pixels (height x width), not of {} x {}: resize them, "
                "or export without --fixed-size".format(path, *pixels, *images.shape[2:])
            )
        return runner.run(None, {INPUT: images})[0]

    return on_ndarrays(run, size if isinstance(size, int) else None)


def on_ndarrays(run, size=None):
    """The same from NDArray to NDArray, of a function from NumPy to NumPy.

    ``size``: the batch size that ``run`` takes, if it takes one only.  Then it runs as often as it
    takes, on the last image again to fill up.
    """

    def run_in_steps(images):
        missing = -len(images) % size
        whole = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])
        parts = [run(whole[start : start + size]) for start in range(0, len(whole), size)]
        return np.concatenate(parts)[: len(images)]

    outputs = run_in_steps if size else run
    return lambda images: mx.nd.array(outputs(images.asnumpy()))
