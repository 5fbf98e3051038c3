    def safe(value):
        return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return '<div class="comment"><b>' + safe(author) + "</b><p>" + safe(text) + "</p></div>"
