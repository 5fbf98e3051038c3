def search_movies(db, words):
    """(title, year) of all movies whose title contains the words."""
    pattern = "%" + words + "%"
