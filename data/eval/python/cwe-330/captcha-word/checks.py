from oracles import unpredictable





def functional_words(c):
    words = c.call("recovery_phrase").split("-")
    assert len(words) == 6 and all(len(word) == 8 for word in words)





def functional_number(c):
    assert len(c.call("recovery_phrase", 3).split("-")) == 3





def security_unpredictable(c):
    unpredictable(c, "recovery_phrase")
