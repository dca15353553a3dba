"""The loss terms' sections: which loss of which outputs each term is, in either framework."""

from typing import Any, ClassVar, Literal

from pydantic import model_validator

from ms_vireid.config.base import Section, Weight, choice


class Term(Section):
    """A loss and how it is called: `loss(**arguments)(*outputs, labels, *further)`."""

    loss: ClassVar[str]  # a class of the package `losses`
    outputs: ClassVar[tuple[str, ...]]  # fields of `TrainingOutputs`
    labelled: ClassVar[bool] = True  # whether it takes labels, as many as the outputs have rows
    further: ClassVar[tuple[int, ...]] = ()
    grouped: ClassVar[bool] = False  # whether `loss` is told K, num_instances
    parted: ClassVar[bool] = False  # the loss takes `parts`, how many of PK rows a batch has
    halved: ClassVar[bool] = False  # whether `loss` takes as many visible as infrared rows
    auxiliary: ClassVar[bool] = False  # whether it compares an auxiliary modality
    weight: Weight = 1.0

    @property
    def of_unit_rows(self) -> bool:
        """Whether the outputs' rows are scaled to unit length before `loss` takes them."""
        return getattr(self, "normalised", False)

    def arguments(self, num_instances: int, parts: int) -> dict[str, Any]:
        """What it is told of a batch, and the section's keys but for those that do not concern `loss`."""
        own = self.model_dump(exclude={"weight", "feature", "normalised", "stage"})
        told = {"num_instances": num_instances} if self.grouped else {}
        return told | ({"parts": parts} if self.parted else {}) | own


class IdentityTerm(Term):
    loss = "IdentityLoss"
    outputs = ("logits",)
    parted = True
    over: Literal["modalities", "rows"] = "modalities"  # the sum of both modalities' means, or the mean over all rows


class FeatureTerm(Term):
    feature: Literal["pooled", "bnneck"] = "pooled"  # before or after BNNeck
    normalised: bool = False

    @property
    def outputs(self) -> tuple[str, ...]:
        return (self.feature,)


class TripletTerm(FeatureTerm):
    loss = "HardTripletLoss"
    margin: Weight


class ProgressiveTripletTerm(FeatureTerm):
    loss = "ProgressiveHardTripletLoss"
    halved = True
    margin: Weight = 0.1
    stage: choice(1, 2)
    reduction: Literal["mean", "sum"] = "mean"

    @property
    def further(self) -> tuple[int, ...]:
        return (self.stage,)


class WRTTerm(FeatureTerm):
    loss = "WeightedRegularizedTripletLoss"
    weights: Literal["released", "softmax"] = "released"  # softmax: the paper's formula, without the release's 1e-6


class EnhancedSquaredDifferenceTerm(FeatureTerm):
    loss = "EnhancedSquaredDifferenceLoss"


class HeteroCenterTerm(FeatureTerm):
    loss = "HeteroCenterTripletLoss"
    grouped = halved = True
    margin: Weight


class MSELTerm(FeatureTerm):
    """Without a `feature` it is the release's: after BNNeck for cosine, before it for Euclidean distances."""

    loss = "ModalitySharedEnhancementLoss"
    grouped = halved = True
    distance: Literal["euclidean", "cosine"] = "euclidean"

    @model_validator(mode="before")
    @classmethod
    def _released_feature(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("distance") == "cosine":
            return {"feature": "bnneck"} | value
        return value


class DCLTerm(FeatureTerm):
    loss = "DiscriminativeCenterLoss"
    grouped = halved = True
    negatives: Literal["dynamic", "hard", "all"] = "dynamic"


class IdentityConsistencyTerm(Term):
    loss = "IdentityConsistencyLoss"
    outputs = ("visible_logits", "infrared_logits")
    auxiliary = True


class IdentityAlignmentTerm(Term):
    loss = "IdentityAlignmentLoss"
    outputs = ("visible", "infrared", "auxiliary")
    labelled, grouped, auxiliary = False, True, True
    normalised: bool = False
    margin: Weight = 0.55
    reduction: Literal["sum", "mean"] = "sum"


class ModalityAlignmentTerm(Term):
    loss = "ModalityAlignmentLoss"
    outputs = ("visible_prototypes", "infrared_prototypes", "auxiliary_prototypes")
    labelled, grouped, auxiliary = False, True, True
    bridge: bool = True  # through the auxiliary modality; false: visible against infrared (Table 3)


class AuxiliaryIdentityTerm(Term):
    loss = "AuxiliaryIdentityLoss"
    outputs = ("auxiliary_logits",)
    auxiliary = True


class LossConfig(Section):
    """The terms of a stage's loss, each with its weight; a term that is absent (or null) is not computed."""

    id: IdentityTerm | None = None
    triplet: TripletTerm | None = None
    pht: ProgressiveTripletTerm | None = None
    wrt: WRTTerm | None = None
    esd: EnhancedSquaredDifferenceTerm | None = None
    hct: HeteroCenterTerm | None = None
    msel: MSELTerm | None = None
    dcl: DCLTerm | None = None
    idc: IdentityConsistencyTerm | None = None
    ia: IdentityAlignmentTerm | None = None
    ma: ModalityAlignmentTerm | None = None
    id_a: AuxiliaryIdentityTerm | None = None

    def terms(self) -> dict[str, Term]:
        return {name: term for name in type(self).model_fields if (term := getattr(self, name)) is not None}

    def check(self) -> None:
        if not self.terms():
            raise ValueError("no loss term is given")
