"""How the devices of a run share the work: --parallel."""

from minidl.errors import UserError
from minidl.nn import Linear, Module, init
from minidl.parallel import Communicators, hybrid, towers
from minidl.parallel.traffic import bytes_sent

from . import builders, models
from .config import Config

TOWERS = ("alexnet-2012", "net-145")  # the networks that have two towers


def check(config: Config) -> None:
    """Raise UserError if the devices cannot share the work as config.parallel says."""
    devices = config.world_size
    if config.parallel == "towers":
        if config.model not in TOWERS:
            raise UserError(f"--parallel towers is for {' and '.join(TOWERS)}, which have two towers; {config.model} does not")
        if devices != 2:
            raise UserError(f"--parallel towers needs two devices, and there {'is 1' if devices == 1 else f'are {devices}'}")
    if config.parallel == "hybrid":
        with init.skipped():
            network = builders.build_model(config)
        name, outputs = _fewest_outputs(network)
        if outputs < devices:
            raise UserError(
                "--parallel hybrid divides the outputs of each fully connected layer, but "
                f"{name} has only {outputs} for {devices} devices; choose --parallel data"
            )


def way(config: Config, network: Module) -> str:
    """config.parallel, "data", "hybrid" or "towers"; for "auto" the faster one of the first two.

    On CPUs that is the one in which the ranks send fewer bytes per step. On GPUs it is data parallelism, which sums gradients
    during the backward pass. network: the whole network.
    """
    if config.world_size == 1:
        return "data"
    if config.parallel != "auto":
        return config.parallel
    if config.backend == "cupy" or _fewest_outputs(network)[1] < config.world_size:
        return "data"
    shape, batch_size = builders.input_shape(config), config.recipe.batch_size
    return min(("data", "hybrid"), key=lambda way: bytes_sent(network, shape, way, batch_size, config.world_size))


def divide(network: Module, way: str, communicators: Communicators) -> None:
    """Reduce a network, in place, to the part that this rank computes. All ranks begin with the weights of rank 0."""
    if way == "hybrid":
        hybrid(network, communicators.main)
    elif way == "towers":
        towers(network, communicators.main, within_a_map=(models.SameMapNorm,))


def _fewest_outputs(network: Module) -> tuple[str, int]:
    """The name of the fully connected layer with the fewest outputs, and their number."""
    return min(
        ((name, layer.out_features) for name, layer in models.layers(network) if isinstance(layer, Linear)),
        key=lambda named: named[1],
    )
