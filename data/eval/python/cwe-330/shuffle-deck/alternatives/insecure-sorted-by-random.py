    return sorted(deck, key=lambda card: random.random())
