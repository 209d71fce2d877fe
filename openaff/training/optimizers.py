"""Optimisers by name, with the settings that each has."""

from dataclasses import dataclass
from typing import Optional, Tuple

from ..utils.configs import Section, require
from ..utils.errors import UserError
from ..utils.registry import Registry

OPTIMIZERS = Registry("optimiser")  # key -> Optimizer


@dataclass(frozen=True)
class Optimizer:
    """One of MXNet's optimisers: what it is called there and here, and its own settings."""

    key: str
    title: str
    momentum: Optional[float] = None  # by default; None: it has none
    betas: Optional[Tuple[float, float]] = None  # decay rates of the two moments, by default
    epsilon: Optional[float] = None  # by default

    def __post_init__(self):
        OPTIMIZERS.register(self.key)(self)


# Every one of them keeps float32 copies of float16 weights where it is asked for.
Optimizer("nag", "NAG", momentum=0.9)  # Nesterov's accelerated gradient
Optimizer("sgd", "SGD", momentum=0.9)
Optimizer("adagrad", "AdaGrad", epsilon=1e-7)  # Duchi et al., JMLR 2011
Optimizer("adam", "Adam", betas=(0.9, 0.999), epsilon=1e-8)  # Kingma and Ba, ICLR 2015


@dataclass
class OptimizerConfig(Section):
    name: str = "nag"  # or sgd, adagrad, adam
    lr: float = 0.2  # the schedule's peak
    momentum: Optional[float] = None  # nag, sgd: 0.9 by default
    beta1: Optional[float] = None  # adam: decay rate of the mean of gradients, 0.9 by default
    beta2: Optional[float] = None  # adam: of the mean of their squares, 0.999 by default
    epsilon: Optional[float] = None  # adagrad, adam: 1e-7 and 1e-8 by default
    weight_decay: float = 1e-4
    no_wd: bool = False  # no weight decay on biases, gammas and betas
    clip_gradient: Optional[float] = None  # largest magnitude of a gradient's elements

    def check(self, prefix="optimizer."):
        super().check(prefix)
        require(
            prefix,
            self.one_of("name", tuple(OPTIMIZERS)),
            ("lr", self.lr > 0, "must be positive"),
            *(
                (key, 0 <= (getattr(self, key) or 0) < 1, "must be in [0, 1)")
                for key in ("momentum", "beta1", "beta2")
            ),
            ("epsilon", self.epsilon is None or self.epsilon > 0, "must be positive"),
            ("weight_decay", self.weight_decay >= 0, "must not be negative"),
            ("no_wd", not self.no_wd or self.weight_decay, "has no effect without weight_decay"),
            (
                "clip_gradient",
                self.clip_gradient is None or self.clip_gradient > 0,
                "must be positive",
            ),
        )
        has = self._own()
        for key in ("momentum", "beta1", "beta2", "epsilon"):
            if getattr(self, key) is not None and key not in has:
                raise UserError(f"{prefix}{key} has no effect on {self.name}")

    def _own(self):
        """The settings that only some optimisers have: name -> value."""
        kind = OPTIMIZERS[self.name]
        beta1, beta2 = kind.betas or (None, None)
        defaults = dict(momentum=kind.momentum, beta1=beta1, beta2=beta2, epsilon=kind.epsilon)
        return {
            key: default if getattr(self, key) is None else getattr(self, key)
            for key, default in defaults.items()
            if default is not None
        }

    def describe(self):
        """In words, for result files."""
        own = "".join(f", {key} {value:g}" for key, value in self._own().items())
        exempt = " (not on bias, gamma, beta)" if self.no_wd else ""
        title = OPTIMIZERS[self.name].title
        return f"{title}, lr {self.lr:g}{own}, weight decay {self.weight_decay:g}{exempt}"

    def settings(self, precision):
        """Keyword arguments of MXNet's optimiser, but for the learning rate."""
        own = self._own()
        if self.name == "adagrad":
            own["eps"] = own.pop("epsilon")
        if self.clip_gradient is not None:
            own["clip_gradient"] = self.clip_gradient
        return {**own, "wd": self.weight_decay, "multi_precision": precision == "float16"}


def state_arrays(trainer):
    """What each device has of its own: optimiser states and running statistics, by name.

    Not pickled, as Gluon's own ``save_states`` does it: loading must run no code.  And
    ``save_parameters`` keeps but the devices' mean of the running statistics.
    """
    arrays = {}
    for device, updater in enumerate(trainer._updaters):
        for index, state in updater.states.items():
            arrays.update(_parts(device, index, state))
        for index, param in enumerate(trainer._params):
            if param.grad_req == "null":
                arrays[f"{device}.{index}.value"] = param.list_data()[device]
    return arrays


def restore_state_arrays(trainer, arrays):
    """Put what :func:`state_arrays` gave back into place.

    Raises
    ------
    UserError
        The arrays are those of another network or optimiser.
    """
    stateless = all(name.endswith(".value") for name in arrays)  # as before the first step
    places = {}
    for device, updater in enumerate(trainer._updaters):
        for index, param in enumerate(trainer._params):
            value = param.list_data()[device]
            if param.grad_req == "null":
                places[f"{device}.{index}.value"] = value
                continue
            state = trainer._optimizer.create_state_multi_precision(index, value)
            if not stateless:
                places.update(_parts(device, index, state))
            updater.states[index] = state
            updater.states_synced[index] = True
    if {name: each.shape for name, each in arrays.items()} != {
        name: each.shape for name, each in places.items()
    }:
        raise UserError("the optimiser's states are of another network or optimiser")
    for name, place in places.items():
        place[:] = arrays[name]


def _parts(device, index, state, name=""):
    """The arrays that an optimiser's state, a tree of tuples, consists of, by name."""
    if state is None:
        return {}
    if not isinstance(state, (tuple, list)):
        return {f"{device}.{index}.{name or 0}": state}
    parts = {}
    for number, part in enumerate(state):
        parts.update(_parts(device, index, part, f"{name}.{number}" if name else str(number)))
    return parts


def count_updates(trainer):
    """How often parameters were updated: Adam's corrections of its moments depend on it."""
    return int(trainer._optimizer.num_update)


def restore_updates(trainer, count):
    """Make the optimiser believe that it has updated each parameter ``count`` times."""
    trained = [index for index, param in enumerate(trainer._params) if param.grad_req != "null"]
    for device in trainer._contexts:
        trainer._optimizer._set_current_context(device.device_id)
        trainer._optimizer._index_update_count.update(dict.fromkeys(trained, count))
    trainer._optimizer.num_update = count
