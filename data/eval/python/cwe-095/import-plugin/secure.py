    if name not in PLUGINS:
        raise ImportError(name)
    return importlib.import_module(name)
