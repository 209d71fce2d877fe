"""What the tables count: parameters and multiply-adds of networks, and of AFF in one block."""

import functools
import json
from functools import partial
from typing import NamedTuple

from .. import blocks
from ..analysis.complexity import count_parameters, summarize
from ..data import DATASETS
from ..fusion import AFF
from ..models import create_model, model_info
from ..utils.errors import UserError


def parameters(row):
    """Parameters of a row's network, running statistics left out; None without a network."""
    return row.model and _parameters(row.model, _classes(row.dataset, row.labels), _key(row))


def parameters_of(config):
    """Parameters of a configuration's network; see :func:`parameters`."""
    options = json.dumps(config.model.options, sort_keys=True)
    return _parameters(config.model.name, _classes(config.data.name, config.data.labels), options)


def multiply_adds(row):
    """Multiply-adds of a row's network for one image; None without a network."""
    if row.model is None:
        return None
    shape = DATASETS[row.dataset].image_shape
    return _multiply_adds(row.model, _classes(row.dataset, row.labels), _key(row), shape)


def _key(row):
    return json.dumps(row.options, sort_keys=True)


def _classes(dataset, labels):
    return DATASETS[dataset].granularity(labels).classes


@functools.lru_cache(maxsize=None)  # the same networks stand in several tables
def _parameters(model, classes, options):
    return count_parameters(create_model(model, num_classes=classes, **json.loads(options)))[0]


@functools.lru_cache(maxsize=None)
def _multiply_adds(model, classes, options, shape):
    net = create_model(model, num_classes=classes, **json.loads(options))
    return summarize(net, shape).total.multiply_adds


class BlockCost(NamedTuple):
    """Multiply-adds of a residual block, in units of C² times its output's height and width."""

    fusion: float
    rest: float


def block_cost(block):
    """The :class:`BlockCost` of a :class:`~openaff.tables.catalog.Block` with AFF."""
    fusion = partial(AFF, reduction=block.reduction)
    if block.kind == "PreActBlock":
        net = blocks.PreActBlock(
            block.channels, block.in_channels, block.stride, fusion, avg_down=False
        )
    elif block.kind == "Bottleneck":
        channels = blocks.Bottleneck.expansion * block.channels
        shortcut = None
        if channels != block.in_channels or block.stride != 1:
            norm = blocks.nn.BatchNorm
            shortcut = blocks.shortcut(channels, block.in_channels, block.stride, False, norm)
        net = blocks.Bottleneck(block.channels, block.in_channels, block.stride, shortcut, fusion)
    else:
        raise UserError(f"no block of kind {block.kind!r} is counted: PreActBlock or Bottleneck")
    size = block.size * block.stride
    cost = summarize(net, (block.in_channels, size, size))
    unit = (block.channels * block.size) ** 2
    fused = cost.stages["attention"].multiply_adds
    return BlockCost(fused / unit, (cost.total.multiply_adds - fused) / unit)


def in_words(count):
    """What a :class:`~openaff.tables.catalog.Count` comes to, in words."""
    if count.block:
        cost = block_cost(count.block)
        return f"{cost.fusion:.3g} C² of {cost.rest:.3g} C² ({cost.fusion / cost.rest:.2%})"
    shape = model_info(count.model).backbone.input_shape
    cost = summarize(create_model(count.model, **count.options), shape).total
    return f"{cost.multiply_adds / 1e9:.2f}G multiply-adds"
