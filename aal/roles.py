"""Which roles a run has, by the names of their functions: an engine imports them where they run."""

from typing import TYPE_CHECKING

from aal.config.registry import LABEL_SOURCES
from aal.config.settings import Settings
from aal.coordination.partition import Partition
from aal.coordination.schedules import schedule_of
from aal.engines.base import Role

if TYPE_CHECKING:
    from aal.app.data import ImageSet

SOURCE = "aal.annotators.label_source"


def roles_of(settings: Settings, images: "ImageSet", partition: Partition) -> list[Role]:
    """Returns the roles of a run.

    Args:
        settings: of the run, with the devices of this machine.
        images: the prepared set, or what stands for it.
        partition: where every example begins.
    """
    from aal.coordination.schedules.federation import Federation

    schedule, has_files = schedule_of(settings), settings.compute == "full"
    labels = images.folder / "labels.npy" if has_files else images.labels
    pictures = images.folder / "images.npy" if has_files else None
    sees_images = LABEL_SOURCES.facts(settings.annotators.source).get("sees_images", True)
    asked = (labels, images.classes, pictures if sees_images else None, images.paths)
    if issubclass(schedule, Federation):
        return _federated(settings, images, partition, asked)
    workers, features = len(partition.shards), images.features_path
    roles = [
        # Servers read labels from the hub and images from the prepared folder; they publish files, then versions.
        Role(
            "server",
            "aal.app.server_train:build",
            "aal.app.server_train:serve",
            schedule.server_num(settings),
            (images.folder, features),
            asks_for_images=not settings.votes_kept,  # snapshots vote on all unlabelled images
        ),
        # Workers read the newest published files and offer ids of their shard.
        Role(
            "worker",
            "aal.app.work_query:build",
            "aal.app.work_query:work",
            workers,
            (images.folder, workers, features),
            settings.devices.worker_processes,
            asks_for_images=True,
        ),
    ]
    if settings.annotators.number:
        # Annotators draw ids and answer with labels; all of them share one process and one connection to the hub.
        roles.append(Role("annotators", f"{SOURCE}:build", f"{SOURCE}:annotate", 1, asked))
    if settings.people.label:
        # People draw and answer too, each in a browser; one process serves their pages.
        about = (images.classes, pictures, images.paths, len(partition.held_out.test))
        roles.append(Role("web", "aal.web.server:build", "aal.web.server:serve", 1, about, stays=True))
    return roles


def _federated(settings: Settings, images: "ImageSet", partition: Partition, asked: tuple[object, ...]) -> list[Role]:
    from aal.coordination.federation import Facts

    client, server, clients = "aal.app.client_train", "aal.app.server_average", len(partition.shards)
    facts = Facts(
        tuple(images.classes),
        images.images.shape[3],
        images.images.shape[1],
        images.folder.name,
        tuple(map(float, partition.mean)),
        tuple(map(float, partition.std)),
    )
    return [
        # A client reads its own images, gets its own labels from the hub, and writes local models.
        Role(
            "client",
            f"{client}:build",
            f"{client}:live",
            clients,
            (images.folder / "images.npy", facts),
            settings.devices.worker_processes,
            rows=[partition.owned(client) for client in range(clients)] if settings.compute == "full" else None,
            needs_all=True,  # a round waits for who takes part, and the end for the labels of all
        ),
        # A server reads local models and writes their average; it is given no image and no label.
        Role("server", f"{server}:build", f"{server}:serve", 1, (facts,), part="aggregator"),
        # An evaluator scores versions on the test images.
        Role(
            "evaluator",
            f"{server}:build_evaluator",
            f"{server}:score",
            1,
            (images.folder / "images.npy", images.folder / "labels.npy"),
            rows=[partition.test] if settings.compute == "full" else None,
        ),
        # The annotators of each client draw from its queries; those of all clients share one process, which is given
        # the labels of all and stays where these are.
        Role(
            "annotators",
            f"{SOURCE}:build",
            f"{SOURCE}:annotate",
            clients,
            (*asked, partition.shards),
            processes=1,
            stays=True,
        ),
    ]
