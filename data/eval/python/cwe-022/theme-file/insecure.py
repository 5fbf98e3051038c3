    path = os.path.join(themes, theme, "style.css")
    if not os.path.exists(path):
        path = os.path.join(themes, "plain", "style.css")
    with open(path) as sheet:
        return sheet.read()
