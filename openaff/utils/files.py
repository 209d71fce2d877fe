"""Write files atomically, so that no file is ever half written; read regular ones alone."""

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import os
import pathlib
import shutil
import tempfile

from .errors import UserError

TEMPORARY = ".unfinished-"  # names of files and folders begin with it until they are whole


def refuse_special(path):
    """Refuse a pipe or a device: to read from it may wait for ever, to write would replace it.

    A folder, or nothing, gives an error when it is read.

    Raises
    ------
    UserError
        It is a pipe, a socket or a device.
    """
    path = pathlib.Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"{path} is not a regular file")


def expand(path):
    """``path`` with its ``~`` or ``~user`` written out.

    Raises
    ------
    UserError
        There is no such user.
    """
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: {error}") from None


def refuse_existing(path, what="", flag="--out"):
    """Refuse a folder that is there already, before the work that fills it.

    ``what`` stands before its name, and ``flag`` names it on the command line.
    """
    if pathlib.Path(path).exists():
        raise UserError(f"{what}{path} exists: take another {flag}, or remove it")


def check_parent(path):
    """Refuse a file in a folder that is not there, or a folder, before the work that makes it."""
    if not pathlib.Path(path).resolve().parent.is_dir():
        raise UserError(f"cannot write {path}: there is no such folder")
    if pathlib.Path(path).is_dir():
        raise UserError(f"cannot write {path}: it is a folder; name a file")


def link(source, target):
    """A hard link or, where there can be none, a copy; never onto a file that is there.

    What is there may itself be a link, whose other name a copy would overwrite.  Of a symbolic link
    the file is taken that it leads to.
    """
    try:
        os.link(os.path.realpath(source), target)  # not a link to a link
    except FileExistsError:
        raise
    except OSError:  # another file system, or one without hard links
        with open(source, "rb") as original, open(target, "xb") as copy:
            shutil.copyfileobj(original, copy)


@contextlib.contextmanager
def atomic(path):
    """Yield a temporary path beside ``path``, synced and renamed to it if the block succeeds.

    Raises
    ------
    UserError
        ``path`` is a pipe or a device, such as /dev/null: the file would take its place.
    OSError
        It cannot be written, such as on a full disk; it names ``path``, whoever noticed.
    """
    path, temporary = pathlib.Path(path), None
    refuse_special(path)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY, suffix=f"-{path.name}")
        temporary = pathlib.Path(name)
        os.close(handle)
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # instead of mkstemp's 0600
        os.replace(temporary, path)
    except Exception as error:
        better = _named(error, temporary, path)
        if better:
            raise better from error
        raise
    finally:
        if temporary is not None and temporary.exists():
            temporary.unlink()


@contextlib.contextmanager
def atomic_folder(path):
    """Yield a temporary folder beside ``path``, which becomes it if the block succeeds.

    Folders above are made, and removed if the block fails.  What a killed process left of the same
    folder is removed first.

    Raises
    ------
    UserError
        There is something at ``path``, before the block or after it.
    OSError
        A file cannot be written; it names its place below ``path``.
    """
    path, temporary, held = pathlib.Path(path), None, None
    if path.exists():
        raise _exists(path)
    new = [each for each in path.parents if not each.exists()]  # the deepest first
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep_killed(path)
        temporary, held = _locked_folder(path)
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())  # instead of mkdtemp's 0700
        try:
            os.rename(temporary, path)
        except OSError:
            if not path.exists():
                raise
            raise _exists(path) from None  # somebody else was faster
    except BaseException as error:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        better = _named(error, temporary, path)
        for each in new:
            with contextlib.suppress(OSError):  # it is not empty
                each.rmdir()
        if better:
            raise better from error
        raise
    finally:
        if held is not None:
            os.close(held)


def _locked_folder(path):
    """A new temporary folder for ``path``, and the handle that locks it."""
    while True:
        name = tempfile.mkdtemp(dir=path.parent, prefix=TEMPORARY, suffix=f"-{path.name}")
        handle = os.open(name, os.O_RDONLY)
        if _lock(handle) is not False and os.path.exists(name):
            return pathlib.Path(name), handle
        os.close(handle)  # somebody swept it before it was locked


def _sweep_killed(path):
    """Remove the temporary folders of ``path`` that no living process has locked."""
    for each in path.parent.glob(f"{TEMPORARY}*-{glob.escape(path.name)}"):
        with contextlib.suppress(OSError):  # such as one that somebody else removes
            handle = os.open(each, os.O_RDONLY | os.O_DIRECTORY)
            try:
                if _lock(handle):
                    shutil.rmtree(each)
            finally:
                os.close(handle)


def _exists(path):
    return UserError(f"{path} exists: name another folder, or remove it")


def _named(error, temporary, path):
    """What to raise instead of an error of writing ``path``, or None: the error, which names it."""
    if isinstance(error, UserError):
        message = str(error).replace(str(temporary or path), str(path))
        return None if message == str(error) else UserError(message)
    if isinstance(error, OSError) and error.errno is not None:
        # Errors of writing and of closing a file have no name.
        name = str(path if error.filename is None else error.filename)
        if temporary is None and TEMPORARY in name:  # it could not even be made
            name = str(path)
        error.filename = name.replace(str(temporary or path), str(path))
        return None
    if not isinstance(error, Exception):
        return None  # such as a KeyboardInterrupt
    # Libraries in C++ do not say why they cannot write.
    problem = _disk_problem(temporary.parent) if temporary else None
    if problem:
        problem.filename = str(path)
    return problem


def _disk_problem(folder):
    """The error of writing a little in a folder, or None."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(1 << 16))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return error
    return None


def lock(path):
    """Lock a file, which is made where it is missing, against other processes.

    Returns
    -------
    handle : file
        Until it is closed or the process ends, however it ends, nobody else gets the lock.
    ours : bool or None
        Whether we have the lock.  None: the file system has no locks.
    """
    while True:
        handle = open(path, "w")
        ours = _lock(handle, fcntl.lockf)
        if not ours or _is_at(handle, path):
            return handle, ours
        handle.close()  # somebody removed it before it was locked


def _is_at(handle, path):
    try:
        return os.path.samestat(os.fstat(handle.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def alone_in(folder):
    """A context that one process at a time is in, for one folder; the others wait.

    Where the file system cannot lock folders, nobody waits.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _lock(handle, function=fcntl.flock):
    """As the second value of :func:`lock`; ``flock`` locks folders, ``lockf`` works over NFS."""
    try:
        function(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EACCES, errno.EAGAIN) else None
    return True


def sweep(folder):
    """Remove what killed processes left unfinished in a folder.

    Call this only where no living process writes there.
    """
    for path in pathlib.Path(folder).glob(f"{TEMPORARY}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def check_size(path, size):
    """Refuse a file that a library did not write whole, without saying so.

    Raises
    ------
    OSError
        It has another size than ``size`` bytes.
    """
    if os.path.getsize(path) != size:
        reason = "not all of it could be written"
        raise _disk_problem(pathlib.Path(path).parent) or OSError(errno.EIO, reason, str(path))


def read_text(path):
    """The text of a file in UTF-8; line breaks stay as they are.

    Raises
    ------
    UserError
        It cannot be read, is a pipe or a device, or is not UTF-8.
    """
    refuse_special(path)
    try:
        return pathlib.Path(path).read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UserError(f"cannot read {path}: {reason}") from None


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
