from pathlib import Path


def delete_draft(workspace, draft):
    """Remove one draft below the workspace folder; True if there was such a file."""
    base = Path(workspace).resolve()
