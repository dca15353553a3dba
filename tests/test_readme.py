"""Every page says in Chinese what it says in English, and names only files, commands and options that exist.

Pages are compared block by block: code as it is, of prose the figures in order, and inline code and links in any order.
"""

import re
from collections import Counter
from functools import cache
from itertools import zip_longest
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAIRS = [("README.md", "README.zh-CN.md")]
CHINESE_PAGES = [path.relative_to(ROOT / "docs/zh-CN") for path in sorted(ROOT.glob("docs/zh-CN/**/*.md"))]
PAIRS += [(f"docs/{path}", f"docs/zh-CN/{path}") for path in CHINESE_PAGES]
PAGES = [page for pair in PAIRS for page in pair]
WORDS = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
SPELLED = {word: str(value) for value, word in enumerate(WORDS, 2)} | {"twenty": "20"}
FIGURE = re.compile(rf"\d+(?:[.,:]\d+)*(?:e[-+]?\d+)?|\b(?:{'|'.join(SPELLED)})\b", re.ASCII | re.IGNORECASE)
FENCE = re.compile(r"^```(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = r"[*+-] |\d+\. |#+ |\|"  # of a list item, a heading or a table's row
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(python +)?(?:-m ((?:ms_vireid|parity|torch_ref)\b[\w.]*)|\b([\w./-]+\.py)\b)(.*)", re.ASCII)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


def under_docs(suffix):
    return sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob(f"docs/**/*.{suffix}"))


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def blocks_of(text):
    """(kind, what is the same in both languages, prose)."""
    for number, part in enumerate(FENCE.split(text)):
        if number % 2:
            for line in part.splitlines():
                code, *comment = re.split(r"(?:^|\s)#(?=\s)", line, maxsplit=1)
                yield "fenced line", code.rstrip(), "".join(comment)
        else:
            for block in filter(str.strip, re.split(rf"\n\s*\n|\n(?=\s*(?:{MARK}))", part)):
                mark = re.match(rf"\s*({MARK}|)", block)[1]
                columns = len(re.findall(r"(?<!\\)\|", block)) if mark == "|" else ""
                yield mark, str(columns), "" if "#" in mark else " ".join(block.split())


def facts(prose):
    """What a translation leaves as it is."""
    plain = LINK.sub(" ", re.sub(r"`[^`]+`", " ", prose))
    links = sorted(link.split("/")[-1].replace("README.zh-CN", "README") for link in LINK.findall(prose))
    figures = [SPELLED.get(figure.lower(), figure) for figure in FIGURE.findall(plain)]
    return {"figures": figures, "code": sorted(re.findall(r"`([^`]+)`", prose)), "links": links}


def first_difference(english, chinese):
    """One line that names the first place where two texts differ, and how; None."""
    for ours, theirs in zip_longest(blocks_of(english), blocks_of(chinese), fillvalue=("nothing", "", "")):
        if ours[:2] != theirs[:2]:
            return f"{' '.join(ours):.99}, but {' '.join(theirs):.99}"
        for kind, values in facts(ours[2]).items():
            others = facts(theirs[2])[kind]
            if values != others:
                only = list((Counter(values) - Counter(others)) + (Counter(others) - Counter(values))) or values
                return f"{kind} of one language alone: {', '.join(only)}, near {ours[2]:.99}"
    return None


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_the_chinese_page_is_in_step(english, chinese):
    assert first_difference(read(english), read(chinese)) is None


@pytest.mark.parametrize("page", PAIRS[0])
def test_the_readme_opens_with_the_two_commands(page):
    opening = [block[:2] for block in blocks_of(read(page))][2:6]
    commands = "", "pip install -e . && python ms_vireid/train.py", "pip install -e '.[test]' && pytest"
    assert opening == [*(("fenced line", command) for command in commands), ("", "")]


ENGLISH = "# T\n\n```\nrun --seed 3  # ten\n```\n\n`--top` finds five\nof 1,000 ([why](docs/a.md)).\n\n| a | 3 |\n"
CHINESE = "# 题\n\n```\nrun --seed 3  # 10\n```\n\n5 / 1,000 用 `--top`（[因](docs/zh-CN/a.md)）。\n\n| 甲 | 3 |\n"
NEAR = "near `--top` finds five of 1,000 ([why](docs/a.md))."


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ("1,000", "1,001", f"figures of one language alone: 1,000, 1,001, {NEAR}"),
        ("--seed 3", "--seed 4", "fenced line run --seed 3  ten, but fenced line run --seed 4  10"),
        ("# 题", "## 题", "#   , but ##   "),
        ("a.md", "b.md", f"links of one language alone: a.md, b.md, {NEAR}"),
        ("| 甲 | 3 |\n", "", "| 3 | a | 3 |, but nothing  "),
    ],
)
def test_a_planted_difference_is_named(old, new, difference):
    assert first_difference(ENGLISH, CHINESE) is None
    assert first_difference(ENGLISH, CHINESE.replace(old, new)) == difference


@cache
def options_of(source):
    """The long options in a script's source, and in the shared functions that it hands its parser to."""
    names = re.findall(r"^ +(add_\w+)\(parser\b", source, re.MULTILINE)
    shared = read("ms_vireid/command/running.py") + read("ms_vireid/config/reading.py")
    functions = (re.search(rf"def {name}\(.*?\n\n\n", shared, re.DOTALL)[0] for name in names)
    own = re.findall(r'\(\s*(?:parser, )?"(?:[a-z_-]+ )?(--[a-z][a-z0-9-]*)"', source)  # as what a call begins with
    return {"--help", *own}.union(*map(options_of, functions))


def wrong_commands(text):
    """One line for each script that does not exist and each option that its command does not take."""
    wrong = []
    for kind, same, prose in blocks_of(text.replace("\\\n", "")):
        for span in [same] if kind == "fenced line" else re.findall(r"`([^`]+)`", prose.replace("\\|", "|")):
            if command := COMMAND.search(span):
                python, module, path, given = command.groups()
                path = path if python or module or "/" in path else f"ms_vireid/{path}"
                folder = module.replace(".", "/") if module else ""
                package = (ROOT / folder / "__main__.py").is_file()
                script = path if not module else f"{folder}/__main__.py" if package else f"{folder}.py"
                if (ROOT / script).is_file():
                    missing = set(OPTION.findall(given.split(" && ")[0])) - options_of(read(script))
                    wrong += [f"{script} takes no {option}" for option in sorted(missing)]
                elif python or module or given:  # else a file that the reader is to write
                    wrong.append(f"{script} does not exist")
            elif span.startswith("--"):
                wrong += [f"no command takes {option}" for option in OPTION.findall(span) if option not in EVERY]
    return wrong


SOURCES = [
    *ROOT.glob("ms_vireid/**/*.py"),
    *ROOT.glob("parity/**/*.py"),
    "torch_ref/train.py",
    "torch_ref/evaluate.py",
    "tests/conftest.py",
]
EVERY = set().union(*map(options_of, map(read, SOURCES))) | {"--shm-size"}  # docker's


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md"])
def test_commands_and_options_exist(page):
    assert wrong_commands(read(page)) == []


@pytest.mark.parametrize("page", under_docs("txt"))
def test_what_was_printed_says_by_which_command(page):
    """And a page in each language leads to it."""
    commands = re.findall(r"^\$ (.*)$", read(page), re.MULTILINE)
    assert commands
    assert wrong_commands("".join(f"```\n{command}\n```\n" for command in commands)) == []
    for pages in zip(*PAIRS, strict=True):
        assert any(f"{Path(page).name})" in read(other) for other in pages)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("`python -m ms_vireid.trian`", "ms_vireid/trian.py does not exist"),
        ("```\npython ms_vireid/train.py \\\n--sed 3  # --nothing\n```", "ms_vireid/train.py takes no --sed"),
        ("| `python ms_vireid/train.py [--shots 1\\|10]` | |", "ms_vireid/train.py takes no --shots"),
        ("With `--dry-runs`", "no command takes --dry-runs"),
    ],
)
def test_a_planted_command_is_named(text, message):
    assert wrong_commands(text) == [message]


@pytest.mark.parametrize("page", [*PAIRS[0], "CONTRIBUTING.md", "SECURITY.md", *under_docs("md")])
def test_linked_files_exist(page):
    links = LINK.findall(read(page))
    lost = [link for link in links if not link.startswith("http") and not (ROOT / page).parent.joinpath(link).exists()]
    assert lost == []


def test_the_workflow_runs_every_python_that_the_package_takes():
    workflow = yaml.safe_load(read(".github/workflows/tests.yml"))
    first, end = re.search(r'^requires-python = ">=3\.(\d+),<3\.(\d+)"$', read("pyproject.toml"), re.MULTILINE).groups()
    versions = [f"3.{minor}" for minor in range(int(first), int(end))]
    assert workflow["jobs"]["tests"]["strategy"]["matrix"]["python"] == versions
    assert f"Python {versions[0]} to {versions[-1]}" in " ".join(read("README.md").split())
