def fetch_rates(session, day):
    """Exchange rates of a day: the parsed JSON that session.get gives for
    https://rates.test/DAY, within 10 seconds."""
