"""Every page says in Chinese what it says in English, and names only files, commands and options that exist.

Pages are compared block by block (headings, fenced lines, table rows, list items, paragraphs): code as it is, of prose
the figures in order, and inline code and links in any order, as the languages order words differently.
"""

import ast
import re
from collections import Counter
from functools import cache
from itertools import zip_longest
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAIRS = [("README.md", "README.zh-CN.md")]
PAIRS += [(f"docs/{path.name}", f"docs/zh-CN/{path.name}") for path in sorted((ROOT / "docs/zh-CN").glob("*.md"))]
PAGES = [page for pair in PAIRS for page in pair]
WORDS = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
SPELLED = {word: str(value) for value, word in enumerate(WORDS, 2)} | {"twenty": "20"}
FIGURE = re.compile(rf"\d+(?:[.,:]\d+)*(?:e[-+]?\d+)?|\b(?:{'|'.join(SPELLED)})\b", re.ASCII | re.IGNORECASE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(python +)?(?:-m ((?:ms_vireid|parity|torch_ref)\b[\w.]*)|\b([\w./-]+\.py)\b)(.*)", re.ASCII)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


def blocks_of(text):
    """(line, kind, what is the same in both languages, prose)."""
    found, fenced, goes_on = [], False, False
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        kind, same, prose = None, "", stripped
        if stripped.startswith("```"):
            fenced, kind, same, prose = not fenced, "fence", stripped, ""
        elif fenced:
            code, *comment = re.split(r"(?:^|\s)#(?=\s)", line, maxsplit=1)
            kind, same, prose = "fenced line", code.rstrip(), "".join(comment)
        elif heading := re.match(r"#+ ", line):
            kind, prose = f"heading {heading[0].strip()}", ""
        elif stripped.startswith("|"):
            kind, same = "table row", str(len(re.findall(r"(?<!\\)\|", stripped)))
        elif item := re.match(r"[*+-] |\d+\. ", stripped):
            kind, same, goes_on = "list item", item[0], True
        elif stripped and not goes_on:
            kind, goes_on = "paragraph", True
        if kind:
            found.append([number, kind, same, prose])
        elif stripped:
            found[-1][3] += f" {stripped}"
        goes_on = goes_on and bool(stripped) and kind in (None, "list item", "paragraph")
    return found


def facts(prose):
    """What a translation leaves as it is."""
    code = re.findall(r"`([^`]+)`", prose)
    plain = LINK.sub(" ", re.sub(r"`[^`]+`", " ", prose))
    links = [link.split("/")[-1].replace("README.zh-CN", "README") for link in LINK.findall(prose)]
    figures = [SPELLED.get(figure.lower(), figure) for figure in FIGURE.findall(plain)]
    return {"figures": figures, "code": sorted(code), "links": sorted(links)}


def first_difference(english, chinese):
    """One line that names the first place where two texts differ, and how; None."""
    for ours, theirs in zip_longest(blocks_of(english), blocks_of(chinese), fillvalue=[0, "nothing", "", ""]):
        if ours[1:3] != theirs[1:3]:
            return f"line {ours[0]} and {theirs[0]}: {ours[1]} '{ours[2]}', but {theirs[1]} '{theirs[2]}'"
        for kind, values in facts(ours[3]).items():
            others = facts(theirs[3])[kind]
            if values != others:
                only = list((Counter(values) - Counter(others)) + (Counter(others) - Counter(values))) or values
                return f"line {ours[0]} and {theirs[0]}: {kind} of one {ours[1]} alone: {', '.join(only)}"
    return None


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_the_chinese_page_is_in_step(english, chinese):
    assert first_difference(*((ROOT / page).read_text(encoding="utf-8") for page in (english, chinese))) is None


@pytest.mark.parametrize("page", PAIRS[0])
def test_the_readme_opens_with_the_two_commands(page):
    _, _, fence, set_up, test, end = (block[2] for block in blocks_of((ROOT / page).read_text(encoding="utf-8"))[:6])
    assert (fence, end) == ("```", "```")
    assert set_up == "pip install -e . && python ms_vireid/train.py"
    assert test == "pip install -e '.[test]' && pytest"


ENGLISH = "# T\n\n```\nrun --seed 3  # ten\n```\n\n`--top` finds five\nof 1,000 ([why](docs/a.md)).\n\n| a | 3 |\n"
CHINESE = "# 题\n\n```\nrun --seed 3  # 10\n```\n\n5 / 1,000 用 `--top`（[因](docs/zh-CN/a.md)）。\n\n| 甲 | 3 |\n"


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ("1,000", "1,001", "line 7 and 7: figures of one paragraph alone: 1,000, 1,001"),
        ("--seed 3", "--seed 4", "line 4 and 4: fenced line 'run --seed 3', but fenced line 'run --seed 4'"),
        ("# 题", "## 题", "line 1 and 1: heading # '', but heading ## ''"),
        ("a.md", "b.md", "line 7 and 7: links of one paragraph alone: a.md, b.md"),
        ("| 甲 | 3 |\n", "", "line 10 and 0: table row '3', but nothing ''"),
    ],
)
def test_a_planted_difference_is_named(old, new, difference):
    assert first_difference(ENGLISH, CHINESE) is None
    assert first_difference(ENGLISH, CHINESE.replace(old, new)) == difference


def commands_of(text):
    """Each command of the fenced blocks, without its comment, and each inline span, with its line."""
    for line, kind, same, prose in blocks_of(text.replace("\\\n", "")):
        spans = [same] if kind == "fenced line" else re.findall(r"`([^`]+)`", prose)
        yield from ((line, span.replace("\\|", "|")) for span in spans)


@cache
def options_of(script, function=None):
    """The long options in a script's source, or one function's, and in the imported functions that take its parser."""
    tree = ast.parse(script.read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
    origin = {alias.name: ROOT / f"{node.module.replace('.', '/')}.py" for node in imports for alias in node.names}
    if function:
        tree = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function)
    found = {"--help"}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        texts = (argument.value for argument in call.args if isinstance(argument, ast.Constant))
        found |= {text for text in texts if isinstance(text, str) and OPTION.fullmatch(text)}
        name = getattr(call.func, "id", None)
        if name in origin and any(getattr(argument, "id", None) == "parser" for argument in call.args):
            found |= options_of(origin[name], name)
    return frozenset(found)


def wrong_commands(text):
    """One line for each script that does not exist and each option that its command does not take."""
    wrong, every = [], set().union(*(options_of(path) for path in SCRIPTS))
    for line, code in commands_of(text):
        if command := COMMAND.search(code):
            python, module, path, given = command.groups()
            script = ROOT / (f"{module.replace('.', '/')}.py" if module else path)
            script = script if module or python or "/" in path else ROOT / "ms_vireid" / path
            if not script.is_file() and not (python or module or given):
                continue  # a file that the reader is to write
            if not script.is_file():
                wrong.append(f"{line}: {script.relative_to(ROOT)} does not exist")
                continue
            missing = set(OPTION.findall(given.split(" && ")[0])) - options_of(script)
            wrong += [f"{line}: {script.relative_to(ROOT)} takes no {option}" for option in sorted(missing)]
        elif code.startswith("--"):
            wrong += [f"{line}: no command takes {option}" for option in OPTION.findall(code) if option not in every]
    return wrong


SCRIPTS = [ROOT / "tests/conftest.py", ROOT / "ms_vireid/search/benchmark.py"]
SCRIPTS += [path for folder in ("ms_vireid", "parity", "torch_ref") for path in (ROOT / folder).glob("*.py")]


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_options_exist(page):
    assert wrong_commands((ROOT / page).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("`python -m ms_vireid.trian`", "1: ms_vireid/trian.py does not exist"),
        ("```\npython ms_vireid/train.py \\\n--sed 3  # --nothing\n```", "2: ms_vireid/train.py takes no --sed"),
        ("| `python ms_vireid/train.py [--shots 1\\|10]` | |", "1: ms_vireid/train.py takes no --shots"),
        ("With `--dry-runs`", "1: no command takes --dry-runs"),
    ],
)
def test_a_planted_command_is_named(text, message):
    assert wrong_commands(text) == [message]


@pytest.mark.parametrize("page", sorted({*PAGES, "SECURITY.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))}))
def test_linked_files_exist(page):
    links = LINK.findall((ROOT / page).read_text(encoding="utf-8"))
    lost = [link for link in links if not link.startswith("http") and not (ROOT / page).parent.joinpath(link).exists()]
    assert lost == []
