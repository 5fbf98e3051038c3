    return text.replace(word, "<mark>" + word + "</mark>")
