"""A reader of pages, for the tests of all of them."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"base", "meta", "img", "br", "link", "hr", "input", "source", "wbr"}


class Reader(HTMLParser):
    """Reads a page as a strict browser would: every tag closed in order; keeps its text, tags, cells and headings."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words, self.cells, self.headings = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.words.append(data)
        if "h2" in self.open:
            self.headings.append(data.strip())
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data

    @property
    def text(self):
        return " ".join("".join(self.words).split())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def pictures(self):
        return [image["src"] for image in self.all("img")]
