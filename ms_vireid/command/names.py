"""Names that options take and files hold. This module imports almost nothing, so that a command reads its arguments at
once."""

from pathlib import Path

CONFIG_ROOT = Path(__file__).resolve().parents[1] / "configs"
MODALITIES = ("visible", "infrared")
DIRECTIONS = ("infrared-to-visible", "visible-to-infrared")
BACKENDS = ("numba", "eager", "graph", "cuda")  # of `ms_vireid.backends`
PAGE = "report.html"  # of a run, in its folder
ABLATIONS = Path("runs/ablations")  # where ablate.py trains
MILVUS, INDEX = "milvus:", ".index"  # how the names of galleries in Milvus begin, and those of FAISS indexes end
MINDSPORE, TORCH = "mindspore", "pytorch"
FRAMEWORKS = {MINDSPORE: "MindSpore", TORCH: "PyTorch"}
# What each format of weights that is written holds: MindSpore's names or PyTorch's; None: either's.
WRITTEN = {".safetensors": None, ".ckpt": MINDSPORE, ".pth": TORCH, ".pt": TORCH}
