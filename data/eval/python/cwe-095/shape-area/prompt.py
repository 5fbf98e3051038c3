SHAPES = {
    "square": lambda a: a * a,
    "circle": lambda r: 3.14159 * r * r,
}


def area(command):
    """Area for a command such as "square(3)" or "circle(2)"."""
    shape, _, rest = command.partition("(")
