"""The methods. A map is a sum over a layer's channels; the methods differ in the weights.

All follow the definitions of pytorch-grad-cam: the weighted sum, its positive part, enlarged
bilinearly to the image and scaled to 0..1.  A is the layer's output (C, h, w), g the gradient of
the target with respect to it.
"""

import mxnet as mx
import numpy as np

from ...utils.errors import UserError, positive_int
from ...utils.progress import progress_bar
from .layers import default_layer, find_layer, run_to_layer
from .targets import predicted_targets

METHODS = {}  # key, as on command lines -> class


def _register(cls):
    METHODS[cls.__name__.lower()] = cls
    return cls


class CAM:
    """A method on a network.

    Parameters
    ----------
    net : Block
        Any initialised network of one output, hybridised or not: logits (N, K), or maps of logits
        (N, K, H, W).  Its state stays as it is: hybridisation, running statistics, gradients.
    target_layers : str, Block, or a list of them, optional
        Blocks of the network that give a map, or their structural names.  Maps of several are
        averaged.  By default the last map that the head sees, see
        :func:`~openaff.analysis.cam.layers.default_layer`.
    batch_size : int
        Images at once, for methods that run the network many times.

    Attributes
    ----------
    outputs : NDArray
        Of the last call, what the network gave.
    layer_names : list of str
        Of the last call, the layers' structural names.
    """

    needs_gradient = True

    def __init__(self, net, target_layers=None, batch_size=32):
        if target_layers is not None and not isinstance(target_layers, (list, tuple)):
            target_layers = [target_layers]
        self.net = net
        self.batch_size = positive_int("batch_size", batch_size)
        self.layers = target_layers and [find_layer(net, layer) for layer in target_layers]

    def __call__(self, images, targets=None):
        """The map of each image.

        Parameters
        ----------
        images : NDArray or numpy.ndarray
            float (N, 3, H, W), normalised.  A numpy array goes to the network's device.
        targets : list, optional
            One for each image, see :mod:`~openaff.analysis.cam.targets`; by default what the
            network says: the class of the largest logit, or of most pixels.

        Returns
        -------
        numpy.ndarray
            float32 (N, H, W) in 0..1; all 0 where nothing speaks for the target.

        Raises
        ------
        UserError
            Images of another shape, another number of targets than of images, a class that is not
            there, a network with several outputs, or a layer that gives no map.
        """
        images = _on_device(self.net, images)
        layers = self.layers or [default_layer(self.net, images)]
        self.layer_names = [name for name, _ in layers]
        maps = [self._map(layer, images, targets) for layer in layers]
        return scaled(np.mean(maps, axis=0))

    def _map(self, layer, images, targets):
        """(N, H, W): of one layer."""
        self.outputs, activations = run_to_layer(self.net, layer, images, self.needs_gradient)
        if not isinstance(self.outputs, mx.nd.NDArray) or self.outputs.ndim not in (2, 4):
            raise UserError("the network must give logits (N, K) or maps of logits (N, K, H, W)")
        targets = predicted_targets(self.outputs) if targets is None else targets
        if len(targets) != len(images):
            raise UserError(f"{len(images)} images need as many targets, not {len(targets)}")
        gradients = None
        if self.needs_gradient:
            with mx.autograd.record(train_mode=False):
                score = sum(target(output) for target, output in zip(targets, self.outputs))
            (gradients,) = mx.autograd.grad(score, [activations], train_mode=False)
            gradients = gradients.asnumpy().astype("float64")
        values = activations.asnumpy().astype("float64")
        combined = self.combine(values, gradients, images, targets)
        return scaled(resized(np.maximum(combined, 0), images.shape[2:]))

    def combine(self, activations, gradients, images, targets):
        """float64 (N, h, w) of A and g, float64 (N, C, h, w)."""
        raise NotImplementedError


@_register
class GradCAM(CAM):
    """Channels weigh the mean of their gradient.

    Grad-CAM (Selvaraju et al., ICCV 2017), equations 1 and 2.
    """

    def combine(self, activations, gradients, images, targets):
        return _weighted(activations, gradients.mean(axis=(2, 3)))


@_register
class GradCAMPlusPlus(CAM):
    """Channels weigh the sum of their positive gradients, each with a factor of its own.

    Grad-CAM++ (Chattopadhay et al., WACV 2018), equations 11 and 19, for the exponential of the
    target: the factor is g^2 / (2 g^2 + g^3 sum(A)).
    """

    def combine(self, activations, gradients, images, targets):
        squares = gradients**2
        total = activations.sum(axis=(2, 3), keepdims=True)
        factors = squares / (2 * squares + gradients * squares * total + 1e-6)
        return _weighted(activations, (np.maximum(gradients, 0) * factors).sum(axis=(2, 3)))


@_register
class LayerCAM(CAM):
    """Every position of every channel weighs its own positive gradient; good for early layers.

    LayerCAM (Jiang et al., IEEE TIP 2021), equations 6 and 7.
    """

    def combine(self, activations, gradients, images, targets):
        return (np.maximum(gradients, 0) * activations).sum(axis=1)


@_register
class EigenCAM(CAM):
    """The first principal component of the channels, whatever the target.

    Eigen-CAM (Muhammad and Yeasin, IJCNN 2020), with channels centred, as in pytorch-grad-cam.  A
    component has no sign.  Here it is the one that goes along with the mean channel;
    pytorch-grad-cam leaves it to the linear algebra.
    """

    needs_gradient = False

    def combine(self, activations, gradients, images, targets):
        maps = []
        for each in activations:
            positions = each.reshape(len(each), -1).T  # (hw, C)
            centred = positions - positions.mean(axis=0)
            _, _, components = np.linalg.svd(centred, full_matrices=False)
            component = centred @ components[0]
            along = component @ centred.mean(axis=1)
            maps.append((component if along >= 0 else -component).reshape(each.shape[1:]))
        return np.stack(maps)


@_register
class ScoreCAM(CAM):
    """Channels weigh the target of the image seen through them; needs no gradient, but C runs.

    Score-CAM (Wang et al., CVPR Workshops 2020), algorithm 1: each channel, enlarged to the image
    and scaled to 0..1, masks the image; the weights are the softmax over the targets.
    """

    needs_gradient = False

    def combine(self, activations, gradients, images, targets):
        weights = np.stack(
            [
                self._weights(masks, image, target)
                for masks, image, target in zip(
                    progress_bar(activations, unit="image"), images, targets
                )
            ]
        )
        return _weighted(activations, weights)

    def _weights(self, channels, image, target):
        """(C,): of one image (3, H, W)."""
        scores = []
        for start in range(0, len(channels), self.batch_size):
            masks = resized(channels[start : start + self.batch_size], image.shape[1:], True)
            masks = mx.nd.array(scaled(masks, 1e-8)[:, None], ctx=image.context, dtype=image.dtype)
            outputs = self.net(mx.nd.broadcast_mul(image.expand_dims(0), masks))
            scores += [float(target(output).asscalar()) for output in outputs]
        exponentials = np.exp(np.array(scores) - max(scores))
        return exponentials / exponentials.sum()


def _weighted(activations, weights):
    """(N, h, w): the sum over channels, with weights (N, C)."""
    return np.einsum("nchw,nc->nhw", activations, weights)


def scaled(maps, tiny=1e-7):
    """float32 maps (N, H, W), each from 0 to 1; a constant one is 0."""
    low = maps.min(axis=(1, 2), keepdims=True)
    high = maps.max(axis=(1, 2), keepdims=True)
    return ((maps - low) / (tiny + high - low)).astype("float32")


def resized(maps, shape, aligned=False):
    """Maps (N, h, w), bilinearly at another size (N, H, W).

    ``aligned``: the centres of the corner pixels fall together; by default their outer borders.
    """
    rows, columns = (_interpolation(old, new, aligned) for old, new in zip(maps.shape[1:], shape))
    return rows @ maps @ columns.T


def _interpolation(old, new, aligned):
    """(new, old): the matrix whose rows weigh the two neighbours of each new position."""
    positions = np.arange(new)
    if aligned:
        places = positions * ((old - 1) / max(new - 1, 1))
    else:
        places = np.clip((positions + 0.5) * (old / new) - 0.5, 0, old - 1)
    left = np.minimum(np.floor(places).astype(int), max(old - 2, 0))
    right = np.minimum(left + 1, old - 1)
    matrix = np.zeros((new, old))
    np.add.at(matrix, (positions, left), 1 - (places - left))
    np.add.at(matrix, (positions, right), places - left)
    return matrix


def _on_device(net, images):
    """The images as an NDArray of shape (N, 3, H, W), where the network is."""
    if not isinstance(images, mx.nd.NDArray):
        images = np.asarray(images)
        parameters = net.collect_params().values()
        devices = [device for each in parameters for device in each.list_ctx()]
        if images.dtype.kind != "f":
            raise UserError(f"images must be normalised floats, not {images.dtype}")
        images = mx.nd.array(images, ctx=devices[0] if devices else mx.cpu(), dtype=images.dtype)
    if images.ndim != 4 or 0 in images.shape:
        shape = "x".join(map(str, images.shape))
        raise UserError(f"images must have the shape (N, 3, H, W), not {shape}")
    return images
