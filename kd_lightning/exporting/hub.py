"""Upload an export to Hugging Face's hub: the files, the card, what was found out about them."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path

from kd_lightning.errors import UserError

ENDPOINT = "https://huggingface.co"
_NAME = re.compile(r"[\w.-]+/[\w.-]+\Z")


def upload(directory: Path, files: Sequence[str], repo: str) -> str:
    """Upload some files of a directory, in one commit; the repository is made where there is none.

    The token is the one that ``hf auth login`` left, or ``HF_TOKEN``; ``HF_ENDPOINT`` names another hub.

    Args:
        directory: of an export.
        files: names in it.
        repo: ``org/name``.

    Returns:
        The address of the commit.

    Raises:
        UserError: the name is none, huggingface_hub is not installed, or the hub refuses or cannot be reached.
    """
    if not _NAME.match(repo):
        raise UserError(f"push={repo}: give the repository as org/name")
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UserError(f'push={repo}: huggingface_hub is not installed: pip install "kd-lightning[hub]"')
    from huggingface_hub import HfApi

    endpoint = os.environ.get("HF_ENDPOINT", ENDPOINT).rstrip("/")
    api = HfApi(endpoint=endpoint, token=os.environ.get("HF_TOKEN"))
    try:
        api.create_repo(repo, exist_ok=True)
        found = api.upload_folder(
            repo_id=repo, folder_path=directory, allow_patterns=list(files), commit_message="Export of kd-lightning"
        )
    except Exception as error:  # of its client: no token, no permission, no connection
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"push={repo}: {endpoint} did not take it: {reason}; the files are in {directory}") from error
    return str(found)
