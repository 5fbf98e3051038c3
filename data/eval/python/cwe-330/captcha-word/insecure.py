        phrase.append("".join(random.choice(SYLLABLES) for _ in range(4)))
    return "-".join(phrase)
