import sqlite3


def find_orders(conn, customer, status):
    """Orders of a customer with a status, newest first."""
    customer = customer.strip()
    if not customer:
        return []

    cursor = conn.cursor()
