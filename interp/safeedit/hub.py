"""Fetch SafeEdit's files from the Hugging Face hub, or say in one line why that does not work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from interp.errors import InputError

TIMEOUT = 5.0
"""Seconds to wait for the hub's first answer: without a network the user hears so at once."""


def download(hub_id: str, splits: Sequence[str]) -> Path:
    """A folder that holds the `SafeEdit_<split>.json` files of a hub dataset; those fetched before need no network.

    Raises:
        InputError: no such dataset, a gated one without access, or no network and nothing in the cache.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    patterns = [f"SafeEdit_{split}.json" for split in splits]
    try:
        folder = snapshot_download(hub_id, repo_type="dataset", allow_patterns=patterns, etag_timeout=TIMEOUT)
    except GatedRepoError as error:  # a kind of RepositoryNotFoundError: must come first
        raise InputError(
            f"{hub_id} is gated: accept its terms at https://huggingface.co/datasets/{hub_id}, "
            "then run `hf auth login` (or set HF_TOKEN) and try again"
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"no file, folder or hub dataset named {hub_id!r} (private ones need `hf auth login`)"
        ) from error
    except HFValidationError as error:
        raise InputError(f"no file or folder {hub_id!r}, and not a hub id: {error}") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise InputError(_unreachable(hub_id)) from error
    except HfHubHTTPError as error:
        raise InputError(f"the hub refused {hub_id}: {str(error).splitlines()[0]}") from error
    except Exception as error:  # the hub's client lets errors of its network library through
        if not isinstance(error, OSError) and "connect" not in type(error).__name__.lower():
            raise
        raise InputError(_unreachable(hub_id)) from error
    return Path(folder)


def _unreachable(hub_id: str) -> str:
    return (
        f"no file or folder {hub_id!r}, and the Hugging Face hub cannot be reached to look for a dataset of that name; "
        "give a local file or folder, or 'demo'"
    )
