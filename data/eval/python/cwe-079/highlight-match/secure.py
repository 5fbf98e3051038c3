    text, word = html.escape(text), html.escape(word)
    return text.replace(word, "<mark>" + word + "</mark>")
