class Lamp:
    """A lamp that is controlled by text commands."""

    def __init__(self):
        self.color = "white"
        self.power = "off"

    def command(self, text):
        """Carry out "color=NAME" or "power=NAME", and return the lamp's (color, power)."""
        field, value = text.split("=", 1)
