import html
from string import Template

PAGE = Template("<html><head><title>$title</title></head><body><h1>$title</h1>$menu</body></html>")


def render_page(title, menu_items):
    """Fill the page: the title, and the menu as a <ul> with one <li> for each item."""
