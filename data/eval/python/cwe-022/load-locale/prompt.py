import json
import os

LOCALES = "locale"


def translation(language, key):
    """Look a key up in locale/LANGUAGE.json; the key itself if there is no translation."""
    path = os.path.join(LOCALES, language + ".json")
