"""The settings of the engine ray: which cluster, and what each role asks of it."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from aal.config.fields import Group

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
