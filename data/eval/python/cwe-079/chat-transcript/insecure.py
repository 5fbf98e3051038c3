        text = text.replace("\n", "<br>")
        parts.append("<p><i>%s</i> %s</p>" % (message["time"], text))
    return "".join(parts)
