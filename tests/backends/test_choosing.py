"""Which backend is taken with and without what kernels need."""

import sys

import pytest

from ms_vireid.backends import choosing
from ms_vireid.command.errors import DeviceError, InputError


@pytest.fixture
def without_compiler(monkeypatch):
    """A GPU, without a C compiler."""

    def make(name, amp=False):
        if name == "cuda":
            raise DeviceError("there is no C compiler", "install gcc")
        return name

    monkeypatch.setattr(choosing.ms, "get_context", lambda key: "GPU")
    monkeypatch.setattr(choosing, "backend_named", make)


def test_auto_takes_the_cuda_kernels(monkeypatch):
    monkeypatch.setattr(choosing.ms, "get_context", lambda key: "GPU")
    monkeypatch.setattr(choosing, "backend_named", lambda name, amp: f"{name} {amp}")
    assert choosing.choose("auto", "float16") == "cuda float16"


def test_without_them_auto_takes_the_graph_and_says_why(without_compiler, capsys):
    assert choosing.choose("auto") == "graph"
    assert capsys.readouterr().out == "note: backend graph, slower than cuda: there is no C compiler; install gcc\n"
    assert choosing.choose("graph") == "graph"
    assert capsys.readouterr().out == ""


def test_where_they_are_asked_for_it_is_one_line(without_compiler):
    line = r"^--backend cuda: there is no C compiler; install gcc, or use backend graph$"
    with pytest.raises(InputError, match=line):
        choosing.choose("cuda", option="--backend ")


def test_on_a_cpu_auto_takes_eager_if_the_kernels_folder_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ms_vireid.backends.numba", None)  # as if there were none
    assert str(choosing.choose("auto")) == "eager"
    line = "ms_vireid/backends/numba is missing; reinstall ms_vireid"
    assert capsys.readouterr().out == f"note: backend eager, slower than numba: {line}\n"
    with pytest.raises(InputError, match=f"^train.backend=numba: {line}, or use backend eager$"):
        choosing.choose("numba")
