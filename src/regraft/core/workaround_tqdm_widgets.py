"""A notebook without ipywidgets must not show tqdm's red box.

The bug: https://github.com/tqdm/tqdm/issues/1082. In a notebook without
ipywidgets the first import of tqdm.auto warns "IProgress not found. Please
update jupyter and ipywidgets", also where no bar is ever drawn. timm,
huggingface_hub and Optuna import it; regraft's progress is its own.

Needed as long as tqdm warns at import: 4.70 does.
"""

from __future__ import annotations

import warnings


def import_tqdm() -> None:
    """Import tqdm.auto without its warnings about notebooks; to be called before what imports it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        warnings.filterwarnings("ignore", message="Using `tqdm.autonotebook.tqdm` in notebook mode")
        import tqdm.auto  # noqa: F401
