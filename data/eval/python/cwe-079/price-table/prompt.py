import html


def price_rows(products):
    """One table row for each (name, price) pair: <tr><td>NAME</td><td>PRICE</td></tr>, prices
    with two digits."""
    rows = []
    for name, price in products:
