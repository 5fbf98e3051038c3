def mean_value(db, sensor):
    """Average of a sensor's values, or None if it has none."""
    cursor = db.cursor()
