import zipfile

import numpy as np
import pytest
from helpers import structural_params
from test_engine import IMAGES, LABELS, engine

from openaff import UserError
from openaff.tasks.classification import ClassificationMeter
from openaff.training.checkpoint import LAST, PREVIOUS, load_checkpoint, save_checkpoint

STATE = {"workers": 1, "devices": 1, "step": 3}


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
    save_checkpoint(tmp_path, each, STATE)
    path = tmp_path / LAST
    path.write_bytes(damage(path.read_bytes()))
    other, before = engine(), values(engine())
    with pytest.raises(UserError, match=f"{LAST} is damaged or no checkpoint.*{PREVIOUS} beside"):
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
