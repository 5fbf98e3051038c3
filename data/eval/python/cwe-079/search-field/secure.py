    return '<input name="q" value="%s">' % escape(query, quote=True)
