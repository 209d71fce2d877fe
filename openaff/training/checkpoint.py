"""Checkpoints that are whole or not there: one zip file, whose CRCs tell damage.

A checkpoint needs no random states: every random number of a training run follows from its seed and
the step's number, see :func:`openaff.training.engine.seed_step`.
"""

import errno
import json
import os
import pathlib
import tempfile
import zipfile
import zlib

import mxnet as mx

from ..models.pretrained import load_parameters
from ..utils.arrays import parameters, write_arrays
from ..utils.errors import UserError
from ..utils.files import atomic

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
FORMAT = "openaff checkpoint 2"
_MEMBERS = ("state.json", "net.params", "devices.params")


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
                os.link(last, other)


def load_checkpoint(path, engine, workers=1, check=None):
    """Put a checkpoint's parameters and optimiser states into place; returns its state.

    ``check(state)`` may refuse it before anything is put into place.

    Raises
    ------
    UserError
        No checkpoint, a truncated or damaged one, or one of another network, another framework or
        another number of devices or workers.
    """
    path = pathlib.Path(path)
    with tempfile.TemporaryDirectory() as parts:
        try:
            with zipfile.ZipFile(path) as archive:
                for name in _MEMBERS:
                    archive.extract(name, parts)  # checks the CRC
        except FileNotFoundError:
            raise UserError(
                f"there is no checkpoint {path}: remove the run folder, and start anew"
            ) from None
        except (OSError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            if getattr(error, "errno", None) not in (None, errno.EINVAL):
                raise  # such as a full disk, which is not the checkpoint's fault
            raise UserError(
                f"{path} is damaged or no checkpoint ({error}); {PREVIOUS} beside it is the one "
                f"before: a training script's --resume {path.parent} --checkpoint {PREVIOUS}"
            ) from None
        parts = pathlib.Path(parts)
        state = json.loads((parts / "state.json").read_text())
        if state.get("format") != FORMAT:
            raise UserError(f"{path} is of another format: {state.get('format')!r}")
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
            check(state)
        try:
            load_parameters(engine.net, parts / "net.params")
        except UserError as error:
            raise UserError(str(error).replace(str(parts / "net.params"), str(path))) from None
        engine.restore_arrays(mx.nd.load(str(parts / "devices.params")))
    return state
