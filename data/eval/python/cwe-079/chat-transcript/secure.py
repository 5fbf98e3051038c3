        text = html.escape(text).replace("\n", "<br>")
        parts.append("<p><i>%s</i> %s</p>" % (html.escape(message["time"]), text))
    return "".join(parts)
