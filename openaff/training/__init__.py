"""Training: configurations, the engine, the run folder, several devices and processes."""

from ..utils.framework import import_mxnet

import_mxnet()
