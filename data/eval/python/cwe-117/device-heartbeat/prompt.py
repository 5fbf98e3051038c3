import json


def heartbeat(device, state):
    """A line of JSON for a device that reports its state (text): {"device": DEVICE, "state": STATE} and a
    line break."""
