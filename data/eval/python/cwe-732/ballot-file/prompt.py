import os

BALLOTS = "ballots"


def cast(voter, choice):
    """Put a voter's secret choice into the file ballots/VOTER; False if the voter has one already."""
    path = os.path.join(BALLOTS, voter)
    try:
