"""What changed after its run or export was written: the checksums that their JSON files name."""

import pathlib

from .files import sha256
from .json_files import read_json

RESULT, EXPORT = "result.json", "export.json"  # of a run's folder, of an export's


class Damaged(ValueError):
    """A file that must not be used as it is; the message says what is wrong."""


def check_digest(path):
    """Refuse a file whose run or export, in the same folder, says another SHA-256 of it."""
    path = pathlib.Path(path)
    for name in (RESULT, EXPORT):
        try:
            digest = read_json(path.parent / name, {"files": {str: str}})["files"][path.name]
        except (OSError, ValueError, KeyError):
            continue  # there is none, or whoever reads it says what is wrong with it
        if sha256(path) != digest:
            raise Damaged(f"it was changed after {name} was written")
