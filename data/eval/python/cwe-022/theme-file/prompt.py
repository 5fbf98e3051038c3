import os


def theme_css(themes, theme):
    """The style sheet of a theme, THEMES/THEME/style.css; the theme "plain" stands in for unknown ones."""
