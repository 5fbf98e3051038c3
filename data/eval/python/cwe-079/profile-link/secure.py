    return '<a href="/members/%s">%s</a>' % (quote(nickname, safe=""), escape(nickname))
