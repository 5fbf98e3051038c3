from html import escape


def search_field(query):
    """An <input name="q"> element whose value attribute holds the last query."""
