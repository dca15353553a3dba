"""Pointers: small files that stand for large ones in version control, until these are fetched."""

ANNEX = "/annex/objects/"  # in the path where git-annex keeps a file, which a link or a pointer names
_KINDS = {  # by how they begin
    b"version https://git-lfs.github.com/spec/": ("Git LFS", "git lfs pull"),
    ANNEX.encode(): ("git-annex", "git annex get"),
    b"outs:": ("DVC", "dvc pull"),
}


def pointer(start: bytes) -> tuple[str, str] | None:
    """Return what a pointer is and how the file itself is had, by the first bytes; None for another file."""
    for mark, (kind, command) in _KINDS.items():
        if start.startswith(mark):
            return f"is a {kind} pointer, not the file itself", f"run {command} in its folder"
    return None
