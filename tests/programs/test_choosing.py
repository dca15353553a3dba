"""Which program is taken on a GPU with and without what its CUDA kernels need."""

import pytest

from ms_vireid.command.errors import DeviceError, InputError
from ms_vireid.programs import program


@pytest.fixture
def without_compiler(monkeypatch):
    """A GPU, without a C compiler."""

    def make(name, amp=False):
        if name == "cuda":
            raise DeviceError("there is no C compiler", "install gcc")
        return name

    monkeypatch.setattr(program.ms, "get_context", lambda key: "GPU")
    monkeypatch.setattr(program, "program", make)


def test_auto_takes_the_cuda_kernels(monkeypatch):
    monkeypatch.setattr(program.ms, "get_context", lambda key: "GPU")
    monkeypatch.setattr(program, "program", lambda name, amp: f"{name} {amp}")
    assert program.choose("auto", "float16") == "cuda float16"


def test_without_them_auto_takes_the_graph_and_says_why(without_compiler, capsys):
    assert program.choose("auto") == "graph"
    assert capsys.readouterr().out == "note: no CUDA kernels, slower: there is no C compiler; install gcc\n"
    assert program.choose("graph") == "graph"
    assert capsys.readouterr().out == ""


def test_where_they_are_asked_for_it_is_one_line(without_compiler):
    line = r"^--program cuda: there is no C compiler; install gcc, or use program graph$"
    with pytest.raises(InputError, match=line):
        program.choose("cuda", option="--program ")
