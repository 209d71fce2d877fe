"""The fusions as their equations are printed: the reference of benchmarks, the oracle of tests.

Same children, same parameter names; only ``hybrid_forward`` and the pooling are written naively.
"""

from mxnet.gluon import nn

from ..attention import GlobalPool
from ..fusion import FUSIONS, weighted_sum
from ..utils.outline import named_blocks


def _joint(F, *contexts):
    return F.sigmoid(F.broadcast_add(*contexts))


def _twice(F, x, res, w):
    return 2 * F.broadcast_mul(x, w) + 2 * F.broadcast_mul(res, 1 - w)


def _once(F, x, res, w):
    return F.broadcast_mul(x, w) + F.broadcast_mul(res, 1 - w)


def _weighted(F, b, x, res, w):
    """With the factor 2 where the option ``doubled`` is on."""
    return (_twice if b._select is weighted_sum else _once)(F, x, res, w)


def _concat(F, one, other):
    """Without F.concat: oneDNN's may crash on the way back from a convolution."""
    return F.reshape(F.stack(one, other, axis=1), shape=(0, -3, -2))


def _both(F, b, u):
    return _joint(F, b.local_att(u), b.global_att(u))


def _iaff(F, b, x, res):
    i = _once(F, x, res, _both(F, b, x + res))
    return _weighted(F, b, x, res, _joint(F, b.local_att2(i), b.global_att2(i)))


def _two_rounds(F, b, first, second, x, res):
    i = _weighted(F, b, x, res, F.sigmoid(first(x + res)))
    return _weighted(F, b, x, res, F.sigmoid(second(i)))


def _sk(F, b, x, res):
    halves = F.reshape(b.global_att(x + res), shape=(0, -4, 2, -1, -2))  # (N, 2, C, 1, 1)
    weights = F.softmax(halves, axis=1)
    w_x, _ = (F.squeeze(half, axis=1) for half in F.split(weights, num_outputs=2, axis=1))
    return _weighted(F, b, x, res, w_x)  # the other half is 1 - w_x


def _joined(F, b, x, res):
    pooled = F.broadcast_like(b.global_att(x + res), x, lhs_axes=(2, 3), rhs_axes=(2, 3))
    w = F.sigmoid(b.fuse(_concat(F, b.local_att(x + res), pooled)))
    return _weighted(F, b, x, res, w)


def _recursive(F, b, x, res):
    local, g = b.local_att(x + res), b.global_att(x + res)
    t = F.broadcast_add(local, g)
    v = _joint(F, b.local_att2(t), b.global_att2(t))
    return _weighted(F, b, x, res, F.sigmoid(local * v + F.broadcast_mul(g, 1 - v)))


# key -> output(F, block, x, res)
EQUATIONS = {
    "add": lambda F, b, x, res: x + res,
    "concat": lambda F, b, x, res: b.fuse(_concat(F, x, res)),
    "resgloblocacha": lambda F, b, x, res: _weighted(F, b, x, res, _both(F, b, x + res)),
    "axyforxplusyadd": lambda F, b, x, res: F.broadcast_mul(res, _both(F, b, x + res)) + x,
    "axyforxyadd": lambda F, b, x, res: F.broadcast_mul(x + res, _both(F, b, x + res)),
    "ayforxplusyadd": lambda F, b, x, res: F.broadcast_mul(res, _both(F, b, x)) + x,
    "xplusayforyadd": lambda F, b, x, res: res + F.broadcast_mul(x, _both(F, b, x)),
    "aff": lambda F, b, x, res: _weighted(F, b, x, res, _both(F, b, x + res)),
    "globglob": lambda F, b, x, res: _weighted(F, b, x, res, _both(F, b, x + res)),
    "localoca": lambda F, b, x, res: _weighted(F, b, x, res, _both(F, b, x + res)),
    "concataff": _joined,
    "halfaff": _joined,
    "recursiveaff": _recursive,
    "iaff": _iaff,
    "globforglob": lambda F, b, x, res: _two_rounds(F, b, b.global_att, b.global_att2, x, res),
    "locaforloca": lambda F, b, x, res: _two_rounds(F, b, b.local_att, b.local_att2, x, res),
    "glob": lambda F, b, x, res: _weighted(F, b, x, res, b.attention(x + res)),
    "loca": lambda F, b, x, res: _weighted(F, b, x, res, b.attention(x + res)),
    "se": lambda F, b, x, res: res + F.broadcast_mul(x, b.global_att(x)),
    "gau": lambda F, b, x, res: F.broadcast_mul(res, b.global_att(x)) + x,
    "sk": _sk,
}


def with_printed_pooling(net):
    """The block, with ``nn.GlobalAvgPool2D`` for every :class:`~openaff.attention.GlobalPool`."""
    for parent in [net, *named_blocks(net).values()]:
        for name, child in parent._children.items():
            if isinstance(child, GlobalPool):
                pool = parent._children[name] = nn.GlobalAvgPool2D()
                if name in vars(parent):  # past Gluon, which refuses another class
                    vars(parent)[name] = pool
    return net


def printed(key):
    """The fusion class of ``key`` with its equation as printed."""

    class Printed(FUSIONS[key]):
        def context(self, *args, **options):
            return with_printed_pooling(super().context(*args, **options))

        def hybrid_forward(self, F, x, residual):
            return EQUATIONS[key](F, self, x, residual)

    Printed.__name__ = "Printed" + FUSIONS[key].__name__
    return Printed
