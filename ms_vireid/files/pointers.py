"""Pointers: small files that stand for large ones in version control, until these are fetched."""

from typing import NamedTuple

ANNEX = "annex/objects/"  # in the path where git-annex keeps a file, which a link or a pointer names


class Pointer(NamedTuple):
    """problem: what the file is. remedy: how the file itself is had."""

    problem: str
    remedy: str


ANNEXED = Pointer("is a git-annex pointer, not the file itself", "run git annex get in its folder")
_LFS = Pointer("is a Git LFS pointer, not the file itself", "run git lfs pull in its folder")
_STARTS = {
    b"version https://git-lfs.github.com/spec/": _LFS,
    b"version https://hawser.github.com/spec/": _LFS,
    f"/{ANNEX}".encode(): ANNEXED,
    b"outs:": Pointer("is a DVC pointer, not the file itself", "run dvc pull in its folder"),
}


def pointer(start: bytes) -> Pointer | None:
    """Return what a pointer is, by the first bytes of a file; None for another file."""
    return next((found for mark, found in _STARTS.items() if start.startswith(mark)), None)
