"""What was found as a table and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict

from ms_vireid.search.found import Entry, Found

_MATCH = {True: "yes", False: "no", None: "-"}
_HEADER = f"{'rank':>4}  {'similarity':>10}  {'match':>5}  {'camera':>6}  {'identity':>8}  picture"


def format_found(found: Found) -> str:
    """A query's table: a line for each hit."""
    query = found.query
    about = (("camera", query.camera), ("identity", query.identity))
    known = [f"{what} {number}" for what, number in about if number is not None]
    lines = [f"query {query.path} ({', '.join([query.modality, *known])})", _HEADER]
    for rank, hit in enumerate(found.hits, 1):
        camera, identity = ("-" if number is None else number for number in (hit.entry.camera, hit.entry.identity))
        lines.append(
            f"{rank:>4}  {hit.similarity:>10.4f}  {_MATCH[found.match(hit)]:>5}  {camera:>6}  {identity:>8}  "
            f"{hit.entry.path}"
        )
    return "\n".join(lines if found.hits else [*lines, "nothing found"])


def as_json(found: Sequence[Found], about: dict) -> dict:
    """`about` with a list `queries`; what is unknown is null."""
    return about | {
        "queries": [
            _as_dict(one.query)
            | {
                "hits": [
                    {"rank": rank, "similarity": hit.similarity, "match": one.match(hit)} | _as_dict(hit.entry)
                    for rank, hit in enumerate(one.hits, 1)
                ]
            }
            for one in found
        ]
    }


def _as_dict(entry: Entry) -> dict:
    return asdict(entry) | {"file": str(entry.file)}
