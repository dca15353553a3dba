"""The ladder's small cases that compute, on both stand-ins, compiled and operator by operator."""

import pytest

from parity.cases import LADDER, is_for_stand_ins

# A model's gradients go through its forward pass, and an optimiser's update is that of another recipe.
ELSEWHERE = (
    *(f"4 {model} small" for model in ("AGW", "MUN", "PMT")),
    *(f"5 {case}" for case in ("PMT stage 2, six updates", "MUN choices, six updates", "AGW, six clipped updates")),
    # Other reductions of what is here, and all losses once more, of rows of unit length.
    *(f"3 {loss}" for loss in ("ia mean", "intra sum", "global sum", "ma without bridge")),
    "3 terms on their features, normalised",
)
CASES = [case for case in LADDER if is_for_stand_ins(case) and case.small and str(case) not in ELSEWHERE]
IDENTITY = "3 IdentityLoss"  # whose cross entropy is MindSpore's own there
TERMS = "3 terms on their features"  # all losses
# Losses in one graph; parity/report.py --stand-in has each by itself, and trainings of twenty steps.
CASES = [case for case in CASES if case.rung != 3 or str(case) in (IDENTITY, TERMS)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_graph_of_an_ascend_computes_what_pytorch_computes(ascend_worker, case):
    assert ascend_worker.do("run_case", str(case), "graph") == []


# `eager` replaces nothing: MindSpore's BatchNorm on an Ascend computes a variance as E[x^2] - E[x]^2, in float32.
MINDSPORES_OWN = {("Ascend", "2 NonLocal, width 1")}


@pytest.mark.parametrize("case", [*(str(case) for case in CASES if case.rung == 2), IDENTITY])
def test_operators_one_by_one_compute_what_pytorch_computes(either, case):
    over = either.do("run_case", case, "eager")
    assert (over != []) == ((either.stand_in.device, case) in MINDSPORES_OWN), over


# What this project's CUDA kernels take part in; parity/report.py --stand-in has it by a GPU's graph as well.
OF_CUDA = [
    *(
        f"2 {layer}"
        for layer in ("LayerNorm", "Dropout", "Block", "Block with dropout and drop path", "Block, float16")
    ),
    *(f"2 {layer}" for layer in ("IntraModalityLearner, 7x7 first", "IntraModalityLearner, float16")),
    *(f"2 {layer}" for layer in ("BatchNorm", "ResNet stem", "Bottleneck, projected", "Bottleneck, float16", "GeM")),
    *("2 CrossModalityLearner", "2 NonLocal, width 12", "4 AGW small, gradients", "5 AGW, six updates"),
    *("4 PMT small", "4 PMT small, gradients with dropout", "4 PMT small, float16", "4 MUN small, gradients"),
    "5 PMT stage 1, six updates",
]


SGD = "5 AGW, six updates"  # by other operators there than in any other backend


OF_A_GRAPH = [*(str(case) for case in CASES if str(case) not in OF_CUDA), SGD]


@pytest.mark.parametrize("case", OF_A_GRAPH)
def test_a_graph_of_a_gpu_computes_what_pytorch_computes(worker, case):
    assert worker.do("run_case", case, "graph") == []


@pytest.mark.parametrize("case", OF_CUDA)
def test_a_backend_with_cuda_kernels_computes_what_pytorch_computes(worker, case):
    assert worker.do("run_case", case, "cuda") == []


def test_what_is_left_out_are_cases():
    assert set(ELSEWHERE) <= set(map(str, LADDER))
