import os
import zipfile


def unpack(archive, folder):
    """Write every file of a zip archive below the folder, keeping its name and subfolder."""
    with zipfile.ZipFile(archive) as bundle:
        for item in bundle.infolist():
            if item.is_dir():
                continue
            target = os.path.join(folder, item.filename)
