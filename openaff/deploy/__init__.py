"""Deployment: export to MXNet symbols and ONNX, engines that run them, quantisation."""

from ..utils.framework import import_mxnet

import_mxnet()
