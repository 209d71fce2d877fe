"""The recipes that come with openaff, by name; the clone around the package, if there is one."""

import pathlib

from .errors import UserError, suggest

PACKAGE = pathlib.Path(__file__).resolve().parents[1]
CONFIGS = PACKAGE / "configs"
TABLES = CONFIGS / "tables"


def config_names():
    """The names of all recipes, such as ``cifar/aff_resnet8``, sorted."""
    paths = (path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.yaml"))
    return sorted(path.with_suffix("").as_posix() for path in paths if path.parts[0] != TABLES.name)


def config_path(name):
    """The file of a recipe.

    Parameters
    ----------
    name : path-like
        A file, or the name of a recipe that comes with openaff: ``cifar/aff_resnet8``, also
        written as ``configs/cifar/aff_resnet8.yaml``.  A file comes first.

    Raises
    ------
    UserError
        There is neither; the message has the nearest names.
    """
    path = pathlib.Path(name)
    if path.is_file():
        return path
    names = config_names()
    short = path.as_posix()
    short = short[len("configs/") :] if short.startswith("configs/") else short
    short = short[: -len(".yaml")] if short.endswith(".yaml") else short
    if short in names:
        return CONFIGS / f"{short}.yaml"
    raise UserError(
        f"there is no config {str(name)!r}{suggest(short, names)}; name a YAML file, or a config "
        "that openaff has: openaff configs lists them"
    )


def title(path):
    """The first comment line of a recipe's file."""
    with open(path, encoding="utf-8") as lines:
        return next(lines).lstrip("# ").rstrip()


def pip_install(extra):
    """The command that installs what an extra brings, in a clone or elsewhere."""
    return f"pip install -e .[{extra}]" if clone() else f"pip install 'openaff[{extra}]'"


def clone():
    """The folder of the source tree that this package is in, or None where it is installed."""
    root = PACKAGE.parent
    return root if (root / "setup.py").is_file() and (root / "docs").is_dir() else None
