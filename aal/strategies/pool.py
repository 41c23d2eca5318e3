"""The candidates of a selection, as a strategy sees them: computed once, in batches, and only when asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from aal.training.outputs import Outputs


class Scorer(Protocol):
    """A model that scores images; `aal.training.scorer.ModelScorer` is one."""

    @property
    def is_coarse(self) -> bool:
        """Whether precision "auto" is bfloat16 on its device."""
        ...

    def outputs(self, ids: np.ndarray, precision: str, with_embeddings: bool) -> Outputs:
        """Scores images in one pass."""
        ...

    def monte_carlo_probabilities(self, ids: np.ndarray, passes: int, seed: int) -> np.ndarray:
        """Scores images with dropout switched on; (passes, n, classes) float32."""
        ...

    def votes(self, ids: np.ndarray) -> np.ndarray:
        """Returns the votes of the snapshots of the model's training, (snapshots, n)."""
        ...


Labelled = Callable[[], tuple[np.ndarray, np.ndarray]]


class CandidatePool:
    """The candidates, and what is labelled by now.

    Args:
        ids: (n,) int64 of the candidates.
        models: that were granted, the newest of each target, followed by the versions before it that the strategy asks
            for; the first one is meant where none is named.
        labelled: returns the ids and the labels of L.
        keep_embeddings: whether the pass that gives logits keeps the embeddings too.
        precision: of the passes: auto, float32 or bf16.
        seed: of Monte-Carlo passes without a seed of their own.
        features: (N, d) rows that stand for all images, in the place of the embeddings of a model.
        waiting: (w,) int64 ids that count as chosen already.
    """

    def __init__(
        self,
        ids: np.ndarray,
        models: Sequence[Scorer],
        labelled: Labelled,
        *,
        keep_embeddings: bool = True,
        precision: str = "auto",
        seed: int = 0,
        features: np.ndarray | None = None,
        waiting: np.ndarray | None = None,
    ) -> None:
        self.ids = ids
        self._models = models
        self._labelled = functools.cache(labelled)
        self._keep_embeddings = keep_embeddings and features is None
        self._features = features
        self._waiting = np.empty(0, np.int64) if waiting is None else waiting
        self._precision = precision
        self._seed = seed
        self._outputs: dict[int, Outputs] = {}

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def model_count(self) -> int:
        """How many models were granted: one a target, or as many versions of each as the strategy asks for."""
        return len(self._models)

    @property
    def is_coarse(self) -> bool:
        """Whether something was computed in bfloat16, whose scores `subset(..., precision="float32")` refines."""
        return bool(self._outputs) and self._precision == "auto" and self._models[0].is_coarse

    # ------------------------------------------------------------------ outputs of the model

    @property
    def logits(self) -> np.ndarray:
        """The logits, (n, classes) float32."""
        return self._scored(0).logits

    @property
    def probabilities(self) -> np.ndarray:
        """The class probabilities, (n, classes) float32."""
        return self._scored(0).probabilities

    @property
    def embeddings(self) -> np.ndarray:
        """The inputs of the network's output layer, (n, d) float32; from the pass that gives the logits.

        Under `embeddings_from: features` these are the features of the images, for which no model is asked.

        Raises:
            UserError: the network has no linear layer.
        """
        if self._features is not None:
            return self._own_features
        self._keep_embeddings = True
        found = self._scored(0).embeddings
        assert found is not None
        return found

    @functools.cached_property
    def _own_features(self) -> np.ndarray:
        assert self._features is not None
        return np.asarray(self._features[self.ids], np.float32)

    def logits_of(self, model_index: int) -> np.ndarray:
        """Returns the logits by one of several granted models, (n, classes of this model) float32."""
        return self._scored(model_index).logits

    def probabilities_of(self, model_index: int) -> np.ndarray:
        """Returns the class probabilities by one of several granted models, (n, classes of this model) float32."""
        return self._scored(model_index).probabilities

    def votes(self) -> np.ndarray:
        """Returns the class that each granted model predicts, (models, n) int64."""
        return np.stack([self.probabilities_of(index).argmax(axis=1) for index in range(self.model_count)])

    def embeddings_of(self, model_index: int) -> np.ndarray:
        """Returns the embeddings by one of several granted models, (n, d of this model) float32."""
        if model_index == 0 or self._features is not None:  # features are the same whatever the model
            return self.embeddings
        found = self._models[model_index].outputs(self.ids, self._precision, True).embeddings
        assert found is not None
        return found

    def votes_of(self, model_index: int) -> np.ndarray:
        """Returns the classes that the snapshots of a granted model's training gave, (snapshots, n).

        They were cast at the end of its last epochs (the setting `snapshots`) and cost no pass here.

        Raises:
            UserError: the training kept none.
        """
        return self._models[model_index].votes(self.ids)

    def monte_carlo_probabilities(self, passes: int, seed: int | None = None) -> np.ndarray:
        """Returns probabilities with dropout switched on (Gal and Ghahramani, 2016), (passes, n, classes) float32.

        Each pass drops the same units for all images, so that it is one network drawn from the posterior (Kirsch et
        al., 2019, section 3.3): what it says of several images belongs together. The same seed draws the same networks,
        also for a `subset` of the candidates.

        Args:
            passes: over all candidates.
            seed: of the dropout; by default one of this selection.

        Raises:
            UserError: the network has no dropout.
        """
        return self._models[0].monte_carlo_probabilities(self.ids, passes, self._seed if seed is None else seed)

    def _scored(self, index: int) -> Outputs:
        """The outputs of a model; scored again where embeddings are asked for that no earlier pass has kept."""
        known = self._outputs.get(index)
        if known is None or (self._keep_embeddings and index == 0 and known.embeddings is None):
            with_embeddings = self._keep_embeddings and index == 0
            self._outputs[index] = self._models[index].outputs(self.ids, self._precision, with_embeddings)
        return self._outputs[index]

    # ------------------------------------------------------------------ what is labelled

    @property
    def labelled_ids(self) -> np.ndarray:
        """The ids of L, (m,) int64."""
        return self._labelled()[0]

    @property
    def labels(self) -> np.ndarray:
        """The labels of `labelled_ids`, (m,) int64."""
        return self._labelled()[1]

    @functools.cached_property
    def labelled_embeddings(self) -> np.ndarray:
        """The embeddings of `labelled_ids`, (m, d) float32."""
        if self._features is not None:
            return np.asarray(self._features[self.labelled_ids], np.float32)
        found = self._models[0].outputs(self.labelled_ids, self._precision, True).embeddings
        assert found is not None
        return found

    @functools.cached_property
    def waiting(self) -> CandidatePool:
        """A pool of what counts as chosen already, though it is not labelled yet; empty unless `count_waiting`."""
        return self._of(self._waiting)

    def class_counts(self) -> np.ndarray:
        """Returns how many labels of each class there are, (classes,) int64."""
        return np.bincount(self.labels, minlength=self.probabilities.shape[1])

    # ------------------------------------------------------------------ a part

    def subset(self, positions: np.ndarray, *, precision: str | None = None) -> CandidatePool:
        """Returns a pool of some of the candidates.

        Args:
            positions: (k,) int, of this pool.
            precision: auto, float32 or bf16; by default that of this pool, whose outputs are then not computed again.
        """
        part = self._of(self.ids[positions], precision, self._waiting)
        if part._precision == self._precision:
            part._outputs = {index: found.at(positions) for index, found in self._outputs.items()}
        return part

    def _of(self, ids: np.ndarray, precision: str | None = None, waiting: np.ndarray | None = None) -> CandidatePool:
        """Returns a pool of other ids under the same models."""
        return CandidatePool(
            ids,
            self._models,
            self._labelled,
            keep_embeddings=self._keep_embeddings,
            precision=precision or self._precision,
            seed=self._seed,
            features=self._features,
            waiting=waiting,
        )
