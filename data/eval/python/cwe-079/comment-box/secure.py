    return f'<div class="comment"><b>{html.escape(author)}</b><p>{html.escape(text)}</p></div>'
