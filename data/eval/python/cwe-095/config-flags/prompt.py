def read_flags(lines):
    """Dictionary of the settings in lines such as "debug = True"; values are True, False,
    integers or quoted text."""
    import ast
    flags = {}
    for line in lines:
        key, value = line.split("=", 1)
