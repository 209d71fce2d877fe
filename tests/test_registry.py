import pytest

from openaff import UserError
from openaff.fusion import FUSIONS
from openaff.utils.registry import Registry


@pytest.fixture
def colours():
    registry = Registry("colour")
    registry.register("red", "Rouge")(1)
    registry.register("green")(2)
    return registry


def test_lookup_by_key_and_alias(colours):
    assert colours["red"] == colours["Rouge"] == 1
    assert "Rouge" in colours and "blue" not in colours


def test_iteration_gives_keys_without_aliases(colours):
    assert list(colours) == ["red", "green"]


def test_unknown_name_lists_near_and_known_ones(colours):
    with pytest.raises(UserError, match="unknown colour 'gren'; did you mean 'green'.*known: red"):
        colours["gren"]


def test_duplicate_name_is_an_error(colours):
    with pytest.raises(ValueError, match="colour 'Rouge' is already registered"):
        colours.register("blue", "Rouge")(3)
    assert "blue" not in colours


@pytest.mark.parametrize("key", ["my_avg", "my-avg", "é", ""])
def test_fusion_keys_are_letters_and_digits(key):
    with pytest.raises(UserError, match="a fusion's key is letters and digits alone, not"):
        FUSIONS.register(key)
    assert key not in FUSIONS
