"""The tables' files: what each row trains, what the papers print, and what is refused."""

import pytest
from pydantic import ValidationError

from ms_vireid.ablations import tables
from ms_vireid.ablations.tables import Demo, config_of, list_tables, load_demo, load_table, shortened
from ms_vireid.config import CONFIG_ROOT, dump_config, load_config
from ms_vireid.config.reading import differing_keys, flat

TABLES = [
    *(f"mun-table-{number}" for number in (1, 2, 3, 4, 5)),
    "pmt-figure-6",
    *(f"pmt-table-{number}" for number in (1, 2, 3, 4, 5, 6)),
]

OWN = ["mun-choices"]  # not of a paper
WHOLE = "aux-idc-ia-ma"  # MUN with all its losses

# Typed from the papers' pages, a row or more of each table, as printed.
PRINTED = {
    "pmt-table-1": {"Baseline (RGB)": "52.51 88.21 51.30 38.51", "Baseline (Gray-RGB)": "59.07 92.53 56.86 42.81"},
    "pmt-table-2": {"WRT": "54.90 92.33 54.74 42.30", "PHT (m = 0.1)": "61.67 93.02 59.26 45.49"},
    "pmt-table-3": {
        "+MSEL (Cosine)": "64.19 93.45 60.67 46.15",
        "+DCL (Hard)": "63.22 94.09 62.13 49.97",
        "+MSEL (Euclid)+DCL (Dyn)": "67.53 95.36 64.98 51.86",
    },
    "pmt-table-4": {"AGW": "58.19 56.50 43.52", "AGW + MSEL + PL": "65.97 62.15 47.30", "Ours": "67.53 64.98 51.86"},
    "pmt-table-5": {
        "PMT (Ours)": "67.53 95.36 98.64 64.98 51.86 71.66 96.73 99.25 76.52 72.74",
        "Hi-CMD (Choi et al. 2020)": "34.94 77.58 - 35.94 - - - - - -",
        "MSO (Gao et al. 2021)": "58.70 92.06 97.20 56.42 42.04 63.09 96.61 - 70.31 -",
        "FMCNet (Zhang et al. 2022)": "66.34 - - 62.51 - 68.15 - - 74.09 -",
    },
    "pmt-table-6": {"PMT (Ours)": "84.83 76.55 84.16 75.13", "MSO (Gao et al. 2021)": "73.6 66.9 74.6 67.5"},
    "pmt-figure-6": {"lambda_1 = 0.5, lambda_2 = 0.5": "67.53 64.98"},
    "mun-table-1": {"B": "57.49 55.83 75.42 71.93", "B + Aux. + L_idc + L_ma": "69.77 66.96 89.93 84.02"},
    "mun-table-2": {"Syncretic modality": "72.95 68.74 84.59 79.11"},
    "mun-table-3": {"neither": "69.02 65.83 80.09 73.97", "Aux. bridge": "71.66 68.35 83.92 75.54"},
    "mun-table-4": {
        "MUN (Ours)": "76.24 97.84 73.81 79.42 98.09 82.06 95.19 98.93 87.15 91.86 97.99 85.01",
        "PMT": "67.53 95.36 64.98 71.66 96.73 76.52 84.83 - 76.55 84.16 - 75.13",
        "X-Modality": "49.92 89.79 50.73 - - - 62.21 83.13 60.18 - - -",
        "CMT": "71.88 96.45 68.57 76.90 97.68 79.91 95.17 98.82 87.30 91.97 97.92 84.46",
    },
    "mun-table-5": {"CIL": "36.95 35.92 52.25 49.76", "+ Aux. + L_idc + L_ia + L_ma": "41.17 38.63 52.69 50.18"},
}

# Numbers that the papers print a dash for, by row.
DASHES = {
    "pmt-table-5": {"zero-pad": 2, "hi-cmd": 7, "cmsp": 4, "expat-loss": 6, "hat": 2, "lba": 4, "nfs": 2, "mso": 2}
    | {"cm-nas": 2, "mid": 4, "fmcnet": 6},
    "mun-table-4": {"jsia-reid": 2, "aligngan": 2, "x-modality": 6, "fmcnet": 4, "smcl": 2, "pmt": 2, "mpanet": 2},
}

ID, TRIPLET, PHT = {"id"}, {"id", "triplet"}, {"id", "pht"}

# Epochs, what the visible half shows, and the loss terms of each stage.
STAGES = {
    ("pmt-table-1", "rgb"): [(6, "rgb", TRIPLET), (18, "rgb", TRIPLET)],
    ("pmt-table-1", "gray"): [(6, "gray", TRIPLET), (18, "gray", TRIPLET)],
    ("pmt-table-1", "rgb-gray"): [(6, "rgb", TRIPLET), (18, "gray", TRIPLET)],
    ("pmt-table-1", "gray-rgb"): [(6, "gray", TRIPLET), (18, "rgb", TRIPLET)],
    ("pmt-table-2", "wrt"): [(6, "gray", ID | {"wrt"}), (18, "rgb", ID | {"wrt"})],
    ("pmt-table-2", "hct"): [(6, "gray", ID | {"hct"}), (18, "rgb", ID | {"hct"})],
    ("pmt-table-2", "pht"): [(6, "gray", PHT), (18, "rgb", PHT)],
    ("pmt-table-3", "msel-cosine"): [(6, "gray", PHT), (18, "rgb", PHT | {"msel"})],
    ("pmt-table-3", "msel-euclid"): [(6, "gray", PHT), (18, "rgb", PHT | {"msel"})],
    ("pmt-table-3", "dcl-hard"): [(6, "gray", PHT), (18, "rgb", PHT | {"dcl"})],
    ("pmt-table-3", "dcl-all"): [(6, "gray", PHT), (18, "rgb", PHT | {"dcl"})],
    ("pmt-table-3", "dcl-dyn"): [(6, "gray", PHT), (18, "rgb", PHT | {"dcl"})],
    ("pmt-table-3", "msel-euclid-dcl-dyn"): [(6, "gray", PHT), (18, "rgb", PHT | {"msel", "dcl"})],
    ("pmt-table-6", "pmt"): [(6, "gray", PHT), (30, "rgb", PHT | {"msel", "dcl"})],
}


def recipe(name, row_name, data_set=None):
    table = load_table(name)
    (row,) = (row for row in table.rows if row.name == row_name)
    data_set = data_set or next(iter(table.sets))
    return load_config(config_of(name, row, data_set), [*row.overrides, *table.sets[data_set]])


def test_the_papers_tables_are_there():
    assert list_tables() == sorted(OWN + TABLES)


def test_each_row_of_muns_open_choices_changes_what_its_name_says_and_has_a_demo():
    base, *rows = load_table("mun-choices").rows
    whole = flat(dump_config(recipe("mun-choices", base.name)))
    assert whole == flat(dump_config(load_config(CONFIG_ROOT / "mun/sysu.yaml")))
    for row in rows:
        changed = flat(dump_config(recipe("mun-choices", row.name)))
        assert differing_keys(whole, changed) == sorted(text.partition("=")[0] for text in row.overrides)
        path = config_of("mun-choices", row)
        small = load_config(path, [*row.overrides, *tables.demo_overrides(path, list(row.overrides))])
        assert small.data.name == "synthetic"
        for key, value in flat(dump_config(small)).items():
            assert key not in differing_keys(whole, changed) or value == changed[key]


def test_a_search_with_turned_pictures_is_an_option_of_evaluate():
    search = load_table("mun-choices").columns[2].search
    assert (search.name, search.options()) == ("flip-renormalise", ["--flip", "--renormalise"])


@pytest.mark.parametrize("name", TABLES)
def test_published_numbers_are_those_printed(name):
    rows = {row.label: row.published for row in load_table(name).rows}
    for label, printed in PRINTED[name].items():
        assert rows[label] == tuple(None if number == "-" else float(number) for number in printed.split())


@pytest.mark.parametrize("name", TABLES)
def test_every_row_has_a_number_for_each_column(name):
    table = load_table(name)
    columns = sum(len(column.metrics) for column in table.columns)
    assert {column.data for column in table.columns} <= table.sets.keys()
    for names in ([row.name for row in table.rows], [column.name for column in table.columns]):
        assert len(set(names)) == len(names)
    for row in table.rows:
        if name == "pmt-figure-6" and row.published is None:
            continue  # it prints the numbers of some weights only
        assert len(row.published) == columns, row.name
        assert row.published.count(None) == DASHES.get(name, {}).get(row.name, 0), row.name


def test_rows_of_methods_that_are_here_are_run_and_those_of_others_are_marked():
    run = {name: [row.name for row in load_table(name).rows if row.config and not row.stand_in] for name in TABLES}
    assert run["pmt-table-5"] == run["pmt-table-6"] == ["agw", "pmt"]
    assert run["mun-table-4"] == ["agw", "pmt", "agw-j", "mun"]
    assert all(row.config for row in load_table("mun-table-5").rows)
    labels = {row.name: row.marked_label for row in load_table("mun-table-4").rows}
    assert (labels["pmt"], labels["smcl"], labels["cmt"]) == ("PMT", "SMCL (stand-in)", "CMT (published only)")


def test_a_row_can_have_a_file_of_its_own_for_a_data_set():
    # PMT trains for 24 epochs on SYSU-MM01 and for 36 on RegDB, where pictures are resized twice.
    sysu, regdb = recipe("mun-table-4", "pmt", "sysu_mm01"), recipe("mun-table-4", "pmt", "regdb")
    assert (sysu.epochs, sysu.data.name, sysu.data.resize_through) == (24, "sysu_mm01", None)
    assert (regdb.epochs, regdb.data.name, regdb.data.resize_through) == (36, "regdb", (288, 144))
    assert regdb == recipe("pmt-table-6", "pmt")


@pytest.mark.parametrize("name", TABLES)
def test_every_recipe_is_for_its_data_set_and_for_the_columns_search(name):
    table = load_table(name)
    for row in (row for row in table.rows if row.config):
        for data_set in table.sets:
            config = recipe(name, row.name, data_set)
            assert config.data.name == data_set
            infrared_queries = config.evaluation.direction == "infrared-to-visible"
            assert infrared_queries == (data_set == "sysu_mm01"), "RegDB's tables begin with visible queries"
            assert (config.evaluation.mode, config.evaluation.shots, config.train.select) == ("all", 1, "last")


@pytest.mark.parametrize(("name", "row"), STAGES)
def test_stages_of_pmts_rows(name, row):
    stages = recipe(name, row).stages
    assert [(stage.epochs, stage.visible, set(stage.losses.terms())) for stage in stages] == STAGES[name, row]


def test_agw_j_is_as_released():
    config = recipe("mun-table-5", "4-agw-j")
    assert config == recipe("mun-table-4", "agw-j")
    assert (config.epochs, set(config.stages[0].losses.terms())) == (100, {"id", "esd"})
    assert (config.augmentation.visible_twice, config.augmentation.visible_channel_exchange) == (True, 0.0)
    assert (config.evaluation.flip, config.evaluation.renormalise, config.stages[0].losses.id.over) == (
        True,
        True,
        "rows",
    )


def test_arguments_of_pmts_losses():
    terms = {row.name: recipe("pmt-table-3", row.name).stages[1].losses for row in load_table("pmt-table-3").rows}
    assert terms["msel-cosine"].msel.distance == "cosine"
    assert terms["msel-euclid"].msel.distance == "euclidean"
    assert [terms[f"dcl-{name}"].dcl.negatives for name in ("hard", "all", "dyn")] == ["hard", "all", "dynamic"]
    assert all(term.weight == 0.5 for losses in terms.values() for term in (losses.msel, losses.dcl) if term)
    hct = recipe("pmt-table-2", "hct").stages
    assert [stage.losses.hct.margin for stage in hct] == [0.3, 0.3]


def test_figure_6_sweeps_one_weight_and_keeps_the_other():
    swept = {}
    for row in load_table("pmt-figure-6").rows:
        first, second = recipe("pmt-figure-6", row.name).stages
        assert not {"msel", "dcl"} & first.losses.terms().keys()
        swept[row.name] = (second.losses.msel.weight, second.losses.dcl.weight)
    tenths = [i / 10 for i in range(1, 10)]
    assert swept == {f"lambda1-{value}": (value, 0.5) for value in tenths} | {
        f"lambda2-{value}": (0.5, value) for value in tenths
    }


def test_rows_that_papers_print_twice_are_one_recipe():
    same = [
        [("pmt-table-1", "gray-rgb"), ("pmt-table-2", "hardtri")],
        [("pmt-table-2", "pht"), ("pmt-table-3", "base-pl")],
        [("pmt-table-3", "msel-euclid-dcl-dyn"), ("pmt-table-4", "ours"), ("pmt-figure-6", "lambda1-0.5")],
        [("mun-table-1", "aux-idc-ia-ma"), ("mun-table-2", "auxiliary"), ("mun-table-3", "prototype-bridge")],
        [("mun-table-1", "b"), ("mun-table-5", "5-b")],
    ]
    for rows in same:
        assert len({recipe(*row) for row in rows}) == 1, rows


@pytest.mark.parametrize(
    ("epochs", "total", "short"),
    [([6, 18], 8, [2, 6]), ([6, 54], 10, [1, 9]), ([90], 10, [10]), ([6, 18], 2, [1, 1]), ([1, 99], 1, [1, 1])],
)
def test_a_demo_keeps_the_stages_shares(epochs, total, short):
    assert shortened(epochs, total) == short


def test_a_demo_weights_the_losses_that_a_row_has():
    plain, whole = (
        load_config(path, tables.demo_overrides(path, []))
        for path in (
            config_of("mun-table-1", row) for row in load_table("mun-table-1").rows if row.name in ("b", WHOLE)
        )
    )
    demonstration = load_config(CONFIG_ROOT / "mun/demo.yaml")
    assert whole.stages[0].losses == demonstration.stages[0].losses
    assert plain.stages[0].losses.terms().keys() == {"id", "triplet"}
    assert plain.stages[0].losses.triplet == demonstration.stages[0].losses.triplet


def test_a_demo_cannot_weight_a_loss_that_there_is_not():
    with pytest.raises(ValidationError, match="tripet"):
        Demo(epochs=1, overrides=(), weights={"tripet": 0.2})


@pytest.mark.parametrize("name", TABLES)
def test_every_row_has_a_demo(name):
    table = load_table(name)
    for row in (row for row in table.rows if row.config):
        path, overrides = config_of(name, row), [*row.overrides, *next(iter(table.sets.values()))]
        config = load_config(path, [*overrides, *tables.demo_overrides(path, overrides)])
        real = load_config(path, overrides)
        assert config.data.name == "synthetic"
        assert config.model.name == real.model.name
        demo = load_demo(real.model.name)
        for stage, whole in zip(config.stages, real.stages, strict=True):
            weighted = {
                name: term.model_copy(update={"weight": demo.weights.get(name, term.weight)})
                for name, term in whole.losses.terms().items()
            }
            assert stage.losses.terms() == weighted
        assert config.epochs == demo.epochs
