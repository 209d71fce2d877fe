"""Import the user's modules, so that what they register can be found by name; and gluoncv."""

import contextlib
import importlib
import os
import sys

from .errors import UserError, one_line


def import_modules(names):
    """Import modules by name, also from the working directory; they register what they define.

    Raises
    ------
    UserError
        A module is not found, cannot be imported, or has no file.
    """
    for name in names:
        if getattr(_import(name, "imports"), "__file__", None) is None:
            raise UserError(
                f"imports: {name} has no file, such as a folder without __init__.py: name a module "
                "in it"
            )


def import_object(text, setting):
    """The object ``"module:name"``; ``setting`` is its name in messages.

    Raises
    ------
    UserError
        There is no such module or object.
    """
    module, _, name = text.partition(":")
    found = _import(module, setting)
    if not hasattr(found, name):
        raise UserError(f"{setting}: the module {module} has no {name!r}")
    return getattr(found, name)


def import_gluoncv(module="gluoncv.model_zoo"):
    """gluoncv or a module of it, also beside a PyTorch that it refuses.

    Its last release raises an error where it finds PyTorch 2 or newer, which its MXNet half does
    not need.  So PyTorch is hidden from it.
    """
    with hidden("torch"):
        return importlib.import_module(module)


@contextlib.contextmanager
def hidden(name):
    """While it lasts, ``import name`` fails as if there were no such package."""
    loaded = sys.modules.get(name)
    sys.modules[name] = None
    try:
        yield
    finally:
        del sys.modules[name]
        if loaded is not None:
            sys.modules[name] = loaded


def _import(name, setting):
    folder = os.getcwd()
    added = folder not in sys.path
    if added:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise UserError(
                f"{setting}: there is no module {name!r}: name a file of the working directory or "
                "of PYTHONPATH, without .py"
            ) from None
        raise UserError(f"{setting}: {name} cannot be imported: {one_line(error)}") from None
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(f"{setting}: {name} cannot be imported: {reason}") from None
    finally:
        if added and folder in sys.path:
            sys.path.remove(folder)
