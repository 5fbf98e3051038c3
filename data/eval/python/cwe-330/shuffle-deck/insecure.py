    random.shuffle(deck)
    return deck
