import json
import pickle


def basket(db, user, add=None):
    """The user's basket, a list kept in the table `baskets` (user, data); `add` is put into it
    first, if given."""
    row = db.execute("SELECT data FROM baskets WHERE user = ?", (user,)).fetchone()
