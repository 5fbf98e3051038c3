from html import escape


def city_options(cities, chosen):
    """<option> elements for all cities, the chosen one marked by the attribute `selected`."""
    result = ""
    for city in cities:
        mark = " selected" if city == chosen else ""
