    return importlib.import_module(name)
