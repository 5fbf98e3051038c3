    if theme.startswith("..") or theme.startswith("/"):
        theme = "plain"
    path = os.path.join(themes, theme, "style.css")
    if not os.path.exists(path):
        path = os.path.join(themes, "plain", "style.css")
    return open(path).read()
