"""The page of a gallery: photographs with their answers and, where they are explained, what these rest on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image

from regraft.core.text import percent
from regraft.model import heat_map
from regraft.model.gallery import Gallery, answer
from regraft.model.heat_map import Seen
from regraft.model.predict import Neighbour, Prediction
from regraft.report import heat, pages

SHOWN = 100  # photographs; the CSV has all
LISTED = 200  # files without a picture
METHODS = {
    heat_map.ACTIVATION: "exact: what each place of the picture adds to the model's score for the label",
    heat_map.GRADIENT: "by the gradient of the model's score for the label",
    heat_map.COVERING: "by covering one part of the picture after the other",
}


class Card(NamedTuple):
    """One photograph of the page; `heat` is None where nothing in it speaks for the label, or no maps are shown."""

    item: Prediction
    answer: str
    picture: bytes
    heat: bytes | None
    heat_of: str
    ranked: list[tuple[str, str, float]]  # label, percent, share
    nearest: tuple[Neighbour, ...]


def render(gallery: Gallery, command: str = "") -> str:
    """Return the page as the text of one HTML file, to be written as UTF-8."""
    readable = [number for number, item in enumerate(gallery.predictions) if item.status == "ok"]
    methods: set[str] = set()
    cards = list(_cards(gallery, readable[:SHOWN], methods))
    files = [[item.path, f"{item.status}: {item.error}"] for item in gallery.predictions if item.status != "ok"]
    return pages.page(
        "gallery.html",
        summary=gallery.summary(),
        cards=cards,
        more=len(readable) - len(readable[:SHOWN]),
        explained=gallery.with_maps,
        methods=[METHODS[name] for name in sorted(methods)],
        listed=files[:LISTED],
        unread=len(files),
        made=pages.made(command, gallery.index.name),
    )


def _cards(gallery: Gallery, numbers: list[int], methods: set[str]) -> Iterator[Card]:
    """Yield the cards of photographs, and take up how their maps are made; one that has gone by now is left out."""
    looked = heat_map.see_rows(gallery.model, [gallery.index.rows[number] for number in numbers])
    for number, seen in zip(numbers, looked, strict=True):
        if seen is not None:
            yield _card(gallery, gallery.predictions[number], seen, methods)


def _card(gallery: Gallery, item: Prediction, seen: Seen, methods: set[str]) -> Card:
    label = gallery.label_of(item)
    made = heat_map.heat_map(gallery.model, seen, label) if gallery.with_maps else None
    if made:
        methods.add(made.method)
    return Card(
        item=item,
        answer=answer(item),
        picture=pages.thumbnail(Image.fromarray(seen.small)),
        heat=heat.overlay(seen.small, made) if made else None,
        heat_of=label,
        ranked=[(name, percent(share), share) for name, share in item.ranked],
        nearest=item.nearest,
    )
