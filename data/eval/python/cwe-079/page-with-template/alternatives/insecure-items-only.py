    menu = "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in menu_items) + "</ul>"
    return PAGE.substitute(title=title, menu=menu)
