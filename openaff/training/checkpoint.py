"""Checkpoints that are whole or not there: one zip file, whose CRCs tell damage.

A checkpoint needs no random states: every random number of a training run follows from its seed and
the step's number, see :func:`openaff.training.engine.seed_step`.
"""

import errno
import json
import pathlib
import struct
import tempfile
import zipfile
import zlib

from ..models.parameters import load_parameters
from ..utils.arrays import parameters, write_arrays
from ..utils.digests import Damaged
from ..utils.errors import UserError
from ..utils.files import atomic, link, refuse_special
from ..utils.json_files import WrongJSON, check_kind, read_json
from ..utils.params import read_arrays
from ..utils.program import program

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
FORMAT = "openaff checkpoint 2"
_MEMBERS = ("state.json", "net.params", "devices.params")
_STATE = {  # what state.json must say, see json_files
    "step": int,
    "devices": int,
    "workers": int,
    "framework?": str,
    "updates?": int,
    "epoch": int,
    "batch": int,
    "seconds": float,
    "waited": float,
    "elapsed?": (None, float),
    "begun_by?": (None, str),
    "loss_scaling?": dict,
    "rows": [{"epoch": int, "lr": float, "images_per_second": float}],
    "sums": {str: object},
    "start?": (None, {"from": str, "loaded": int, "new": [str]}),
}
# NotImplementedError: an unknown method of compression; RuntimeError: a password.
_DAMAGES = (
    OSError,
    KeyError,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def save_checkpoint(folder, engine, state):
    """Write ``last.ckpt``; the one before becomes ``previous.ckpt`` once the new one is whole.

    Parameters
    ----------
    folder : pathlib.Path
        The run folder.
    engine : Engine
        The parameters of its network are saved, with structural names, and its optimiser's states.
    state : dict
        What JSON can hold: the position in the run, its metrics so far.

    Raises
    ------
    OSError
        The disk is full or cannot be written; earlier checkpoints are untouched.
    """
    last = folder / LAST
    with atomic(last) as temporary:
        with zipfile.ZipFile(temporary, "w") as archive:
            archive.writestr("state.json", json.dumps(dict(state, format=FORMAT)))
            for name, arrays in (
                ("net.params", parameters(engine.net)),
                ("devices.params", engine.arrays()),
            ):
                with archive.open(name, "w", force_zip64=True) as out:
                    write_arrays(out, arrays)
        if last.exists():  # a second name for it: at no moment is there no whole checkpoint
            with atomic(folder / PREVIOUS) as other:
                other.unlink()
                link(last, other)


def load_checkpoint(path, engine, workers=1, check=None):
    """Put a checkpoint's parameters and optimiser states into place; returns its state.

    ``check(state)`` may refuse it before anything is put into place, also by a
    :class:`~openaff.utils.json_files.WrongJSON`.

    Raises
    ------
    UserError
        No checkpoint, a truncated or damaged one, or one of another network, another framework or
        another number of devices or workers.
    """
    path = pathlib.Path(path)
    refuse_special(path)
    with tempfile.TemporaryDirectory() as parts:
        try:
            with zipfile.ZipFile(path) as archive:
                for name in _MEMBERS:
                    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
                        raise zipfile.BadZipFile(f"{name} is packed, which openaff never does")
                    archive.extract(name, parts)  # checks the CRC
        except FileNotFoundError:
            raise UserError(f"there is no checkpoint {path}; {_instead(path)}") from None
        except _DAMAGES as error:
            if getattr(error, "errno", None) not in (None, errno.EINVAL):
                raise  # such as a full disk, which is not the checkpoint's fault
            raise _damaged(path, error) from None
        parts = pathlib.Path(parts)
        try:
            state = read_json(parts / "state.json", {"format": object})
            if state["format"] != FORMAT:
                raise UserError(f"{path} is of another format: {state['format']!r}")
            check_kind(state, _STATE)
        except WrongJSON as error:
            raise _damaged(path, f"state.json: {error}") from None
        framework = state.get("framework", "MXNet")
        if framework.split()[0] != engine.framework.split()[0]:  # but for the version
            raise UserError(
                f"{path} was written by a run in {framework}: resume it with the script that made "
                "the run"
            )
        for key, count in (("devices", len(engine.devices)), ("workers", workers)):
            if state[key] != count:
                raise UserError(
                    f"{path} was written by a run on {state[key]} {key}, not {count}: resume it on "
                    "as many"
                )
        if check:
            try:
                check(state)
            except WrongJSON as error:
                raise _damaged(path, f"state.json: {error}") from None
        try:
            load_parameters(engine.net, parts / "net.params")
        except UserError as error:
            raise UserError(str(error).replace(str(parts / "net.params"), str(path))) from None
        try:
            engine.restore_arrays(read_arrays(parts / "devices.params") or {})
        except Damaged as error:
            raise _damaged(path, f"devices.params: {error}") from None
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
    return state


def _damaged(path, reason):
    return UserError(f"{path} is damaged or no checkpoint ({reason}); {_instead(path)}")


def _instead(path):
    """What to do without the checkpoint ``path``, in words."""
    for name, words in ((PREVIOUS, "the one before"), (LAST, "the last one")):
        if name != path.name and (path.parent / name).is_file():
            command = f"{program()} --resume {path.parent} --checkpoint {name}"
            return f"{name} beside it is {words}: {command}"
    return "remove the run folder, and start anew"
