    target = base / draft
    if not target.is_file():
        return False
    target.unlink()
    return True
