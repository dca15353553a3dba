"""The columns of an evaluation: identities and cameras of queries and their gallery, as numbers or texts."""

import math
import unicodedata
from numbers import Integral, Real

import numpy as np

from ms_vireid.command.errors import shown


def comparable_columns(
    what: str, query: object, gallery: object, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return a column of the queries, [Q], and one of the gallery, [G], as numbers that are equal where the values are.
    Columns of numbers of one type return as they are.

    what: "ids" or "cameras". query, gallery: each as for `checked_column`. shape: (Q, G).

    Raises ValueError as `checked_column` does, and for numbers beside texts.
    """
    names = f"query_{what}", f"gallery_{what}"
    columns = [checked_column(*one) for one in zip(names, (query, gallery), shape, strict=True)]
    if all(map(len, columns)) and is_text(columns[0]) != is_text(columns[1]):
        first = " and ".join(f"{name}[0] {shown(column[0])}" for name, column in zip(names, columns, strict=True))
        raise ValueError(f"{first} are a number and a text: give numbers or texts for both")
    types = {column.dtype for column in columns}
    if np.dtype(object) not in types and (len(types) == 1 or np.result_type(*types).kind != "f"):
        return columns[0], columns[1]
    # NumPy would compare integers with floats, and signed ones with unsigned ones, as rounded floats.
    codes = np.unique(np.concatenate([column.astype(object) for column in columns]), return_inverse=True)[1]
    return codes[: shape[0]], codes[shape[0] :]


def checked_column(name: str, values: object, length: int) -> np.ndarray:
    """Return a column, [length], of a type of numbers, or of objects that are all texts or all numbers.

    values: an array, a list or a column of pandas, of numbers or texts (bytes are UTF-8). Two spellings of a text in
    Unicode become one.

    Raises ValueError, which names the column, for another shape, a missing value, one that is neither number nor text,
    numbers beside texts, and floats of a size at which they skip whole numbers.
    """
    if values is None:
        raise ValueError(f"{name} is None: this protocol needs the {name.partition('_')[2]} of queries and gallery")
    if np.ma.is_masked(values):
        raise ValueError(f"{name} has masked values: leave these pictures out")
    column = np.asarray(values)
    if column.shape != (length,):
        raise ValueError(f"{name} has shape {column.shape}: the distance matrix asks for ({length},)")
    if column.dtype.kind in "biu":
        return column
    is_float = column.dtype.kind == "f"
    exact = 2.0 ** (np.finfo(column.dtype if is_float else float).nmant + 1)
    if is_float and (np.abs(column) < exact).all():
        return column
    # NumPy made texts of the numbers in a list that has both, and floats of integers beyond 64 bits.
    checked = np.empty(length, object)
    for i, value in enumerate(np.asarray(values, object).tolist()):
        checked[i] = _checked_value(f"{name}[{i}]", value, exact)
        if isinstance(checked[i], str) != isinstance(checked[0], str):
            raise ValueError(f"{name} has {shown(checked[0])} and {shown(checked[i])}: give numbers or texts, not both")
    return checked


def is_text(column: np.ndarray) -> bool:
    """Whether a checked column has texts."""
    return column.dtype == object and len(column) > 0 and isinstance(column[0], str)


def _checked_value(name: str, value: object, exact: float) -> str | Real:
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise ValueError(f"{name} is {shown(value)}: bytes must be UTF-8") from None
    if isinstance(value, str) and value:
        return unicodedata.normalize("NFC", value)
    if value is None or isinstance(value, str) or (isinstance(value, Real) and not math.isfinite(value)):
        raise ValueError(f"{name} is {shown(value)}: it must be known; leave the picture out")
    if not isinstance(value, Real):
        raise ValueError(f"{name} is {shown(value)}: it must be a number or a text")
    if not isinstance(value, Integral) and abs(value) >= exact:
        raise ValueError(f"{name} is {shown(value)}: floats of that size are not exact; give integers or texts")
    return value
