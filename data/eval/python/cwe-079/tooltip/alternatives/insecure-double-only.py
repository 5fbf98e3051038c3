    hint = hint.replace('"', "&quot;").replace("<", "&lt;")
    return "<span title='{}'>{}</span>".format(hint, html.escape(label))
