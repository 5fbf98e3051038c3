        pick = random.SystemRandom().choice
        phrase.append("".join(pick(SYLLABLES) for _ in range(4)))
    return "-".join(phrase)
