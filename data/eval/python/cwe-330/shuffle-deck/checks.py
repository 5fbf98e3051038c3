from oracles import unpredictable





def functional_all_cards(c):
    deck = c.call("shuffled_deck")
    assert len(deck) == 52 and len(set(deck)) == 52 and "AS" in deck





def security_unpredictable(c):
    unpredictable(c, "shuffled_deck")
