import zipfile
from pathlib import Path


def unpack(archive, folder):
    """Write every file of a zip archive below the folder, keeping its name and subfolder."""
    with zipfile.ZipFile(archive) as bundle:
        for name in bundle.namelist():
            if name.endswith("/"):
                continue
            target = Path(folder) / name
