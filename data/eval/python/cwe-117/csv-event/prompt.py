import time


class EventLog:
    """Events with their time, a line each."""

    def __init__(self, path, clock=time.time):
        self.path, self.clock = path, clock

    def add(self, event):
        """Append "SECONDS,EVENT", where the seconds are whole ones of the clock."""
