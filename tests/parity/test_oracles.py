"""What outside implementations need: a torchvision of another PyTorch is one line."""

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
