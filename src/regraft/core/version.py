"""The version of regraft, and of what it stands on; the build reads it without importing anything else."""

import platform

__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """Return the versions of what decides a model's numbers; nothing is imported for it."""
    from importlib import metadata  # with all that reads e-mail, 5 MB: a prediction does without

    packages = ("torch", "timm", "numpy", "pillow", "scikit-learn")
    return {
        "regraft": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: metadata.version(name) for name in packages},
    }
