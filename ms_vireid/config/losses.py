"""The loss terms' sections: which loss of which outputs each term is, in either framework."""

from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import model_validator

from ms_vireid.config.base import Section, Weight


class Call(NamedTuple):
    """How a term is computed: `loss(*arguments)(*outputs, labels, *further)`.

    loss: a class of the package `losses`. outputs: fields of `TrainingOutputs`. labelled: whether it takes labels, as
    many as the outputs have rows.
    """

    loss: str
    arguments: tuple[Any, ...]
    outputs: tuple[str, ...]
    labelled: bool = True
    further: tuple[int, ...] = ()


class Term(Section):
    auxiliary: ClassVar[bool] = False  # whether it compares an auxiliary modality
    weight: Weight = 1.0

    def call(self, num_instances: int) -> Call:
        raise NotImplementedError


class IdentityTerm(Term):
    def call(self, num_instances: int) -> Call:
        return Call("IdentityLoss", (), ("logits",))


class FeatureTerm(Term):
    feature: Literal["pooled", "bnneck"] = "pooled"  # before or after BNNeck


class TripletTerm(FeatureTerm):
    margin: Weight

    def call(self, num_instances: int) -> Call:
        return Call("HardTripletLoss", (self.margin,), (self.feature,))


class ProgressiveTripletTerm(FeatureTerm):
    margin: Weight = 0.1
    stage: Literal[1, 2]
    reduction: Literal["mean", "sum"] = "mean"

    def call(self, num_instances: int) -> Call:
        arguments = self.margin, self.reduction
        return Call("ProgressiveHardTripletLoss", arguments, (self.feature,), further=(self.stage,))


class WRTTerm(FeatureTerm):
    weights: Literal["released", "softmax"] = "released"  # softmax: the paper's formula, without the release's 1e-6

    def call(self, num_instances: int) -> Call:
        return Call("WeightedRegularizedTripletLoss", (self.weights,), (self.feature,))


class HeteroCenterTerm(FeatureTerm):
    margin: Weight

    def call(self, num_instances: int) -> Call:
        return Call("HeteroCenterTripletLoss", (num_instances, self.margin), (self.feature,))


class MSELTerm(FeatureTerm):
    """Without a `feature` it is the release's: after BNNeck for cosine, before it for Euclidean distances."""

    distance: Literal["euclidean", "cosine"] = "euclidean"

    @model_validator(mode="before")
    @classmethod
    def _released_feature(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("distance") == "cosine":
            return {"feature": "bnneck"} | value
        return value

    def call(self, num_instances: int) -> Call:
        return Call("ModalitySharedEnhancementLoss", (num_instances, self.distance), (self.feature,))


class DCLTerm(FeatureTerm):
    negatives: Literal["dynamic", "hard", "all"] = "dynamic"

    def call(self, num_instances: int) -> Call:
        return Call("DiscriminativeCenterLoss", (num_instances, self.negatives), (self.feature,))


class AuxiliaryTerm(Term):
    auxiliary: ClassVar[bool] = True


class IdentityConsistencyTerm(AuxiliaryTerm):
    def call(self, num_instances: int) -> Call:
        return Call("IdentityConsistencyLoss", (), ("visible_logits", "infrared_logits"))


class IdentityAlignmentTerm(AuxiliaryTerm):
    margin: Weight = 0.55
    reduction: Literal["sum", "mean"] = "sum"

    def call(self, num_instances: int) -> Call:
        arguments = num_instances, self.margin, self.reduction
        return Call("IdentityAlignmentLoss", arguments, ("visible", "infrared", "auxiliary"), labelled=False)


class ModalityAlignmentTerm(AuxiliaryTerm):
    bridge: bool = True  # through the auxiliary modality; false: visible against infrared (Table 3)

    def call(self, num_instances: int) -> Call:
        outputs = "visible_prototypes", "infrared_prototypes", "auxiliary_prototypes"
        return Call("ModalityAlignmentLoss", (num_instances, self.bridge), outputs, labelled=False)


class AuxiliaryIdentityTerm(AuxiliaryTerm):
    def call(self, num_instances: int) -> Call:
        return Call("AuxiliaryIdentityLoss", (), ("auxiliary_logits",))


class LossConfig(Section):
    """The terms of a stage's loss, each with its weight; a term that is absent (or null) is not computed."""

    id: IdentityTerm | None = None
    triplet: TripletTerm | None = None
    pht: ProgressiveTripletTerm | None = None
    wrt: WRTTerm | None = None
    hct: HeteroCenterTerm | None = None
    msel: MSELTerm | None = None
    dcl: DCLTerm | None = None
    idc: IdentityConsistencyTerm | None = None
    ia: IdentityAlignmentTerm | None = None
    ma: ModalityAlignmentTerm | None = None
    id_a: AuxiliaryIdentityTerm | None = None

    def terms(self) -> dict[str, Term]:
        return {name: term for name in type(self).model_fields if (term := getattr(self, name)) is not None}

    @model_validator(mode="after")
    def _not_empty(self) -> "LossConfig":
        if not self.terms():
            raise ValueError("no loss term is given")
        return self
