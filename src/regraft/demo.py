"""The demo: scikit-learn's handwritten digits through the whole way, offline.

A folder enters; it leaves with the digits as PNG files in class folders, a
model and a report, as a user's own folder would have them.
"""

from __future__ import annotations

from pathlib import Path

from regraft.core import files
from regraft.core.progress import log
from regraft.pipeline.predict import predict
from regraft.pipeline.train import train

SHOWN = 5


def run(folder: Path, store: Path | None) -> None:
    """Write the digits, train, evaluate, save, report, predict a few, and say what to try next."""
    photos, model_folder, page = folder / "digits", folder / "model", folder / "report.html"
    write_digits(photos)
    log.info("Training a classifier of them, which takes a minute or two.")
    report = train(str(photos), model_folder, store=store)
    print(report.text())
    files.write_file(page, report.html(f"regraft demo -o {folder}").encode())
    unseen = [photos / row.path for row in report.index.rows[:: max(1, len(report.index) // SHOWN)]][:SHOWN]
    print("\nDigits that it has not seen (the folder is the true answer):")
    for item in predict(report.model, unseen, top=2):
        print(f"  {item}")
    print(NEXT.format(model=model_folder, page=page))


def write_digits(folder: Path) -> None:
    """Write scikit-learn's 1,797 digits, 8 by 8 grey, as PNG files, a folder for each class, unless they are there."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    if sum(1 for _ in folder.glob("*/*.png")) == len(digits.target):
        return
    log.info("Writing %d digits to %s", len(digits.target), folder)
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / str(label) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 255 / 16).round().astype("uint8")).save(path)


NEXT = """
The model is in {model}, the report in {page}. Now with your own photographs, one folder a class:

  regraft inspect  PHOTOS
  regraft train    PHOTOS -o my-model
  regraft predict  my-model NEW.jpg"""
