"""The loss terms: which loss of which outputs each one is, in either framework.

A term is declared here rather than beside its loss, because a recipe is read and checked without a framework.
"""

from inspect import signature
from types import ModuleType
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from ms_vireid.config.base import Section, Weight, choice

OF_BOTH_MODALITIES = {"logits", "pooled", "bnneck"}  # the outputs that need no auxiliary modality


class Term(Section):
    """A loss and how it is called: `loss(*outputs, labels, *further)`."""

    loss: ClassVar[str]  # a class of the package `losses`
    outputs: ClassVar[tuple[str, ...]]  # fields of `TrainingOutputs`
    labelled: ClassVar[bool] = True  # the loss takes labels, as many as the outputs have rows
    further: ClassVar[tuple[int, ...]] = ()
    halved: ClassVar[bool] = False  # the loss takes as many visible as infrared rows
    weight: Weight = 1.0  # factor of the term in the loss

    @classmethod
    def of(cls, loss: str, **declared: Any) -> type["Term"]:
        """The section of a loss without options. declared: its class variables."""
        return type(cls)(f"{loss}Term", (cls,), {"__module__": __name__, "loss": loss, **declared})

    @property
    def auxiliary(self) -> bool:
        """Whether the loss compares an auxiliary modality."""
        return not OF_BOTH_MODALITIES.issuperset(self.outputs)

    @property
    def of_unit_rows(self) -> bool:
        """Whether the outputs' rows are scaled to unit length before the loss takes them."""
        return getattr(self, "normalised", False)

    def build(self, losses: ModuleType, num_instances: int, parts: int) -> Any:
        """Make the loss from a framework's package `losses`, with this section's options, and with K (`num_instances`)
        and the number of a batch's `parts` if it takes them."""
        kind = getattr(losses, self.loss)
        batch = {"num_instances": num_instances, "parts": parts}
        taken = {name: batch[name] for name in batch.keys() & signature(kind.__init__).parameters}
        return kind(**taken, **self.model_dump(exclude={"weight", "feature", "normalised", "stage"}))


class FeatureTerm(Term):
    feature: Literal["pooled", "bnneck"] = "pooled"  # which features: before or after BNNeck
    normalised: bool = False  # scale rows to unit length first

    @property
    def outputs(self) -> tuple[str, ...]:
        return (self.feature,)


class IdentityTerm(Term):
    loss = "IdentityLoss"
    outputs = ("logits",)
    over: Literal["modalities", "rows"] = "modalities"  # the sum of both modalities' means, or one mean over all rows


class TripletTerm(FeatureTerm):
    loss = "HardTripletLoss"
    margin: Weight  # by which a negative should be farther than a positive


class ProgressiveTripletTerm(FeatureTerm):
    loss = "ProgressiveHardTripletLoss"
    halved = True
    margin: Weight = 0.1  # by which a negative should be farther than a positive
    stage: choice(1, 2)  # 1: within each modality (Eq. 3); 2: over both (Eq. 4)
    reduction: Literal["mean", "sum"] = "mean"  # over the anchors; the paper prints a sum, the release takes the mean

    @property
    def further(self) -> tuple[int, ...]:
        return (self.stage,)


class WRTTerm(FeatureTerm):
    loss = "WeightedRegularizedTripletLoss"
    weights: Literal["released", "softmax"] = "released"  # softmax: the paper's formula, without the release's 1e-6


class HeteroCenterTerm(FeatureTerm):
    loss = "HeteroCenterTripletLoss"
    halved = True
    margin: Weight  # by which a negative should be farther than a positive


class MSELTerm(FeatureTerm):
    """Without a `feature` it is the release's: after BNNeck for cosine, before it for Euclidean distances."""

    loss = "ModalitySharedEnhancementLoss"
    halved = True
    distance: Literal["euclidean", "cosine"] = "euclidean"  # cosine: feature is bnneck by default, as released

    @model_validator(mode="before")
    @classmethod
    def _released_feature(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("distance") == "cosine":
            return {"feature": "bnneck"} | value
        return value


class DCLTerm(FeatureTerm):
    loss = "DiscriminativeCenterLoss"
    halved = True
    # which rows of other people count: those nearer than the mean, the nearest, or all
    negatives: Literal["dynamic", "hard", "all"] = "dynamic"


class IdentityAlignmentTerm(Term):
    loss = "IdentityAlignmentLoss"
    outputs = ("visible", "infrared", "auxiliary")
    labelled = False
    normalised: bool = False  # scale rows to unit length first
    margin: Weight = 0.55  # by which another person's centre should be farther
    reduction: Literal["sum", "mean"] = "sum"  # over the people


class ModalityAlignmentTerm(Term):
    loss = "ModalityAlignmentLoss"
    outputs = ("visible_prototypes", "infrared_prototypes", "auxiliary_prototypes")
    labelled = False
    bridge: bool = True  # compare through the auxiliary modality; false: visible with infrared (Table 3)


class LossConfig(Section):
    """The terms of a stage's loss, each with its weight; a term that is absent (or null) is not computed."""

    id: IdentityTerm | None = None  # cross entropy of the identities
    triplet: TripletTerm | None = None  # batch-hard triplet loss
    pht: ProgressiveTripletTerm | None = None  # PMT's progressive form of it
    wrt: WRTTerm | None = None  # AGW's weighted regularised triplet loss
    esd: FeatureTerm.of("EnhancedSquaredDifferenceLoss") | None = None  # CAJ's enhanced squared difference
    hct: HeteroCenterTerm | None = None  # triplet loss of the modalities' centres
    msel: MSELTerm | None = None  # PMT's modality-shared enhancement loss
    dcl: DCLTerm | None = None  # PMT's discriminative centre loss
    # MUN's identity consistency loss
    idc: Term.of("IdentityConsistencyLoss", outputs=("visible_logits", "infrared_logits")) | None = None
    ia: IdentityAlignmentTerm | None = None  # MUN's identity alignment loss
    ma: ModalityAlignmentTerm | None = None  # MUN's modality alignment loss
    # cross entropy of the auxiliary features alone
    id_a: Term.of("AuxiliaryIdentityLoss", outputs=("auxiliary_logits",)) | None = None

    def terms(self) -> dict[str, Term]:
        return {name: term for name in type(self).model_fields if (term := getattr(self, name)) is not None}

    def check(self) -> None:
        if not self.terms():
            raise ValueError("no loss term is given")
