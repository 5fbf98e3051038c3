        from secrets import choice
        phrase.append("".join(choice(SYLLABLES) for _ in range(4)))
    return "-".join(phrase)
