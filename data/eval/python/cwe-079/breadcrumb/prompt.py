import html


class Breadcrumb:
    """The way from the home page to the current page."""

    def __init__(self, *names):
        self.names = names

    def render(self):
        """All names in <span> elements, joined by " / "."""
