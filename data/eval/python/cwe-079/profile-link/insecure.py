    return '<a href="/members/%s">%s</a>' % (nickname, nickname)
