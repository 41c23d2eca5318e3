"""From the name of a network to the network: built anew from a seed, or restored with the weights of a file."""

import contextlib
import inspect
import pathlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from aal.config.contradictions import misfit
from aal.config.errors import UserError
from aal.config.registry import NETWORKS
from aal.config.seeding import derive
from aal.config.settings import Settings, TargetSettings
from aal.coordination.federation import Facts


@dataclass(frozen=True)
class Architecture:
    """All that a network is built from but its weights; plain values, for the model file.

    Attributes:
        name: a registered network, `torchvision:NAME`, or a user's `package.module:object`.
        classes: number of logits.
        channels: of the images.
        image_size: pixels a side.
        options: further arguments of the builder.
    """

    name: str
    classes: int
    channels: int
    image_size: int
    options: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Returns what a model file holds."""
        return {**asdict(self), "options": dict(self.options)}

    def build(self, seed: int) -> nn.Module:
        """Builds the network on the CPU, its weights as the builder makes them.

        Args:
            seed: of the initial weights: the same seed gives the same weights on every machine; the process's own
                random numbers are left as they are.

        Raises:
            UserError: there is no such network, its options are wrong, or it does not take such images.
        """
        builder, arguments = self._call()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            try:
                network = builder(**arguments)
            except Exception as error:
                if not NETWORKS.is_users_own(self.name):
                    raise
                raise UserError(f"models: {self.name}: {type(error).__name__}: {error}") from error
        if not isinstance(network, nn.Module):
            raise UserError(f"models: {self.name}: gives {type(network).__name__}, not a torch.nn.Module")
        return network

    def restore(self, state_dict: Mapping[str, Tensor]) -> nn.Module:
        """Returns the network with given weights, which it takes over without copying them.

        Raises:
            UserError: as `build`.
            RuntimeError: the weights are not those of the network.
        """
        builder, arguments = self._call()
        network = None
        # Without drawing initial weights, which takes half a second for a full VGG-16. A user's builder may do what no
        # meta tensor can; built for real, it may work.
        with contextlib.suppress(Exception), torch.device("meta"):
            network = builder(**arguments)
        if isinstance(network, nn.Module):
            network.load_state_dict(state_dict, assign=True)
            if _is_whole(network):
                return network
        network = self.build(seed=0)
        network.load_state_dict(state_dict)
        return network

    def _call(self) -> tuple[Callable[..., nn.Module], dict[str, Any]]:
        builder = NETWORKS.load(self.name)
        if problem := misfit(self.name, self.image_size):
            raise UserError(f"models: {problem}")
        given = _given(builder, self)
        return builder, {**given, **check_model_options(self.name, self.options, given)}


def build_model(name: str, *, classes: int, channels: int, image_size: int, seed: int, **options: Any) -> nn.Module:
    """Builds a network by its name; see `Architecture`."""
    return Architecture(name, classes, channels, image_size, options).build(seed)


def check_model_options(name: str, options: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
    """Returns the options as the builder reads them; messages name the network, for a run may have several."""
    try:
        return NETWORKS.checked_options(name, options, given)
    except UserError as error:
        raise UserError(*(f"{problem} (of {name})" for problem in error.problems)) from None


def _given(builder: Callable[..., nn.Module], architecture: Architecture) -> dict[str, Any]:
    """What of classes, channels and image size a builder takes; other libraries call the first one num_classes."""
    parameters = inspect.signature(builder).parameters
    given = {key: getattr(architecture, key) for key in ("channels", "image_size") if key in parameters}
    is_open = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if "classes" in parameters:
        return {"classes": architecture.classes, **given}
    if "num_classes" in parameters or is_open:
        return {"num_classes": architecture.classes, **given}
    raise UserError(f"models: {architecture.name}: must take classes, as in build(classes, channels, image_size)")


def _is_whole(network: nn.Module) -> bool:
    """Whether no tensor is left without memory: a buffer that is not in the state dict, or a plain attribute."""
    for module in network.modules():
        for value in vars(module).values():
            held = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
            if any(isinstance(one, Tensor) and one.is_meta for one in held):
                return False
    return True


def architecture_of(
    settings: Settings, network: TargetSettings, *, classes: int, channels: int, image_size: int
) -> Architecture:
    """Returns one of the networks of a run; its width is an option of those builders that have it.

    Args:
        settings: of the run.
        network: one of `settings.networks`.
        classes: of the images.
        channels: of the images.
        image_size: pixels a side.

    Raises:
        UserError: the settings give a width to a network that has none.
    """
    name, options = network.model, dict(network.options)
    if "width" in inspect.signature(NETWORKS.load(name)).parameters:
        options.setdefault("width", settings.width)
    elif settings.width != 1.0:
        raise UserError(f"width: {name} has no such option; leave it out")
    return Architecture(name, classes, channels, image_size, options)


def architecture_from(settings: Settings, facts: Facts) -> Architecture:
    """Returns the one network that the clients and servers of a federated run have."""
    size = {"classes": len(facts.classes), "channels": facts.channels, "image_size": facts.image_size}
    return architecture_of(settings, settings.networks[0], **size)


def initial_network(settings: Settings, architecture: Architecture, cycle: int) -> nn.Module:
    """Returns the new network of a cycle: the same for every client and server, for it comes from the seed alone."""
    return architecture.build(derive(settings.seed, "weights", cycle))


def restore_model(
    payload: Mapping[str, Any], path: str | pathlib.Path = "the model file", trusted: Collection[str] = ()
) -> nn.Module:
    """Returns the network of a model file with the weights of the file.

    Args:
        payload: what `aal.storage.model_files.load_model` returned.
        path: the file that messages name.
        trusted: the users' own networks that may be imported, by name: a file alone never causes an import.

    Raises:
        UserError: the network is unknown or not trusted, or the weights are not those of the architecture.
    """
    architecture = Architecture(**payload["architecture"])
    name = architecture.name
    if problem := NETWORKS.problem(name):
        raise UserError(f"{path}: models: {problem}")
    if NETWORKS.is_users_own(name) and name not in trusted:
        raise UserError(f"{path}: its network {name} is a user's own code; to have it imported, add --model {name}")
    try:
        return architecture.restore(payload["state_dict"])
    except UserError as error:
        raise UserError(*(f"{path}: {problem}" for problem in error.problems)) from None
    except RuntimeError:
        raise UserError(f"{path}: its weights do not fit its own architecture, {name}; the file is damaged") from None
