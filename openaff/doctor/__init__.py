"""``python -m openaff.doctor``: what this machine can do; works even if mxnet does not."""
