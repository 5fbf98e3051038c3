    random.SystemRandom().shuffle(deck)
    return deck
