"""Which images are whose in a federation: how classes and sizes differ between clients.

A partition is a function from the labels of the images (n,), the number of clients and random numbers to the client of
each image, (n,) int64; its further typed parameters are options. Register it with `@PARTITIONS.register("name")`, or
name it as `package.module:function`.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from aal.config.errors import UserError
from aal.config.registry import PARTITIONS

Alpha = Annotated[float, Field(gt=0, le=1e6)]
LEAST = 1e-12  # of a share before scaling, so that a table always can be scaled
SCALINGS = 1000  # at the most; classes are divided whole after any number of them


def divide_among(
    clients: int, labels: np.ndarray, random: np.random.RandomState, name: str, options: Mapping[str, Any]
) -> np.ndarray:
    """Divides images among clients, of which each gets one at least.

    Args:
        clients: how many there are, at most n.
        labels: (n,) of the images, from 0.
        random: all randomness comes from here.
        name: of a registered partition, or `package.module:function`.
        options: of this partition.

    Returns:
        (n,) int64: the client of each image.

    Raises:
        UserError: there is no such partition, an option is wrong, or it cannot divide these images.
    """
    partition = PARTITIONS.load(name)
    checked = PARTITIONS.checked_options(name, options, given=("labels", "clients", "random"))
    try:
        owners = np.asarray(partition(labels, clients, random, **checked))
    except Exception as error:
        if isinstance(error, UserError) or not PARTITIONS.is_users_own(name):
            raise
        raise UserError(f"{PARTITIONS.setting}: {name}: {type(error).__name__}: {error}") from error
    if owners.shape != labels.shape or owners.dtype.kind not in "iu" or ((owners < 0) | (owners >= clients)).any():
        raise UserError(f"{PARTITIONS.setting}: {name}: must return {len(labels)} numbers from 0 to {clients - 1}")
    return _filled(owners.astype(np.int64), clients, random)


def _filled(owners: np.ndarray, clients: int, random: np.random.RandomState) -> np.ndarray:
    """Gives each client without images one of the client that has most."""
    sizes = np.bincount(owners, minlength=clients)
    for empty in np.flatnonzero(sizes == 0):
        richest = int(sizes.argmax())
        owners[random.choice(np.flatnonzero(owners == richest))] = empty
        sizes[richest], sizes[empty] = sizes[richest] - 1, 1
    return owners


@PARTITIONS.register("iid")
def iid(labels: np.ndarray, clients: int, random: np.random.RandomState) -> np.ndarray:
    """Deals images at random; sizes differ by one at the most."""
    return random.permutation(np.arange(len(labels)) % clients)


@PARTITIONS.register("dirichlet")
def dirichlet(
    labels: np.ndarray,
    clients: int,
    random: np.random.RandomState,
    alpha: Alpha = 0.1,
    relative_std: Annotated[float, Field(ge=0, le=10)] = 0.1,
) -> np.ndarray:
    """Divides each class by shares from Dirichlet(alpha), scaled until clients have sizes that differ little.

    Rows (clients) and columns (classes) of a table of Gamma(alpha) numbers, a column of which is a Dirichlet's but for
    its sum, are scaled in turn to the sizes of clients, which are log-normal, and of classes (Sinkhorn and Knopp,
    1967). How the published split of KAFAL was made is not known; its sizes (10 clients of 4,125 to 5,826 of 50,000
    images) and the distances of its clients' classes from the whole are as this gives them for 0.1 and 0.1.

    Args:
        labels: (n,) of the images.
        clients: how many.
        random: random numbers.
        alpha: the smaller, the fewer classes a client has; a large one makes clients alike.
        relative_std: standard deviation of the logarithms of the sizes; reached where classes are fine enough.
    """
    sizes = np.exp(relative_std * random.standard_normal(clients))
    _, counts = np.unique(labels, return_counts=True)
    table = random.standard_gamma(alpha, (clients, len(counts))) + LEAST
    for _ in range(SCALINGS):
        table *= (sizes / sizes.sum() / table.sum(axis=1))[:, None]
        wanted = counts / counts.sum() / table.sum(axis=0)
        table *= wanted
        if np.allclose(wanted, 1, rtol=0, atol=1e-3):
            break
    dealt = [np.repeat(np.arange(clients), _whole(column, size)) for column, size in zip(table.T, counts, strict=True)]
    return _by_class(labels, [random.permutation(one) for one in dealt])


@PARTITIONS.register("labels")
def by_label(
    labels: np.ndarray,
    clients: int,
    random: np.random.RandomState,
    classes_per_client: Annotated[int, Field(ge=1, le=10**6)] = 2,
) -> np.ndarray:
    """Gives each client so many classes; clients with a class share its images evenly (Li et al., 2022, #C = k).

    Raises:
        UserError: there are fewer classes than that, or some class would be nobody's.
    """
    present, counts = np.unique(labels, return_counts=True)
    if classes_per_client > len(present):
        raise UserError(f"federated: classes_per_client {classes_per_client} is more than the {len(present)} classes")
    if classes_per_client * clients < len(present):
        raise UserError(
            f"federated: {classes_per_client} classes for each of {clients} clients leave some of the {len(present)} "
            "classes to nobody; give clients more classes"
        )
    has = np.zeros((clients, len(present)), bool)
    for client in range(clients):  # the classes that the fewest have
        order = np.lexsort((random.permutation(len(present)), has.sum(axis=0)))
        has[client, order[:classes_per_client]] = True
    holders = [random.permutation(np.flatnonzero(column)) for column in has.T]
    return _by_class(labels, [random.permutation(np.resize(*one)) for one in zip(holders, counts, strict=True)])


@PARTITIONS.register("quantity")
def by_quantity(labels: np.ndarray, clients: int, random: np.random.RandomState, alpha: Alpha = 0.5) -> np.ndarray:
    """Gives clients shares of different size, drawn from Dirichlet(alpha), of images at random (Li et al., 2022)."""
    sizes = _whole(random.standard_gamma(alpha, clients) + LEAST, len(labels))
    return random.permutation(np.repeat(np.arange(clients), sizes))


def _by_class(labels: np.ndarray, dealt: list[np.ndarray]) -> np.ndarray:
    """Returns the client of each image, (n,) int64, of the clients that each class is dealt to, class by class."""
    owners = np.empty(len(labels), np.int64)
    owners[np.argsort(labels, kind="stable")] = np.concatenate(dealt)
    return owners


def _whole(shares: np.ndarray, total: int) -> np.ndarray:
    """Returns whole numbers (k,) in the proportions of shares that add up to the total."""
    upto = np.rint(np.cumsum(shares) / np.sum(shares) * total).astype(np.int64)
    return np.diff(upto, prepend=0)
