"""Write files atomically, so that no file is ever half written; read regular ones alone."""

import contextlib
import hashlib
import json
import os
import pathlib
import tempfile

from .errors import UserError


def refuse_special(path):
    """Refuse a pipe or a device, since to read from it may wait for ever.

    A folder, or nothing, gives an error when it is read.

    Raises
    ------
    UserError
        It is a pipe, a socket or a device.
    """
    path = pathlib.Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"{path} is not a regular file")


@contextlib.contextmanager
def atomic(path):
    """Yield a temporary path beside ``path``, synced and renamed to it if the block succeeds."""
    path = pathlib.Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem + ".", suffix=path.suffix)
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # instead of mkstemp's 0600
        os.replace(temporary, path)
    finally:
        if temporary.exists():
            temporary.unlink()


@contextlib.contextmanager
def atomic_folder(path):
    """Yield a temporary folder beside ``path``, which becomes it if the block succeeds.

    Folders above are made, and removed if the block fails.

    Raises
    ------
    UserError
        There is something at ``path``.
    """
    path = pathlib.Path(path)
    if path.exists():
        raise UserError(f"{path} exists: name another folder, or remove it")
    new = [each for each in path.parents if not each.exists()]  # the deepest first
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=str(path.parent), prefix=path.name + ".") as temporary:
            folder = pathlib.Path(temporary) / "folder"
            folder.mkdir()
            yield folder
            os.rename(folder, path)
    except BaseException:
        for each in new:
            with contextlib.suppress(OSError):  # it is not empty
                each.rmdir()
        raise


def write_text(path, text):
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path, value):
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def sha256(path):
    """The SHA-256 sum of a file of any size, in hexadecimal."""
    refuse_special(path)
    digest = hashlib.sha256()
    with open(path, "rb") as source:
        for block in iter(lambda: source.read(1 << 22), b""):
            digest.update(block)
    return digest.hexdigest()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
