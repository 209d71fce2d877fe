import json
import zipfile

import numpy as np
import pytest
from helpers import structural_params
from test_engine import IMAGES, LABELS, engine

from openaff import UserError
from openaff.tasks.classification import ClassificationMeter
from openaff.training.checkpoint import FORMAT, LAST, PREVIOUS, load_checkpoint, save_checkpoint

STATE = {
    **{"workers": 1, "devices": 1, "step": 3, "epoch": 1, "batch": 3},
    **{"seconds": 0.5, "waited": 0.0, "rows": [], "sums": {}},
}


OPTIMIZERS = {
    "nag": {},
    "sgd": {"name": "sgd", "momentum": 0.5},
    "adagrad": {"name": "adagrad", "lr": 0.01},
    "adam": {"name": "adam", "lr": 0.001, "beta1": 0.8},
}


def trained(steps, devices="cpu", optimizer="nag"):
    each = engine(devices, **OPTIMIZERS[optimizer])
    for _ in range(steps):
        each.train_step(IMAGES, LABELS, ClassificationMeter(4))
    return each


def values(each, device=0):
    params = structural_params(each.net)
    return {name: p.list_data()[device].asnumpy() for name, p in params.items()}


def assert_equal(one, two, device=0):
    for (name, a), b in zip(values(one, device).items(), values(two, device).values()):
        np.testing.assert_array_equal(a, b, err_msg=name)


CASES = [("cpu", "nag"), ("cpu:2", "nag"), ("cpu", "sgd"), ("cpu", "adagrad"), ("cpu:2", "adam")]
CASES += [("cpu:3", "nag")]  # a third of the sum of three is not always what each was


@pytest.mark.parametrize("devices, optimizer", CASES)
def test_a_restored_engine_goes_on_bit_equal(tmp_path, devices, optimizer):
    """Momentum and counts of updates included: parameters alone would go on differently."""
    one = trained(3, devices, optimizer)
    count = len(one.devices)
    state = {**STATE, **one.state(), "devices": count}
    save_checkpoint(tmp_path, one, state)
    other = engine(devices, **OPTIMIZERS[optimizer])
    restored = load_checkpoint(tmp_path / LAST, other)
    assert restored.items() >= state.items()
    other.restore(restored)
    for each in (one, other):
        each.train_step(IMAGES, LABELS, ClassificationMeter(4))
    for device in range(count):
        assert_equal(one, other, device)


def test_the_one_before_is_kept(tmp_path):
    each = trained(1)
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, each, dict(STATE, step=step))
    assert sorted(path.name for path in tmp_path.iterdir()) == [LAST, PREVIOUS]
    for name, step in ((LAST, 3), (PREVIOUS, 2)):
        assert load_checkpoint(tmp_path / name, each)["step"] == step


def test_file_systems_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("openaff.utils.files.os.link", refuse)
    for steps in (1, 2):
        save_checkpoint(tmp_path, trained(steps), {**STATE, "step": steps})
    for name, step in ((LAST, 2), (PREVIOUS, 1)):
        with zipfile.ZipFile(tmp_path / name) as archive:
            assert json.loads(archive.read("state.json"))["step"] == step


def test_a_full_disk_costs_no_earlier_checkpoint(tmp_path, longest_file):
    each = trained(1)
    save_checkpoint(tmp_path, each, STATE)
    before = (tmp_path / LAST).read_bytes()
    for room in (0, len(before) // 2, len(before) - 1):
        with longest_file(room), pytest.raises(OSError, match=f"too large: .*{LAST}"):
            save_checkpoint(tmp_path, each, STATE)
    assert [path.name for path in tmp_path.iterdir()] == [LAST]
    assert (tmp_path / LAST).read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:5000] + b"\x00\xff" * 20 + content[5040:],
        lambda content: b"",
        lambda content: b"something else",
    ],
    ids=["truncated", "flipped", "empty", "foreign"],
)
def test_damage_is_named_and_nothing_loaded(tmp_path, damage):
    each = trained(2)
    for _ in range(2):
        save_checkpoint(tmp_path, each, STATE)
    path = tmp_path / LAST
    path.write_bytes(damage(path.read_bytes()))
    other, before = engine(), values(engine())
    with pytest.raises(UserError, match=f"{LAST} is damaged or no checkpoint.*{PREVIOUS} beside"):
        load_checkpoint(path, other)
    with pytest.raises(UserError, match=f"no checkpoint .*lats.ckpt; {PREVIOUS} beside it is the"):
        load_checkpoint(tmp_path / "lats.ckpt", other)
    (tmp_path / PREVIOUS).write_bytes(b"")
    with pytest.raises(UserError, match=f"{PREVIOUS} is dam.*; {LAST} beside .*ckpoint {LAST}"):
        load_checkpoint(tmp_path / PREVIOUS, other)
    (tmp_path / PREVIOUS).unlink()
    with pytest.raises(UserError, match=f"{LAST} is damaged .*; remove the run folder, and start"):
        load_checkpoint(path, other)
    for name, value in values(other).items():
        np.testing.assert_array_equal(value, before[name])


def test_other_errors(tmp_path):
    each = trained(1)
    with pytest.raises(UserError, match="there is no checkpoint"):
        load_checkpoint(tmp_path / LAST, each)
    save_checkpoint(tmp_path, each, dict(STATE, devices=2))
    with pytest.raises(
        UserError, match="written by a run on 2 devices, not 1: resume it on as many"
    ):
        load_checkpoint(tmp_path / LAST, each)
    save_checkpoint(tmp_path, each, STATE)
    other = engine(model="aff_cifar_resnet8")
    with pytest.raises(UserError, match="missing"):
        load_checkpoint(tmp_path / LAST, other)
    with zipfile.ZipFile(tmp_path / "foreign", "w") as archive:
        for name in ("net.params", "devices.params"):
            archive.writestr(name, "")
        archive.writestr("state.json", '{"format": "other"}')
    with pytest.raises(UserError, match="is of another format: 'other'"):
        load_checkpoint(tmp_path / "foreign", each)


def rewritten(path, **members):
    """The checkpoint at ``path`` with other members, under CRCs that are right."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    packing = members.pop("packing", zipfile.ZIP_STORED)
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, value in {**content, **members}.items():
            archive.writestr(name, value)


@pytest.mark.parametrize(
    "state, message",
    [
        ("[" * 100000, "state.json: it is nested too deeply"),
        ("[]", "state.json: it must be a mapping"),
        ("{", "state.json: it is not JSON"),
        ("{}", "state.json: it has no format"),
        (json.dumps({"format": FORMAT}), "state.json: it has no step"),
        (json.dumps({**STATE, "format": FORMAT, "step": "3"}), "step must be an integer"),
        (json.dumps({**STATE, "format": FORMAT, "rows": [3]}), r"rows\[0\] must be a mapping"),
        (json.dumps({**STATE, "format": FORMAT, "sums": 3}), "sums must be a mapping, not 3"),
    ],
)
def test_a_state_of_another_kind(tmp_path, state, message):
    save_checkpoint(tmp_path, trained(1), STATE)
    rewritten(tmp_path / LAST, **{"state.json": state})
    with pytest.raises(UserError, match=message):
        load_checkpoint(tmp_path / LAST, engine())


def test_a_member_that_unpacks_to_much_more_is_not_unpacked(tmp_path):
    save_checkpoint(tmp_path, trained(1), STATE)
    rewritten(tmp_path / LAST, packing=zipfile.ZIP_DEFLATED, **{"state.json": " " * 10**7})
    assert (tmp_path / LAST).stat().st_size < 10**6
    with pytest.raises(UserError, match="state.json is packed, which openaff never does"):
        load_checkpoint(tmp_path / LAST, engine())


def test_arrays_that_would_end_mxnet_or_are_of_another_optimiser(tmp_path):
    save_checkpoint(tmp_path, trained(1), STATE)
    with zipfile.ZipFile(tmp_path / LAST) as archive:
        for name in ("net.params", "devices.params"):
            content = archive.read(name)
            (tmp_path / name).write_bytes(content[:32] + b"\xff" * 4 + content[36:])
    for name in ("net.params", "devices.params"):
        save_checkpoint(tmp_path, trained(1), STATE)
        rewritten(tmp_path / LAST, **{name: (tmp_path / name).read_bytes()})
        with pytest.raises(UserError, match="an array has -1 dimensions"):
            load_checkpoint(tmp_path / LAST, engine())
    save_checkpoint(tmp_path, trained(1, optimizer="adam"), STATE)
    with pytest.raises(UserError, match="states are of another network or optimiser"):
        load_checkpoint(tmp_path / LAST, engine())


def test_sums_of_another_task():
    meter = ClassificationMeter(4)
    state = meter.state()
    ClassificationMeter(4).restore(state)
    for name in state:
        for wrong in ("x", None, [1, 2, 3], {}):
            with pytest.raises(UserError, match=f"sums of {name} are of another task"):
                meter.restore({**state, name: wrong})
        with pytest.raises(UserError, match="sums of images are of another task"):
            meter.restore({})
