def fill(template, values):
    """Replace each {NAME} in a template by str(values[NAME])."""
