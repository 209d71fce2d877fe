import os

import pytest

from openaff import UserError
from openaff.utils.json_files import WrongJSON, check_kind, parse_json, read_json, read_json_lines

KIND = {
    "name": str,
    "mean": [float] * 3,
    "count": int,
    "files?": {str: str},
    "options": dict,
    "score": (None, {"value": float}),
    "names": [str],
}
GOOD = {
    "name": "a",
    "mean": [0, 0.5, 1],
    "count": 3,
    "options": {},
    "score": None,
    "names": [],
    "more": [1],
}


def test_what_is_right_is_returned(tmp_path):
    path = tmp_path / "x.json"
    for more in ({}, {"files": {"x": "y"}}, {"score": {"value": 1}}, {"names": ["é"]}):
        check_kind({**GOOD, **more}, KIND)
    path.write_text('{"é": [1, null]}', encoding="utf-8")
    assert read_json(path) == {"é": [1, None]}
    path.write_text('{"a": 1}\n{"a": 2}\n')
    assert read_json_lines(path, {"a": int}) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"name": None}, "name must be a string, not None"),
        ({"mean": {}}, r"mean must be a list of 3 values, not {}"),
        ({"mean": [0, 1]}, r"mean must be a list of 3 values, not \[0, 1\]"),
        ({"mean": [0, 1, "x"]}, r"mean\[2\] must be a finite number, not 'x'"),
        ({"mean": [0, 1, float("nan")]}, r"mean\[2\] must be a finite number, not nan"),
        ({"mean": [0, 1, 10**400]}, r"mean\[2\] must be a finite number, not 1000.*\.\.\."),
        ({"mean": [0, 1, True]}, r"mean\[2\] must be a finite number, not True"),
        ({"count": 1.0}, "count must be an integer, not 1.0"),
        ({"count": True}, "count must be an integer, not True"),
        ({"files": {"x": 1}}, "files.x must be a string, not 1"),
        ({"options": []}, r"options must be a mapping, not \[\]"),
        ({"score": 1}, "score must be null or a mapping, not 1"),
        ({"score": {"value": "x"}}, "score must be null or a mapping of others, not "),
        ({"names": ["a", 2]}, r"names\[1\] must be a string, not 2"),
    ],
)
def test_what_is_wrong_is_named(wrong, message):
    with pytest.raises(WrongJSON, match=f"^{message}"):
        check_kind({**GOOD, **wrong}, KIND)


def test_other_errors(tmp_path):
    with pytest.raises(WrongJSON, match="it must be a mapping, not 3"):
        parse_json("3", KIND)
    with pytest.raises(WrongJSON, match="it has no name"):
        parse_json("{}", KIND)
    with pytest.raises(WrongJSON, match="nested too deeply"):
        parse_json("[" * 100000)
    for content in (b"", b"{", b'"\xff"', b"\xff\xfe\x00"):
        with pytest.raises(WrongJSON, match="it is not JSON"):
            parse_json(content)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe is not a regular file"):
        read_json(tmp_path / "pipe")
    with pytest.raises(OSError, match="No such file"):
        read_json(tmp_path / "none")
