"""Analysis: what networks cost, what fusions weigh, how fast all of it is."""

from ..utils.framework import import_mxnet

import_mxnet()
