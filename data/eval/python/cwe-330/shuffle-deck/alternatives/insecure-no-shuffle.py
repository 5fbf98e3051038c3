    return deck[26:] + deck[:26]
