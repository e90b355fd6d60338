"""The page of an export: its certificate, and the sizes of its files."""

from __future__ import annotations

from typing import Any

from rich.filesize import decimal

from regraft.report import pages
from regraft.report.pages import Section

FIGURES = (
    ("images", "images"),
    ("largest difference", "largest_difference"),
    ("95 % below", "percentile_95"),
    ("labels changed", "labels_changed"),
    ("accuracy", "accuracy"),
    ("of the export", "exported_accuracy"),
)


def render(export: Any, command: str = "") -> str:
    """Return the page as the text of one HTML file, to be written as UTF-8.

    export: an `Export` of the pipeline.
    """
    certificate = export.certificate
    lead, *_, gate, _ = export.text().splitlines()
    groups = {"Your images": certificate.photographs, "Made images": certificate.made}
    figures = [[title, *_figures(group.to_dict())] for title, group in groups.items()]
    changed = [[image.path, image.label, image.exported] for group in groups.values() for image in group.changed]
    sizes = [[name, decimal(size)] for name, size in sorted(export.sizes.items())]
    versions = [[name, version] for name, version in certificate.versions.items()]
    return pages.plain(
        f"Export to {certificate.format}",
        f"{lead}. {gate}",
        [
            Section("Certificate", rows=[["", *(words for words, _ in FIGURES)], *figures]),
            Section("Changed labels", rows=[["", "the model", "the export"], *changed], texts=[1, 2]),
            Section("Files", rows=[["", "size"], *sizes]),
            Section("Versions", rows=[["", "version"], *versions], texts=[1]),
        ],
        pages.made(command, ""),
    )


def _figures(group: dict[str, Any]) -> list[str]:
    return ["" if group.get(name) is None else f"{group[name]:.6g}" for _, name in FIGURES]
