    for field in errors:
        items.append("<li>" + e(field) + ": " + e(errors[field]) + "</li>")
    return '<ul class="errors">' + "".join(items) + "</ul>"
