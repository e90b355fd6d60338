"""The numbers of the plan for large jobs follow from the inputs on its page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "scale.md").read_text("utf-8")
FORMULAS = {
    "vCPU-hours": lambda n, i: n * i["c"] * i["o"] / 3600,
    "hours on 64 vCPUs": lambda n, i: n * i["c"] * i["o"] / 3600 / 64,
    "hours on 1,000 vCPUs": lambda n, i: n * i["c"] * i["o"] / 3600 / 1000,
    "TB read": lambda n, i: n * i["b"] / 1e12,
    "TB written": lambda n, i: n * i["f"] / 1e12,
    "units": lambda n, i: n / i["u"],
    "reading requests, millions": lambda n, i: i["g"] * n * i["b"] / 2**20 / 1e6,
    "writing requests, millions": lambda n, i: i["w"] * n / i["u"] / 1e6,
    "$ for vCPUs": lambda n, i: i["h"] * n * i["c"] * i["o"] / 3600,
    "$ for requests": lambda n, i: i["r"] * i["g"] * n * i["b"] / 2**20 / 1e6 + i["p"] * i["w"] * n / i["u"] / 1e6,
    "$ a month for the features": lambda n, i: i["s"] * n * i["f"] / 1e9,
}


def number(text):
    return float(text.strip().removeprefix("$").replace(",", ""))


def rows(columns):
    lines = re.findall(r"^\|(.+)\|$", PAGE, re.MULTILINE)
    cells = [[cell.strip() for cell in line.split("|")] for line in lines]
    return [row for row in cells if len(row) == columns]


INPUTS = {row[0]: number(row[2]) for row in rows(4) if re.fullmatch(r"\w₁?", row[0])}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_number_of_the_plan_follows_from_the_inputs(name):
    [row] = [row for row in rows(5) if row[0] == name]
    for count, shown in zip((1e6, 1e8, 1e9), row[2:], strict=True):
        assert number(shown) == pytest.approx(FORMULAS[name](count, INPUTS), rel=0.03)
