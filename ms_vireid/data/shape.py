"""The shape of a tree of pictures, worked out as a whole: which levels of folders name modality, camera and person.

A name counts only if all pictures agree. What can be read in two ways is unknown.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ms_vireid.config.layout import LONGEST, NAMED, SYSU
from ms_vireid.data.folders import (
    CAMERA,
    MODALITY,
    NAME,
    PART,
    SITE,
    SYSU_CAMERAS,
    camera_of,
    kind_of,
    modality_of,
    part_of,
    same_name,
)
from ms_vireid.data.pictures import is_hidden

_LLCM = {"vis", "nir", "test_vis", "test_nir"}
_PLAIN_LLCM = NAMED["llcm"].replace("{site}_", "", 1)
_FLAT_LLCM = "**/{modality}/**/{identity}_c{camera}_*|**/{identity}_c{camera}_*"
# Layouts that need no word: the documented ones.
SILENT = (
    SYSU,
    _PLAIN_LLCM,
    "{modality}/{identity}/*",
    "{modality}/{identity}/*_c{camera}_*",
    "{modality}/{camera}/{identity}/*",
)
_HEIGHT = 4  # folders from the root upwards that may be of its tree
_MOST_SIBLINGS = 10_000
_MOST_STRAYS = 0.25  # of the pictures
_SCHEMES = {  # of pictures' names, each strict
    "market1501": re.compile(r"(-1|\d{4,5})_c\d{1,2}s\d+_\d+.*"),
    "dukemtmc": re.compile(r"(\d{4})_c\d{1,2}_f\d+.*"),
    "msmt17": re.compile(r"(\d{4})_\d{3}_\d\d_\d{4}[a-z]+_.*"),
    "mars": re.compile(r"(\d{4}|00-1)C\d+T\d+F\d+.*"),
    "llcm": re.compile(r"(\d{4})_c\d\d_s\d+_f\d+.*"),
}
_CAMERA_IN_NAME = {"market1501": "*_c{camera}s*", "dukemtmc": "*_c{camera}_*", "llcm": "*_c{camera}_*"}


@dataclass(frozen=True)
class Shape:
    """What was found out. top: the folder that the templates begin in. layout: as `config.layout` takes it; "" if no
    level says anything. problem: why nobody is known, and two layouts that would say more."""

    top: Path
    layout: str
    problem: str = ""
    remedies: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Tree:
    """Pictures by their folders below `top`. siblings: names of the folders beside each of the outer levels, which lead
    from `top` to the root."""

    top: Path
    pictures: Mapping[tuple[str, ...], Sequence[str]]
    siblings: Sequence[set[str]]

    @property
    def depth(self) -> int:
        return max(map(len, self.pictures))

    def names(self, level: int) -> set[str]:
        beside = self.siblings[level] if level < len(self.siblings) else set()
        return beside | {folders[level] for folders in self.pictures if len(folders) > level}

    def count(self, folders: Iterable[tuple[str, ...]]) -> int:
        return sum(len(self.pictures[one]) for one in folders)

    def kind(self, level: int) -> str | None:
        """Return what the names of a level mean together; None if they mean different things. The names of people may
        be odd ones as long as they are few, and lie as the others do."""
        kinds = Counter(map(kind_of, self.names(level)))
        plain = kinds.pop(NAME, 0) + kinds.pop(MODALITY, 0)
        odd = kinds.total()
        if not plain:
            return kinds.popitem()[0] if len(kinds) == 1 else PART if SITE not in kinds else None
        if odd and (plain < odd or (plain == odd and level < len(self.siblings)) or not self._alike(level)):
            return None
        return NAME

    def direct(self, level: int) -> dict[str, bool]:
        """Return the names of a level, and whether pictures lie directly in the folder."""
        direct = {folders[level]: False for folders in self.pictures if len(folders) > level}
        return direct | {folders[level]: True for folders in self.pictures if len(folders) == level + 1}

    def _alike(self, level: int) -> bool:
        """Whether pictures lie in odd folders of a level as they do in most of the others."""
        direct = self.direct(level)
        plain = [held for name, held in direct.items() if kind_of(name) in (NAME, MODALITY)]
        odd = {held for name, held in direct.items() if kind_of(name) not in (NAME, MODALITY)}
        return not plain or odd <= {2 * sum(plain) > len(plain)}


def find_shape(root: Path, pictures: Sequence[str]) -> Shape:
    """Work out the shape of the tree of `pictures`, paths below `root`, which is absolute. The folders that lead to the
    root count if they belong to the same tree."""
    if sysu := next((top for top in (root, *root.parents[: _HEIGHT - 1]) if _is_sysu(top, root, pictures)), None):
        return Shape(sysu, SYSU)
    tree = _tree(root, pictures)
    if len(tree.siblings) == 0 and (layout := _llcm(tree)):
        return Shape(root, layout)
    return _Finder(tree).shape()


def _is_sysu(top: Path, root: Path, pictures: Sequence[str]) -> bool:
    """Whether `top` holds SYSU-MM01 and some picture is of its cameras."""
    below = root.relative_to(top).parts
    first = {below[0]} if below else {path.partition("/")[0] for path in pictures}
    if not any(camera_of(name) in SYSU_CAMERAS for name in first):
        return False
    return all((top / name).is_dir() for name in ("exp", *(f"cam{camera}" for camera in SYSU_CAMERAS)))


def _llcm(tree: _Tree) -> str | None:
    """Return LLCM's layout if the tree is LLCM with both of its parts; people of one number in both are two people."""
    names = {name.lower() for name in tree.names(0)}
    if not (names <= _LLCM and names & {"vis", "nir"} and names & {"test_vis", "test_nir"}):
        return None
    people = {
        part: {one[depth - 1] for one in tree.pictures if len(one) == depth and ("test" in one[0].lower()) == part}
        for part, depth in ((False, 2), (True, 3))
    }
    if not all(people.values()) or any(kind_of(one[1]) != CAMERA for one in tree.pictures if len(one) == 3):
        return None
    return "llcm" if people[False] & people[True] else _PLAIN_LLCM


def _tree(root: Path, pictures: Sequence[str]) -> _Tree:
    outer = _outer_levels(root)
    below: dict[tuple[str, ...], list[str]] = {}
    for path in pictures:
        *folders, name = path.split("/")
        below.setdefault(tuple(folders), []).append(name)
    own = _Tree(root, below, ())
    inner = any(_says_modality(own, level) for level in range(own.depth))
    if inner and not (outer and _all_modalities(outer[0][1])):
        outer = []
    names = tuple(name for name, _ in outer)
    top = root.parents[len(outer) - 1] if outer else root
    return _Tree(top, {names + folders: held for folders, held in below.items()}, [beside for _, beside in outer])


def _all_modalities(names: set[str]) -> bool:
    return len(names) > 1 and all(map(modality_of, names))


def _outer_levels(root: Path) -> list[tuple[str, set[str]]]:
    """Return the folders that lead to the root's pictures, outermost first, with those beside each: from the one that
    names a modality on, else from one that is called `camN`."""
    levels: list[tuple[str, set[str]]] = []
    nearest, sure, names = 0, False, 0
    for node in (root, *root.parents)[:_HEIGHT]:
        if not node.name or sure:
            break
        levels.insert(0, (node.name, _siblings(node)))
        if modality_of(node.name) and (not nearest or _all_modalities(levels[0][1])):
            nearest, sure = len(levels), _all_modalities(levels[0][1])
        names += kind_of(node.name) == NAME
        if names > 1:
            break
    if not nearest:
        nearest = next((n for n in (1, 2) if n <= len(levels) and camera_of(levels[-n][0]) is not None), 0)
    return levels[len(levels) - nearest :] if nearest else []


def _siblings(folder: Path) -> set[str]:
    try:
        with os.scandir(folder.parent) as entries:
            names = {entry.name for entry in islice(entries, _MOST_SIBLINGS) if entry.is_dir()}
    except OSError:
        names = set()
    return {name for name in names if not is_hidden(name)} | {folder.name}


def _says_modality(tree: _Tree, level: int) -> bool:
    """Whether a level names modalities: all of it, or both, with few pictures astray. The outermost of the folders that
    lead to the root was chosen for its own name."""
    chosen = tree.siblings and level == 0
    names = {folders[0] for folders in tree.pictures} if chosen else tree.names(level)
    modalities = {name: modality_of(name) for name in names}
    if all(modalities.values()):
        return bool(names)
    if len(set(modalities.values()) - {None}) < 2:
        return False
    astray = tree.count(one for one in tree.pictures if len(one) <= level or not modalities[one[level]])
    return astray <= _MOST_STRAYS * tree.count(tree.pictures)


class _Finder:
    """Finds out the roles of a tree's levels."""

    def __init__(self, tree: _Tree):
        self.modality, self.neutral = _modality_level(tree)
        self.all = tree
        if self.modality is not None:  # pictures astray say nothing about the others
            level = self.modality
            kept = {one: names for one, names in tree.pictures.items() if len(one) > level and modality_of(one[level])}
            tree = _Tree(tree.top, kept, tree.siblings)
        self.tree = tree
        self.kinds = [tree.kind(level) for level in range(tree.depth)]

    def shape(self) -> Shape:
        person, problem, remedies = self._person()
        if scheme := self._scheme(person):
            return Shape(self.tree.top, scheme)
        if person is not None and self._in_both_parts(person):
            problem = f"people of one name are in two parts of the set, and may be one or two{self._example()}"
            remedies = self._written({person: "identity"}), self._written({person: "identity"}, part="site")
            person = None
        layout = "|".join(self._templates(person))
        if len(layout) > LONGEST:
            return Shape(self.tree.top, "", "folders are nested too deeply to be read", ("**/{modality}/{identity}/*",))
        if person is None and not problem and self._may_name():
            problem = f"no folder and no picture's name says who is on the pictures{self._example()}"
            people = self._levels(NAME)
            if people:
                remedies = (self._written({people[0]: "identity"}),)
            elif self._others() == [CAMERA]:
                remedies = (f"{{identity}}/{self._written({}, '/*')}",)
            else:
                remedies = (self._written({}, "/{identity}_*"),)
        return Shape(self.tree.top, layout, problem, tuple(dict.fromkeys(remedies)))

    def _others(self) -> list[str | None]:
        """Return the kinds of all levels but the modality's."""
        return [k for n, k in enumerate(self.kinds) if n != self.modality and n not in self.neutral]

    def _may_name(self) -> bool:
        """Whether some level might be taken for that of the people."""
        levels = [n for n in range(self.tree.depth) if n != self.modality and n not in self.neutral]
        return any(camera_of(name) is None for level in levels for name in self.tree.names(level))

    def _example(self) -> str:
        folders = max(self.tree.pictures, key=lambda one: (len(one), one))
        return f", as in {'/'.join((*folders, min(self.tree.pictures[folders])))}"

    def _levels(self, *kinds: str | None) -> list[int]:
        levels = range(self.tree.depth)
        return [n for n in levels if self.kinds[n] in kinds and n != self.modality and n not in self.neutral]

    def _person(self) -> tuple[int | None, str, tuple[str, ...]]:
        """Return the level that names people, or None, with what is not clear if there are several."""
        varied = lambda level: len(set(map(same_name, self.tree.names(level)))) > 1  # noqa: E731
        names, mixed = self._levels(NAME), self._levels(None)
        if self.modality is None:  # CAMERA/PERSON, as its cameras are called
            cameras = [
                n for n in self._levels(CAMERA) if all(camera_of(name) is not None for name in self.tree.names(n))
            ]
            names = [n for n in names if n - 1 in cameras]
            return (names[0] if len(names) == 1 and not mixed else None), "", ()
        if mixed:
            problem = f"some folders are called as people, others as parts, cameras or places{self._example()}"
            return (
                None,
                problem,
                (self._written({mixed[0]: "identity"}), self._written({mixed[0]: "split"}, "/{identity}_*")),
            )
        before = [n for n in names if n < self.modality and varied(n)]
        after = [n for n in names if n > self.modality]
        if len(before) == 1 and not any(map(varied, after)):
            after = []  # anna/visible/1 and ben/visible/1 are two people in any case
        if not before and after and (self._mostly_direct(after[0]) or not any(map(varied, after[1:]))):
            after = after[:1]
        people = before + after
        places = [n for n in self._levels(SITE) if varied(n) and people and n < people[-1]]
        if len(people) > 1 or len(places) > 1:
            first, *_, last = sorted({*people, *places})
            problem = f"two levels of folders may name the people{self._example()}"
            return None, problem, (self._written({first: "identity"}), self._written({first: "site", last: "identity"}))
        return (people[0] if people else None), "", ()

    def _mostly_direct(self, level: int) -> bool:
        """Whether pictures lie directly in most folders of a level."""
        direct = list(self.tree.direct(level).values())
        return 2 * sum(direct) >= len(direct)

    def _in_both_parts(self, person: int) -> bool:
        """Whether people of one name are in more than one of training, validation and test."""
        parts: dict[str, set[str]] = {}
        for folders in self.tree.pictures:
            if len(folders) > person:
                levels = [n for n in range(len(folders)) if n == self.modality or self.kinds[n] == PART]
                part = next(filter(None, (part_of(folders[n]) for n in levels if n != person)), None)
                if part:
                    parts.setdefault(part, set()).add(same_name(folders[person]))
        people = [name for names in parts.values() for name in names]
        return len(people) > len(set(people))

    def _scheme(self, person: int | None) -> str | None:
        """Return the scheme of all pictures' names if they say who is on them, and the folders do not or say
        otherwise."""
        files = [(folders, name) for folders, names in self.tree.pictures.items() for name in names]
        for scheme, pattern in _SCHEMES.items():
            said = [(folders, pattern.fullmatch(name)) for folders, name in files]
            if not all(match for _, match in said):
                continue
            agreeing = sum(person is not None and len(f) > person and f[person] == match[1] for f, match in said)
            if 2 * agreeing < len(said):
                return _FLAT_LLCM if scheme == "llcm" else scheme
            self.camera_in_name = _CAMERA_IN_NAME.get(scheme) if agreeing == len(said) else None
        return None

    camera_in_name: str | None = None

    def _roles(self, length: int, roles: Mapping[int, str], part: str = "split") -> list[str]:
        """Write the parts of a template for the first levels. Of each role there is one."""
        written, person = [], max((n for n in roles if roles[n] == "identity"), default=-1)
        names = {CAMERA: "camera", PART: part}
        for level in range(length):
            role = roles.get(level) or ("modality" if level == self.modality else names.get(self.kinds[level]))
            if self.kinds[level] == SITE and level < person and len(self.tree.names(level)) > 1:
                role = roles.get(level, "site")
            free = (
                level not in self.neutral
                and f"{{{role}}}" not in written
                and (level in roles or role not in roles.values())
            )
            written.append(f"{{{role}}}" if role and free else "*")
        return written

    def _written(self, roles: Mapping[int, str], end: str = "/**", part: str = "split") -> str:
        length = max(*roles, -1 if self.modality is None else self.modality, -1) + 1
        return "/".join(self._roles(length if roles else self.tree.depth, roles, part)) + end

    def _templates(self, person: int | None) -> list[str]:
        """Write templates that fit all pictures, those that say most first."""
        modality = -1 if self.modality is None else self.modality
        lengths = []
        if person is not None:
            last = max(person, modality) + 1
            deepest = next((n for n in range(self.tree.depth, last, -1) if self.kinds[n - 1] == CAMERA), last)
            lengths += dict.fromkeys((deepest, last))
        elif cameras := self._levels(CAMERA):
            lengths.append(max(cameras[-1], modality) + 1)
        if modality >= 0:
            lengths.append(modality + 1)
        roles, left, written = {} if person is None else {person: "identity"}, set(self.tree.pictures), []
        for length in lengths:
            fitting = {one for one in left if len(one) >= length}
            if fitting:
                deeper = any(len(one) > length for one in fitting)
                parts = self._roles(length, roles)
                if self.camera_in_name and "{camera}" not in parts and not deeper:
                    written.append("/".join([*parts, self.camera_in_name]))
                else:
                    written.append("/".join([*parts, "**" if deeper else "*"]))
            left -= fitting
        return written


def _modality_level(tree: _Tree) -> tuple[int | None, set[int]]:
    """Return the level that names modalities, None if there is none or two disagree, and levels that only repeat it."""
    levels = [level for level in range(tree.depth) if _says_modality(tree, level)]
    repeated: set[int] = set()
    for level in levels:
        for other in levels:
            if (
                other > level
                and level not in repeated
                and all(modality_of(one[level]) == modality_of(one[other]) for one in tree.pictures if len(one) > other)
            ):
                repeated.add(other)
    levels = [level for level in levels if level not in repeated]
    if len(levels) > 1:
        levels = [n for n in levels if len(set(map(modality_of, tree.names(n))) - {None}) == 2]
    return (levels[0] if len(levels) == 1 else None), repeated
