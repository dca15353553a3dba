"""What the sections of a configuration are made of."""

from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from ms_vireid.command.errors import InputError


def between(least: int, most: int) -> type[int]:
    """A whole number. The largest is several times what anybody trains with: beyond it is a mistake."""
    return Annotated[int, Field(ge=least, le=most)]


def choice(*numbers: int) -> Any:
    """One of some whole numbers; `true` and `1.0`, which Python takes for 1, are none."""
    return Annotated[Literal[numbers], BeforeValidator(lambda given: given if type(given) is int else str(given))]


Positive = between(1, 1_000_000)
Count = between(0, 1_000_000)
Side = between(1, 1024)  # pixels
Rate = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e4)]


def expand_user(path: str) -> Path:
    """The path with its `~` or `~user` expanded; raises InputError for a user who is not known, or a path that cannot
    be printed."""
    if not path.isprintable():
        raise InputError(f"{path!r}: is no path that can be printed; give another")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{path}: no home folder is known for this user; give the path without ~") from None


class Section(BaseModel):
    """Strict and frozen: an unknown key, a string for a number or a fraction for a count is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _yaml_types(cls, value: Any) -> Any:
        """YAML has lists where the schema has tuples."""
        return tuple(value) if isinstance(value, list) else value

    def check(self) -> None:
        """Raise ValueError for keys that do not fit each other."""

    @model_validator(mode="after")
    def _checked(self) -> "Section":
        self.check()
        return self


def one_of(*kinds: type[Section]) -> Any:
    """A section of one of several kinds, by its `name`; the first without one."""
    names = {kind: kind.model_fields["name"].default for kind in kinds}

    def name_of(value: Any) -> str:
        first = names[kinds[0]]
        return str(value.get("name", first) if isinstance(value, dict) else getattr(value, "name", first))

    tagged = tuple(Annotated[kind, Tag(name)] for kind, name in names.items())
    return Annotated[Union[tagged], Discriminator(name_of)]  # noqa: UP007, of a tuple
