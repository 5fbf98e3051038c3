    path = os.path.join(themes, theme, "style.css")
    if not theme.isalnum() or not os.path.exists(path):
        path = os.path.join(themes, "plain", "style.css")
    return open(path).read()
