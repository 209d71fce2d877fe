"""Tables: published figures, ours beside them, pages and plots."""

from ..utils.framework import import_mxnet

import_mxnet()
