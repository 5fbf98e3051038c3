    try:
        target = (base / draft).resolve()
        target.relative_to(base)
        target.unlink()
    except (ValueError, OSError):
        return False
    return True
