"""A server of a federated run, which averages the weights that clients send, and the evaluator of its versions.

The server is given no image and no label: only files of weights, and how many labels each was trained on.
"""

import contextlib
import hashlib
import logging
import pathlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from aal.app.data import load_split
from aal.app.eval import evaluate
from aal.config.errors import Stopped, UserError
from aal.config.federated import FederatedSettings
from aal.config.settings import Settings
from aal.context import Context
from aal.coordination.clock import Work
from aal.coordination.federated_interfaces import Aggregator, AggregatorHub, EvaluatorHub, Tester
from aal.coordination.federation import AggregatedModel, AggregationJob, Contribution, EvaluatedModel, Facts, Share
from aal.coordination.messages import ModelRef
from aal.storage.checksum import checksum_of
from aal.storage.model_files import load_model, model_payload
from aal.storage.run_directory import MODELS
from aal.training.aggregation import Arrived, State, buffered, mixed, staleness_weight, state_problem, weighted_mean
from aal.training.devices import use_device
from aal.training.images import OwnImages, normalisation_of
from aal.training.networks import architecture_from, initial_network, restore_model
from aal.training.trainer import reuse_or_train

log = logging.getLogger("aal")


@dataclass(frozen=True)
class AverageServer:
    """What a server needs to average.

    Attributes:
        index: its number.
        run: the run's folder, to which model paths are relative.
        settings: of the run.
        facts: that all clients and servers share.
        incarnation: of its process, 0 for the first in its place; no two of them write to one file.
    """

    index: int
    run: pathlib.Path
    settings: Settings
    facts: Facts
    incarnation: int = 0

    @property
    def rules(self) -> FederatedSettings:
        """How the federation trains."""
        return self.settings.federated or FederatedSettings()

    def average(self, job: AggregationJob, started_at: float, heartbeat: Callable[[], None]) -> AggregatedModel:
        """Does a job: averages the local models that are sound, names the others, writes the file of the version.

        Args:
            job: says which local models, and the version that they go on from.
            started_at: of the run's clock, in seconds.
            heartbeat: called before each local model is read; what it raises ends the work.
        """
        again = f"-{self.incarnation}" if self.incarnation else ""
        path = f"{MODELS}/average-{job.number:05d}-server-{self.index}{again}.pt"
        inputs = [(one.model.job, one.model.checksum, one.staleness, one.start) for one in job.contributions]
        text = repr((job.number, job.start, job.cycle, inputs, self.settings.seed, self.rules))
        model_file = reuse_or_train(
            self.run / path,
            hashlib.blake2b(text.encode(), digest_size=16).hexdigest(),
            lambda: self._averaged(job, heartbeat),
            heartbeat,
        )
        shares = [Share(*share) for share in model_file["shares"]]
        left_out = [f"client {share.client} was left out: {share.left_out}" for share in shares if share.left_out]
        for line in left_out:
            log.warning("%s", line)
        return AggregatedModel(
            job=job.number,
            server=self.index,
            model=self.settings.networks[0].name,
            path=path,
            epoch=model_file["epoch"],
            started_at=started_at,
            val_accuracy=None,
            test_accuracy=None,
            warning="; ".join(left_out),
            checksum=checksum_of(self.run / path),
            shares=shares,
        )

    def _averaged(self, job: AggregationJob, heartbeat: Callable[[], None]) -> dict[str, Any]:
        """Returns what the file of a version is to hold."""
        s = self.settings
        architecture = architecture_from(s, self.facts)
        initial = initial_network(s, architecture, job.cycle).state_dict()
        current = load_model(self.run / job.start.path)["state_dict"] if job.start else initial
        sound: list[tuple[Contribution, State]] = []
        left_out: dict[int, str] = {}
        for one in job.contributions:
            heartbeat()
            state, problem = self._read(one, current)
            if state is None:
                left_out[one.model.job] = problem
            else:
                sound.append((one, state))
        state, weights = self._step(current, initial, sound)
        shares = [
            (
                one.model.client,
                one.model.job,
                weights.get(one.model.job, 0.0),
                one.staleness,
                left_out.get(one.model.job, ""),
            )
            for one in job.contributions
        ]
        return model_payload(
            s,
            state_dict=state,
            architecture=architecture.as_dict(),
            normalisation=normalisation_of(s.training, self.facts.mean, self.facts.std),
            class_names=self.facts.classes,
            images=self.facts.images,
            labels=job.labels,
            epoch=s.training.epochs,
            shares=shares,
        )

    def _read(self, one: Contribution, current: State) -> tuple[State | None, str]:
        """Returns the weights of a client, mapped from their file; or None, and why they are left out."""
        try:
            state: State = load_model(self.run / one.model.path)["state_dict"]
        except UserError as error:
            return None, str(error)
        problem = state_problem(state, current)
        return (None, problem) if problem else (state, "")

    def _step(
        self, current: State, initial: State, sound: list[tuple[Contribution, State]]
    ) -> tuple[dict[str, Tensor], dict[int, float]]:
        """Returns the new state, and the share of it that each training has, by the number of its job.

        Args:
            current: the state of the version before.
            initial: the state that a cycle begins with.
            sound: the contributions and their states.
        """
        rules, labels = self.rules, sum(one.model.labels for one, _ in sound)
        if not sound:
            return dict(current), {}
        if rules.asynchronous is None:
            mean = weighted_mean((state, one.model.labels) for one, state in sound)
            return mean, {one.model.job: one.model.labels / labels for one, _ in sound}
        exponent = rules.asynchronous.staleness_exponent
        counts = {one.model.job: staleness_weight(one.staleness, exponent) for one, _ in sound}
        if rules.asynchronous.buffer == 1:
            ((one, state),) = sound
            share = min(1.0, rules.step * counts[one.model.job])
            return mixed(current, state, share), {one.model.job: share}

        def arrived() -> Iterator[Arrived]:
            for one, state in sound:
                start = load_model(self.run / one.start)["state_dict"] if one.start else initial
                yield Arrived(state, start, one.model.labels, one.staleness)

        weights = {one.model.job: rules.step * counts[one.model.job] * one.model.labels / labels for one, _ in sound}
        return buffered(current, arrived(), exponent=exponent, learning_rate=rules.step), weights

    def discard(self, job: AggregationJob) -> None:
        """Removes the files that nobody will read any more."""
        for path in job.obsolete:
            with contextlib.suppress(OSError):
                (self.run / path).unlink()


def build(context: Context[AggregatorHub], facts: Facts) -> AverageServer:
    """Builds a server in its own process; no image and no label is among what it is given."""
    return AverageServer(context.index, context.run, context.settings, facts, context.incarnation)


async def serve(server: Aggregator, context: Context[AggregatorHub]) -> None:
    """The role of a server: wait for local models, average, publish; until the run is over."""
    hub, clock = context.hub, context.clock
    try:
        while True:
            job = await clock.until(hub.job, context.index)
            assert isinstance(job, AggregationJob)
            log.info("averages %d local models (job %d)", len(job.contributions), job.number)
            work = Work("training", context.index, job.number, 0, 0)
            trained = await clock.spend(work, server.average, job, clock.now(), context.heartbeat)
            version = hub.publish(trained)
            log.info("published v%d", version)
            server.discard(job)
    except Stopped:
        return


# ---------------------------------------------------------------------- the evaluator


@dataclass(frozen=True)
class Evaluator:
    """What an evaluator needs to score versions.

    Attributes:
        run: the run's folder, to which model paths are relative.
        settings: of the run.
        bank: the test images, and no others.
        ids: (n,) of these.
        labels: (n,) of these.
    """

    run: pathlib.Path
    settings: Settings
    bank: OwnImages
    ids: np.ndarray
    labels: np.ndarray

    def cost(self, model: ModelRef) -> Work:
        """Returns how much the test of a version is."""
        return Work("evaluation", 0, model.version, 0, len(self.ids))

    def test(self, model: ModelRef, heartbeat: Callable[[], None]) -> EvaluatedModel:
        """Scores a version on the test set.

        Args:
            model: the version.
            heartbeat: called before each batch; what it raises ends the work.
        """
        path = self.run / model.path
        payload = load_model(path)
        network = restore_model(payload, path, [one.model for one in self.settings.networks]).to(self.bank.device)
        found = evaluate(
            network,
            self.bank,
            self.ids,
            self.labels,
            normalisation=payload["normalisation"],
            precision=self.settings.eval_precision,
            heartbeat=heartbeat,
        )
        pairs = [
            (truth, predicted, int(found.confusion[truth, predicted]))
            for truth, predicted in np.argwhere(found.confusion).tolist()
        ]
        return EvaluatedModel(model.version, found.accuracy, pairs)


def build_evaluator(context: Context[EvaluatorHub], images: pathlib.Path, labels: pathlib.Path) -> Evaluator:
    """Builds an evaluator in its own process, which keeps the test images alone.

    Args:
        context: of the role.
        images: file of the prepared images.
        labels: file of their labels.
    """
    settings, test = context.settings, load_split(context.run / "split.npz").test
    bank = OwnImages(images, test, use_device(settings.devices.servers[0]))
    return Evaluator(context.run, settings, bank, test, np.load(labels, mmap_mode="r")[test])


async def score(evaluator: Tester, context: Context[EvaluatorHub]) -> None:
    """The role of an evaluator: score the versions that are to be tested, until the run is over."""
    hub, clock = context.hub, context.clock
    try:
        while True:
            model = await clock.until(hub.evaluation, context.index)
            result = await clock.spend(evaluator.cost(model), evaluator.test, model, context.heartbeat)
            hub.tested(result)
            if result.accuracy is not None:
                log.info("v%d: test accuracy %.4f", model.version, result.accuracy)
    except Stopped:
        return
