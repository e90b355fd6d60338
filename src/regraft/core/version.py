"""The version of regraft, and of what it stands on; the build reads it without importing anything else."""

import platform
from importlib import metadata

__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """Return the versions of what decides a model's numbers; nothing is imported for it."""
    packages = ("torch", "timm", "numpy", "pillow", "scikit-learn")
    return {
        "regraft": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: metadata.version(name) for name in packages},
    }
