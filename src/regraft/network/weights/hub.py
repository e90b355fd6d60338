"""Weights that timm fetches from the internet, kept in the cache where timm keeps them.

The cache is read first, so that what was fetched once works offline. The
internet is reached only here, only for `--weights hub`, and a server that does
not answer is given up after seconds.
"""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.core.errors import RefusedFile, WeightsMissing, first_line
from regraft.core.progress import log
from regraft.core.workaround_tqdm_widgets import import_tqdm
from regraft.network.backbones import Backbone
from regraft.network.preprocess import Preprocess
from regraft.network.weights import Weights
from regraft.network.weights.builtin import missing
from regraft.network.workaround_torchvision_nms import import_timm

if TYPE_CHECKING:
    import torch

_TIMEOUT = 5  # seconds until a server that does not answer is given up


def load(backbone: Backbone, where: str = "hub", seed: int = 0) -> Weights:  # noqa: ARG001 - one signature for all
    """Return the pretrained weights that timm has for a backbone, fetched if they are not in the cache.

    Raises WeightsMissing if timm has none, or if they are not in the cache and can't be fetched.
    """
    config = _config(backbone)
    path = find(backbone) or _fetch(backbone, config)
    return Weights(
        source="hub",
        path=str(path),
        tensors=_tensors(backbone, config, path),
        preprocess=Preprocess.from_timm(config.to_dict()),
        licence=config.license or "",
    )


def find(backbone: Backbone) -> Path | None:
    """Return the file in the cache that holds timm's pretrained weights of a backbone; None if there is none."""
    facts = backbone.facts
    if facts:
        return _find(facts.hub, facts.url, _file_names(None))
    config = import_timm().models.get_pretrained_cfg(backbone.timm_name)
    return _find(config.hf_hub_id or "", config.url or "", _file_names(config.hf_hub_filename))


def _find(hub: str, url: str | tuple[str, str], names: list[str]) -> Path | None:
    """Return the first of these files of a repository that is in the hub's cache, or a URL's file in torch's."""
    import_tqdm()
    from huggingface_hub import try_to_load_from_cache

    if not hub:
        checkpoint = _checkpoints() / _url_name(url)
        return checkpoint if url and checkpoint.is_file() else None
    repository, _, revision = hub.partition("@")
    for name in names:
        path = try_to_load_from_cache(repository, name, revision=revision or None)
        if isinstance(path, str):
            return Path(path)
    return None


def _tensors(backbone: Backbone, config: Any, path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors that timm reads from a file in its cache: only its own code gives many of them their names."""
    import torch

    overlay = {"file": str(path), "custom_load": bool(config.custom_load)}
    try:
        with torch.random.fork_rng(devices=[]):
            network = import_timm().create_model(
                backbone.timm_name, pretrained=True, pretrained_cfg_overlay=overlay, **backbone.model_args
            )
    except Exception as error:  # each of timm's many loaders fails in its own way
        raise RefusedFile(
            f"{path} in the cache is damaged; delete it to have it fetched again ({first_line(error)})."
        ) from error
    return dict(network.state_dict())


def _config(backbone: Backbone) -> Any:
    """Return timm's description of the pretrained weights, with where they are kept."""
    models = import_timm().models
    if not models.is_model_pretrained(backbone.timm_name):
        raise missing(backbone, f"timm has no pretrained weights for {backbone.timm_name}.")
    return models.get_pretrained_cfg(backbone.timm_name)


def _fetch(backbone: Backbone, config: Any) -> Path:
    """Fetch the file into the cache, and return its path."""
    try:
        log.info("Fetching the weights of %s: %s", backbone.timm_name, config.hf_hub_id or _url_name(config.url))
        return _from_hub(config) if config.hf_hub_id else _from_url(config)
    except Exception as error:  # a network fails in many ways, each library with errors of its own
        cache = _hub_cache() if config.hf_hub_id else _checkpoints()
        what = f"The weights of {backbone.name} ({', '.join(_files(config))}) are not in {cache}"
        raise missing(backbone, f"{what}, and can't be fetched: {first_line(error)}.") from error


def _from_hub(config: Any) -> Path:
    from huggingface_hub import hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    repository, _, revision = config.hf_hub_id.partition("@")
    names = _file_names(config.hf_hub_filename)
    _check_answers(hf_hub_url(repository, names[0], revision=revision or None))
    for name in names:
        try:
            return Path(hf_hub_download(repository, name, revision=revision or None))
        except EntryNotFoundError:
            continue
    raise WeightsMissing(f"{repository} has none of {', '.join(names)}")


def _from_url(config: Any) -> Path:
    from timm.models._hub import download_cached_file

    _check_answers(config.url if isinstance(config.url, str) else config.url[0])
    return Path(download_cached_file(config.url, check_hash=True))


def _check_answers(url: str) -> None:
    """Raise OSError if the server does not answer; libraries would retry for most of a minute."""
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "TRUE", "YES", "ON"):
        raise OSError("HF_HUB_OFFLINE is set")
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_TIMEOUT).close()
    except urllib.error.HTTPError:  # it answers; its refusal is for the library that fetches
        return
    except urllib.error.URLError as error:
        raise OSError(f"{urllib.parse.urlsplit(url).hostname} does not answer ({error.reason})") from error


def _file_names(filename: str | None) -> list[str]:
    """Return the names that timm looks for in a hub's repository, in its order: safetensors first.

    filename: timm's `hf_hub_filename` of the weights; None for most.
    """
    name = filename or "pytorch_model.bin"
    safe = {"pytorch_model.bin": "model", "open_clip_pytorch_model.bin": "open_clip_model"}
    stem = safe.get(name, name.removesuffix(".bin"))
    return [f"{stem}.safetensors", name] if name.endswith(".bin") else [name]


def _files(config: Any) -> list[str]:
    if config.hf_hub_id:
        return [f"{config.hf_hub_id}/{name}" for name in _file_names(config.hf_hub_filename)]
    return [_url_name(config.url)]


def _url_name(url: str | tuple[str, str]) -> str:
    """Return the name of the file in torch's cache that is fetched from a URL."""
    return url.rpartition("/")[2] if isinstance(url, str) else url[1]


def _checkpoints() -> Path:
    """Return the folder of torch's cache, by its own rule where torch is not imported yet."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return Path(torch.hub.get_dir()) / "checkpoints"
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "torch"
    return Path(os.environ.get("TORCH_HOME", cache)).expanduser() / "hub" / "checkpoints"


def _hub_cache() -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)
