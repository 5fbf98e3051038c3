import io
import json
import pickle


def send_and_receive(channel, record):
    """Write a record (a dictionary) to channel.send as bytes and return the record that
    channel.receive() gives."""
