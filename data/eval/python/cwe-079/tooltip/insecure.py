    return "<span title='{}'>{}</span>".format(hint, label)
