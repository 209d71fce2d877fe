"""How fast the networks of the evidence train: taken in turns, in one run, by the benchmark."""

import pathlib

from ..analysis.benchmark import take_turns
from ..data import DATASETS
from ..training.benchmark import steps_of
from ..utils.errors import UserError
from ..utils.json_files import WrongJSON, read_json
from .catalog import EVIDENCE, load_tables
from .evidence import groups
from .recipes import row_config

FILE = pathlib.Path("measurements", "speed.json")  # in the clone
_KIND = {"figures": [{"case": str, "images/s": float}]}


def measure(turns=5):
    """Training steps of the networks of the evidence, by their reduced recipes.

    Each group takes turns.  The ratios are to the group's first network.
    """
    rows = []
    for table in load_tables().values():
        for group in groups(table).values() if table.kind == EVIDENCE else ():
            rates = take_turns({row.id: _steps(row) for row in group}, turns)
            first = rates[group[0].id]
            rows += [
                {"case": name, "unit": "images/s", "images/s": rate, "/first": rate / first}
                for name, rate in rates.items()
            ]
    return rows


def _steps(row):
    config = row_config(row, "reduced")
    info = DATASETS[config.data.name]
    size = (config.data.crop_size,) * 2 if config.data.crop_size else info.image_shape[1:]
    return steps_of(config, info.granularity(config.data.labels).classes, size)


def read_speed(clone):
    """Row id -> images a second, of the file in a clone's folder; nothing where there is none.

    Raises
    ------
    UserError
        The file holds something else.
    """
    if clone is None:
        return {}
    path = clone / FILE
    try:
        figures = read_json(path, _KIND)["figures"]
        if any(each["images/s"] <= 0 for each in figures):
            raise WrongJSON("a speed is not positive")
    except FileNotFoundError:
        return {}
    except (OSError, WrongJSON) as error:
        raise UserError(
            f"{path} holds no speeds: {error}; measure them: openaff benchmark tables --out {FILE}"
        ) from None
    return {each["case"]: each["images/s"] for each in figures}
