"""Whole models on the parity ladder: small ones by every backend, full-size ones by the kernels alone, whose tiles and
windows depend on the size. By parity/report.py all are: compiling full-size models takes minutes and 8 GiB, and their
layers, small models and whole trainings are computed by eager and graph here too."""

import pytest

from ms_vireid.backends.choosing import OF_DEVICE
from tests.parity.ladder import check, of_rungs

BACKENDS = OF_DEVICE["CPU"]

# With dropout PMT's gradients are here as well, and the sizes of AGW's layers are those of MUN's. In evaluation timm's
# ViT-B/16 has PMT's sizes, torchvision's ResNet-50 the two others', and small models have all that is around them.
ELSEWHERE = (
    *("4 pmt_vit_base", "4 pmt_vit_base, gradients", "4 mun_resnet50"),
    *("4 agw_resnet50", "4 agw_resnet50, gradients"),
    "4 timm ViT-B/16, stride 16",  # the other one's weights, with fewer tokens
)
FORWARD = tuple(f"4 {model} small" for model in ("AGW", "MUN", "PMT"))  # a graph of gradients has it
CASES = [case for case in of_rungs(4) if str(case) not in ELSEWHERE]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_model_computes_what_pytorchs_does(case):
    if str(case) in FORWARD:
        check(case, ("numba", "eager"))
    elif case.small:
        check(case, BACKENDS)
    else:
        check(case, ("numba", "eager") if case.subject.startswith("MUN small") else ("numba",))


def test_what_is_left_out_are_cases():
    assert set(ELSEWHERE) <= set(map(str, of_rungs(4)))
