"""The networks in PyTorch: equal to ours, exported, brought home, and trained."""

import functools
import json
import pathlib
import re
import subprocess
import sys
import warnings

import mxnet as mx
import numpy as np
import pytest
from helpers import assert_close, filled, input_value, load_command, param_value, structural_params
from PIL import Image

from openaff import MSCAM, UserError, blocks, create_model
from openaff import fusion as fusions
from openaff.data import (
    DATASETS,
    DataConfig,
    Dataset,
    ImageSet,
    Labels,
    load_dataset,
    register_dataset,
)
from openaff.data.transforms import Normalize
from openaff.deploy import export
from openaff.deploy.predict import Predictor
from openaff.deploy.pytorch import states, weights
from openaff.deploy.subject import run_subject
from openaff.fusion import FUSIONS
from openaff.models import fpn, list_models, model_info, resnet
from openaff.tasks.classification import Classification, ClassificationMeter
from openaff.tasks.evaluation import evaluate_network
from openaff.training import session
from openaff.training.config import load_config
from openaff.training.engine import Engine, initialize
from openaff.training.optimizers import OptimizerConfig
from openaff.utils.devices import parse_devices

torch = pytest.importorskip("torch", reason="needs the extra [torch]")
safetensors = pytest.importorskip("safetensors.torch", reason="needs the extra [torch]")

from openaff.deploy.pytorch import network  # noqa: E402  (needs torch)
from openaff.deploy.pytorch.engine import Updates  # noqa: E402

KEYS = [key for key in FUSIONS if FUSIONS[key].__module__ == fusions.__name__]  # not of other tests
TINY = {"num_classes": 7, "width_multiplier": 1}


def as_torch(array):
    return torch.from_numpy(array.asnumpy())


def both(name, **options):
    """Our network with the rule's values, and the same in PyTorch, in evaluation mode."""
    ours = filled(create_model(name, **options))
    theirs, _ = weights.torch_network(ours, name, options)
    return ours, theirs.eval()


def exact_resize(F, x, like):
    """``resize_like`` of MXNet in float64, which its own operator only seems to be."""
    for axis in (2, 3):
        rows = torch.eye(x.shape[axis], dtype=torch.float64)[None]
        matrix = torch.nn.functional.interpolate(rows, size=like.shape[axis], mode="linear")[0]
        x = F.dot(x.swapaxes(axis, 3), mx.nd.array(matrix.numpy(), dtype="float64"))
        x = x.swapaxes(axis, 3)
    return x


def assert_equal(ours, theirs, images):
    """Equal outputs, and in training equal outputs, gradients and running statistics.

    Training in float64: where a batch norm has few values, gradients amplify rounding.
    """
    with torch.no_grad():
        assert_close(theirs(as_torch(images)).numpy(), ours(images))
    with pytest.MonkeyPatch.context() as patch:
        for module in (blocks, fpn):
            patch.setattr(module, "resize_like", exact_resize)
        assert_equal_in_training(ours, theirs, images)


def assert_equal_in_training(ours, theirs, images):
    theirs.double().train()
    ours.cast("float64")
    images = images.astype("float64")
    x, mask = as_torch(images), mx.nd.random.normal(shape=ours(images).shape, dtype="float64")
    with mx.autograd.record():
        output = ours(images)
        loss = (output * mask).sum()
    loss.backward()
    result = theirs(x)
    (result * as_torch(mask)).sum().backward()
    assert_close(result.detach().numpy(), output)
    found = dict(theirs.named_parameters())
    largest = max(
        np.abs(param.grad().asnumpy()).max()
        for param in structural_params(ours).values()
        if param.grad_req != "null"
    )
    state = theirs.state_dict()
    for name, param in structural_params(ours).items():
        name = weights.torch_name(name)
        if "running" in name:
            assert_close(state[name].numpy(), param.data())  # momentum is float32
        elif param.grad_req == "null":
            assert not found[name].requires_grad
        else:
            difference = np.abs(found[name].grad.numpy() - param.grad().asnumpy()).max()
            # Biases before a batch norm have a gradient of rounding errors alone.
            assert difference <= 1e-7 * max(np.abs(param.grad().asnumpy()).max(), 1e-3 * largest)


@pytest.mark.parametrize("key", KEYS)
def test_every_fusion_equals_ours(key):
    assert list(network.FUSIONS) == KEYS
    assert_equal(*both(f"{key}_cifar_resnet8", **TINY), input_value((4, 3, 13, 10)))


@pytest.mark.parametrize("key", ["aff", "iaff", "halfaff", "recursiveaff", "concataff", "se"])
@pytest.mark.parametrize("options", [{"reduction": None}, {"reduction": 2, "doubled": True}])
def test_options_of_fusions(key, options):
    if key == "se" and "doubled" in options:
        pytest.skip("it has no weighted sum")
    ours = filled(FUSIONS[key](8, **options))
    theirs = network.FUSIONS[key](8, **options).eval()
    theirs.load_state_dict(weights.torch_state(ours))
    x, residual = input_value((2, 8, 5, 4)), input_value((2, 8, 5, 4), seed=1)
    with torch.no_grad():
        assert_close(theirs(as_torch(x), as_torch(residual)).numpy(), ours(x, residual))


NORM = {"epsilon": 1e-2, "momentum": 0.7, "scale": False, "center": False}
PLAIN = {"deep_stem": False, "avg_down": False, "num_classes": 7}
FAMILIES = [
    ("aff_cifar_resnet8", {**TINY, "deep_stem": True, "reduction": 2, "doubled": False}),
    ("iaff_cifar_resnet8", {**TINY, "avg_down": False, "first_fused_stage": 3}),
    ("aff_cifar_resnet8", {**TINY, "norm_kwargs": NORM, "last_gamma": True}),
    ("cifar_resnet14", {**TINY, "fusion": "ASKCFuse", "norm_kwargs": {"use_global_stats": True}}),
    ("add_cifar_resnet8", {**TINY, "width_multiplier": 1.075}),
    ("add_fpn_resnet8", {**TINY, "dropout": 0, "width_multiplier": 1.1}),
    ("aff_cifar_inception_resnet8", TINY),
    ("concat_cifar_inception_resnet8", {**TINY, "avg_down": True, "deep_stem": True}),
    ("add_cifar_inception_resnet8", TINY),
    ("sk_cifar_inception_resnet8", {**TINY, "doubled": True, "first_fused_stage": 2}),
    ("iaff_cifar_inception_resnet8", {**TINY, "reduction": 4}),
    ("aff_cifar_resnext11_32x4d", {"num_classes": 7, "use_se": True, "deep_stem": True}),
    ("se_cifar_resnext11_32x4d", {"last_gamma": False}),
    ("aff_resnet18", {"num_classes": 7, "dilated": True}),
    ("aff_resnet50", {**PLAIN, "use_se": True, "first_fused_stage": 4, "last_gamma": True}),
    ("gau_resnext50_32x4d", {"num_classes": 7}),
    ("aff_fpn_resnet8", {**TINY, "dropout": 0, "host_fusion": "iaff", "reduction": 2}),
    ("iaff_fpn_resnet8", {"dropout": 0, **PLAIN, "width_multiplier": 1}),
    ("aff_fpn_resnet18", {"dropout": 0, "dilated": True, "doubled": False}),
    ("concat_fpn_resnext50_32x4d", {**PLAIN, "dropout": 0}),
]


@pytest.fixture(autouse=True)
def trusting(monkeypatch):
    """Any version of PyTorch: the files are our own."""
    monkeypatch.setattr(states, "SAFE_LOAD", (0, 0))


@pytest.fixture
def small(monkeypatch):
    """ImageNet's networks with one block a stage, in both frameworks."""
    for table in (resnet.BLOCKS, network.BLOCKS):
        for depth in (18, 50):
            monkeypatch.setitem(table, depth, (1, 1, 1, 1))


@pytest.mark.parametrize("name, options", FAMILIES)
def test_every_family_equals_ours(small, name, options):
    size = (33, 38) if "cifar" not in name else (13, 10)
    ours = create_model(name, **options)
    ours.initialize(mx.init.Xavier())  # the rule's values amplify rounding in deep networks
    for key, param in structural_params(ours).items():
        if key.endswith(("gamma", "beta", "mean", "var", "bias")):
            param.set_data(filled_value(key, param.shape))
    theirs, _ = weights.torch_network(ours, name, options)
    assert_equal(ours, theirs.eval(), input_value((4, 3, *size)))


SIZES = [((5, 5), (5, 5)), ((3, 4), (7, 5)), ((9, 10), (4, 38))]
SIZES += [((3, 3), (1, 1)), ((3, 2), (1, 4)), ((2, 3), (4, 1)), ((1, 1), (3, 4))]


@pytest.mark.parametrize("size, other", SIZES)
def test_interpolation_and_its_gradient_equal_ours(size, other):
    x, mask = input_value((2, 3, *size)), input_value((2, 3, *other), seed=1)
    x.attach_grad()
    with mx.autograd.record():
        output = blocks.resize_like(mx.nd, x, mask)
        loss = (output * mask).sum()
    loss.backward()
    y = as_torch(x).requires_grad_()
    result = network.resize_like(y, as_torch(mask))
    (result * as_torch(mask)).sum().backward()
    assert_close(result.detach().numpy(), output)
    assert_close(y.grad.numpy(), x.grad)


@pytest.mark.parametrize("name", ["aff_cifar_resnet8", "aff_cifar_resnext11_32x4d", "aff_resnet18"])
def test_branches_start_at_0_where_ours_do(small, name):
    ours = create_model(name, last_gamma=True)
    ours.initialize()
    theirs = network.create(name, last_gamma=True).state_dict()
    gammas = {
        weights.torch_name(key): param.data().asnumpy()
        for key, param in structural_params(ours).items()
        if key.endswith("gamma")
    }
    assert any((value == 0).all() for value in gammas.values())
    for key, value in gammas.items():
        np.testing.assert_array_equal(theirs[key], value)


def filled_value(name, shape):
    return mx.nd.array(param_value(name, shape))


def test_maps_of_all_stages(small):
    for name in ("aff_cifar_resnet8", "aff_resnet18", "aff_fpn_resnet8"):
        options = {"features_only": True}
        ours = filled(create_model(name, **options))
        theirs = network.create(name, **options).eval()
        theirs.load_state_dict(weights.torch_state(ours))
        images = input_value((2, 3, 33, 30))
        with torch.no_grad():
            for one, other in zip(theirs(as_torch(images)), ours(images)):
                assert_close(one.numpy(), other)


def test_every_option_is_there_with_our_default():
    for name in list_models("aff_*"):
        info = model_info(name)
        if not info.backbone.network.__module__.startswith("openaff."):
            continue  # of other tests
        (theirs,) = {  # the first pattern that fits
            pattern: each for pattern, each in reversed(network.BACKBONES) if fits(pattern, name)
        }.popitem()[1:]
        expected = {key: each for key, each in info.backbone.options.items() if key != "norm_layer"}
        assert {key: theirs.defaults[key] for key in theirs.defaults if key != "fusion"} == expected


def fits(pattern, name):
    return re.fullmatch(pattern, name.partition("_")[2])


def test_mscam_and_blocks_alone():
    x = input_value((3, 8, 5, 4))
    ours, theirs = filled(MSCAM(8, 2)), network.MSCAM(8, 2).eval()
    theirs.load_state_dict(weights.torch_state(ours))
    with torch.no_grad():
        assert_close(theirs(as_torch(x)).numpy(), ours(x))
    assert network.AFF(8)(*torch.ones(2, 2, 8, 5, 5)).shape == (2, 8, 5, 5)
    with pytest.raises(ValueError, match="AFF needs two maps of one shape, not"):
        network.AFF(8)(torch.ones(2, 8, 5, 5), torch.ones(2, 8, 1, 1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["iaff_cifar_resnet8", "aff_fpn_resnet8"])
def test_half_precision_runs(name, dtype):
    _, theirs = both(name, **TINY)
    x = as_torch(input_value((2, 3, 33, 30)))
    with torch.no_grad():
        expected = theirs(x)
        result = theirs.to(dtype)(x.to(dtype))
    assert result.dtype == dtype
    assert (result.float() - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize("name", ["aff_cifar_resnet8", "aff_fpn_resnet8"])
def test_torch_export_takes_it(name):
    _, theirs = both(name, **TINY)
    x = as_torch(input_value((2, 3, 32, 32)))
    batch = {0: torch.export.Dim("batch", min=2)}
    program = torch.export.export(theirs, (x,), dynamic_shapes=(batch,))
    more = as_torch(input_value((5, 3, 32, 32)))
    with torch.no_grad():
        assert_close(program.module()(more).numpy(), theirs(more).numpy())


@pytest.mark.long
@pytest.mark.parametrize("train", [False, True])
def test_torch_compile_takes_it(train):
    _, theirs = both("iaff_cifar_resnet8", **TINY)
    theirs.train(train)
    copy = network.create("iaff_cifar_resnet8", **TINY).train(train)
    copy.load_state_dict(theirs.state_dict())
    x = as_torch(input_value((4, 3, 16, 16)))
    assert_close(torch.compile(copy)(x).detach().numpy(), theirs(x).detach().numpy(), 1e-4)
    for key, value in theirs.state_dict().items():
        assert_close(copy.state_dict()[key].numpy(), value.numpy(), 1e-4)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: network.create("aff_cifar_resnet9"), "must be 6b"),
        (lambda: network.create("aff_resnet20"), "no ResNet has depth 20"),
        (lambda: network.create("aff_resnext20_32x4d"), "no ResNeXt has depth 20"),
        (lambda: network.create("afff_resnet50"), "unknown network 'afff_resnet50'"),
        (lambda: network.create("aff_resnet50", fusion="aff"), "has a fusion already"),
        (lambda: network.create("resnet50", fusion="afff"), "unknown fusion 'afff'"),
        (lambda: network.create("aff_resnet50", width=1), "ResNet has no option 'width'"),
        (lambda: network.create("add_resnet50", reduction=2), "reduction=2 has no effect"),
        (lambda: network.create("aff_cifar_resnet8", reduction=3), "cannot be reduced by 3"),
        (lambda: network.create("aff_cifar_resnet8", first_fused_stage=9), "must be 1 to 4, not 9"),
        (
            lambda: network.create("aff_cifar_resnet8", first_fused_stage=4, reduction=2),
            "reduction has no effect: no stage is fused",
        ),
        (
            lambda: network.create("aff_fpn_resnet8", first_fused_stage=2),
            "first_fused_stage=2 has no effect without host_fusion",
        ),
        (lambda: network.create("cifar_resnet8", fusion=5), "fusion must be a name or a callable"),
        (
            lambda: network.create(
                "cifar_resnet8", fusion=functools.partial(network.AFF), reduction=2
            ),
            "reduction=2 has no effect on functools.partial",
        ),
    ],
)
def test_errors_of_the_networks(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- Export ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(digits_run, tmp_path_factory):
    """An export folder of the digits' run, and its subject."""
    folder = tmp_path_factory.mktemp("exports") / "digits"
    subject = run_subject(digits_run[0])
    export.export_folder(subject, folder, ["pytorch"])
    return folder, subject


def test_an_export_loads_without_openaff_and_mxnet(exported, tmp_path):
    folder, subject = exported
    names = ["aff_cifar_resnet8.safetensors", "export.json", "labels.txt", "network.py"]
    assert sorted(path.name for path in folder.iterdir()) == names
    facts = json.loads((folder / "export.json").read_text())
    assert list(facts["parity"]) == ["pytorch"] and facts["parity"]["pytorch"] <= 1e-5
    images = input_value((2, 3, 32, 32))
    np.save(tmp_path / "images.npy", images.asnumpy())
    code = """
import sys
sys.modules["openaff"] = sys.modules["mxnet"] = None
sys.path.insert(0, sys.argv[1])
import numpy, torch
from network import load
net = load(sys.argv[1])
assert not net.training
with torch.no_grad():
    numpy.save("logits.npy", net(torch.from_numpy(numpy.load("images.npy"))).numpy())
"""
    command = [sys.executable, "-c", code, str(folder)]
    subprocess.run(command, cwd=str(tmp_path), check=True)
    assert_close(np.load(tmp_path / "logits.npy"), subject.net(images))


def test_the_predictor_runs_it(exported):
    folder, subject = exported
    predict = Predictor(folder)
    photo = load_dataset(DataConfig()).test.images[0]
    assert predict.engine == "pytorch"
    assert_close(predict.logits([photo]), subject.net(mx.nd.array(predict.preprocess([photo]))))


def test_exporting_twice_gives_the_same_weights(exported, tmp_path):
    folder, subject = exported
    export.export_folder(subject, tmp_path / "again", ["pytorch", "symbol"])
    for name in ("aff_cifar_resnet8.safetensors", "network.py"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert (tmp_path / "again" / "aff_cifar_resnet8-symbol.json").exists()


def test_export_errors(exported, tmp_path, monkeypatch):
    _, subject = exported
    monkeypatch.setattr(weights, "largest_difference", lambda *_: 1.0)
    with pytest.raises(UserError, match="differs from the network by 1.0e"):
        export.export_folder(subject, tmp_path / "x", ["pytorch"])
    net = create_model("cifar_resnet8", fusion=lambda channels: fusions.AFF(channels))
    with pytest.raises(UserError, match="myfuse_cifar_resnet8 cannot be built in PyTorch: unknown"):
        weights.torch_network(net, "myfuse_cifar_resnet8", {})
    with pytest.raises(UserError, match="cannot be built in PyTorch: .*axis"):
        weights.torch_network(net, "add_cifar_resnet8", {"norm_kwargs": {"axis": 1}})
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"PyTorch is needed .*: pip install -e .\[torch\]"):
        export.export_folder(subject, tmp_path / "x", ["pytorch"])
    assert list(tmp_path.iterdir()) == []


def test_the_pages_snippets_run(exported, root, tmp_path, monkeypatch):
    folder, subject = exported
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports" / "aff8").symlink_to(folder)
    photo = load_dataset(DataConfig()).test.images[0]
    Image.fromarray(photo).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    page = (root / "docs/pytorch.md").read_text()
    names = {}
    for code in re.findall(r"```python\n(.*?)```", page, re.S):
        monkeypatch.delitem(sys.modules, "network", raising=False)
        exec(code, names)  # noqa: S102
    scaled = Normalize(subject.mean, subject.std)(photo[None])
    assert_close(names["logits"].numpy(), subject.net(mx.nd.array(scaled)))
    assert names["fused"].shape == (2, 64, 8, 8)


def test_load_errors(exported, tmp_path):
    with pytest.raises(ValueError, match="holds 0 .safetensors files: name one file"):
        network.load(tmp_path)
    with pytest.raises(ValueError, match="there is no file"):
        network.load(tmp_path / "absent.safetensors")
    safetensors.save_file({"weight": torch.ones(1)}, str(tmp_path / "other.safetensors"))
    with pytest.raises(ValueError, match="does not say which network it is of"):
        network.load(tmp_path)


# --- Importing weights ----------------------------------------------------------------------------


def assert_same_bits(ours, others):
    for (name, one), other in zip(
        structural_params(ours).items(), structural_params(others).values()
    ):
        assert one.data().asnumpy().tobytes() == other.data().asnumpy().tobytes(), name


def test_an_export_comes_home_bit_equal(exported, tmp_path, call):
    folder, subject = exported
    path = folder / "aff_cifar_resnet8.safetensors"
    printed = call("import-pytorch", "--state", path, "--out", tmp_path / "home.params").out
    assert "aff_cifar_resnet8: " in printed
    home = create_model("aff_cifar_resnet8", num_classes=10, **subject.options)
    home.load_parameters(str(tmp_path / "home.params"))
    assert_same_bits(home, subject.net)


@pytest.mark.parametrize("kind", ["plain.pt", "wrapped.pth", "twice.pth", "plain.safetensors"])
def test_state_dicts_in_several_wrappings(kind, tmp_path, call):
    ours, theirs = both("iaff_fpn_resnet8", **TINY)
    state, path = theirs.state_dict(), tmp_path / kind
    if kind == "plain.safetensors":
        safetensors.save_file(state, str(path))
    else:
        if kind == "wrapped.pth":
            state = {f"module.{name}": value.double() for name, value in state.items()}
            state = {"epoch": 3, "state_dict": state}
        if kind == "twice.pth":
            state = {f"_orig_mod.module.{name}": value for name, value in state.items()}
        torch.save(state, path)
    out = tmp_path / "home.params"
    option = ["--option", "width_multiplier=1"]
    call("import-pytorch", "--state", path, "--model", "iaff_fpn_resnet8", *option, "--out", out)
    home = create_model("iaff_fpn_resnet8", **TINY)  # its 7 outputs are the file's
    home.load_parameters(str(out))
    assert_same_bits(home, ours)


class Port(torch.nn.Module):
    """A block as PyTorch ports have it: the same names, its equation written as the paper's."""

    def __init__(self, kind, channels, r):
        super().__init__()
        self.kind = kind
        self.local_att, self.global_att = self.branch(channels, r), self.branch(channels, r, True)
        if "iAFF" in kind:
            self.local_att2 = self.branch(channels, r)
            self.global_att2 = self.branch(channels, r, True)

    def branch(self, channels, r, pool=False):
        layers = [torch.nn.AdaptiveAvgPool2d(1)] if pool else []
        for one, other in ((channels, channels // r), (channels // r, channels)):
            layers += [torch.nn.Conv2d(one, other, 1), torch.nn.BatchNorm2d(other)]
            layers += [torch.nn.ReLU()]
        return torch.nn.Sequential(*layers[:-1])

    def forward(self, x, residual=None):
        total = x if residual is None else x + residual
        w = torch.sigmoid(self.local_att(total) + self.global_att(total))
        if residual is None:
            return x * w
        if self.kind == "AFF":
            return 2 * x * w + 2 * residual * (1 - w)
        total = x * w + residual * (1 - w)
        second = self.global_att if self.kind == "shared iAFF" else self.global_att2
        w = torch.sigmoid(self.local_att2(total) + second(total))
        return x * w + residual * (1 - w)


@pytest.mark.parametrize("kind", ["AFF", "iAFF", "shared iAFF", "MS_CAM"])
def test_blocks_of_ports(kind, tmp_path, call):
    torch.manual_seed(0)
    port = Port(kind, 12, 3).train()
    inputs = [input_value((4, 12, 5, 4), seed) for seed in range(1 if kind == "MS_CAM" else 2)]
    for _ in range(3):
        port(*map(as_torch, inputs))  # for running statistics that are not 0 and 1
    port.eval()
    torch.save(port.state_dict(), tmp_path / "port.pth")
    model = kind.split()[-1]
    arguments = ["--state", tmp_path / "port.pth", "--model", model]
    arguments += ["--out", tmp_path / "home.params"]
    call("import-pytorch", *arguments, *(["--shared-global"] if "shared" in kind else []))
    home = {"AFF": fusions.AFF, "iAFF": fusions.IAFF, "MS_CAM": MSCAM}[model](12, 3)
    home.load_parameters(str(tmp_path / "home.params"))
    with torch.no_grad():
        assert_close(home(*inputs), port(*map(as_torch, inputs)).numpy())


@pytest.mark.parametrize("key", [key for key in KEYS if key != "add"])
def test_a_blocks_form_follows_from_its_file(key, tmp_path):
    theirs = network.FUSIONS[key](16)
    path = tmp_path / "block.safetensors"
    safetensors.save_file(theirs.state_dict(), str(path))
    _, home = states.import_state(path, key)
    assert set(map(weights.torch_name, structural_params(home))) < set(theirs.state_dict())
    _, again = states.import_state(path, key, {"channels": 16})
    assert_same_bits(home, again)


@pytest.mark.parametrize(
    "facts, message",
    [
        ("[" * 100000, "is damaged: "),
        ("{", "is damaged: "),
        ("[1]", "does not say which network it is of"),
        ('{"model": 3, "options": {}}', "does not say which network it is of"),
        ('{"model": "aff_cifar_resnet8", "options": []}', "does not say which network"),
        ('{"model": "aff_cifar_resnet8", "options": {"x": 1}}', "does not fit aff_cifar_resnet8"),
        ('{"model": "aff_cifar_resnet8", "options": {}}', "does not fit aff_cifar_resnet8"),
        ('{"model": "aff_cifar_resnet8", "options": {"reduction": "x"}}', "does not fit aff_cifar"),
        ('{"model": "aff_cifar_resnet8", "options": {"reduction": 0}}', "does not fit aff_cifar"),
    ],
)
def test_facts_of_another_kind_are_one_line(tmp_path, facts, message):
    """Of a file that PyTorch can read: what it says of its network is damaged."""
    path = tmp_path / "a.safetensors"
    safetensors.save_file({"weight": torch.ones(1)}, str(path), metadata={"openaff": facts})
    with pytest.raises(UserError, match=message) as caught:
        weights.runner(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=message):
        network.load(path)
    with pytest.raises(UserError) as caught:
        states.import_state(path)
    assert "\n" not in str(caught.value)


def test_a_damaged_safetensors_file_is_one_line(tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors.save_file({"weight": torch.ones(100)}, str(path))
    for content in (b"", b"x" * 100, b"\xff" * 8 + path.read_bytes()[8:], path.read_bytes()[:-1]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="a.safetensors is damaged: "):
            weights.runner(path)


def quantized():
    with warnings.catch_warnings():  # PyTorch will have none some day
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8)


def endless():
    state = {}
    state["model"] = state
    return state


def saved(path, **values):
    torch.save(values.get("whole", values), path)
    return path


@pytest.mark.parametrize(
    "name, content, model, message",
    [
        ("a.pth", None, "AFF", "there is no file"),
        ("a.npz", b"x", "AFF", "a state dict is a .safetensors, .pt or .pth file"),
        ("a.safetensors", b"x", "AFF", "is damaged or no safetensors file"),
        ("a.pth", b"x", "AFF", "is damaged|holds more than tensors"),
        ("a.pth", [1], "AFF", "holds a list, not a state dict"),
        ("a.pth", {"epoch": 1}, "AFF", "is no state dict: 'epoch' is a int, not a tensor"),
        ("a.pth", {0: torch.ones(1)}, "AFF", "is no state dict: the name 0 is no string"),
        ("a.pth", {}, "AFF", "holds no tensors"),
        ("a.pth", {"x": torch.ones(2, 2).to_sparse()}, "AFF", "'x' is no dense tensor of real num"),
        ("a.pth", {"x": torch.ones(2, dtype=torch.complex64)}, "AFF", "'x' is no dense tensor of"),
        ("a.pth", {"x": quantized()}, "AFF", "'x' is no dense tensor of real numbers: save it as"),
        ("a.pth", endless(), "AFF", "holds a dict, not a state dict"),
        ("a.pth", {"output.bias": torch.ones(())}, "add_cifar_resnet8", "missing .*features.0.we"),
        ("a.pth", {"local_att.0.weight": torch.ones(0, 8, 1, 1)}, "AFF", "does not tell the chan"),
        ("a.pth", pathlib.PurePosixPath("x"), "AFF", "holds more than tensors"),
        ("a.pth", "aff", None, "does not say which network it is of: name it, --model"),
        ("a.pth", "aff", "iAFF", "missing .*local_att2.0.weight"),
        ("a.pth", "aff", "MS_CAMM", "unknown model 'MS_CAMM'"),
        ("a.pth", "aff", "add_cifar_resnet8", "missing .*features.0.weight .*unexpected .*local_a"),
        ("a.pth", {"x": torch.ones(1)}, "AFF", "does not tell the channels of AFF"),
        (
            "a.pth",
            {f"local_att.{index}.weight": torch.ones(8, 4, 1, 1) for index in (0, 3)},
            "AFF",
            "a.pth does not hold the weights of AFF: .*local_att.0.weight",
        ),
    ],
)
def test_import_errors(name, content, model, message, tmp_path):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(network.AFF(8, 2).state_dict() if content == "aff" else content, path)
    with pytest.raises(UserError, match=message) as raised:
        states.import_state(path, model)
    assert "\n" not in str(raised.value)


def test_more_import_errors(tmp_path, monkeypatch, call):
    path = saved(tmp_path / "aff.pth", whole=network.AFF(8, 2).state_dict())
    with pytest.raises(UserError, match=r"of another shape \(local_att.0.weight expected \(2, 8"):
        states.import_state(path, "AFF", {"reduction": 4})
    with pytest.raises(UserError, match="AFF: .*unexpected keyword argument 'r'"):
        states.import_state(path, "AFF", {"r": 4})
    for options in ({"prefix": 5}, {"norm_kwargs": {"beta_initializer": "foo"}}):
        with pytest.raises(UserError, match="^AFF: ."):
            states.import_state(path, "AFF", options)
    with pytest.raises(UserError, match="aff.pth: the option name has no effect: add_cifar"):
        states.import_state(path, "add_cifar_resnet8", {"name": "x"})
    with pytest.raises(UserError, match="--shared-global has no effect: AFF has no global_att2"):
        states.import_state(path, "AFF", shared_global=True)
    state = network.IAFF(8).state_dict()
    state["global_att2.1.weight"] = torch.ones(3)
    odd = saved(tmp_path / "odd.pth", whole=state)
    with pytest.raises(UserError, match="--shared-global|of another shape"):
        states.import_state(odd, "AFF", shared_global=True)
    states.import_state(odd, "iAFF", shared_global=True)  # what is odd is not used
    old = tmp_path / "old.pth"
    torch.save({"a": torch.ones(4)}, old, _use_new_zipfile_serialization=False)
    whole = old.read_bytes()
    for length in range(0, len(whole), 7):
        old.write_bytes(whole[:length])
        with pytest.raises(UserError, match="is damaged or no file of torch.save|or is damaged: s"):
            states.import_state(old, "AFF")
    iaff = network.IAFF(8)
    iaff.global_att2.load_state_dict(iaff.global_att.state_dict())
    same = saved(tmp_path / "iaff.pth", whole=iaff.state_dict())
    with pytest.raises(UserError, match="has the values of global_att there already"):
        states.import_state(same, "iAFF", shared_global=True)
    for out, message in (("no/x.params", "there is no such folder"), (".", "it is a folder")):
        with pytest.raises(UserError, match=message):
            call("import-pytorch", "--state", path, "--model", "AFF", "--out", tmp_path / out)
    monkeypatch.setattr(states, "SAFE_LOAD", (99, 0))
    with pytest.raises(UserError, match=r"torch .* may run code from such a file: take torch 2.6"):
        states.import_state(path, "AFF")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match="PyTorch is needed"):
        states.import_state(path, "AFF")


# --- Training -------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def blobs():
    """A data set of the tests' own: bright blobs on the left or on the right."""

    @register_dataset(
        "blobs",
        title="blobs",
        task="classification",
        labels=(Labels("classes", 2, "2 classes"),),
        image_shape=(3, 12, 12),
        settings=("mixup_alpha",),
    )
    def load(config):
        rng = np.random.default_rng(0)
        images = rng.integers(0, 80, (32, 12, 12, 3), dtype="uint8")
        labels = rng.integers(0, 2, 32)
        for image, label in zip(images, labels):
            image[3:9, 6 * label : 6 * label + 6] = 200
        return Dataset(
            name="blobs",
            labels="2 classes",
            split="24 training and 8 test images",
            class_names=("left", "right"),
            train=ImageSet(images[:24], labels[:24]),
            test=ImageSet(images[24:], labels[24:]),
            mean=(0.3,) * 3,
            std=(0.2,) * 3,
        )

    yield
    DATASETS._entries.pop("blobs")
    DATASETS._keys.remove("blobs")


CONFIG = {
    "model": {"name": "aff_cifar_resnet8", "options": {"width_multiplier": 1}},
    "data": {"name": "blobs", "batch_size": 8, "flip": False, "mixup_alpha": 1.0},
    "loss": {"label_smoothing": 0.1},
    "optimizer": {"lr": 0.02, "no_wd": True, "weight_decay": 0.01},
    "schedule": {"warmup": 1},
    "checkpoint_steps": 1,
    "epochs": 3,
}


@pytest.fixture(scope="module")
def script():
    return load_command("train_pytorch")


def engines(script, **optimizer):
    """Both frameworks' engines with the same weights."""
    made = []
    for make in (Engine, functools.partial(script.TorchEngine, model="aff_cifar_resnet8")):
        np.random.seed(0)
        mx.random.seed(0)
        options = {"width_multiplier": 1, "num_classes": 5}
        net = create_model("aff_cifar_resnet8", **options)
        initialize(net, [mx.cpu()])
        more = {} if make is Engine else {"options": options}
        loss = Classification.make_loss({"label_smoothing": 0.1})
        config = OptimizerConfig(**optimizer)
        made.append(make(net, loss, lambda step: 0.01 * (step + 1), config, **more))
    return made


def batches(count, mixed, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        labels = rng.dirichlet(np.ones(5), 6) if mixed else rng.integers(0, 5, 6)
        yield mx.nd.array(rng.standard_normal((6, 3, 12, 12))), mx.nd.array(labels)


@pytest.mark.parametrize("mixed", [False, True])
def test_the_first_step_has_our_loss_and_gradients(script, mixed):
    """A value that is 0 but for rounding may lie on either side of a ReLU: other images decide."""
    differences = (difference_of_gradients(script, mixed, seed) for seed in range(3))
    assert any(difference < 1e-5 for difference in differences)


def difference_of_gradients(script, mixed, seed):
    """The largest after one step, relative to the largest gradient."""
    ours, theirs = engines(script)
    meters = [ClassificationMeter(5), ClassificationMeter(5)]
    for engine, meter in zip((ours, theirs), meters):
        for images, targets in batches(1, mixed, seed):
            engine.train_step(images, targets, meter)
    one, other = (meter.values() for meter in meters)
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
    assert one["accuracy"] == pytest.approx(other["accuracy"])
    gradients = {
        weights.torch_name(name): param.grad().asnumpy()
        for name, param in structural_params(ours.net).items()
        if param.grad_req != "null"
    }
    assert set(gradients) == set(theirs.updates.params)
    found = {name: param.grad.numpy() for name, param in theirs.updates.params.items()}
    differences = [np.abs(found[name] - gradients[name]).max() for name in gradients]
    return max(differences) / max(np.abs(gradient).max() for gradient in gradients.values())


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "nag", "no_wd": True, "weight_decay": 0.5},
        {"name": "nag", "momentum": 0.0, "clip_gradient": 0.01, "weight_decay": 0.5},
        {"name": "sgd", "momentum": 0.5, "weight_decay": 0.5},
        {"name": "adagrad", "clip_gradient": 0.01, "weight_decay": 0.5},
        {"name": "adam", "beta1": 0.8, "clip_gradient": 0.01, "weight_decay": 0.5, "epsilon": 1e-3},
    ],
)
def test_updates_are_those_of_mxnet(script, settings):
    """From given gradients: those of networks would differ by rounding."""
    rng = np.random.default_rng(0)
    shapes = {"weight": (4, 3), "bias": (4,)}
    config = OptimizerConfig(**settings)
    params = {
        name: torch.nn.Parameter(torch.tensor(rng.standard_normal(shape), dtype=torch.float32))
        for name, shape in shapes.items()
    }
    ours = {name: mx.gluon.Parameter(name, shape=shape) for name, shape in shapes.items()}
    for name, param in ours.items():
        param.initialize()
        param.set_data(mx.nd.array(params[name].detach().numpy()))
        if config.no_wd and name == "bias":
            param.wd_mult = 0.0
    given = {"learning_rate": 0.1, **config.settings("float32")}
    trainer = mx.gluon.Trainer(list(ours.values()), config.name, given, kvstore=None)
    from openaff.deploy.pytorch.engine import Updates

    updates = Updates(params, config)
    for step in range(4):
        trainer.set_learning_rate(0.1 / (step + 1))
        for name, shape in shapes.items():
            gradient = rng.standard_normal(shape).astype("float32")
            ours[name].grad()[:] = gradient
            ours[name].data()._fresh_grad = True
            params[name].grad = torch.from_numpy(gradient)
        trainer.step(8)
        updates.step(0.1 / (step + 1), 1 / 8)
    for name in shapes:
        assert_close(params[name].detach().numpy(), ours[name].data(), 1e-6)


def test_running_statistics_are_those_of_mxnet():
    """Of few values, where the variance's divisor shows."""
    ours, theirs = mx.gluon.nn.BatchNorm(in_channels=3), network.BatchNorm(3)
    ours.initialize()
    for seed in range(2):
        x = input_value((3, 3, 1, 1), seed)
        with mx.autograd.record():
            output = ours(x)
        output.backward()
        assert_close(theirs(as_torch(x)).detach().numpy(), output)
    for name in ("running_mean", "running_var"):
        assert_close(getattr(theirs, name).numpy(), getattr(ours, name).data(), 1e-6)


def train(script, out, engine=None):
    made = script.PyTorch("cpu")
    return session.train(load_config(CONFIG), out, made.contexts, engine or made.engine)


@pytest.fixture(scope="module")
def torch_run(script, tmp_path_factory):
    folder = tmp_path_factory.mktemp("torch") / "run"
    return folder, train(script, folder)


def test_a_run_in_pytorch_is_a_run_like_others(torch_run):
    folder, result = torch_run
    assert result["framework"] == f"PyTorch {torch.__version__}" and result["devices"] == ["cpu"]
    assert f"trained in PyTorch {torch.__version__}" in result["protocol"]
    for name in ("best.safetensors", "last.safetensors"):  # a run with a result has all
        assert (folder / name).stat().st_mtime_ns <= (folder / "result.json").stat().st_mtime_ns
    subject = run_subject(folder)
    net = network.load(folder / "best.safetensors")
    images = input_value((2, 3, 12, 12))
    with torch.no_grad():
        assert_close(net(as_torch(images)).numpy(), subject.net(images))
    dataset = load_dataset(load_config(CONFIG).data)
    measured, _ = evaluate_network(subject.net, dataset, [mx.cpu()], 8)
    assert measured["accuracy"] == pytest.approx(result["best_accuracy"])
    _, home = states.import_state(folder / "last.safetensors")
    home.save_parameters(str(folder / "home.params"))
    last = mx.nd.load(str(folder / "last.params"))
    for name, value in mx.nd.load(str(folder / "home.params")).items():
        assert (value == last[name]).min() == 1, name


def test_a_stopped_run_goes_on_to_the_same_end(torch_run, script, tmp_path):
    class Stops(script.TorchEngine):
        def train_step(self, *batch):
            if self.step == 4:
                raise KeyboardInterrupt
            super().train_step(*batch)

    def stops(config):
        return functools.partial(Stops, model=config.model.name, options=config.model.options)

    with pytest.raises(KeyboardInterrupt):
        train(script, tmp_path / "run", stops)
    with pytest.raises(UserError, match="was written by a run in PyTorch .*: resume it with the"):
        session.resume(tmp_path / "run", parse_devices("cpu"))
    made = script.PyTorch("cpu")
    session.resume(tmp_path / "run", made.contexts, engine=made.engine)
    one, other = (mx.nd.load(str(f / "last.params")) for f in (tmp_path / "run", torch_run[0]))
    for name, value in one.items():
        assert value.asnumpy().tobytes() == other[name].asnumpy().tobytes(), name


@pytest.mark.parametrize(
    "override, message",
    [
        ("data.batch_size=1", "needs two values or more"),
        ("precision=amp", "precision=amp is not for training in PyTorch"),
        ("sync_batch_norm=true", "sync_batch_norm=True is not for"),
        ("kvstore=dist_sync", "kvstore=dist_sync is not for"),
        ("freeze=[features.1.*]", "freeze=.* is not for"),
        ("lr_mult={output.*: 10}", "lr_mult=.* is not for"),
    ],
)
def test_what_pytorch_does_not_do_is_refused(script, tmp_path, override, message):
    config, made = load_config(CONFIG, [override]), script.PyTorch("cpu")
    with pytest.raises(UserError, match=message):
        session.train(config, tmp_path / "run", made.contexts, made.engine)
    assert not (tmp_path / "run").exists()


def test_other_refusals(script, monkeypatch):
    made = script.PyTorch("cpu")
    config = load_config("segmentation/scenes_fpn")
    with pytest.raises(UserError, match="data.name=scenes is not for training in PyTorch"):
        made.engine(config)
    monkeypatch.delitem(Updates.STATES, "nag")  # as one that somebody registered
    with pytest.raises(UserError, match="optimizer.name=nag is not for training in PyTorch"):
        made.engine(load_config(CONFIG))
    monkeypatch.undo()
    teacher = {"teacher": "aff_cifar_resnet8", "params": "x"}
    config = load_config({**CONFIG, "distillation": teacher})
    with pytest.raises(UserError, match="distillation.teacher=aff_cifar_resnet8 is not for"):
        made.engine(config)
    with pytest.raises(UserError, match="--devices 'gpu:0': write cpu, cuda or cuda:N"):
        script.PyTorch("gpu:0")
    with pytest.raises(UserError, match="--devices cuda:99 cannot be used: "):
        script.PyTorch("cuda:99")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match="PyTorch is needed"):
        script.PyTorch("cpu")
