    return '<input name="q" value="%s">' % query
