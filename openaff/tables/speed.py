"""How fast the networks of the evidence train: taken in turns, in one run, by the benchmark."""

import pathlib

from ..analysis.benchmark import take_turns
from ..data import DATASETS
from ..training.benchmark import steps_of
from ..utils.errors import UserError
from ..utils.json_files import WrongJSON, read_json
from .catalog import EVIDENCE, load_tables
from .recipes import row_config

FILE = pathlib.Path("measurements", "speed.json")  # in the clone
_KIND = {"figures": [{"case": str, "images/s": float}]}


def measure(turns=5):
    """Training steps of the networks of the evidence, by their reduced recipes.

    The networks of a recipe take turns, each once: rows of one network share its rate, whatever
    their number of epochs.  The ratios are to the recipe's first network.
    """
    rows = []
    for recipe in _networks().values():
        cases = {same[0].id: _steps(row_config(same[0], "reduced")) for same in recipe.values()}
        rates = take_turns(cases, turns)
        (first, *_) = rates.values()
        for same in recipe.values():
            rate = rates[same[0].id]
            figures = {"unit": "images/s", "images/s": rate, "/first": rate / first}
            rows += [{"case": row.id, **figures} for row in same]
    return rows


def _networks():
    """Reduced recipe -> network -> the rows of the evidence that train it."""
    found = {}
    for table in load_tables().values():
        for row in table.rows if table.kind == EVIDENCE else ():
            network = repr(row_config(row, "reduced").model)
            found.setdefault(row.reduced, {}).setdefault(network, []).append(row)
    return found


def _steps(config):
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
