"""README.zh-CN.md says what README.md says, and both name only files, commands and options that exist.

The readmes are compared block by block (headings, fenced lines, table rows, list items, paragraphs). In prose the
figures are compared in order, inline code, links and paths in any order, as the languages order words differently.
English figures from two to twelve and twenty count when spelled out: in Chinese they are digits.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENGLISH, CHINESE = READMES = ("README.md", "README.zh-CN.md")
HEADINGS = {
    "ms_vireid": "ms_vireid",
    "Commands": "命令",
    "Your own two folders": "用您自己的两个文件夹",
    "Training on SYSU-MM01 or RegDB": "在 SYSU-MM01 或 RegDB 上训练",
    "A run folder": "运行目录",
    "MUN's parts": "MUN 的组成",
    "The papers' tables": "论文中的表格",
    "Search": "检索",
    "Export": "导出",
    "One page for a run": "单页运行报告",
    "Gallery": "图例",
    "Evaluation": "评测",
    "Parity with PyTorch": "与 PyTorch 的一致性",
    "Bring a PyTorch checkpoint": "导入 PyTorch 检查点",
    "Go back": "转回 PyTorch",
    "Add a layer and its parity case": "新增层及其一致性用例",
    "Python interface": "Python 接口",
    "Devices": "设备",
    "GPU": "GPU",
    "Ascend": "昇腾",
    "CPU": "CPU",
    "Several devices": "多设备",
    "Limits": "局限",
    "Contributing": "参与贡献",
    "Licence": "许可证",
}
WORDS = "two three four five six seven eight nine ten eleven twelve"
SPELLED = {word: str(value) for value, word in enumerate(WORDS.split(), 2)} | {"twenty": "20"}
FIGURE = re.compile(rf"\d+(?:[.,:]\d+)*(?:e[-+]?\d+)?|\b(?:{'|'.join(SPELLED)})\b", re.ASCII | re.IGNORECASE)
COMMAND = re.compile(r"(python +)?(?:-m ((?:ms_vireid|parity|torch_ref)\b[\w.]*)|\b([\w./-]+\.py)\b)(.*)", re.ASCII)
LINK = re.compile(r"""(?<=\]\()[^)\s]+|(?<=src=")[^"]+|(?<=href=")[^"]+""")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


@dataclass
class Block:
    line: int
    kind: str
    same: str  # has to be the same in both languages
    prose: str  # is translated


def read_blocks(text: str) -> list[Block]:
    found: list[Block] = []
    fenced = goes_on = False
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        starts_prose = False
        if stripped.startswith("```"):
            fenced = not fenced
            found.append(Block(number, "fence", stripped, ""))
        elif fenced:
            code, *comment = re.split(r"(?:^|\s)#(?=\s)", line, maxsplit=1)
            found.append(Block(number, "fenced line", code.rstrip(), "".join(comment)))
        elif heading := re.fullmatch(r"(#+) (.+)", line):
            found.append(Block(number, f"heading of level {len(heading[1])}", heading[2], ""))
        elif stripped.startswith("|"):
            separates = set(stripped) <= set("|-: ")
            cells = len(re.findall(r"(?<!\\)\|", stripped)) - 1
            found.append(Block(number, "table row", stripped if separates else f"{cells} cells", stripped))
        elif item := re.fullmatch(r"(\s*(?:[*+-]|\d+\.)) (.+)", line):
            found.append(Block(number, "list item", item[1], item[2]))
            starts_prose = True
        elif stripped and goes_on:
            found[-1].prose += f" {stripped}"
            starts_prose = True
        elif stripped:
            found.append(Block(number, "paragraph", "", stripped))
            starts_prose = True
        goes_on = starts_prose
    return found


def facts(prose: str) -> dict[str, list[str]]:
    """What a translation leaves as it is, by kind; all but figures sorted."""
    code = [span.replace("\\|", "|") for span in re.findall(r"`([^`]+)`", prose)]
    prose = re.sub(r"`[^`]+`", " ", prose)
    links = LINK.findall(prose)
    prose = re.sub(r"""\]\([^)]*\)|src="[^"]+"|href="[^"]+\"""", " ", prose)
    words = (word.rstrip(".") for word in re.findall(r"[\w.-]+(?:/[\w.-]+)+", prose, re.ASCII))
    figures = FIGURE.findall(prose)
    return {
        "figure": [SPELLED.get(figure.lower(), figure) for figure in figures],
        "inline code": sorted(code),
        "link": sorted("the other language" if link in READMES else link for link in links),
        "path": sorted(word for word in words if (ROOT / word).exists()),
    }


def first_difference(english: list[Block], chinese: list[Block]) -> str | None:
    """One line that names the first place where the two differ, and how."""
    for ours, theirs in zip_longest(english, chinese):
        if ours is None:
            return f"{CHINESE}:{theirs.line}: {show(theirs)} is not in {ENGLISH}"
        if theirs is None:
            return f"{ENGLISH}:{ours.line}: {show(ours)} is not in {CHINESE}"
        place = f"{ENGLISH}:{ours.line} and {CHINESE}:{theirs.line}"
        same = ours.same
        if ours.kind.startswith("heading"):
            if same not in HEADINGS:
                return f"{ENGLISH}:{ours.line}: heading '{same}' has no Chinese in HEADINGS of tests/test_readme.py"
            same = HEADINGS[same]
        if (ours.kind, same) != (theirs.kind, theirs.same):
            return f"{place}: {show(ours)}, but {show(theirs)}"
        for kind, values in facts(ours.prose).items():
            others = facts(theirs.prose)[kind]
            if values == others:
                continue
            if kind == "figure":
                pairs = zip_longest(values, others, fillvalue="none")
                value, other = next(pair for pair in pairs if pair[0] != pair[1])
            else:
                value = next(iter(Counter(values) - Counter(others)), "none")
                other = next(iter(Counter(others) - Counter(values)), "none")
            return f"{place}: {kind} in this {ours.kind}: {value}, but {other}"
    return None


def show(block: Block) -> str:
    text = block.prose[:80] if block.kind in ("paragraph", "list item", "table row") else block.same
    return f"{block.kind} '{text}'"


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in READMES}


def test_the_chinese_readme_is_in_step(texts):
    difference = first_difference(*(read_blocks(texts[name]) for name in READMES))
    if difference:
        pytest.fail(difference, pytrace=False)


def test_both_open_with_the_other_language_and_the_two_commands(texts):
    for name, other in (READMES, READMES[::-1]):
        title, language, fence, set_up, test, end = read_blocks(texts[name])[:6]
        assert title.same == "ms_vireid"
        assert re.fullmatch(rf"\[\w+\]\({re.escape(other)}\)", language.prose)
        assert (fence.same, end.same) == ("```", "```")
        assert set_up.same == "pip install -e . && python ms_vireid/train.py"
        assert test.same == "pip install -e '.[test]' && pytest"


SAMPLE = """# ms_vireid

```
python train.py --seed 3   # ten pictures
```

## Search

`--top-k` finds five of 1,000 pictures ([why](docs/a.md)),
see ms_vireid/config.py.

| option | default |
| --- | ---: |
| `--seed` | 3 |
| `--rows A\\|B` | 0.5 |

* twenty types

## Licence
"""
TRANSLATED = """# ms_vireid

```
python train.py --seed 3   # 10 张图像
```

## 检索

从 5 到 1,000 张图像中用 `--top-k` 查找，见 ms_vireid/config.py（[原因](docs/a.md)）。

| 选项 | 默认值 |
| --- | ---: |
| `--seed` | 3 |
| `--rows A\\|B` | 0.5 |

* 20 种类型

## 许可证
"""


def test_a_translation_has_no_difference():
    assert first_difference(read_blocks(SAMPLE), read_blocks(TRANSLATED)) is None


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ("1,000", "1,001", "README.md:9 and README.zh-CN.md:9: figure in this paragraph: 1,000, but 1,001"),
        ("从 5", "从 6", "README.md:9 and README.zh-CN.md:9: figure in this paragraph: 5, but 6"),
        ("10 张", "11 张", "README.md:4 and README.zh-CN.md:4: figure in this fenced line: 10, but 11"),
        ("| 3 |", "| |", "README.md:14 and README.zh-CN.md:13: figure in this table row: 3, but none"),
        ("20 种", "21 种", "README.md:17 and README.zh-CN.md:16: figure in this list item: 20, but 21"),
        (
            "train.py --seed 3",
            "train.py --seed 4",
            "README.md:4 and README.zh-CN.md:4: fenced line 'python train.py --seed 3', "
            "but fenced line 'python train.py --seed 4'",
        ),
        (
            "## 检索\n",
            "",
            "README.md:7 and README.zh-CN.md:8: heading of level 2 'Search', "
            "but paragraph '从 5 到 1,000 张图像中用 `--top-k` 查找，见 ms_vireid/config.py（[原因](docs/a.md)）。'",
        ),
        (
            "## 检索",
            "### 检索",
            "README.md:7 and README.zh-CN.md:7: heading of level 2 'Search', but heading of level 3 '检索'",
        ),
        (
            "## 检索",
            "## 导出",
            "README.md:7 and README.zh-CN.md:7: heading of level 2 'Search', but heading of level 2 '导出'",
        ),
        (
            "| `--seed` | 3 |\n",
            "",
            "README.md:14 and README.zh-CN.md:13: figure in this table row: 3, but 0.5",
        ),
        (
            "| `--rows A\\|B` | 0.5 |\n",
            "",
            "README.md:15 and README.zh-CN.md:15: table row '| `--rows A\\|B` | 0.5 |', but list item '20 种类型'",
        ),
        (
            "A\\|B",
            "A",
            "README.md:15 and README.zh-CN.md:14: inline code in this table row: --rows A|B, but --rows A",
        ),
        ("a.md", "b.md", "README.md:9 and README.zh-CN.md:9: link in this paragraph: docs/a.md, but docs/b.md"),
        (
            "config.py",
            "configs.py",
            "README.md:9 and README.zh-CN.md:9: path in this paragraph: ms_vireid/config.py, but none",
        ),
        ("\n## 许可证\n", "", "README.md:19: heading of level 2 'Licence' is not in README.zh-CN.md"),
        ("证\n", "证\n\n附录\n", "README.zh-CN.md:20: paragraph '附录' is not in README.md"),
    ],
)
def test_a_planted_difference_is_named(old, new, difference):
    assert TRANSLATED.count(old) == 1
    found = first_difference(read_blocks(SAMPLE), read_blocks(TRANSLATED.replace(old, new)))
    assert found == difference


def test_a_new_heading_asks_for_its_chinese():
    sample = SAMPLE.replace("Search", "Seek")
    message = "README.md:7: heading 'Seek' has no Chinese in HEADINGS of tests/test_readme.py"
    assert first_difference(read_blocks(sample), read_blocks(TRANSLATED)) == message


def commands(text: str) -> Iterator[tuple[int, str]]:
    """Each command of the fenced blocks without its comment and each inline span, with the line where it is."""
    begun = ""
    for block in read_blocks(text):
        if block.kind == "fenced line":
            begun += block.same.removesuffix("\\")
            if not block.same.endswith("\\"):
                yield block.line, begun
                begun = ""
        for span in re.findall(r"`([^`]+)`", block.prose):
            yield block.line, span.replace("\\|", "|")


def script_of(command: re.Match) -> Path:
    """The file that a command runs; `evaluate.py` without `python` is ms_vireid's."""
    python, module, path, _ = command.groups()
    if module:
        return ROOT / f"{module.replace('.', '/')}.py"
    return ROOT / path if python or "/" in path else ROOT / "ms_vireid" / path


@cache
def options(script: Path, function: str | None = None) -> frozenset[str]:
    """The long options in a script's source, or one function's, and in the imported functions that take its parser."""
    tree = ast.parse(script.read_text(encoding="utf-8"))
    sources = {
        alias.asname or alias.name: (ROOT / f"{node.module.replace('.', '/')}.py", alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    if function:
        tree = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function)
    found = {"--help"}
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        texts = (argument.value for argument in call.args if isinstance(argument, ast.Constant))
        found |= {text for text in texts if isinstance(text, str) and OPTION.fullmatch(text)}
        takes_parser = any(isinstance(argument, ast.Name) and argument.id == "parser" for argument in call.args)
        if takes_parser and isinstance(call.func, ast.Name) and call.func.id in sources:
            found |= options(*sources[call.func.id])
    return frozenset(found)


def wrong_commands(name: str, text: str) -> list[str]:
    """One line for each script that does not exist and each option that its command does not take."""
    wrong = []
    scripts = {ROOT / "tests" / "conftest.py"}
    loose = []
    for line, code in commands(text):
        command = COMMAND.search(code)
        if command:
            script = script_of(command)
            if not script.is_file():
                wrong.append(f"{name}:{line}: {script.relative_to(ROOT)} does not exist")
                continue
            if given := OPTION.findall(command[4].split(" && ")[0]):
                scripts.add(script)
                missing = [option for option in given if option not in options(script)]
                wrong += [f"{name}:{line}: {script.relative_to(ROOT)} takes no {option}" for option in missing]
        elif code.startswith("--"):
            loose += [(line, option) for option in OPTION.findall(code)]
    every = frozenset().union(*map(options, scripts))
    return wrong + [f"{name}:{line}: no command takes {option}" for line, option in loose if option not in every]


@pytest.mark.parametrize("name", READMES)
def test_commands_and_options_exist(texts, name):
    if wrong := wrong_commands(name, texts[name]):
        pytest.fail(wrong[0], pytrace=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```\npython ms_vireid/trian.py --config C\n```", "T:2: ms_vireid/trian.py does not exist"),
        ("`python -m ms_vireid.trian`", "T:1: ms_vireid/trian.py does not exist"),
        ("```\npython ms_vireid/train.py --sed 3  # --nothing\n```", "T:2: ms_vireid/train.py takes no --sed"),
        ("| `python ms_vireid/train.py [--shots 1\\|10]` | |", "T:1: ms_vireid/train.py takes no --shots"),
        ("```\npython ms_vireid/train.py \\\n--sed 3\n```", "T:3: ms_vireid/train.py takes no --sed"),
        ("`evaluate.py --corupted`", "T:1: ms_vireid/evaluate.py takes no --corupted"),
        ("With `--dry-runs`", "T:1: no command takes --dry-runs"),
    ],
)
def test_a_planted_command_is_named(text, message):
    assert wrong_commands("T", text) == [message]


@pytest.mark.parametrize("name", READMES)
def test_linked_files_exist(texts, name):
    links = [link for block in read_blocks(texts[name]) for link in LINK.findall(block.prose)]
    assert "docs/operators.md" in links
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []
