"""Which printed numbers belong to a configuration."""

from functools import cache

import pytest

from ms_vireid.ablations.published import further_results, published_results, search_key
from ms_vireid.config import CONFIG_ROOT, load_config
from ms_vireid.engine.run_folder import RunFolder

WEIGHTS = "model.pretrained=weights.safetensors"


@cache
def published(recipe, *options):
    return published_results(load_config(CONFIG_ROOT / recipe, [WEIGHTS, *options]))


def test_pmt_has_the_numbers_of_both_modes_and_the_tables_that_repeat_them_are_named_once():
    everywhere, indoor = published("pmt/sysu.yaml")
    assert everywhere.metrics == {"rank1": 67.53, "rank10": 95.36, "rank20": 98.64, "map": 64.98, "minp": 51.86}
    assert everywhere.search == ("all search", "single-shot", "infrared-to-visible")
    assert everywhere.label == "PMT"
    first, second = everywhere.where.split("; ")
    paper, *places = first.split(", ")
    assert (paper, sorted(places)) == ("PMT (AAAI 2023)", ["Figure 6", "Table 3", "Table 4", "Table 5"])
    assert second == "MUN (ICCV 2023), Table 4"
    assert indoor.metrics["rank1"] == 71.66
    assert indoor.search[0] == "indoor search"


def test_what_no_result_depends_on_or_names_the_classes_does_not_matter():
    free = ["seed=3", "data.workers=0", "data.root=somewhere", "train.recompute=true", "model.num_classes=395"]
    assert published("pmt/sysu.yaml", *free, "evaluation.mode=indoor") == published("pmt/sysu.yaml")


@pytest.mark.parametrize(
    ("recipe", "options", "rank1"),
    [
        ("pmt/regdb.yaml", ["data.trial=4"], {"visible-to-infrared": 84.83, "infrared-to-visible": 84.16}),
        ("mun/sysu.yaml", [], {"all search": 76.24, "indoor search": 79.42}),
        ("agw/sysu.yaml", [], {"all search": 47.50, "indoor search": 54.17}),
        ("ablations/pmt-table-4/agw.yaml", [], {"all search": 58.19}),
        ("pmt/sysu.yaml", ["stages.1.losses.dcl=null"], {"all search": 65.11}),
    ],
)
def test_each_recipe_has_its_own_rows_numbers(recipe, options, rank1):
    clean = [one for one in published(recipe, *options) if "corrupted" not in one.search[-1]]
    assert {one.search[0]: one.metrics["rank1"] for one in clean} == rank1


def test_corrupted_sets_are_a_search_of_their_own():
    corrupted = [one for one in published("mun/sysu.yaml") if one.search[-1] == "visible pictures corrupted"]
    assert [one.metrics for one in corrupted] == [{"rank1": 41.17, "map": 38.63}]


def test_turned_pictures_are_a_search_of_their_own():
    found = published("ablations/mun-table-5/4-agw-j.yaml")
    assert {one.metrics["rank1"] for one in found} == {69.88, 76.26, 40.09}
    assert all(one.search[-1] == "features of mirrored pictures added, normalised again" for one in found)
    assert published("ablations/mun-table-5/4-agw-j.yaml", "evaluation.renormalise=false") == found


def test_a_stand_in_does_not_have_the_numbers_of_the_method():
    assert published("ablations/mun-table-5/5-b.yaml")[-1].sources == ["MUN (ICCV 2023), Table 5"]
    for name in ("1-x-modality", "2-cil", "3-smcl"):
        sources = [source for one in published(f"ablations/mun-table-5/{name}.yaml") for source in one.sources]
        assert not any("MUN" in source for source in sources), name


@pytest.mark.parametrize("options", [["optimizer.lr=1e-4"], ["model.pretrained=none"], ["train.num_identities=4"]])
def test_another_recipe_has_none(options):
    assert published("pmt/sysu.yaml", *options) == []


def test_the_synthetic_set_has_none():
    assert published_results(load_config(CONFIG_ROOT / "demo.yaml")) == []


def test_what_ablate_evaluated_besides_is_found(tmp_path):
    config = load_config(CONFIG_ROOT / "pmt/sysu.yaml")
    assert list(further_results(RunFolder(tmp_path), config)) == []
    for name in ("indoor", "corrupted"):
        (tmp_path / f"result-{name}.json").write_text("{}")
    found = dict(further_results(RunFolder(tmp_path), config))
    everywhere = search_key("sysu_mm01", config.evaluation)
    assert found == {
        ("indoor search", *everywhere[1:]): "result-indoor.json",
        (*everywhere, "visible pictures corrupted"): "result-corrupted.json",
    }
