"""Start from other weights, keep some of them as they are, and train others faster or slower."""

import fnmatch
import pathlib

from ..models import model_info
from ..models.bundled import checked_weights, list_pretrained, pretrained_info
from ..models.parameters import load_with_new_outputs
from ..models.pretrained import PUBLISHED
from ..utils.descriptions import read_description, read_result
from ..utils.digests import EXPORT, RESULT, Damaged, check_digest
from ..utils.errors import UserError, suggest
from ..utils.outline import named_blocks

STATISTICS = ("running_mean", "running_var")  # of a batch norm
SHOWN = 3  # names that a line lists


def load_start(net, config):
    """Load what ``start_from`` names into an initialised network.

    Parameters
    ----------
    net : HybridBlock
        Left as it is where anything is wrong.
    config : Config
        Its ``start_from``: a file of parameters, the folder of a finished run (its best weights),
        an export folder, a key of :func:`~openaff.list_pretrained`, or a published name, whose file
        is ``start_params``.

    Returns
    -------
    dict
        ``from``: what was loaded; ``loaded``: how many parameters; ``new``: the names of those
        that the initialiser's values stay in, because the number of outputs is another.

    Raises
    ------
    UserError
        A file or folder that cannot be read, or is another network's.
    """
    name, source = config.model.name, config.start_from
    path = pathlib.Path(config.start_params or source)
    if source in PUBLISHED:
        known = PUBLISHED[source]
        _same_options(source, known.model, known.options, config.model)
    elif source in list_pretrained():
        known = pretrained_info(source)
        _same_options(source, known["model"], known["options"], config.model)
        path = checked_weights(source)
    elif path.is_dir():
        path = _file_of(path, name)
    new = load_with_new_outputs(net, path, name)
    total = len(net._collect_params_with_prefix())
    return {"from": source, "loaded": total - len(new), "new": new}


def describe_start(start):
    """What :func:`load_start` gave, in one line."""
    new = f"; new: {', '.join(start['new'])}" if start["new"] else ", all"
    return f"{start['from']}: {start['loaded']} parameters loaded{new}"


def _file_of(folder, name):
    """The parameters' file of a run or an export, which has the network ``name``."""
    run, export = folder / RESULT, folder / EXPORT
    if not (run.exists() or export.exists()):
        raise UserError(
            f"start_from: {folder} is neither the folder of a finished run (it has no result.json) "
            "nor an export folder (no export.json)"
        )
    read = read_result if run.exists() else read_description
    try:
        facts = read(folder)
    except UserError as error:
        raise UserError(f"start_from: {error}") from None
    _same_network(folder, facts["model"], name)
    if read is read_result:
        return folder / "best.params"
    path = folder / f"{facts['model']}-0000.params"
    if path.name not in facts["files"]:
        raise UserError(f"start_from: {folder} has no {path.name}: export the format symbol, too")
    try:
        check_digest(path)
    except (OSError, Damaged):
        raise UserError(
            f"start_from: {path} is missing or was changed after the export: export it anew"
        ) from None
    return path


def _same_network(source, theirs, ours):
    if theirs != ours:
        raise UserError(f"start_from: {source} has the network {theirs}, and model.name is {ours}")


def _same_options(source, model, options, ours):
    _same_network(source, model, ours.name)
    defaults = model_info(model).backbone.options
    for key, value in options.items():
        own = ours.options.get(key, defaults[key])
        if own != value:
            raise UserError(
                f"start_from: {source} has {key}={value!r}, the network to train {own!r}: set "
                f"model.options.{key}"
            )


def freeze(net, patterns):
    """Freeze the parameters whose saved names match shell-style ``patterns``.

    A frozen parameter gets no gradient.  A batch norm is frozen where all that it trains is, or its
    running statistics are: then it normalises by the statistics, and they stay.

    Returns
    -------
    set of str
        The names of the parameters that would otherwise be trained.

    Raises
    ------
    UserError
        A pattern that matches nothing to freeze or only one of two statistics, or nothing is left
        to train.
    """
    if not patterns:
        return set()
    params = net._collect_params_with_prefix()
    can_be = [
        name
        for name, param in params.items()
        if param.grad_req != "null" or name.endswith(STATISTICS)
    ]
    frozen = set()
    for pattern in patterns:
        frozen.update(_matching("freeze", pattern, can_be, "parameter to freeze"))
    trained = {name for name in can_be if params[name].grad_req != "null"}
    if trained <= frozen:
        raise UserError(f"freeze: {', '.join(patterns)} leaves nothing to train")
    for name, layer in named_blocks(net).items():
        if not ({*STATISTICS} <= {*layer._reg_params} and hasattr(layer, "_kwargs")):
            continue  # no batch norm
        own = {f"{name}.{key}" for key in layer._reg_params}
        statistics = {f"{name}.{key}" for key in STATISTICS}
        half = sorted(statistics & frozen)
        if len(half) == 1:
            raise UserError(
                f"freeze: only {half[0]} of {name}'s running statistics matches: name both"
            )
        learned = own & trained
        if statistics <= frozen or (learned and learned <= frozen):
            layer._kwargs["use_global_stats"] = True
            if not learned:  # of an input: its gamma asks for a gradient all the same
                layer.gamma.grad_req = "null"
    for name in frozen & trained:
        params[name].grad_req = "null"
    net.hybridize(static_alloc=True)  # a graph that was made before has other batch norms
    return frozen & trained


def scale_rates(net, factors, frozen=()):
    """Multiply the learning rate of parameters whose saved names match a pattern.

    Parameters
    ----------
    net : HybridBlock
        The network to train.
    factors : dict of str to float
        Shell-style pattern -> factor.  Of several patterns that match a name the last one counts.
    frozen : collection of str
        What :func:`freeze` gave.

    Raises
    ------
    UserError
        A pattern that matches nothing, something frozen, or only what later patterns match, too.
    """
    params = net._collect_params_with_prefix()
    names = [name for name, param in params.items() if param.grad_req != "null" or name in frozen]
    chosen = {}
    for pattern in factors:
        matching = _matching("lr_mult", pattern, names, "trainable parameter")
        kept = [name for name in matching if name in frozen]
        if kept:
            raise UserError(f"lr_mult: {pattern!r} matches what is frozen: {_shown(kept)}")
        chosen.update(dict.fromkeys(matching, pattern))
    for pattern in factors:
        if pattern not in chosen.values():
            raise UserError(f"lr_mult: {pattern!r} has no effect: later patterns match the same")
    for name, pattern in chosen.items():
        params[name].lr_mult = factors[pattern]


def _matching(setting, pattern, names, what):
    found = fnmatch.filter(names, pattern)
    if not found:
        raise UserError(
            f"{setting}: {pattern!r} matches no {what}{suggest(pattern, names)}; names are such as "
            f"{_shown([names[0], names[-1]])}"
        )
    return found


def _shown(names):
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def describe_finetuning(config):
    """What is frozen, and the factors of rates, for result files."""
    parts = []
    if config.freeze:
        parts.append("frozen " + ", ".join(config.freeze))
    if config.lr_mult:
        factors = (f"{factor:g} on {pattern}" for pattern, factor in config.lr_mult.items())
        parts.append("learning rate times " + ", ".join(factors))
    return parts
