    return f'<div class="comment"><b>{author}</b><p>{html.escape(text)}</p></div>'
