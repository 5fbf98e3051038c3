    return text.replace(word, "<mark>" + html.escape(word) + "</mark>")
