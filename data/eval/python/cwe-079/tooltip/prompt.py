import html


def with_tooltip(label, hint):
    """A <span> with the label as its text and the hint in its title attribute, in single or double quotes."""
