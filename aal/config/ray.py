"""The settings of the engine ray: which cluster, and what each role asks of it."""

import importlib.util
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from aal.config.fields import Group
from aal.config.registry import SCHEDULES

if TYPE_CHECKING:
    from aal.config.settings import Settings

ADDRESS = re.compile(r"(ray://)?[^\s/]+:\d{1,5}")  # that of Ray Client is refused with a hint of its own


def _is_address(text: str) -> str:
    if text != "auto" and not ADDRESS.fullmatch(text):
        raise PydanticCustomError("address", "must be auto, or host:port as `ray start` prints it")
    return text


Cpus = Annotated[float, Field(gt=0, le=1024)]
Gpus = Annotated[float, Field(ge=0, le=64)]
Address = Annotated[str, Field(max_length=200), AfterValidator(_is_address)]
Resource = Annotated[str, Field(min_length=1, max_length=200)]
Pinned = Literal["hub", "server", "worker", "client", "evaluator", "annotators"]


class RaySettings(Group):
    """A Ray cluster, for engine ray."""

    address: Address | None = Field(
        None, description="auto, or the host:port of a cluster's head, to join it; null starts one on this machine"
    )
    server_cpus: Cpus | None = Field(
        None, description="CPUs that each server, or evaluator, asks of Ray, and threads that it has; null: its share"
    )
    worker_cpus: Cpus | None = Field(
        None, description="the same for each process of workers or clients; null: 1, or its share"
    )
    server_gpus: Gpus | None = Field(
        None, description="GPUs of each server, or evaluator, also a part of one; null: its share of the cluster's"
    )
    worker_gpus: Gpus | None = Field(None, description="the same for each process of workers or clients")
    pins: Annotated[dict[Pinned, Resource], Field(max_length=10)] = Field(
        {},
        description="a resource of Ray that a role needs, and so the machines where it may run, as {server: big, hub: "
        "\"node:10.0.0.5\"}; the hub's machine must see the run's folder",
    )
    shared_folder: bool | None = Field(
        None,
        description="whether the machines see the run's folder and the images at the same paths; null: each one looks; "
        "false: all is sent",
    )
    whole_images_gib: Annotated[float, Field(ge=0, le=10**6)] = Field(
        4.0,
        description="images of up to so many GiB are sent whole to a machine that does not see them; of a larger set "
        "each image is sent when a server or worker there first reads it",
    )
    wait_s: Annotated[float, Field(ge=0, le=10**6)] = Field(
        60.0, description="how long a start waits for machines that the cluster has not yet"
    )


def ray_problems(s: "Settings") -> Iterator[tuple[tuple[str, ...], str]]:
    """Yields settings that keep a run from a Ray cluster, or that ask of one what the run has no use for."""
    if s.engine != "ray":
        return
    if importlib.util.find_spec("ray") is None:
        yield ("engine",), "ray needs ray: pip install 'aal-labelling[ray]', or pip install .[ray] here"
    if s.ray.address and "://" in s.ray.address:
        text = f"{s.ray.address} is for Ray Client; run the command on a machine of the cluster, with auto"
        yield ("ray.address", "ray"), text
    absent = {"worker"} if s.mode == "federated" else {"client", "evaluator"}
    if SCHEDULES.is_users_own(s.mode):  # which may be a federation or none
        absent = set()
    for role in sorted(absent & s.ray.pins.keys()):
        has = ", ".join(name for name in get_args(Pinned) if name not in absent)
        yield ("ray.pins", "ray", "mode"), f"{role}: mode {s.mode} has none; it has {has}"
    for role, gpus, devices in (
        ("server", s.ray.server_gpus, s.devices.servers),
        ("worker", s.ray.worker_gpus, s.devices.workers),
    ):
        if gpus and set(devices) == {"cpu"}:
            text = f"asks for GPUs, and devices.{role}s={','.join(devices)} keeps it off them; use auto or cuda"
            yield (f"ray.{role}_gpus", "ray", f"devices.{role}s", "devices"), text
