    return loans_of_reader(db, card_number)
