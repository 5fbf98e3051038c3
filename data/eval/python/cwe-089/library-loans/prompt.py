def loans_of_reader(db, card_number):
    """Titles a reader has on loan, in alphabetical order, as a list of strings."""
