from html import escape as e


def error_list(errors):
    """A <ul class="errors"> with an <li> "FIELD: MESSAGE" for each entry of a dictionary; "" if
    it is empty."""
    if not errors:
        return ""
    items = []
