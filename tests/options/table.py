"""The commands, samples of their options, and why some of these do nothing."""

import contextlib
import hashlib
import re
from functools import cache
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ms_vireid.search.trained_model import load as _LOAD
from tests.options.trying import ANYWHERE, Tried

AUTO = "what auto takes here"
COMPUTED = "features are the same, by whatever they are computed"
FASTER = "takes time or memory, and gives the same"
DEVICES = {"--tf32": "a CPU has none"}
INFERENCE = {"--device": ("--device", "CPU"), "--backend": ("--backend", "eager"), "--tf32": ("--tf32",)}
PLACE = "the same pictures in another place"


def _cut_training(patch: pytest.MonkeyPatch) -> None:
    from ms_vireid.config import dump_config

    train = import_module("ms_vireid.train")

    def trained(self, checkpoint):
        print(dump_config(self.config), self.data.root, self.folder.path, checkpoint)

    patch.setattr(train.Training, "train", trained)
    patch.setattr(train, "_show", print)


def cut_models(patch: pytest.MonkeyPatch) -> None:
    """Load each model once, and draw features from the contents of pictures in place of computing them."""
    from ms_vireid.search import extraction, trained_model
    from ms_vireid.search.features import FeatureExtractor

    def extract(self, images, version=None, flip=False, renormalise=False):
        weights = next(self.model.get_parameters()).asnumpy().tobytes()
        rows = []
        for path, infrared in zip(images.paths, images.infrared, strict=True):
            content = Path(path).read_bytes() + weights + repr((bool(infrared), version)).encode()
            seeds = ([*hashlib.sha256(content + end).digest()] for end in ((b"", b"mirrored") if flip else (b"",)))
            rows.append(np.mean([_unit(np.random.default_rng(seed).normal(size=8)) for seed in seeds], axis=0))
        features = np.array(rows, np.float32)
        features = _unit(features) if renormalise else features
        print(hashlib.sha256(features.tobytes()).hexdigest())
        return features

    def resumably(extractor, images, partial, plan, skip_broken=False):
        print(extractor.batch_size, extractor.workers)
        return extractor.extract(images), {}

    patch.setattr(trained_model, "load", _loaded)
    patch.setattr(FeatureExtractor, "extract", extract)
    patch.setattr(extraction, "extract_resumably", resumably)


def _unit(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def _loaded(paths, backend=None, inference=True):
    return list(
        _load_once(
            tuple(map(str, paths)), type(backend).__name__.lower() if backend else "eager", inference, Path.cwd()
        )
    )


@cache
def _load_once(paths, backend, inference, folder):
    from ms_vireid.backends.choosing import backend_named

    return _LOAD(paths, backend_named(backend), inference)


def _exact(patch: pytest.MonkeyPatch) -> None:
    """Metrics with all their digits."""
    evaluate = import_module("ms_vireid.evaluate")
    cut_models(patch)
    results_of = evaluate._results

    def shown(evaluations):
        results = results_of(evaluations)
        print({name: result.mean for name, result in results.items()})
        return results

    patch.setattr(evaluate, "_results", shown)


def _cut_figures(patch: pytest.MonkeyPatch) -> None:
    from ms_vireid.visualization import embedding, figure

    cut_models(patch)

    class Coarse:
        def __init__(self, dimensions, **options):
            self.dimensions = dimensions

        def fit_transform(self, features):
            return features[:, : self.dimensions] ** 3

    patch.setattr(embedding, "TSNE", Coarse)
    patch.setattr(figure, "save_figure", _content)


def _content(figure, path: Path) -> None:
    """Write what a figure holds, which takes a tenth of the time of drawing it."""
    held = [path.name, figure.get_size_inches().tolist()]
    for one in figure.findobj():
        name = f"{type(one).__name__} {getattr(one, 'get_text', str)()}"
        names = "get_array", "get_xydata", "get_offsets", "get_path", "get_facecolor", "get_title", "get_ylabel"
        arrays = [getattr(one, get)() for get in names if hasattr(one, get)]
        held += [name, *(np.asarray(getattr(array, "vertices", array)).tolist() for array in arrays)]
    path.write_text(re.sub("0x[0-9a-f]+", "", repr(held)))


def _cut_ablation(patch: pytest.MonkeyPatch) -> None:
    from ms_vireid.ablations.runs import Training

    patch.setattr(Training, "make", lambda self, device: print(device, self.arguments, self.searches, self.roots))


def _cut_page(patch: pytest.MonkeyPatch) -> None:
    from ms_vireid.visualization import findings, page

    cut_models(patch)
    patch.setattr(findings, "find", lambda trained, data, queries, name: (queries, data.root))
    patch.setattr(page, "render", lambda view, found, notes: f"{found} {notes}")


def _cut_export(patch: pytest.MonkeyPatch) -> None:
    from ms_vireid.exports import verification

    cut_models(patch)

    def exported(requests, module):
        print(module.__name__, [(path, one.modality, one.batch_size) for path, one in requests.items()])
        return {}

    patch.setattr(verification, "export_verified", exported)


class _Milvus:
    """A gallery of an exact index, in place of Milvus."""

    limit = 100

    def __init__(self, address, collection, create):
        self.name = collection

    def __len__(self):
        return 72

    def add(self, features, kind=None):
        print("add", len(features), features.info["images"], kind)

    def search(self, queries, top_k, cameras=None, breadth=None):
        from ms_vireid.search.local_gallery import LocalGallery

        return LocalGallery(self.name, _features("sysu.npz")).search(queries, top_k, cameras, breadth)

    def close(self):
        pass


def _features(name):
    from ms_vireid.search.feature_files import load_features

    return load_features(Path(name))


def _cut_sheet(patch: pytest.MonkeyPatch) -> None:
    retrieve = import_module("ms_vireid.retrieve")

    def drawn(results, path, ranges):
        print([[str(entry.file) for entry in result.entries] for result in results], path)

    cut_models(patch)
    patch.setattr(retrieve, "_draw", drawn)


def _cut_milvus(patch: pytest.MonkeyPatch) -> None:
    from ms_vireid.search import milvus_gallery

    _cut_sheet(patch)
    patch.setattr(milvus_gallery, "MilvusGallery", _Milvus)
    patch.setattr(milvus_gallery, "check_gallery", print)


def _cut_ladder(patch: pytest.MonkeyPatch) -> None:
    from parity import backends, ladder, processes, stand_in
    from parity.compare import Comparison

    def made(cases, side, count):
        print(side, side.columns, count)
        for case in cases:
            columns = side.columns if case.backends else ("",)
            yield 0.0, ladder.Outcome(case, {one: (Comparison("x", 0.0, 1.0, "here"),) for one in columns})

    @contextlib.contextmanager
    def renewed(sides):
        print(*sides)
        yield

    patch.setattr(ladder, "_shared_out", made)
    patch.setattr(backends, "renewed", renewed)
    patch.setattr(backends, "main", lambda: print("backends"))
    patch.setattr(stand_in, "build", lambda device: print("build", device))
    patch.setattr(processes, "set_up_for_comparisons", lambda device: {"auto": "CPU"}.get(device, device))


def _cut_benchmark(patch: pytest.MonkeyPatch) -> None:
    from parity import benchmark
    from parity.measure import launches, steps

    class Process:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def ask(self, function, device):
            return "CPU" if device == "auto" else device

    def measured(work, repeats):
        print(work, repeats)
        both = {"mindspore": 1.0, "torch": 1.0}
        return {"mindspore_s": 1, "torch_s": 1, "ratio": 1, "spread": [1, 1]} | dict.fromkeys(
            ("first_s", "peak_gib", "held_gib"), both
        )

    def counted(device):
        def json_of(name, *arguments, **_):
            print(device, name, arguments)
            figures = "launches", "by_name", "copies", "waits", "allocations", "host_ms", "peak_gib", "first_s"
            return {"batch": 1} | dict.fromkeys(figures, 1.0)

        return SimpleNamespace(json_of=json_of)

    patch.setattr(benchmark, "OneProcess", Process)
    patch.setattr(steps, "measure", measured)
    patch.setattr(launches, "build", counted)


def _cut_stand_in(patch: pytest.MonkeyPatch) -> None:
    from parity.stand_in import __main__ as command
    from parity.stand_in.build import StandIn

    class Process:
        def wait(self):
            return 0

    class Cut(StandIn):
        @contextlib.contextmanager
        def start(self, words, variables):
            log = variables.pop("STAND_IN_LOG", None)
            print(self.device, words, variables)
            if log:
                Path(log).write_text("3 cuInit\n")
            yield Process()

    patch.setattr(command, "build", lambda device: Cut(device, Path("built")))


def _cut_torch_training(patch: pytest.MonkeyPatch) -> None:
    from ms_vireid.config import dump_config
    from torch_ref.engine import trainer

    def train(config, data, output, checkpoint, device, steps):
        print(dump_config(config), data.root, output, checkpoint and checkpoint.path, device, steps)

    patch.setattr(trainer, "train", train)


_SEARCH = INFERENCE | {
    "--checkpoint": ("--checkpoint", "run"),
    "--modality": ("--modality", "infrared", "auto"),
    "--layout": ("--layout", "{modality}/*/{identity}"),
    "--top-k": ("--top-k", "3"),
    "--by-identity": ("--by-identity",),
    "--threshold": ("--threshold", "0.9998"),
    "--camera": ("--camera", "1", "2"),
    "--index": ("--index", "ivf"),
    "--index flat": ("--index", "flat"),
    "--breadth": ("--breadth", "1"),
    "--rerank": ("--rerank",),
    "--sample": ("--sample", "night.npz"),
    "--save-index": ("--save-index", "new.index"),
    "--add": ("--add", "night.npz"),
    "--collection": ("--collection", "other"),
    "--gallery-root": ("--gallery-root", "moved"),
    "--json": ("--json", "new.json"),
    "--sheet": ("--sheet", "new.png"),
}
_FEATURES = {"--device": ANYWHERE}
_EXACT = {
    "--index flat": "is exact, as a search without an index",
    "--sample --index": "is one more kind of queries that reach the recall",
}
_AS_EXACT = "is refused by a gallery without hnsw: tests/search/test_milvus_gallery.py"
_EVALUATED = INFERENCE | {
    "--checkpoint": ("--checkpoint", "other", "run"),
    "--data": ("--data", "folder"),
    "--data-root": ("--data-root", "sysu2"),
    "--layout": ("--layout", "{modality}/*/{identity}"),
    "--mode": ("--mode", "indoor"),
    "--shots": ("--shots", "10"),
    "--direction": ("--direction", "visible-to-infrared"),
    "--trials": ("--trials", "3"),
    "--corrupted": ("--corrupted",),
    "--frost": ("--frost", "frost"),
    "--flip": ("--flip",),
    "--renormalise": ("--renormalise",),
    "--rerank": ("--rerank",),
    "--threshold": ("--threshold", "0.9"),
    "--fmr": ("--fmr", "0.1"),
    "--corruption-sheet": ("--corruption-sheet", "new.png"),
    "--json": ("--json", "new.json"),
}
_FIGURE = INFERENCE | {"--checkpoint": ("--checkpoint", "other"), "--labels": ("--labels", "name")}
_FIGURE_OF_SET = _FIGURE | {"--data-root": ("--data-root", "sysu2")}
_OUT = ("--output", "new.png")
_RUN = ("--checkpoint", "run")


def _figure(kind: str, *base: str, of_set: bool = False, **samples) -> Tried:
    given = {f"--{name}": words for name, words in samples.items()}
    common = dict(_FIGURE_OF_SET if of_set else _FIGURE)
    if kind in ("ranking", "features"):
        del common["--labels"]
    return Tried("ms_vireid.visualize", (kind, *base, *_OUT), common | given, DEVICES, _cut_figures)


COMMANDS = {
    "train": Tried(
        "ms_vireid.train",
        ("--config", "tiny.yaml"),
        {
            "--config": ("--config", "other.yaml"),
            "--data-root": ("--data-root", "sysu2"),
            "--seed": ("--seed", "5"),
            "--device": ("--device", "CPU"),
            "--output": ("--output", "new"),
            "--resume": ("--resume", "run/last.safetensors"),
            "--open": ("--open",),
            "overrides": ("optimizer.lr=0.01",),
            "overrides data.root": ("data.root=people",),
            "overrides seed": ("seed=7",),
        },
        {},
        _cut_training,
    ),
    "evaluate": Tried("ms_vireid.evaluate", _RUN, _EVALUATED, DEVICES, _exact),
    "evaluate-folder": Tried(
        "ms_vireid.evaluate",
        ("--checkpoint", "own"),
        _EVALUATED
        | {"--data": ("--data", "folder", "data.test_fraction=0.9"), "--data-root": ("--data-root", "night")},
        DEVICES,
        _exact,
    ),
    "extract": Tried(
        "ms_vireid.extract",
        (*_RUN, "--images", "people", "--output", "new.npz"),
        INFERENCE
        | {
            "--checkpoint": ("--checkpoint", "other"),
            "--images": ("--images", "night"),
            "--output": ("--output", "new.csv"),
            "--modality": ("--modality", "infrared"),
            "--layout": ("--layout", "{modality}/*/{identity}"),
            "--list": ("--list", "listed.txt"),
            "--batch-size": ("--batch-size", "3"),
            "--workers": ("--workers", "1"),
            "--skip-broken": ("--skip-broken",),
        },
        DEVICES,
        cut_models,
    ),
    "retrieve": Tried(
        "ms_vireid.retrieve", ("--query", "night.npz", "--gallery", "sysu.npz"), _SEARCH, _FEATURES | _EXACT, _cut_sheet
    ),
    "retrieve-pictures": Tried(
        "ms_vireid.retrieve",
        ("--query", "people", "--gallery", "sysu.npz", *_RUN),
        _SEARCH | {"--checkpoint": ("--checkpoint", "other"), "--threshold": ("--threshold", "0.3")},
        DEVICES | _EXACT,
        _cut_sheet,
    ),
    "retrieve-index": Tried(
        "ms_vireid.retrieve",
        ("--query", "night.npz", "--gallery", "ivf.index"),
        _SEARCH,
        _FEATURES | {"--breadth --by-identity": "all people are found in any lists"},
        _cut_sheet,
    ),
    "retrieve-flat": Tried(
        "ms_vireid.retrieve", ("--query", "night.npz", "--gallery", "flat.index"), _SEARCH, _FEATURES, _cut_sheet
    ),
    "retrieve-milvus": Tried(
        "ms_vireid.retrieve",
        ("--query", "night.npz", "--gallery", "milvus:new.db"),
        _SEARCH,
        _FEATURES | {"--breadth": _AS_EXACT},
        _cut_milvus,
    ),
    "retrieve-add": Tried(
        "ms_vireid.retrieve",
        ("--add", "people.npz", "--gallery", "milvus:new.db"),
        _SEARCH | {"--query": ("--query", "night.npz")},
        _FEATURES | {"--breadth --query": _AS_EXACT},
        _cut_milvus,
    ),
    "retrieve-save": Tried(
        "ms_vireid.retrieve",
        ("--save-index", "new.index", "--index", "ivf", "--gallery", "sysu.npz"),
        _SEARCH
        | {
            "--query": ("--query", "night.npz"),
            "--index": ("--index", "flat"),
            "--save-index": ("--save-index", "other.index"),
        },
        _FEATURES,
        _cut_sheet,
    ),
    "gradcam": _figure(
        "gradcam",
        *(*_RUN, "--images", "people/visible/0001/0.jpg"),
        images=("--images", "night/visible/0008/1.jpg"),
        modality=("--modality", "infrared"),
        reference=("--reference", "people/infrared/0001/0.jpg"),
        relative=("--relative",),
    ),
    "ranking": _figure(
        "ranking",
        *_RUN,
        of_set=True,
        queries=("--queries", "2"),
        query=("--query", "sysu/cam3/0004/0001.jpg"),
        choose=("--choose", "worst"),
    ),
    "similarity": _figure(
        "similarity", *_RUN, "--pairs", "5", of_set=True, pairs=("--pairs", "3"), seed=("--seed", "3")
    ),
    "embedding": _figure(
        "embedding",
        *_RUN,
        of_set=True,
        method=("--method", "pca"),
        split=("--split", "train"),
        identities=("--identities", "2"),
        pictures=("--pictures", "2"),
        dimensions=("--dimensions", "2"),
    ),
    "features": _figure(
        "features",
        *(*_RUN, "--visible", "people/visible/0001/0.jpg", "--infrared", "people/infrared/0001/0.jpg"),
        visible=("--visible", "people/visible/0002/0.jpg"),
        infrared=("--infrared", "people/infrared/0002/0.jpg"),
    ),
    "curves": Tried(
        "ms_vireid.visualize",
        ("curves", *_OUT, "run", "other"),
        {"--labels": ("--labels", "one", "two"), "--output": ("--output", "new.svg")},
        {},
        _cut_figures,
    ),
    "ablate": Tried(
        "ms_vireid.ablate",
        ("pmt-table-3", "--data-root", "sysu"),
        {
            "--list": ("--list",),
            "--rows": ("--rows", "dcl-all"),
            "--seeds": ("--seeds", "2"),
            "--trials": ("--trials", "2"),
            "--demo": ("--demo",),
            "--device": ("--device", "CPU"),
            "--data-root": ("--data-root", "sysu2"),
            "--pretrained": ("--pretrained", "run"),
            "--output": ("--output", "new"),
            "overrides": ("optimizer.lr=0.01",),
            "overrides data.root": ("data.root=people",),
            "overrides seed": ("seed=7",),
        },
        {},
        _cut_ablation,
    ),
    "check-data": Tried(
        "ms_vireid.check_data",
        ("--config", "tiny.yaml"),
        {
            "--config": ("--config", "other.yaml"),
            "--data-root": ("--data-root", "sysu2"),
            "--json": ("--json", "new.json"),
            "overrides": ("optimizer.lr=0.01",),
            "overrides data.root": ("data.root=sysu2",),
        },
        {f"--config {other}": "is another recipe of the same set" for other in ("--data-root", "overrides data.root")},
    ),
    "export": Tried(
        "ms_vireid.export",
        ("--format", "mindir", *_RUN),
        {
            "--format": ("--format", "onnx"),
            "--checkpoint": ("--checkpoint", "agw"),
            "--output": ("--output", "new.mindir"),
            "--modality": ("--modality", "visible"),
            "--batch-size": ("--batch-size", "3"),
        },
        {},
        _cut_export,
    ),
    "report": Tried(
        "ms_vireid.report",
        ("run",),
        INFERENCE
        | {
            "--output": ("--output", "new.html"),
            "--data-root": ("--data-root", "moved"),
            "--queries": ("--queries", "1"),
            "--queries 0": ("--queries", "0"),
        },
        DEVICES,
        _cut_page,
    ),
    "report-table": Tried(
        "ms_vireid.report",
        ("first.json", "second.json"),
        INFERENCE
        | {
            "--output": ("--output", "new.md"),
            "--data-root": ("--data-root", "moved"),
            "--queries": ("--queries", "1"),
        },
        _FEATURES,
    ),
    "convert": Tried(
        "parity.convert",
        ("run/last.safetensors", "new.safetensors"),
        {
            "--to": ("--to", "mindspore"),
            "--config": ("--config", "tiny.yaml"),
            "--weights": ("--weights", "state_dict"),
            "--dry-run": ("--dry-run",),
            "--overwrite": ("--overwrite",),
            "overrides": ("optimizer.lr=0.01",),
        },
        {
            "--overwrite": "allows what need not happen: there is no DST here",
            "overrides --dry-run": "are of the recipe beside the weights, which --dry-run does not show",
        },
    ),
    "ladder": Tried(
        "parity.report",
        (),
        {
            "--device": ("--device", "GPU"),
            "--stand-in": ("--stand-in",),
            "--backend": ("--backend", "eager"),
            "--backend graph": ("--backend", "graph"),
            "--rung": ("--rung", "5"),
            "--match": ("--match", "PMT"),
            "--small": ("--small",),
            "--backends": ("--backends",),
            "--renew": ("--renew",),
            "--processes": ("--processes", "1"),
        },
        {},
        _cut_ladder,
    ),
    "benchmark": Tried(
        "parity.benchmark",
        (),
        {
            "--device": ("--device", "GPU"),
            "--only": ("--only", "inference"),
            "--only train_step": ("--only", "train_step"),
            "--only launches": ("--only", "launches"),
            "--match": ("--match", "PMT"),
            "--repeats": ("--repeats", "3"),
            "--identities": ("--identities", "3"),
            "--instances": ("--instances", "3"),
            "--images": ("--images", "3"),
            "--torch": ("--torch", "tuned"),
            "--quick": ("--quick",),
            "--steps": ("--steps", "3"),
            "--json": ("--json", "new.json"),
            "overrides": ("train.amp=float16",),
        },
        {},
        _cut_benchmark,
    ),
    "stand-in": Tried(
        "parity.stand_in.__main__",
        (),
        {
            "--memory": ("--memory", "1"),
            "--no-values": ("--no-values",),
            "--planted": ("--planted", "momentum"),
            "--calls": ("--calls",),
        },
        {},
        _cut_stand_in,
        ("gpu", "python"),
    ),
    "torch-train": Tried(
        "torch_ref.train",
        ("--config", "tiny.yaml"),
        {
            "--config": ("--config", "other.yaml"),
            "--data-root": ("--data-root", "sysu2"),
            "--seed": ("--seed", "5"),
            "--device": ("--device", "cpu"),
            "--output": ("--output", "new.safetensors"),
            "--resume": ("--resume", "torch.safetensors"),
            "--steps": ("--steps", "1"),
            "overrides": ("optimizer.lr=0.01",),
            "overrides data.root": ("data.root=people",),
            "overrides seed": ("seed=7",),
        },
        {"--device": AUTO},
        _cut_torch_training,
    ),
    "torch-evaluate": Tried(
        "torch_ref.evaluate",
        ("--checkpoint", "torch.safetensors", "--data-root", "sysu"),
        {
            "--device": ("--device", "cpu"),
            "--tf32": ("--tf32",),
            "--data": ("--data", "folder"),
            "--data-root": ("--data-root", "sysu2"),
            "--json": ("--json", "new.json"),
            "--report": ("--report", "new.md"),
            "overrides": ("evaluation.mode=indoor",),
        },
        {"--device": AUTO, "--tf32": "a CPU has none"},
    ),
}
