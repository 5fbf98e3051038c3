    target = (base / draft).resolve()
    if base not in target.parents or not target.is_file():
        return False
    target.unlink()
    return True
