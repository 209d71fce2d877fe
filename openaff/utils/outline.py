"""What is inside a network: its blocks by name, or a few lines, as ``print`` shows them."""

import itertools
import math
import re

from mxnet.gluon import nn


def named_blocks(net):
    """Structural name -> block, of all blocks inside a network, as in saved parameters' names."""
    named = {}
    for name, child in net._children.items():
        named[name] = child
        named.update({f"{name}.{inner}": block for inner, block in named_blocks(child).items()})
    return named


def outline(net):
    """``(name): layer; parameters``, a line a part: a screen holds them."""
    lines = []
    for name, part in _parts(net):
        size = sum(param.grad_req != "null" and _size(param) for param in _params(part))
        lines.append(f"  ({name}): {_words(part)}" + (f"; {size:,} parameters" if size else ""))
    name = type(net).__name__
    return "\n".join([f"{name}(", *lines, ")"]) if lines else f"{name}()"


def _parts(net):
    """The children by name; of those that only list layers, theirs."""
    for name, part in net._children.items():
        if isinstance(part, nn.HybridSequential) and name == "features":
            yield from ((f"{name}.{index}", each) for index, each in part._children.items())
        else:
            yield name, part


def _params(part):
    return part.collect_params().values()


def _size(param):
    """How many values a parameter has; 0 where its shape is not known yet."""
    return math.prod(param.shape) if param.shape else 0


def _words(part):
    """A layer, such as ``Dense(256 -> 10)``, or the kinds in a sequence: ``5 x BasicBlock``."""
    if not isinstance(part, nn.HybridSequential):
        channels = re.match(r"\w+\((\w+ -> \w+)", repr(part))
        return type(part).__name__ + (f"({channels.group(1)})" if channels else "")
    kinds = [type(each).__name__ for each in part]
    runs = [(kind, len(list(same))) for kind, same in itertools.groupby(kinds)]
    return ", ".join(f"{count} x {kind}" if count > 1 else kind for kind, count in runs)
