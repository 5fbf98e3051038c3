    return (head + "<p>There is no page " + html.escape(path) + ".</p>").encode()
