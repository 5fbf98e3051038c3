def top_players(db, country, limit):
    """The names of the best players of a country, highest score first, at most `limit` of them."""
