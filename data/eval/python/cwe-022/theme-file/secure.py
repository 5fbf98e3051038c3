    if theme not in os.listdir(themes):
        theme = "plain"
    with open(os.path.join(themes, theme, "style.css")) as sheet:
        return sheet.read()
