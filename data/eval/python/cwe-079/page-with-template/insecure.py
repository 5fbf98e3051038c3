    menu = "<ul>" + "".join(f"<li>{item}</li>" for item in menu_items) + "</ul>"
    return PAGE.substitute(title=title, menu=menu)
