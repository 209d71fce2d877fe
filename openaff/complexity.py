"""What a network costs."""

import numpy as np


def count_parameters(net):
    """``(trainable, total)`` numbers of a network; total includes the running statistics."""
    params = net.collect_params().values()
    sizes = [(int(np.prod(param.shape)), param.grad_req != "null") for param in params]
    return sum(size for size, trainable in sizes if trainable), sum(size for size, _ in sizes)
