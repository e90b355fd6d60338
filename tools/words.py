"""Keep private words out of the house: `python tools/words.py [--summary] [PATH...]` lists them and exits with 1.

A name that is bound here (variable, argument, attribute, function, class, module) may hold none of NAMES as one of its
words; code that merely uses such a name follows. Strings, comments, Markdown and other text may hold none of PHRASES.
Test functions are sentences: their names are read as text. Plain English ("the file was not found") is free.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("src", "tests", "docs", "examples", "benchmarks", "README.md", "CONTRIBUTING.md", "ARCHITECTURE.md")
OWN = {"test_words.py"}  # its examples are private words
TEXTS = {".md", ".html", ".toml", ".ipynb"}

NAMES = {  # the word in a name: what to write
    **dict.fromkeys(("found", "told", "said", "given"), "the noun: labels, probabilities, message, options"),
    "shares": "probabilities",
    "squares": "inputs, or images",
    "several": "multilabel",
    **dict.fromkeys(("place", "places"), "location, layer, position"),
    **dict.fromkeys(("judge", "judges", "judged", "judging"), "evaluate, validation"),
    **dict.fromkeys(("verdict", "verdicts"), "diagnosis, outcome"),
    **dict.fromkeys(("sure", "surest", "sureness"), "confident, confidence"),
    "still": "frozen_norms",
    "anew": "again",
    **dict.fromkeys(("mend", "mended"), "fix"),
}
USUAL = ("in_place", "inplace", "sum_of_squares", "least_squares")  # the field's own words

PHRASES = {  # a regular expression of text, spaces for any white space: what to write
    r"\bThere is no\b": "No such file or folder; no …",
    r"\bis there and is not\b": "already exists and is not a …",
    r"\bcan(?:'t|not) be meant\b": "is invalid",
    r"\bcan(?:'t|not) be had\b": "unavailable",
    r"\bleads? out of\b": "points outside",
    r"\bnear-cop(?:y|ies)\b": "near-duplicates",
    r"\blabels? in doubt\b|\bdoubtful labels?\b": "likely label errors",
    r"\bfar from all others\b": "outliers",
    r"\bmost epochs\b": "maximum epochs",
    r"\bimages a step\b": "images per batch",
    r"\bof the same make\b": "same architecture",
    r"\bsays something else in\b": "differs from the float32 reference",
    r"\b(?:trunk|network|frozen part) sa(?:ys|id)\b": "the features of",
    r"\b(?:tail|model|it) sa(?:ys|id) of\b": "the output for, the prediction for",
    r"\b(?:tells?|told) of\b": "describes, reports",
    r"\bhalf the squared weights\b": "L2 penalty, 1/C",
    r"\bseveral tests at once\b": "Holm-Bonferroni correction",
    r"\bjudg(?:e|es|ed|ing)\b": "evaluate, validate",
    r"(?!\Averdict\Z)\bverdicts?\b": "diagnosis",  # alone it is the key of a model folder
    r"\bsureness\b|\bsurest\b": "confidence, most confident",
    r"\banew\b": "again",
    r"\bmend(?:s|ed|ing)?\b": "fix",
    r"(?<!least\s)(?<!of\s)(?<!the\s)\bsquares\b(?!\sof\b)": "inputs, or images",
}
PATTERNS = {re.compile(pattern.replace(" ", r"\s+")): better for pattern, better in PHRASES.items()}


class Hit(NamedTuple):
    """A private word: where it is, what it is, what to write."""

    path: str
    line: int
    word: str
    better: str


def words_of(name: str) -> list[str]:
    """Return the words of a name in lower case: `FilePlace` and `file_place` are file, place."""
    for usual in USUAL:
        name = name.replace(usual, "")
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def in_names(path: str, tree: ast.AST) -> Iterator[Hit]:
    """Yield what the names hold that a module binds, its own included."""
    bound = [(1, Path(path).stem), *((line, name) for node in ast.walk(tree) for line, name in bindings(node))]
    for line, name in bound:
        if name.startswith("test_"):
            yield from in_text(path, name.replace("_", " "), line)
            continue
        for word in words_of(name):
            if word in NAMES:
                yield Hit(path, line, f"name {word}", f"{name}: {NAMES[word]}")


def bindings(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of what a node of the tree binds."""
    match node:
        case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
            yield node.lineno, name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield node.lineno, name
        case ast.arg(arg=name):
            yield node.lineno, name
        case ast.alias(asname=str(name)) | ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
            yield node.lineno, name
        case ast.MatchStar(name=str(name)):
            yield node.lineno, name


def in_text(path: str, text: str, first_line: int = 1) -> Iterator[Hit]:
    """Yield the phrases of a text; they may run over the end of a line."""
    for pattern, better in PATTERNS.items():
        for match in pattern.finditer(text):
            line = first_line + text.count("\n", 0, match.start())
            yield Hit(path, line, " ".join(match[0].split()), better)


def in_strings(path: str, tree: ast.AST) -> Iterator[Hit]:
    """Yield the phrases of all strings; an f-string is one text, with … for its values."""
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if id(node) not in inside:
                yield from in_text(path, text, node.lineno)
            case ast.JoinedStr(values=parts):
                texts = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts]
                yield from in_text(path, "".join(texts), node.lineno)


def in_comments(path: str, text: str) -> Iterator[Hit]:
    """Yield the phrases of the comments; comments on following lines are one text."""
    block, last = "", 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            line = token.start[0]
            if line != last + 1:
                yield from in_text(path, block, last - block.count("\n"))
                block = ""
            block += ("\n" if block else "") + token.string.lstrip("# ")
            last = line
    yield from in_text(path, block, last - block.count("\n"))


def hits(path: Path) -> list[Hit]:
    """Return the private words of a file, in the order of its lines."""
    text, name = path.read_text("utf-8"), path.relative_to(ROOT).as_posix()
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        return list(in_text(name, "\n".join("".join(cell["source"]) for cell in cells)))
    if path.suffix != ".py":
        return sorted(in_text(name, text))
    tree = ast.parse(text)
    return sorted({*in_names(name, tree), *in_strings(name, tree), *in_comments(name, text)})


def room(path: str) -> str:
    """Return what a count is kept for: src/regraft/data, tests/data, docs, README.md."""
    parts = Path(path).parts
    depth = {"src": 3, "tests": 2}.get(parts[0], 1)
    return "/".join(parts[:depth])


def files(paths: list[Path]) -> list[Path]:
    """Return the files to read: Python and text below the paths, generated ones apart."""
    below = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return [file for file in below if file.is_file() and file.suffix in TEXTS | {".py"} and file.name not in OWN]


def main() -> int:
    """Print the hits, or their counts by room; return 1 if there are any."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("paths", nargs="*", type=Path, help="files or folders; all rooms by default")
    parser.add_argument("--summary", action="store_true", help="counts by room and by word only")
    options = parser.parse_args()
    paths = [path.resolve() for path in options.paths] or [ROOT / name for name in ROOMS if (ROOT / name).exists()]
    everything = [hit for file in files(paths) for hit in hits(file)]
    if options.summary:
        for counts in (Counter(room(hit.path) for hit in everything), Counter(hit.word for hit in everything)):
            print("\n".join(f"{count:6}  {name}" for name, count in counts.most_common()), end="\n\n")
    else:
        print("\n".join(f"{hit.path}:{hit.line}: {hit.word} ({hit.better})" for hit in everything))
    print(f"{len(everything)} private words.", file=sys.stderr)
    return int(bool(everything))


if __name__ == "__main__":
    sys.exit(main())
