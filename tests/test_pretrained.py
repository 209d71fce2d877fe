import io
import json

import mxnet as mx
import numpy as np
import pytest
from helpers import DATA, assert_close, filled, input_value, layout, structural_params
from PIL import Image

from openaff import UserError, create_model
from openaff.data import DATASETS
from openaff.models.pretrained import (
    PUBLISHED,
    load_model,
    load_parameters,
)

TINY = {"width_multiplier": 1, "num_classes": 7}


def tiny(name="aff_cifar_resnet8", **options):
    return create_model(name, **dict(TINY, **options))


def values(net):
    return {key: param.data().asnumpy() for key, param in structural_params(net).items()}


def same(one, other):
    return one.keys() == other.keys() and all((one[key] == other[key]).all() for key in one)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(network, file) of rule-made parameters."""
    net, path = filled(tiny()), tmp_path_factory.mktemp("saved") / "tiny.params"
    net.save_parameters(str(path))
    return net, path


def refused(path, message, net=None):
    """Loading ``path`` fails with one line that says ``message``, and changes nothing."""
    net = net or tiny()
    with pytest.raises(UserError, match=message) as caught:
        load_parameters(net, path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert all(param._data is None for param in structural_params(net).values())
    net.initialize(mx.init.Xavier())
    before = values(net)
    with pytest.raises(UserError):
        load_parameters(net, path)
    assert same(values(net), before)
    return str(caught.value)


@pytest.mark.parametrize("initialised", [False, True])
def test_round_trip(saved, initialised):
    written, path = saved
    net = tiny()
    if initialised:
        net.initialize(mx.init.Xavier())
    load_parameters(net, path)
    assert same(values(net), values(written))


def test_half_precision_is_cast_to_the_networks_type(saved, tmp_path):
    half = {key: array.astype("float16") for key, array in mx.nd.load(str(saved[1])).items()}
    mx.nd.save(str(tmp_path / "half.params"), half)
    net = tiny()
    load_parameters(net, tmp_path / "half.params")
    assert {value.dtype for value in values(net).values()} == {np.dtype("float32")}
    assert same(values(net), {key: array.asnumpy() for key, array in half.items()})


def test_load_model_takes_the_number_of_outputs_from_the_file(saved):
    written, path = saved
    net = load_model("aff_cifar_resnet8", path, [mx.cpu(0), mx.cpu(1)], width_multiplier=1)
    x = input_value((2, 3, 32, 32))
    assert_close(net(x.as_in_context(mx.cpu(1))), written(x))
    with pytest.raises(UserError, match="2 of another shape .output.weight expected .9, 64. found"):
        load_model("aff_cifar_resnet8", path, width_multiplier=1, num_classes=9)


@pytest.mark.parametrize(
    "model, shape",
    [
        ("aff_cifar_resnet8", (2, 3, 32, 32)),
        ("aff_cifar_resnext11_32x4d", (1, 3, 16, 16)),
        ("aff_resnet18", (1, 3, 64, 64)),
    ],
)
def test_features_only_networks_take_a_classifiers_file(model, shape, tmp_path):
    classifier, path = filled(create_model(model, num_classes=7)), tmp_path / "net.params"
    classifier.save_parameters(str(path))
    net = create_model(model, features_only=True)
    load_parameters(net, path)
    loaded = values(net)
    assert same(loaded, {key: value for key, value in values(classifier).items() if key in loaded})
    left = set(values(classifier)) - set(loaded)
    assert left and all(name.startswith(net.head_names) for name in left)
    deepest = load_model(model, path, features_only=True)(input_value(shape))[-1]
    assert_close(deepest, net(input_value(shape))[-1])

    arrays = mx.nd.load(str(path))
    mx.nd.save(str(path), {**arrays, "features.99.weight": mx.nd.ones((1,))})
    with pytest.raises(UserError, match=r"1 unexpected \(features.99.weight \(1,\)\)"):
        load_parameters(create_model(model, features_only=True), path)
    with pytest.raises(UserError, match="1 unexpected"):
        load_parameters(classifier, path)
    arrays.pop(next(key for key in arrays if key in loaded))
    mx.nd.save(str(path), arrays)
    with pytest.raises(UserError, match="1 missing"):
        load_parameters(create_model(model, features_only=True), path)


def test_a_classifier_does_not_take_the_file_of_features_only(tmp_path):
    filled(tiny(features_only=True)).save_parameters(str(tmp_path / "features.params"))
    refused(tmp_path / "features.params", "6 missing .*features.5.gamma")


def test_sizes_that_the_network_does_not_know_yet(tmp_path):
    dense = [mx.gluon.nn.Dense(3, in_units=units) for units in (4, 0)]
    nets = [mx.gluon.nn.HybridSequential() for _ in dense]
    for net, layer in zip(nets, dense):
        net.add(layer)
    nets[0].initialize()
    nets[0].save_parameters(str(tmp_path / "dense.params"))
    load_parameters(nets[1], tmp_path / "dense.params")
    assert same(values(nets[1]), values(nets[0]))


def test_no_file(tmp_path):
    refused(tmp_path / "no.params", "cannot read .*no.params: No such file.*save_parameters wrote")
    refused(tmp_path, "cannot read .*: Is a directory")


def picture():
    out = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    "damage",
    [lambda content, length=length: content[:length] for length in (0, 5, 16, 24, 40, 1000, -1)]
    + [lambda content: b"loss 0.3, accuracy 0.9\n" * 9, lambda content: picture()],
    ids=["empty", "5", "16", "24", "40", "1000", "all but 1", "text", "picture"],
)
def test_no_params_file(saved, tmp_path, damage):
    path = tmp_path / "bad.params"
    path.write_bytes(damage(saved[1].read_bytes()))
    message = refused(path, "does not hold the parameters of CIFARResNet: it is damaged")
    assert f"it is damaged ({path.stat().st_size:,} bytes): " in message


def test_arrays_without_names(tmp_path):
    mx.nd.save(str(tmp_path / "list.params"), [mx.nd.ones((2,))])
    refused(tmp_path / "list.params", "its arrays have no names")


def test_another_network(saved):
    deeper = refused(saved[1], "missing", tiny("aff_cifar_resnet14"))
    assert "; check the model's name and options" in deeper and "unexpected" not in deeper
    assert "features.2.1.resfwd.0.gamma (16,), features.2.1.resfwd.0.beta (16,), " in deeper
    assert deeper.count("features.") == 3 and ", ...)" in deeper
    plain = refused(saved[1], r"CIFARResNet: \d+ unexpected \(features", tiny("add_cifar_resnet8"))
    wide = refused(saved[1], r"\d+ of another shape", tiny(width_multiplier=2))
    assert "features.1.weight expected (32, 3, 3, 3) found (16, 3, 3, 3), " in wide
    assert "missing" not in plain + wide


def test_exported_files_are_no_checkpoints(saved, tmp_path):
    net = saved[0]
    net.hybridize()
    net(input_value((1, 3, 32, 32)))
    net.export(str(tmp_path / "net"))
    net.hybridize(False)
    message = refused(tmp_path / "net-0000.params", "exported network's file .* no checkpoint")
    assert "with its symbol file" in message


def test_scope_names_are_no_structural_names(saved, tmp_path):
    path = tmp_path / "scope.params"
    saved[0].collect_params().save(str(path))
    refused(path, r"Gluon's scope names \(such as cifarresnet\d+_.*collect_params\(\).save")


ONCE = {PUBLISHED[name].model: name for name in PUBLISHED}  # a network of several files


@pytest.mark.parametrize("model", ONCE)
def test_published_networks_have_the_files_names_and_shapes(model):
    checkpoint = PUBLISHED[ONCE[model]]
    net = create_model(checkpoint.model, num_classes=checkpoint.outputs, **checkpoint.options)
    shapes = {key: list(param.shape) for key, param in structural_params(net).items()}
    published = "{}_{}".format(checkpoint.model.replace("cifar_", ""), checkpoint.dataset)
    assert shapes == layout(published)["params"]


def test_files_of_one_network_agree_on_its_options():
    built = {(PUBLISHED[name].model, str(PUBLISHED[name].options)) for name in PUBLISHED}
    assert len(built) == len(ONCE)
    assert {PUBLISHED[name].outputs for name in PUBLISHED} == {100, 1000}


def test_the_table_is_the_published_one():
    recorded = json.loads((DATA / "published_results.json").read_text())
    runs = {}
    for run in recorded["training_runs"]:
        score = run.get("best", run.get("best_top1_error"))
        name = run["checkpoint"].replace(" (from scratch)", f"/{score:.4f}")
        if not name.startswith("2020-09"):
            runs[name] = dict(run, score=score)
    assert set(PUBLISHED) == set(runs)
    for name, run in runs.items():
        checkpoint = PUBLISHED[name]
        assert checkpoint.name == name
        assert checkpoint.score == run["score"]
        assert checkpoint.metric.endswith("accuracy" if "best" in run else "error")
        assert checkpoint.dataset == run["dataset"]
        assert (checkpoint.labels or "1000") == run["labels"].split()[0]
        assert checkpoint.classes == int("".join(filter(str.isdigit, run["labels"])))
        assert f"{run['epochs']} epochs" in checkpoint.selection
        assert run["model"].partition(", continued")[2] in checkpoint.selection
        title = run["model"].lower().replace("-", "")
        assert title.startswith(checkpoint.model.replace("cifar_", "").replace("_", ""))


def test_input_scaling_is_that_of_the_data_sets_records():
    for name in ("cifar10", "cifar100"):
        assert DATASETS[name].mean == (0.4914, 0.4822, 0.4465)
        assert DATASETS[name].std == (0.2023, 0.1994, 0.2010)
    imagenet = DATASETS[PUBLISHED["imagenet/AFF-ResNet-50/0.2028"].dataset]
    np.testing.assert_allclose(np.multiply(imagenet.mean, 255), (123.68, 116.779, 103.939))
    np.testing.assert_allclose(np.multiply(imagenet.std, 255), (58.393, 57.12, 57.375))
