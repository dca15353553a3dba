"""What the sections of a configuration are made of."""

from pathlib import Path
from typing import Annotated, Any, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, field_validator

from ms_vireid.command.errors import InputError


def between(least: int, most: int) -> type[int]:
    """A whole number. The largest is several times what anybody trains with: beyond it is a mistake."""
    return Annotated[int, Field(ge=least, le=most)]


Positive = between(1, 1_000_000)
Count = between(0, 1_000_000)
Side = between(1, 1024)  # pixels
Width = between(1, 10_000)  # channels
Blocks = between(1, 100)
Kernel = between(1, 99)
Above0 = Annotated[float, Field(ge=1e-12, le=1e4)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e4)]
Sigma = Annotated[float, Field(ge=1e-3, le=100)]
Pixel = Annotated[float, Field(ge=-100, le=100)]
Factor = Annotated[float, Field(ge=1e-6, le=1)]
Size = tuple[Side, Side]
Milestones = Annotated[tuple[Positive, ...], Field(max_length=1000)]


def expand_user(path: str) -> Path:
    """The path with its `~` or `~user` expanded; raises InputError for a user who is not known."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{path}: no home folder is known for this user; give the path without ~") from None


Folder = Annotated[Path, BeforeValidator(lambda given: expand_user(given) if isinstance(given, str) else given)]


class Section(BaseModel):
    """Strict and frozen: an unknown key, a string for a number or a fraction for a count is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _yaml_types(cls, value: Any) -> Any:
        """YAML has lists where the schema has tuples."""
        return tuple(value) if isinstance(value, list) else value


def one_of(*kinds: type[Section]) -> Any:
    """A section of one of several kinds, by its `name`; the first without one."""
    names = {kind: kind.model_fields["name"].default for kind in kinds}

    def name_of(value: Any) -> str:
        first = names[kinds[0]]
        return str(value.get("name", first) if isinstance(value, dict) else getattr(value, "name", first))

    tagged = tuple(Annotated[kind, Tag(name)] for kind, name in names.items())
    return Annotated[Union[tagged], Discriminator(name_of)]  # noqa: UP007, of a tuple
