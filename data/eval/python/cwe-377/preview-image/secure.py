    handle, path = tempfile.mkstemp(prefix=stem, suffix=".png", dir=cache)
    os.close(handle)
    return path
