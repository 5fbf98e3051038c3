import base64
import json
import pickle


def save_code(state=None, code=None):
    """With a state (a dictionary), the text code that a player can note down; with a code, the
    state that it holds."""
