"""Training in PyTorch by MXNet's update rules."""

import mxnet as mx
import numpy as np

from ...models.pretrained import load_model
from ...tasks.evaluation import evaluate
from ...utils.errors import UserError
from .weights import COUNTER, torch_name, torch_network, write_weights

try:
    import torch
except ImportError:  # import_torch() says what to do
    torch = None


class Updates:
    """MXNet's update rules, for parameters of PyTorch.

    PyTorch's own differ from them: MXNet's momentum holds the learning rates of the steps that it
    comes from, and the gradients are clipped before the weight decay is added (by Adam after it).

    Parameters
    ----------
    params : dict of str to torch.nn.Parameter
        What to train, by name.
    config : OptimizerConfig
        Which rule, and its settings.
    """

    STATES = {"nag": ("momentum",), "sgd": ("momentum",), "adagrad": ("squares",)}
    STATES["adam"] = ("mean", "squares")

    def __init__(self, params, config):
        self.params = params
        self.rule = getattr(self, config.name)
        self.settings = config.settings("float32")
        self.no_wd = config.no_wd
        self.count = 0
        self.states = {
            f"{name}:{state}": torch.zeros_like(param)
            for name, param in params.items()
            for state in self.STATES[config.name]
        }

    def step(self, lr, scale):
        """Update every parameter by its gradient times ``scale``."""
        self.count += 1
        with torch.no_grad():
            for name, param in self.params.items():
                exempt = self.no_wd and param.ndim == 1  # biases, weights and biases of norms
                decay = 0.0 if exempt else self.settings["wd"]
                states = [self.states[f"{name}:{state}"] for state in self._state_names()]
                self.rule(param, param.grad * scale, decay, lr, *states)

    def _state_names(self):
        return self.STATES[self.rule.__name__]

    def _clipped(self, gradient):
        limit = self.settings.get("clip_gradient")
        return gradient if limit is None else gradient.clamp(-limit, limit)

    def nag(self, param, gradient, decay, lr, momentum):
        rate, gradient = self.settings["momentum"], self._clipped(gradient)
        momentum.mul_(rate)
        step = lr * (gradient + decay * param)
        param.add_(rate * (momentum - step) - step)
        # MXNet takes the decay of the momentum from the weight that is updated already.
        momentum.sub_(lr * (gradient + decay * param))

    def sgd(self, param, gradient, decay, lr, momentum):
        gradient = self._clipped(gradient)
        momentum.mul_(self.settings["momentum"]).sub_(lr * (gradient + decay * param))
        param.add_(momentum)

    def adagrad(self, param, gradient, decay, lr, squares):
        gradient = self._clipped(gradient)
        squares.add_(gradient**2)
        param.sub_(lr * (gradient / (squares + self.settings["eps"]).sqrt() + decay * param))

    def adam(self, param, gradient, decay, lr, mean, squares):
        beta1, beta2 = self.settings["beta1"], self.settings["beta2"]
        gradient = self._clipped(gradient + decay * param)
        mean.mul_(beta1).add_((1 - beta1) * gradient)
        squares.mul_(beta2).add_((1 - beta2) * gradient**2)
        lr *= (1 - beta2**self.count) ** 0.5 / (1 - beta1**self.count)
        param.sub_(lr * mean / (squares.sqrt() + self.settings["epsilon"]))


class TorchEngine:
    """Trains in PyTorch what a Gluon network holds; it has the methods of the other engine.

    Parameters
    ----------
    net : HybridBlock
        Gives the initial weights, and gets the trained ones whenever files are written.
    loss, schedule, optimizer
        As the other engine's.
    seed, precision, workers
        The other engine's, too; without effect here.
    model, options
        Which network it is.
    device : str
        ``cpu``, ``cuda`` or ``cuda:N``.
    """

    def __init__(
        self,
        net,
        loss,
        schedule,
        optimizer,
        seed=0,
        precision="float32",
        workers=None,
        *,
        model,
        options,
        device="cpu",
    ):
        self.net = net
        self.framework = f"PyTorch {torch.__version__}"
        self.devices = [device]
        self.schedule = schedule
        self.label_smoothing = loss.label_smoothing
        self.model, self.options = model, options
        self.network, _ = torch_network(net, model, options)
        self.network.to(device)
        params = self.network.named_parameters()
        trained = {name: param for name, param in params if param.requires_grad}
        self.updates = Updates(trained, optimizer)
        self.step = 0

    def losses(self, logits, targets):
        """Softmax cross-entropy (N,), of class numbers (N,) or probabilities (N, K)."""
        if targets.ndim == 1:
            targets = targets.long()
        smoothing = self.label_smoothing
        return torch.nn.functional.cross_entropy(
            logits, targets, reduction="none", label_smoothing=smoothing
        )

    def train_step(self, images, targets, meter):
        """One update on a batch of NDArrays, which is also added to ``meter``."""
        x, y = self._move(images), self._move(targets)
        self.network.train()
        for param in self.updates.params.values():
            param.grad = None
        logits = self.network(x)
        losses = self.losses(logits, y)
        losses.sum().backward()
        self.updates.step(self.schedule(self.step), 1 / len(x))
        meter.add([_to_mxnet(losses)], [_to_mxnet(logits)], [targets])
        self.step += 1

    def _move(self, array):
        return torch.from_numpy(array.asnumpy()).to(self.devices[0])

    def evaluate(self, net, batches, task):
        """The meter of one pass without updates; ``net``, Gluon's evaluation network, rests."""
        self.network.eval()

        def run(images):
            with torch.no_grad():
                return _to_mxnet(self.network(self._move(images)))

        return evaluate(run, batches, task, [mx.cpu()])

    def settle(self):
        """Bring the weights home to the Gluon network, which files are written from."""
        state = self.network.state_dict()
        for name, param in self.net._collect_params_with_prefix().items():
            param.set_data(_to_mxnet(state[torch_name(name)]))

    def finish(self, folder):
        """Write the best and the last weights for PyTorch, too."""
        for name in ("best", "last"):
            net = load_model(self.model, folder / f"{name}.params", **self.options)
            network, facts = torch_network(net, self.model, self.options)
            path = folder / f"{name}.safetensors"
            write_weights(path, network, self.model, facts)
            print(f"written {path}")

    def arrays(self):
        """The states of the update rule."""
        return {name: _to_mxnet(state) for name, state in self.updates.states.items()}

    def restore_arrays(self, arrays):
        """Take back what :meth:`arrays` gave, and the weights of the Gluon network."""
        states = self.updates.states
        if {name: each.shape for name, each in arrays.items()} != {
            name: tuple(each.shape) for name, each in states.items()
        }:
            raise UserError("the optimiser's states are of another network or optimiser")
        state = self.network.state_dict()
        for name, param in self.net._collect_params_with_prefix().items():
            state[torch_name(name)].copy_(self._move(param.data()))
        for name, state in states.items():
            state.copy_(self._move(arrays[name]))

    def state(self):
        return {"step": self.step, "updates": self.updates.count}

    def restore(self, state):
        self.step, self.updates.count = state["step"], state["updates"]
        for name, counter in self.network.named_buffers():
            if name.endswith(COUNTER):
                counter.fill_(self.step)


def _to_mxnet(tensor):
    return mx.nd.array(tensor.detach().cpu().numpy().astype(np.float32, copy=False))
