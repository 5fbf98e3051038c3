    return "<span title='{}'>{}</span>".format(html.escape(hint), html.escape(label))
