"""The base class and the types of a configuration's sections."""

from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from ms_vireid.command.errors import InputError


def between(low: int, high: int) -> type[int]:
    """An integer type with limits. Upper limits are several times what anybody trains with, to catch mistakes."""
    return Annotated[int, Field(ge=low, le=high)]


def choice(*numbers: int) -> Any:
    """A type for one of some integers. `true` and `1.0`, which equal 1 in Python, are refused."""
    return Annotated[Literal[numbers], BeforeValidator(lambda value: value if type(value) is int else str(value))]


_MOST_KEYS = 1000  # of a section
Positive = between(1, 1_000_000)
Count = between(0, 1_000_000)
Side = between(1, 1024)  # pixels
Rate = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e4)]


def expand_user(path: str) -> Path:
    """Expand `~` or `~user` in a path; raises InputError for an unknown user, or a path that cannot be printed."""
    if not path.isprintable():
        raise InputError(f"{path!r}: contains unprintable characters; rename")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{path}: no home folder is known for this user; give the path without ~") from None


class Section(BaseModel):
    """A strict, frozen section: an unknown key, a string for a number or a fraction for a count is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _few_keys(cls, values: Any) -> Any:
        """Refuse at once what would be an error for each key, of which a short file may have a million."""
        if isinstance(values, dict) and len(values) > _MOST_KEYS:
            raise ValueError(f"has {len(values):,} keys; docs/configuration.md lists all")
        return values

    @field_validator("*", mode="before")
    @classmethod
    def _yaml_types(cls, value: Any) -> Any:
        """Convert YAML's lists to the schema's tuples."""
        return tuple(value) if isinstance(value, list) else value

    def check(self) -> None:
        """Raise ValueError for keys that contradict each other."""

    @model_validator(mode="after")
    def _checked(self) -> "Section":
        self.check()
        return self


def one_of(*kinds: type[Section]) -> Any:
    """A type for a section of one of several kinds, selected by its `name`; by default the first."""
    names = {kind: kind.model_fields["name"].default for kind in kinds}

    def name_of(value: Any) -> str:
        first = names[kinds[0]]
        return str(value.get("name", first) if isinstance(value, dict) else getattr(value, "name", first))

    tagged = tuple(Annotated[kind, Tag(name)] for kind, name in names.items())
    return Annotated[Union[tagged], Discriminator(name_of)]  # noqa: UP007, of a tuple
