"""Damaged params files: refused before MXNet's C++ reader, which they would end the process in."""

import struct

import mxnet as mx
import numpy as np
import pytest

from openaff import UserError, create_model
from openaff.models.pretrained import load_model
from openaff.utils.digests import Damaged
from openaff.utils.files import sha256, write_json
from openaff.utils.params import check_structure, import_symbol, read_arrays

LIST = struct.pack("<QQ", 0x112, 0)
DEVICE = struct.pack("<ii", 1, 0)
VALUES = np.arange(6, dtype="<f4").tobytes()
NAME = struct.pack("<QQ", 1, 1) + b"a"


def one_array(
    shape=(2, 3), storage=0, kind=0, dimensions=None, device=1, names=NAME, values=VALUES
):
    """A params file of one array, its bytes."""
    count = len(shape) if dimensions is None else dimensions
    head = struct.pack(f"<Iii{len(shape)}q", 0xF993FAC9, storage, count, *shape)
    tail = struct.pack("<iii", device, 0, kind) + values + names
    return LIST + struct.pack("<Q", 1) + head + tail


@pytest.mark.parametrize(
    "kind", ["float32", "float64", "float16", "uint8", "int32", "int8", "int64", "bool"]
)
def test_what_mxnet_writes_is_read(tmp_path, kind):
    path = str(tmp_path / "a.params")
    arrays = {
        "a": mx.nd.array(np.arange(6).reshape(2, 3)).astype(kind),
        "é.b": mx.nd.ones(1).astype(kind),
    }
    mx.nd.save(path, arrays)
    for name, value in read_arrays(path).items():
        np.testing.assert_array_equal(value.asnumpy(), arrays[name].asnumpy())
        assert value.dtype == arrays[name].dtype
    mx.nd.save(path, list(arrays.values()))
    assert len(read_arrays(path)) == 2


@pytest.mark.parametrize(
    "head",
    [struct.pack("<Iiqq", 0xF993FAC8, 2, 2, 3), struct.pack("<III", 2, 2, 3)],
    ids=["before 0.12", "the first"],
)
def test_files_of_old_releases_are_read(tmp_path, head):
    path = tmp_path / "a.params"
    kind = struct.pack("<i", 0)
    path.write_bytes(LIST + struct.pack("<Q", 1) + head + DEVICE + kind + VALUES + NAME)
    np.testing.assert_array_equal(read_arrays(path)["a"].asnumpy(), [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    "content, message",
    [
        (one_array(dimensions=-1), "an array has -1 dimensions"),
        (one_array(dimensions=-(2**31)), "an array has -2147483648 dimensions"),
        (one_array(dimensions=0), "an array has 0 dimensions"),
        (one_array(dimensions=2**30), "an array has 1073741824 dimensions"),
        (one_array(shape=(2, -3)), "an array has a side of -3"),
        (one_array(shape=(2**40, 2**40)), "an array has a side of 1099511627776"),
        (one_array(shape=(2, 4)), "it ends in the middle"),
        (one_array(shape=(2, 1)), "arrays and|cannot hold|ends in the middle"),
        (one_array(kind=77), "the type 77"),
        (one_array(kind=-1), "the type -1"),
        (one_array(device=99), "the device 99"),
        (one_array(storage=1), "the storage type 1"),
        (one_array(names=struct.pack("<QQ", 1, 2**62) + b"a"), "it ends in the middle"),
        (one_array(names=struct.pack("<QQ", 1, 1) + b"\xff"), "a name is not in UTF-8"),
        (one_array(names=struct.pack("<QQ", 2, 1) + b"a"), "1 arrays and 2 names"),
        (one_array() + b"x", "1 bytes are left over"),
        (LIST + struct.pack("<Q", 2**60), "cannot hold"),
        (b"\0" * 40, "not an MXNet params file"),
        (b"", "not an MXNet params file"),
    ],
)
def test_damage_is_named(tmp_path, content, message):
    path = tmp_path / "a.params"
    path.write_bytes(one_array())
    check_structure(path)
    path.write_bytes(content)
    with pytest.raises(Damaged, match=message):
        read_arrays(path)


def test_a_name_that_stands_twice(tmp_path):
    path = str(tmp_path / "a.params")
    mx.nd.save(path, {"a": mx.nd.ones(2), "b": mx.nd.ones(2)})
    content = open(path, "rb").read()
    open(path, "wb").write(content[:-1] + b"a")
    with pytest.raises(Damaged, match="a name stands twice"):
        read_arrays(path)


def test_random_damage_never_reaches_mxnet(tmp_path):
    """Whatever the walk accepts, MXNet reads: no abort, no other error."""
    path, rng = tmp_path / "a.params", np.random.default_rng(0)
    mx.nd.save(str(path), {"a.b": mx.nd.ones((2, 3)), "c": mx.nd.ones((4,))})
    good = np.frombuffer(path.read_bytes(), "uint8")
    refused = 0
    for _ in range(150):
        bad = good.copy()
        bad[rng.integers(len(bad), size=rng.integers(1, 4))] = rng.integers(256)
        path.write_bytes(bad.tobytes())
        try:
            assert len(read_arrays(path)) == 2
        except Damaged:
            refused += 1
    assert refused > 50


@pytest.fixture
def run(tmp_path):
    """A folder with a network's parameters, and a description with their checksum."""
    net = create_model("aff_cifar_resnet8", num_classes=3, width_multiplier=1)
    net.initialize()
    net(mx.nd.zeros((1, 3, 32, 32)))
    net.save_parameters(str(tmp_path / "best.params"))
    digest = sha256(tmp_path / "best.params")
    write_json(tmp_path / "result.json", {"files": {"best.params": digest}})
    return tmp_path / "best.params"


def test_a_changed_value_is_told_by_the_runs_checksum(run):
    load_model("aff_cifar_resnet8", run, width_multiplier=1)
    content = bytearray(run.read_bytes())
    content[len(content) // 2] ^= 1
    run.write_bytes(content)
    with pytest.raises(UserError, match="it was changed after result.json was written"):
        load_model("aff_cifar_resnet8", run, width_multiplier=1)


def test_a_symbol_and_params_that_do_not_match(tmp_path):
    net = mx.gluon.nn.HybridSequential(prefix="")
    net.add(mx.gluon.nn.Dense(2, in_units=3, prefix="fc_"))
    net.initialize()
    net.hybridize()
    net(mx.nd.ones((1, 3)))
    symbol, params = tmp_path / "a-symbol.json", tmp_path / "a-0000.params"
    net.export(str(tmp_path / "a"))
    assert import_symbol(symbol, params)(mx.nd.ones((1, 3))).shape == (1, 2)
    good = symbol.read_text()
    for bad in ("", "{}", "[]", "[" * 100000, good.replace("FullyConnected", "Nothing"), good[:90]):
        symbol.write_text(bad)
        with pytest.raises(UserError, match="are no exported network: "):
            import_symbol(symbol, params)
    symbol.write_text(good)
    mx.nd.save(str(params), {"arg:fc_weight": mx.nd.ones((2, 3))})
    with pytest.raises(UserError, match="fc_bias"):
        import_symbol(symbol, params)
    params.write_bytes(one_array(dimensions=-1))
    with pytest.raises(UserError, match="0000.params is damaged: an array has -1 dimensions"):
        import_symbol(symbol, params)
    params.unlink()
    with pytest.raises(UserError, match="cannot read .*0000.params: No such file"):
        import_symbol(symbol, params)
