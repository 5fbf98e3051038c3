def set_newsletter(db, email, wanted):
    """Switch the newsletter of a subscriber on or off; tells whether the subscriber exists."""
    flag = 1 if wanted else 0
