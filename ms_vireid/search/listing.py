"""What was found as a table and as JSON."""

from collections.abc import Sequence

from ms_vireid.data.layout import UNKNOWN
from ms_vireid.search.found import Found, Picture

_MATCH = {True: "yes", False: "no", None: "-"}
_HEADER = f"{'rank':>4}  {'similarity':>10}  {'match':>5}  {'camera':>6}  {'identity':>8}  picture"


def format_found(found: Found) -> str:
    """A query's table: a line for each hit."""
    query = found.query
    about = (("camera", query.camera), ("identity", query.identity))
    known = [f"{what} {number}" for what, number in about if _known(number)]
    lines = [f"query {query.path} ({', '.join([query.modality, *known])})", _HEADER]
    for rank, hit in enumerate(found.hits, 1):
        camera, identity = (number if _known(number) else "-" for number in (hit.picture.camera, hit.picture.identity))
        lines.append(
            f"{rank:>4}  {hit.similarity:>10.4f}  {_MATCH[found.match(hit)]:>5}  {camera:>6}  {identity:>8}  "
            f"{hit.picture.path}"
        )
    return "\n".join(lines if found.hits else [*lines, "nothing found"])


def as_json(found: Sequence[Found], about: dict) -> dict:
    """`about` with a list `queries`; what is unknown is null."""
    return about | {
        "queries": [
            _picture(one.query)
            | {
                "hits": [
                    {"rank": rank, "similarity": hit.similarity, "match": one.match(hit)} | _picture(hit.picture)
                    for rank, hit in enumerate(one.hits, 1)
                ]
            }
            for one in found
        ]
    }


def _picture(picture: Picture) -> dict:
    return {
        "path": picture.path,
        "file": str(picture.file),
        "modality": picture.modality,
        "camera": picture.camera if _known(picture.camera) else None,
        "identity": picture.identity if _known(picture.identity) else None,
    }


def _known(number: int) -> bool:
    return number != UNKNOWN
