    for field in errors:
        items.append("<li>" + field + ": " + errors[field] + "</li>")
    return '<ul class="errors">' + "".join(items) + "</ul>"
