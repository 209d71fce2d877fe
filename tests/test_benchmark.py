import sys

import pytest
from helpers import assert_close
from mxnet.gluon import nn

from openaff import UserError
from openaff.analysis import benchmark
from openaff.attention import GlobalPool
from openaff.deploy.pytorch.weights import import_torch
from openaff.training import benchmark as training_benchmark
from openaff.utils.outline import named_blocks


def test_take_turns_interleaves_and_leaves_the_warm_up_out(monkeypatch):
    calls, clock = [], iter(range(100))
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: next(clock))
    cases = {name: lambda name=name: calls.append(name) or 6 for name in "ab"}
    assert benchmark.take_turns(cases, turns=3) == {"a": 6.0, "b": 6.0}  # 6 items in 1 s
    assert calls == list("abababab")


def test_rows_hold_rates_and_their_ratios(monkeypatch):
    monkeypatch.setattr(
        training_benchmark,
        "NETWORKS",
        [("aff", "cifar_resnet8", {"width_multiplier": 1}, 2, (32, 32))],
    )
    (row,) = training_benchmark.train(turns=1, memory=False)
    assert row["case"] == "aff_cifar_resnet8, batch 2"
    assert row["ours/printed"] == pytest.approx(row["ours"] / row["printed"])
    assert row["ours/add"] == pytest.approx(row["ours"] / row["add"])


@pytest.mark.parametrize("backbone", ["cifar_resnet8", "fpn_resnet8", "resnet18"])
def test_a_printed_network_has_gluons_pooling_everywhere(backbone):
    for form, kind in (("printed", nn.GlobalAvgPool2D), ("ours", GlobalPool)):
        net = benchmark.build_network(form, "aff", backbone, {})
        pools = [each for each in named_blocks(net).values() if "Global" in type(each).__name__]
        assert pools and all(type(each) is kind for each in pools)
        assert not hasattr(net, "avgpool") or net.avgpool in pools


@pytest.fixture
def uncompiled(monkeypatch):
    """PyTorch compiles nothing, which takes minutes."""
    try:
        monkeypatch.setattr(import_torch(), "compile", lambda net: net)
    except UserError:
        pass  # it is not installed, and left out


def test_engines_are_compared_by_their_times(monkeypatch, uncompiled):
    monkeypatch.setattr(benchmark, "DEPLOYED", benchmark.DEPLOYED[:1])
    rows = benchmark.infer(turns=1, batch_sizes=(2,), seconds=0.02)
    names = [row["case"].split(", ", 2)[2] for row in rows]
    assert names[:3] == ["printed", "ours", "add"] and "ONNX Runtime, INT8" in names
    for row in rows:
        assert row["images/s"] == pytest.approx(2000 / row["p50 ms"])
        assert 0 < row["p50 ms"] <= row["p90 ms"] <= row["p99 ms"]
        assert row["/printed"] == pytest.approx(rows[0]["p50 ms"] / row["p50 ms"])


def test_every_engine_computes_the_same(uncompiled, tmp_path):
    engines = benchmark._engines(*benchmark.DEPLOYED[0], tmp_path)
    images = benchmark.random_images(3, (32, 32))
    expected = engines["ours"](images)
    exact = [name for name in engines if "INT8" not in name and "bf16" not in name]
    assert {"oneDNN", "ONNX Runtime"} <= set(exact)
    for name in set(exact) - {"printed", "add"}:  # other networks
        assert_close(engines[name](images), expected)


def test_what_is_not_installed_is_left_out(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    engines = benchmark._engines(*benchmark.DEPLOYED[0], tmp_path)
    assert list(engines) == ["printed", "ours", "add", "oneDNN"]
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("left out: ONNX export needs onnx and onnxruntime (")
    assert second.startswith("left out: PyTorch is needed for this (")


def test_pytorch_that_cannot_compile_is_left_out_alone(monkeypatch, capsys):
    torch = pytest.importorskip("torch", reason="needs the extra [torch]")

    def no_compiler(network):
        def fails(*_):
            raise RuntimeError("no C++ compiler\nat all")

        return fails

    monkeypatch.setattr(torch, "compile", no_compiler)
    key, backbone, options, size = benchmark.DEPLOYED[0]
    net = benchmark.build_network("ours", key, backbone, options)
    runs = benchmark._pytorch(net, f"{key}_{backbone}", options, size)
    assert list(runs) == ["PyTorch", "PyTorch, channels last"]
    assert capsys.readouterr().err == "left out: PyTorch cannot compile: no C++ compiler at all\n"


def test_data_compares_with_gluon():
    rows = benchmark.data(turns=1, images=128, batch_size=64)
    assert [row["case"].startswith("AutoAugment") for row in rows] == [False, True]
    for row in rows:
        assert row["ours/gluon"] == pytest.approx(row["ours"] / row["gluon"])
        assert min(row["gluon"], row["gluon, 2 workers"], row["ours"]) > 0


def test_photos_are_packed_and_read():
    rows = benchmark.photos(turns=1, images=4, batch_size=2)
    assert {row["case"][:4] for row in rows} == {"pack", "read"}
    assert min(row["images/s"] for row in rows) > 0


def test_peak_memory_is_the_childs_own():
    ballast = bytearray(600 << 20)  # MiB that a child must not be charged with
    network = "aff", "cifar_resnet8", {"width_multiplier": 1}
    peak = training_benchmark._peak_memory(
        training_benchmark._training, ("add", *network, 2, (32, 32))
    )
    assert 50 < peak < 500
    del ballast
