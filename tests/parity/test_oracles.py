"""What outside implementations need: a torchvision whose own operators do not load is used without them, and one of
another PyTorch is one line."""

import subprocess
import sys


def test_a_torchvision_of_another_pytorch_is_one_line(tmp_path):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from ms_vireid.command.running import run; "
    code += "run(lambda: __import__('parity.oracles'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: torchvision ")
    assert "operator torchvision::nms does not exist" in line
    assert "pip install" in line


def test_a_torchvision_built_for_cuda_is_used_beside_a_pytorch_built_for_cpus():
    """As where its library does not load: PyTorch's index builds for CPUs, the package index torchvision for CUDA."""
    code = """
import torch
def load(path):
    raise OSError("libcudart.so: cannot open shared object file")
torch.ops.load_library = load
from parity.oracles import torchvision, torchvision_transforms
assert not torchvision.extension._has_ops()
print(*torchvision.models.resnet18()(torch.zeros(2, 3, 32, 32)).shape)
print(*torchvision_transforms.resize(torch.zeros(3, 8, 4), [4, 2]).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2 1000\n3 4 2\n", "")
