"""What this machine can do: ``python -m openaff.doctor``, which works where mxnet does not."""
