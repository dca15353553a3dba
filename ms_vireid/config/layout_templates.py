"""How a picture's path says who is in it: a template such as `{identity}/{modality}/{camera}/*`, or the name of one."""

import re

AUTO, SYSU = "auto", "sysu_mm01"
FIELDS = ("identity", "modality", "camera", "split", "site")
MODALITY_WORDS = {  # names of folders, in lower case
    **dict.fromkeys(("visible", "vis", "rgb", "color", "colour"), "visible"),
    **dict.fromkeys(("infrared", "ir", "nir", "swir", "lwir", "tir", "thermal"), "infrared"),
}
FILE_NAMES = {  # several templates, of which the first that fits holds
    "market1501": "**/{modality}/**/{identity}_c{camera}s*|**/{identity}_c{camera}s*",
    "dukemtmc": "**/{modality}/**/{identity}_c{camera}_f*|**/{identity}_c{camera}_f*",
    "msmt17": "**/{modality}/**/{identity}_*_{camera}_*|**/{identity}_*_{camera}_*",
    "mars": "**/{modality}/**/{identity}C{camera}T*|**/{identity}C{camera}T*",
}
SAME, DIFFERENT = ":same", ":different"  # whether people of one number in different folders are one
NAMED = {
    SYSU: "cam{camera}/{identity}/*",
    "regdb": "{modality}/{identity}/*",
    "llcm": "{site}_{modality}/cam{camera}/{identity}/*|{modality}/{identity}/*_c{camera}_*",
} | {name + told: templates for name, templates in FILE_NAMES.items() for told in ("", SAME, DIFFERENT)}
_PIECE = re.compile(r"\{(?P<field>[^{}]*)\}|(?P<star>\*)|(?P<text>[^{}*]+)|(?P<odd>.)")
_MODALITY = "|".join(sorted(MODALITY_WORDS, key=len, reverse=True))
_LONGEST, _MOST_ALTERNATIVES = 300, 8  # characters; templates
_MOST_OPEN = 3  # wildcards of a part: a name that nearly fits takes up to a second with three, a minute with four
KNOWN = f"auto, {', '.join(name for name in NAMED if ':' not in name)}, or a template as '{{modality}}/{{identity}}/*'"


def canonical(layout: str) -> str:
    """Return the name of a layout, if it is one, as it is spelled here: `SYSU-MM01` is `sysu_mm01`."""
    plain = re.sub(r"[ _-]", "", layout).lower()
    return next((name for name in NAMED if name.replace("_", "") == plain), layout)


def patterns(layout: str) -> list[re.Pattern]:
    """Compile a layout for paths with slashes. The groups are named as in FIELDS. Raises ValueError for anything
    else."""
    if len(layout) > _LONGEST or not layout.isprintable():
        raise ValueError(f"exceeds {_LONGEST} characters, or is unprintable")
    name = canonical(layout)
    texts = NAMED.get(name, name).split("|")
    if len(texts) > _MOST_ALTERNATIVES:
        raise ValueError(f"has {len(texts)} templates, more than {_MOST_ALTERNATIVES}")
    compiled = [_pattern(text) for text in texts]
    if not any({"identity", "modality", "camera"} & pattern.groupindex.keys() for pattern in compiled):
        raise ValueError(f"lacks {{identity}}, {{modality}} and {{camera}}; give {KNOWN}")
    return compiled


def check_layout(layout: str) -> str:
    """Return the layout; raises ValueError unless it is `auto` or `patterns` takes it."""
    if layout != AUTO:
        patterns(layout)
    return layout


def _pattern(template: str) -> re.Pattern:
    *folders, last = template.split("/")
    if {"", ".", ".."} & {*folders, last}:
        raise ValueError(f"'{template}' has an empty part, or '.' or '..'")
    if folders.count("**") > 2:
        raise ValueError(f"'{template}' has more than two '**'")
    fields = re.findall(r"\{([^{}]*)\}", template)
    if twice := next((field for field in fields if fields.count(field) > 1), None):
        raise ValueError(f"'{template}' has {{{twice}}} twice")
    expression = "".join("(?:[^/]+/)*" if part == "**" else f"{_part(part, template)}/" for part in folders)
    end = ".+" if last == "**" else _part(last, template) + r"(?:\.[^./]*)?"
    return re.compile(expression + end, re.IGNORECASE)


def _part(part: str, template: str) -> str:
    pieces = list(_PIECE.finditer(part))
    unbounded, expression, before = 0, [], ""
    for piece in pieces:
        kind, text = piece.lastgroup, piece[piece.lastgroup]
        if kind == "odd" or (kind == "field" and text not in FIELDS):
            raise ValueError(f"'{template}': '{piece[0]}' is none of {', '.join(f'{{{field}}}' for field in FIELDS)}")
        if kind != "text" and before not in ("", "text"):
            raise ValueError(f"'{template}': put something between '{part[: piece.start()]}' and '{piece[0]}'")
        unbounded += kind == "star" or (kind == "field" and text not in ("modality", "camera"))
        if kind == "text":
            expression.append(re.escape(text))
        elif kind == "star":
            expression.append("[^/]*?")
        else:
            camera = r"\d{1,9}" if len(pieces) > 1 else r"[^/\d]*\d{1,9}"  # D3
            expression.append(f"(?P<{text}>{ {'modality': _MODALITY, 'camera': camera}.get(text, '[^/]+?') })")
        before = kind
    if unbounded > _MOST_OPEN:
        raise ValueError(f"'{template}': '{part}' has more than {_MOST_OPEN} wildcards")
    return "".join(expression)
