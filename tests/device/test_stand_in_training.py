"""Trainings of each method on the stand-in GPU: by default, with every switch, with the losses and models of the tables
compiled, on every data set; and what a step asks of the device. Models are narrow, and nothing is computed: values are
what the ladder is for."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from ms_vireid.config import CONFIG_ROOT
from parity.stand_in import Counts, called
from tests.data.tree import write_llcm, write_regdb
from tests.tiny_models import DATA, RECIPES

SMALL = ["train.num_identities=2", "train.num_instances=2", "evaluation.compare_untrained=false"]
STAGES = {"pmt": 2, "agw": 1, "mun": 1}
ITERATIONS = 12  # of an epoch; the tenth step is logged
# As published, where every layer counts: what MindSpore compiles may be too deep for it.
DEPTH = {
    "pmt": ["model.depth=12"],
    "agw": ["model.layers=[3,4,6,3]", "model.non_local=[0,2,3,0]", "optimizer.lr=0.001"],
    "mun": [],  # AGW's backbone
}


def arguments(family, output, *options, config=None, data=DATA % "data"):
    """For train.py: one epoch a stage."""
    recipe, sizes = RECIPES[family]
    epochs = [f"stages.{stage}.epochs=1" for stage in range(STAGES[family])]
    where = ["--config", str(CONFIG_ROOT / (config or recipe)), "--output", str(output)]
    return [*where, data, "model.pretrained=none", *sizes, *SMALL, *epochs, *options]


def one_stage(losses):
    return f"stages=[{{epochs: 1, losses: {{{losses}}}}}]"


LAST_STAGE = {"pmt": [one_stage("id: {}, pht: {stage: 2}, msel: {}, dcl: {}")]}  # of those that have several


@pytest.fixture(scope="module", params=STAGES)
def by_default(request, counting_worker, tmp_path_factory):
    """Of the last stage of a method, as it is trained without options: its run folder, and what each step asked for."""
    family = request.param
    run = tmp_path_factory.mktemp(family) / "run"
    options = [*DEPTH[family], f"train.iterations={ITERATIONS}", *LAST_STAGE.get(family, [])]
    before = counting_worker.do("launching")
    steps = counting_worker.do("train_counted", *arguments(family, run, *options))
    return run, [Counts(*step) for step in steps], (before, counting_worker.do("launching"))


def test_a_method_trains_by_default(by_default):
    run, *_ = by_default
    assert json.loads((run / "run.json").read_text())["device"].startswith("GPU (stand-in GPU")
    assert (run / "result.json").exists()


def test_a_step_hardly_waits(by_default):
    """From the second on, as the first compiles, to the last but one, as the last saves; all together, as a step may
    still be queued when the next one begins."""
    _, (first, *steps), _ = by_default
    assert len(steps) == ITERATIONS - 2
    assert first.launches > 100
    assert sum(step.waits for step in steps) <= 4 * len(steps)
    assert sum(step.copies for step in steps) <= 12 * len(steps)
    assert sum(step.allocations for step in steps) == 0


def require_one_thread(before: dict, after: dict) -> None:
    """That one thread has launched all operators of a training, between two of the probe's `launching`."""
    # Without threads that launch side by side, and so without events between their streams.
    assert (after["groups"], after["queue"], after["waits"]) == ([], False, before["waits"])
    assert after["launching_ms"] - before["launching_ms"] > 3  # it runs for less than 1 where operators send messages


def test_one_thread_launches_all_operators_on_one_stream(by_default):
    """In float16, too, below. So does an Ascend: tests/device/test_host.py."""
    *_, probed = by_default
    require_one_thread(*probed)


SWITCHES = {"amp": "train.amp=float16", "recompute": "train.recompute=true"}
COMPILED = {
    "pmt recompute": (
        "pmt",
        "train.recompute=true",
        one_stage(
            "id: {}, pht: {stage: 1}, msel: {distance: cosine}, dcl: {negatives: all}, triplet: {margin: 0.1}, "
            "wrt: {}, hct: {margin: 0.3}"
        ),
    ),
    "agw amp": ("agw", SWITCHES["amp"]),  # two groups by SGD, which a graph on a GPU would fuse
    # Without recompute the ladder computes all in float16. MUN has AGW's parts.
    "mun amp recompute": ("mun", *SWITCHES.values()),
    "mun X, other losses": (
        "mun",
        "model.specific=stem",
        "model.intermediate=X",
        "model.memory=none",
        one_stage("id: {}, id_a: {}, ia: {reduction: mean}, ma: {bridge: false}"),
    ),
    "mun mixed": ("mun", "model.specific=stem", "model.intermediate=mixed", one_stage("idc: {}")),
    "mun baseline": ("mun", "model.specific=stem", "model.intermediate=none", one_stage("id: {}")),
}


@pytest.mark.parametrize("name", COMPILED)
def test_what_else_can_be_compiled_takes_steps(counting_worker, tmp_path, name):
    family, *options = COMPILED[name]
    counting_worker.do(
        "train_steps", 2, *arguments(family, tmp_path / "run", "train.iterations=3", "train.backend=graph", *options)
    )


@pytest.mark.parametrize("name", [name for name in COMPILED if "recompute" in name])
def test_what_is_recomputed_is_compiled_with_cuda_kernels(counting_worker, tmp_path, name):
    family, *options = COMPILED[name]
    counting_worker.do("train_steps", 2, *arguments(family, tmp_path / "run", "train.backend=cuda", *options))


def test_a_vit_of_many_tokens_trains(counting_worker, tmp_path):
    sizes = ["model.patch_size=2", "model.stride=1", SWITCHES["recompute"]]  # 1,082 tokens
    options = ["train.backend=cuda", "train.iterations=3", *sizes, *LAST_STAGE["pmt"]]
    counting_worker.do("train_steps", 2, *arguments("pmt", tmp_path / "run", *options))


def test_recomputed_cuda_kernels_give_the_same_bits(worker, tmp_path):
    """With dropout; one of both trainings is interrupted and resumed."""
    options = ["train.backend=cuda", "train.iterations=4", "model.dropout=0.1", SWITCHES["amp"], one_stage("id: {}")]
    kept, recomputed = (
        arguments("pmt", tmp_path / name, *options, f"train.recompute={recompute}")
        for name, recompute in (("kept", "false"), ("recomputed", "true"))
    )
    before = worker.do("launching")
    worker.do("run_command", "train", *kept)
    require_one_thread(before, worker.do("launching"))
    worker.do("train_steps", 2, *recomputed)
    worker.do("run_command", "train", *recomputed, "--resume", "auto")
    weights = load_file(tmp_path / "recomputed/model.safetensors")
    for name, expected in load_file(tmp_path / "kept/model.safetensors").items():
        np.testing.assert_array_equal(weights[name], expected, err_msg=name)


def test_the_page_has_what_the_steps_call(by_default, counting_worker):
    """docs/evidence/operators.md: by what this process has called so far."""
    used = counting_worker.do("launched")
    assert len(used) > 40
    assert called.unknown(used, called.PAGE.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("family", "switches"),
    [(family, switches) for family in STAGES for switches in ((), ("amp",), ("recompute",), ("amp", "recompute"))],
    ids=lambda part: part if isinstance(part, str) else " ".join(part) or "float32",
)
def test_a_method_trains_in_pynative(pynative_worker, tmp_path, family, switches):
    options = ["train.backend=eager", "train.iterations=2", *(SWITCHES[switch] for switch in switches)]
    pynative_worker.do("run_command", "train", *arguments(family, tmp_path / "run", *options))


@pytest.mark.parametrize(
    ("family", "config", "write"),
    [
        ("pmt", "pmt/llcm.yaml", write_llcm),
        ("pmt", "pmt/regdb.yaml", write_regdb),
        ("agw", "agw/regdb.yaml", write_regdb),
        ("mun", "mun/regdb.yaml", write_regdb),
    ],
    ids=["pmt/llcm", "pmt/regdb", "agw/regdb", "mun/regdb"],
)
def test_the_recipe_of_another_data_set_trains(pynative_worker, tmp_path, family, config, write):
    options = ["train.backend=eager", "train.iterations=2", "data.image_size=[48,24]", "data.workers=0"]
    root = f"data.root={write(tmp_path / 'data')}"
    pynative_worker.do("run_command", "train", *arguments(family, tmp_path / "run", *options, config=config, data=root))
