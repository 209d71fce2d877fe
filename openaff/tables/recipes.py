"""What trains a row: its configuration by protocol, and its command."""

import copy
import dataclasses
import functools
import json
import pathlib

from ..data import DATASETS
from ..data.config import without_whereabouts
from ..training.config import load_config
from ..utils.errors import UserError

PROGRAM = "openaff tables"  # in the commands of pages
PROTOCOLS = ("paper", "reduced")


def row_config(row, protocol="paper", overrides=()):
    """The :class:`~openaff.training.config.Config` that trains a row.

    ``paper`` is the recipe of the published figure; ``reduced`` one that two CPU cores can finish.

    Raises
    ------
    UserError
        A row whose network or recipe is not here, or that has no reduced form.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"--protocol must be {' or '.join(PROTOCOLS)}, not {protocol!r}")
    if row.model is None:
        raise UserError(f"{row.id} cannot be trained: {row.note or 'its network is not here'}")
    reduced = protocol == "reduced"
    path = row.reduced if reduced else row.config
    if path is None:
        why = row.note or "its recipe is not known"
        why = "it has no reduced form; --list shows which rows have one" if reduced else why
        raise UserError(f"{row.id} cannot be trained by the {protocol} protocol: {why}")
    options = row.reduced_options if reduced else row.options
    settings = [f"model.options.{key}={json.dumps(value)}" for key, value in options.items()]
    settings.append(f"model.name={row.model}")
    if reduced and row.reduced_epochs:
        settings.append(f"epochs={row.reduced_epochs}")
    return copy.deepcopy(_config(path, (*settings, *overrides)))  # the caller may change it


@functools.lru_cache(maxsize=None)  # a report asks for the same ones again and again
def _config(path, settings):
    return load_config(path, list(settings))


def same_run(theirs, ours):
    """Whether two configurations are of the same run, but for settings that change no result."""
    theirs, ours = (without_whereabouts(dataclasses.asdict(each)) for each in (theirs, ours))
    return theirs == ours


def describe(row, program=PROGRAM):
    """A row of the list: its id, and the command or why there is none."""
    if row.model is None:
        return f"{row.id}: {row.note or 'the network is not here'}"
    if row.config is None:
        return f"{row.id}: {row.note or 'the recipe is not known'}"
    start = f" --start-from runs/{row.start_from}" if row.start_from else ""
    devices = f"--devices {gpus(row.devices)}"
    out = run_folder(row, "paper", 0)
    return f"{program} --row {row.id} --run --out {out}{start} {devices} {_data(row.dataset)}"


def gpus(count):
    """The first GPUs, as ``--devices`` takes them."""
    return "gpu:" + ",".join(map(str, range(count)))


def describe_reduced(row, dataset, seed=0, program=PROGRAM):
    """The command of a row's run by the reduced protocol, on the data set of its recipe."""
    return (
        f"{program} --row {row.id} --run --protocol reduced --seed {seed} --out "
        f"{run_folder(row, 'reduced', seed)} "
        f"--results runs/results {_data(dataset)}"  # results/ may have this one
    )


def run_folder(row, protocol, seed, base=None):
    """The run folder of a row, by default in ``runs`` or, by the reduced protocol, below it."""
    if protocol == "reduced":
        return pathlib.Path("runs/reduced" if base is None else base, f"{row.run}-seed{seed}")
    return pathlib.Path("runs", row.run + (f"-seed{seed}" if seed else ""))


def _data(dataset):
    return "data.download=true" if "download" in DATASETS[dataset].settings else "data.root=DIR"
