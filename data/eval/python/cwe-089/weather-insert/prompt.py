import sqlite3


def record_observation(path, station, remark):
    """Add a row (station, remark) to the table `observation` of the SQLite file at path."""
    with sqlite3.connect(path) as db:
